//! Bringing both versions to the same call, so that they can be exchanged; and going on as before where that fails.

use super::roles::{Exchanged, WayBack};
use super::*;
use crate::image::place::Failure;
use crate::update::uncopied::Uncopied;

/// Why an exchange did not happen.
pub(super) enum Exchange {
    /// Everything is as before.
    Abandoned(String),
    /// Something happened that ends the session.
    Ended(Notice),
    /// It has ended between two attempts.
    Over(End),
    /// It happened, and the service may be harmed.
    Harmed(String),
}

impl From<Error> for Exchange {
    fn from(error: Error) -> Exchange {
        Exchange::Abandoned(error.to_string())
    }
}

impl std::fmt::Display for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exchange::Abandoned(reason) => f.write_str(reason),
            Exchange::Ended(notice) => write!(f, "{notice:?}"),
            Exchange::Over(_) => f.write_str("the session is over"),
            Exchange::Harmed(what) => f.write_str(what),
        }
    }
}

impl From<Failure> for Exchange {
    fn from(failure: Failure) -> Exchange {
        match failure {
            Failure::Before(error) => Exchange::Abandoned(error.to_string()),
            Failure::After(error) => Exchange::Harmed(roles::harm(&error)),
        }
    }
}

/// An attempt to exchange the versions, which keeps both from going on. Dropped before it is committed, everything goes on as
/// before.
#[must_use = "an attempt that is not committed is abandoned"]
struct Attempt<'s, 'r> {
    session: &'s mut Running<'r>,
    is_committed: bool,
}

impl<'s, 'r> Attempt<'s, 'r> {
    /// Keeps the leader from going on at its next calls.
    fn begin(session: &'s mut Running<'r>, hold: Hold) -> std::result::Result<Attempt<'s, 'r>, Exchange> {
        let attempt = Attempt { session, is_committed: false };
        let lead = &attempt.session.lead;
        lead.ask(move |core| with_leading(core, move |leading, process, _| leading.hold(process, hold)))?;
        Ok(attempt)
    }

    /// Brings both to the same call.
    fn ready(self, limit: Duration) -> std::result::Result<Attempt<'s, 'r>, Exchange> {
        self.session.hold_and_drain(limit)?;
        Ok(self)
    }

    /// Puts the follower's image in place.
    fn commit(mut self, uncopied: Option<Vec<Uncopied>>) -> std::result::Result<Exchanged, Exchange> {
        let swapped = self.session.swap(uncopied);
        self.is_committed = !matches!(swapped, Err(Failure::Before(_)));
        Ok(swapped?)
    }
}

impl Drop for Attempt<'_, '_> {
    fn drop(&mut self) {
        if !self.is_committed {
            self.session.go_on();
        }
    }
}

pub(super) enum Waited {
    TimedOut(String),
    Interrupted(Notice),
}

impl Running<'_> {
    /// Waits for a notice; everything else that happens meanwhile ends the wait.
    pub(super) fn await_notice(
        &mut self,
        wanted: fn(&Notice) -> bool,
        limit: Duration,
        tracer_says: &str,
    ) -> Result<(), Waited> {
        let deadline = Instant::now() + limit;
        loop {
            match self.notices.recv_deadline(deadline) {
                Ok(notice) if wanted(&notice) => return Ok(()),
                Ok(Notice::CaughtUp) => self.on_caught_up(),
                // An exchange is over soon, and the service may depend on it. If memory is still short then, that is said again.
                Ok(Notice::Held | Notice::Drained | Notice::MemoryShort(_) | Notice::EndAgreed) => {}
                // It is held there. If it is to go on it comes there again.
                Ok(Notice::LeaderEnds { .. } | Notice::LeaderHandles { .. }) => {}
                Ok(Notice::FaultShared | Notice::FaultAlone) => {}
                Ok(notice) => return Err(Waited::Interrupted(notice)),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Waited::TimedOut(format!(
                        "{tracer_says} did not happen within {:.1} s",
                        limit.as_secs_f64()
                    )));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Waited::TimedOut("the tracer threads ended".into())),
            }
        }
    }

    /// Exchanges the versions. An attempt whose pause would be too long is abandoned and made again a little later; while
    /// the follower is not close enough for that, the leader is held back. Returns how many bytes were moved, and for how long
    /// nobody served.
    pub(super) fn exchange_soon(
        &mut self,
        within: Duration,
        way_back: WayBack,
    ) -> std::result::Result<(u64, Duration), Exchange> {
        let deadline = Instant::now() + within;
        let mut close = MAX_BACKLOG;
        let mut hold = Hold::AtCalls;
        let outcome = loop {
            let behind = self.behind();
            let attempt = if behind > close {
                let what = format!("the follower is {behind} records behind; {close} are close enough");
                Err(Exchange::Abandoned(what))
            } else {
                self.exchange(hold, self.options.pause_limit, way_back)
            };
            match attempt {
                Ok(exchanged) => break Ok(exchanged),
                Err(Exchange::Abandoned(reason)) if Instant::now() < deadline => {
                    self.options.waits.say(format!("to change the versions: {reason}"));
                    tracing::debug!(reason, "an attempt to exchange the versions was abandoned");
                }
                Err(other) => break Err(other),
            }
            if way_back == WayBack::None {
                // It may not come to a call any more, and need not: nothing of it goes on.
                hold = Hold::Anywhere;
            }
            if self.behind() <= close {
                // Close, and still not worked off within the pause.
                close = (close / 2).max(MIN_BACKLOG);
            }
            if let Some(end) = self.breathe(close) {
                break Err(Exchange::Over(end));
            }
        };
        self.options.waits.over();
        self.pace.release();
        outcome
    }

    /// Lets the service go on between two attempts, held back further if the follower does not come closer.
    fn breathe(&mut self, close: u64) -> Option<End> {
        let until = Instant::now() + BETWEEN_ATTEMPTS;
        let before = self.behind();
        while let Ok(notice) = self.notices.recv_deadline(until) {
            if let Some(end) = self.on_notice(notice) {
                return Some(end);
            }
        }
        let behind = self.behind();
        if behind > close && behind > before / 2 {
            self.pace.slower(SLOWEST);
        }
        self.tell(SessionEvent::Progress(self.counters()));
        None
    }

    /// Helps a follower that does not catch up by itself, or falls further and further behind: the leader is held back a
    /// little, until the follower is close.
    pub(super) fn help_to_catch_up(&mut self) {
        let late = self.applied_at.is_some_and(|applied_at| applied_at.elapsed() > CATCH_UP_ALONE);
        let behind = self.behind();
        let grows = behind > self.was_behind;
        self.was_behind = behind;
        if !self.caught_up {
            if late && self.stage == Stage::Outdated {
                self.pace.slower(SLOWEST_TO_CATCH_UP);
            }
        } else if behind > FAR_BEHIND && grows {
            // As much as for a promotion only where the little that catching up takes is not enough.
            self.pace.slower(if behind > VERY_FAR_BEHIND { SLOWEST } else { SLOWEST_TO_CATCH_UP });
        } else if behind <= MAX_BACKLOG {
            self.pace.release();
        }
    }

    /// The follower is close behind for the first time.
    pub(super) fn on_caught_up(&mut self) {
        if !self.caught_up {
            self.caught_up = true;
            self.pace.release();
            self.pace.wait_beyond(MOST_BEHIND);
        }
        self.tell(SessionEvent::CaughtUp);
    }

    /// Exchanges the two images: holds, drains, puts the follower's in place. Returns how many bytes were moved, and for how
    /// long nobody served.
    pub(super) fn exchange(
        &mut self,
        hold: Hold,
        limit: Duration,
        way_back: WayBack,
    ) -> std::result::Result<(u64, Duration), Exchange> {
        let uncopied = self.look_ahead(way_back)?;
        let begun = Instant::now();
        let exchanged = Attempt::begin(self, hold)?.ready(limit)?.commit(uncopied)?;
        Ok((exchanged.moved, exchanged.went_on - begun))
    }

    /// After an abandoned exchange: everything as before.
    pub(super) fn go_on(&mut self) {
        let followed =
            self.follow.ask(|core| with_following(core, |following, process, _| following.release_drain(process)));
        let led = self.lead.ask(|core| with_leading(core, |leading, process, _| leading.release_hold(process)));
        for error in [followed.err(), led.err()].into_iter().flatten() {
            let _ = self.notice_sender.send(Notice::Broken { tid: Tid(0), error: error.to_string() });
        }
    }

    pub(super) fn hold_and_drain(&mut self, limit: Duration) -> std::result::Result<(), Exchange> {
        match self.await_notice(|notice| matches!(notice, Notice::Held), limit, "stopping the leader between two calls")
        {
            Ok(()) => {}
            Err(Waited::Interrupted(notice)) => return Err(Exchange::Ended(notice)),
            Err(Waited::TimedOut(what)) => {
                let threads = self.lead.ask(|core| with_leading(core, |leading, _, _| Ok(leading.not_held())))?;
                return Err(Exchange::Abandoned(format!("{what}: {}", threads.join("; "))));
            }
        }
        let (held, target) = self.lead.ask(|core| with_leading(core, |leading, _, _| Ok(leading.held())))?;
        self.follow.ask(move |core| {
            with_following(core, move |following, process, _| following.drain(process, target, held))
        })?;
        match self.await_notice(|notice| matches!(notice, Notice::Drained), limit, "the follower's catching up") {
            Ok(()) => Ok(()),
            Err(Waited::Interrupted(notice)) => Err(Exchange::Ended(notice)),
            Err(Waited::TimedOut(what)) => {
                let threads = self
                    .follow
                    .ask(|core| with_following(core, |following, _, _| Ok(following.where_threads_stand())))?;
                Err(Exchange::Abandoned(format!("{what}: {}", threads.join("; "))))
            }
        }
    }
}
