//! The OS thread that traces one process.
//!
//! ptrace requests are valid only from the thread that attached, so each process of a session has one such thread for
//! its whole life. What the process *is* at the moment, leader or follower, is the thread's [`Role`]. The process that leads
//! keeps its tracer; who follows is another process after a promotion.
//!
//! Everything arrives in one place: stops of the tracees, and requests of the session as closures that run between two
//! stops. Nothing polls.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use super::process::Process;
use crate::ptrace::wait::{Bell, Inbox, Stop, Wake};
use crate::ptrace::{Error, Result, Tid};
use crate::record::leading::Leading;
use crate::replay::following::Following;
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

type Request = Box<dyn FnOnce(&mut Core) + Send>;

/// The handle by which the session reaches a tracer thread.
#[derive(Debug)]
pub(crate) struct Tracer {
    requests: Option<Sender<Request>>,
    bell: Arc<Bell>,
    join: Option<JoinHandle<()>>,
    name: &'static str,
}

impl Tracer {
    /// Starts a tracer thread; `name` is what `ps -L` shows.
    pub(crate) fn spawn(name: &'static str, notices: Sender<Notice>) -> Result<Tracer> {
        let (requests, inbox_requests) = unbounded::<Request>();
        let (ready, bell) = bounded(1);
        let join = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _fall = Fall { name, notices: notices.clone() };
                let inbox = Inbox::new();
                if ready.send(inbox.bell()).is_ok() {
                    run(Core { inbox, process: None, role: Role::Idle, notices }, &inbox_requests);
                }
            })
            .map_err(|source| Error::Own { doing: format!("starting thread {name}"), source })?;
        let bell = bell.recv().map_err(|_| Error::Unsupported(format!("thread {name} ended at its start")))?;
        Ok(Tracer { requests: Some(requests), bell, join: Some(join), name })
    }

    pub(crate) fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    /// Runs `work` on the tracer thread and waits for its result.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Core) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, result) = bounded(1);
        let request: Request = Box::new(move |core| {
            // The asker waits for the reply; nobody else can drop it.
            let _ = reply.send(work(core));
        });
        let sent = self.requests.as_ref().is_some_and(|requests| requests.send(request).is_ok());
        self.bell.ring();
        match result.recv_timeout(ASK_LIMIT) {
            Ok(result) if sent => result,
            Err(RecvTimeoutError::Timeout) => {
                let what = format!("an answer of thread {}", self.name);
                Err(Error::TimedOut { what, seconds: ASK_LIMIT.as_secs_f64() })
            }
            _ => Err(Error::Unsupported(format!("thread {} has ended", self.name))),
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.requests = None;
        self.bell.ring();
        if let Some(join) = self.join.take()
            && join.join().is_err()
        {
            tracing::error!(thread = self.name, "a tracer thread panicked; its tracees were let go");
        }
    }
}

/// The loop: ends when the handle is dropped.
fn run(mut core: Core, requests: &Receiver<Request>) {
    loop {
        match core.inbox.wait() {
            Ok(Wake::Stop(tid, stop)) => core.on_stop(tid, stop),
            Ok(Wake::Bell) => {
                loop {
                    match requests.try_recv() {
                        Ok(request) => request(&mut core),
                        Err(crossbeam_channel::TryRecvError::Empty) => break,
                        Err(crossbeam_channel::TryRecvError::Disconnected) => return,
                    }
                }
                core.on_bell();
            }
            Ok(Wake::NoTracees) => match requests.recv() {
                Ok(request) => request(&mut core),
                Err(_) => return,
            },
            Err(error) => {
                tracing::error!(%error, "waiting for tracees failed");
                let error = format!("waiting for tracees failed: {error}");
                let _ = core.notices.send(Notice::Broken { tid: Tid(0), error });
                return;
            }
        }
    }
}

impl Core {
    fn on_stop(&mut self, tid: Tid, stop: Stop) {
        let result = match (&mut self.role, &mut self.process) {
            (Role::Leading(leading), Some(process)) => leading.on_stop(&self.inbox, process, tid, stop),
            (Role::Following(following), Some(process)) => following.on_stop(&self.inbox, process, tid, stop),
            _ => super::process::let_go(tid, stop),
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
