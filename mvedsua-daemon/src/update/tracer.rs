//! The OS thread that traces one process.
//!
//! ptrace requests are valid only from the thread that attached, so each process of a session has one such thread for
//! its whole life. What the process *is* at the moment, leader or follower, is the thread's [`Role`]. The process that leads
//! keeps its tracer; who follows is another process after a promotion.
//!
//! The session's requests are closures that run there between two stops ([`crate::tracee::driver`]). Each has a ticket: it is
//! answered once, and not carried out when nobody waits for it any more ([`super::ticket`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::process::Process;
use super::ticket::{Permit, Ticket};
use crate::image::place::Failure;
use crate::ptrace::wait::{Bell, Inbox, Stop};
use crate::ptrace::{Error, Result, Tid};
use crate::record::leading::Leading;
use crate::replay::following::Following;
use crate::tracee::driver::{Driven, Handle, Tracees, drive};
use crate::update::session::Notice;

/// How long a tracer thread may take for one request. All it does is bounded by far less; a thread that does not answer has
/// a fault, and must not take the session with it.
const ASK_LIMIT: Duration = Duration::from_secs(30);

/// What the traced process is at the moment.
#[derive(Debug, Default)]
pub(crate) enum Role {
    /// Stops are not expected; those that come are resumed.
    #[default]
    Idle,
    Leading(Box<Leading>),
    Following(Box<Following>),
}

/// What lives on the tracer thread.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) inbox: Inbox,
    pub(crate) process: Option<Process>,
    pub(crate) role: Role,
    pub(crate) notices: Sender<Notice>,
}

/// Tells the session when the tracer thread panics: it holds an end of the channel itself, which so never closes.
struct Fall {
    name: &'static str,
    notices: Sender<Notice>,
}

impl Drop for Fall {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.notices.send(Notice::Broken { tid: Tid(0), error: format!("thread {} panicked", self.name) });
        }
    }
}

/// Something that a tracer thread is to do, and the ticket that says whether anybody still waits for it.
pub(crate) struct Request {
    ticket: Arc<Ticket>,
    work: Work,
}

type Work = Box<dyn FnOnce(&mut Core, &Ticket) + Send>;

/// The handle by which the session reaches a tracer thread.
#[derive(Debug)]
pub(crate) struct Tracer {
    /// There until it is dropped.
    handle: Option<Handle<Request>>,
    bell: Arc<Bell>,
    asked: AtomicU64,
    name: &'static str,
}

impl Tracer {
    /// Starts a tracer thread; `name` is what `ps -L` shows.
    pub(crate) fn spawn(name: &'static str, notices: Sender<Notice>) -> Result<Tracer> {
        let handle = Handle::spawn(name, move |inbox, requests| {
            let _fall = Fall { name, notices: notices.clone() };
            let mut core = Core { inbox, process: None, role: Role::Idle, notices };
            if let Err(error) = drive(&mut core, &requests) {
                tracing::error!(%error, "waiting for tracees failed");
                let error = format!("waiting for tracees failed: {error}");
                let _ = core.notices.send(Notice::Broken { tid: Tid(0), error });
            }
        })?;
        let bell = Arc::clone(&handle.bell);
        Ok(Tracer { handle: Some(handle), bell, asked: AtomicU64::new(0), name })
    }

    pub(crate) fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    /// Runs `work` on the tracer thread and waits for its result.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Core) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let asked = self.ask_within(ASK_LIMIT, |core, _| work(core).map_err(Failure::Before));
        asked.map_err(|(Failure::Before(error) | Failure::After(error))| error)
    }

    /// Does the same with work that comes to what cannot be undone, which it does if its permit lets it.
    pub(crate) fn ask_to_decide<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Core, Permit<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        self.ask_within(ASK_LIMIT, work)
    }

    fn ask_within<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&mut Core, Permit<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let ticket = Arc::new(Ticket::new(self.asked.fetch_add(1, Ordering::Relaxed) + 1));
        let (reply, result) = bounded(1);
        let work = move |core: &mut Core, ticket: &Ticket| {
            // Whoever has withdrawn does not listen.
            let _ = reply.send(work(core, Permit::of(ticket)));
        };
        let request = Request { ticket: Arc::clone(&ticket), work: Box::new(work) };
        if !self.handle.as_ref().is_some_and(|handle| handle.order(request)) {
            return Err(Failure::Before(self.has_ended()));
        }
        let answer = match result.recv_timeout(limit) {
            Err(RecvTimeoutError::Timeout) if !ticket.withdraw() => result.recv_timeout(limit),
            answer => answer,
        };
        match answer {
            Ok(result) => result,
            Err(why) => {
                let error = match why {
                    RecvTimeoutError::Timeout => {
                        let what = format!("an answer of thread {} to request {}", self.name, ticket.number);
                        Error::TimedOut { what, seconds: limit.as_secs_f64() }
                    }
                    RecvTimeoutError::Disconnected => self.has_ended(),
                };
                Err(if ticket.is_decided() { Failure::After(error) } else { Failure::Before(error) })
            }
        }
    }

    fn has_ended(&self) -> Error {
        Error::Unsupported(format!("thread {} has ended", self.name))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.end();
        }
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

impl Driven for Core {
    type Order = Request;
    /// Without tracees there is nothing to look at.
    const IDLE: Option<Duration> = None;

    fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    fn on_order(&mut self, Request { ticket, work }: Request) {
        if ticket.begin() {
            work(self, &ticket);
        } else {
            tracing::warn!(request = ticket.number, "nobody waits for a request any more; it is not carried out");
        }
    }

    /// It ends when its handle is dropped.
    fn is_over(&mut self, _tracees: Tracees) -> bool {
        false
    }
    fn on_stop(&mut self, tid: Tid, stop: Stop) {
        let result = match (&mut self.role, &mut self.process) {
            (Role::Leading(leading), Some(process)) => leading.on_stop(&self.inbox, process, tid, stop),
            (Role::Following(following), Some(process)) => following.on_stop(&self.inbox, process, tid, stop),
            (_, process) => match process.as_mut().is_some_and(|process| process.on_stranger(tid, stop)) {
                true => Ok(()),
                false => super::process::let_go(tid, stop),
            },
        };
        if let Err(error) = result {
            // A thread that was killed between its stop and our request reports its end by itself.
            if !error.is_gone() {
                let _ = self.notices.send(Notice::Broken { tid, error: error.to_string() });
            }
        }
    }

    /// Somebody rang: there may be records for a follower, or room and verdicts for a leader.
    fn on_bell(&mut self) {
        let result = match (&mut self.role, &mut self.process) {
            (Role::Leading(leading), Some(process)) => leading.on_bell(&self.inbox, process),
            (Role::Following(following), Some(process)) => following.on_bell(process),
            _ => Ok(()),
        };
        if let Err(error) = result
            && !error.is_gone()
        {
            let _ = self.notices.send(Notice::Broken { tid: Tid(0), error: error.to_string() });
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LIMIT: Duration = Duration::from_secs(10);

    fn tracer() -> Tracer {
        Tracer::spawn("test-tracer", unbounded().0).expect("a thread")
    }

    #[test]
    fn a_request_is_answered_once() {
        let tracer = tracer();
        assert_eq!(tracer.ask(|_| Ok(5)).expect("an answer"), 5);
        let refused = tracer.ask(|_| Err::<(), _>(Error::Unsupported("no".into()))).expect_err("an error");
        assert_eq!(refused.to_string(), "no");
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_not_carried_out() {
        let tracer = tracer();
        let (go_on, wait) = unbounded::<()>();
        let (done, seen) = unbounded();
        let first = done.clone();
        let late = tracer.ask_within(SHORT, move |_, _| {
            let _ = wait.recv();
            let _ = first.send("the first");
            Ok(())
        });
        assert!(matches!(late, Err(Failure::Before(Error::TimedOut { .. }))), "{late:?}");
        // It stands behind the other.
        let stale = tracer.ask_within(SHORT, move |_, _| {
            let _ = done.send("the stale one");
            Ok(())
        });
        assert!(matches!(stale, Err(Failure::Before(Error::TimedOut { .. }))), "{stale:?}");
        drop(go_on);
        tracer.ask(|_| Ok(())).expect("an answer");
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["the first"]);
    }

    #[test]
    fn what_cannot_be_undone_is_not_done_once_its_asker_has_gone() {
        let tracer = tracer();
        let (go_on, wait) = unbounded::<()>();
        let (done, seen) = unbounded();
        let gone = tracer.ask_within(SHORT, move |_, permit| {
            let _ = wait.recv();
            let _ = done.send(permit.decide().is_ok());
            Ok(())
        });
        assert!(matches!(gone, Err(Failure::Before(Error::TimedOut { .. }))), "{gone:?}");
        drop(go_on);
        assert_eq!(seen.recv_timeout(LIMIT), Ok(false));
    }

    #[test]
    fn what_was_decided_is_waited_for() {
        let tracer = tracer();
        let (go_on, wait) = unbounded::<()>();
        let (decided, is_decided) = unbounded();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                tracer.ask_within(LIMIT, move |_, permit| {
                    permit.decide().map_err(Failure::Before)?;
                    let _ = decided.send(());
                    let _ = wait.recv();
                    Ok(3)
                })
            });
            is_decided.recv_timeout(LIMIT).expect("it is decided");
            drop(go_on);
            assert!(matches!(asked.join(), Ok(Ok(3))));
        });
        let (go_on, wait) = unbounded::<()>();
        let unknown = tracer.ask_within(SHORT, move |_, permit| {
            permit.decide().map_err(Failure::Before)?;
            let _ = wait.recv();
            Ok(())
        });
        assert!(matches!(unknown, Err(Failure::After(Error::TimedOut { .. }))), "{unknown:?}");
        drop(go_on);
    }
}
