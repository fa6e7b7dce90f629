//! Bringing both versions to the same call, so that they can be exchanged; and going on as before where that fails.

use super::*;

/// Why an exchange did not happen.
pub(super) enum Exchange {
    /// Everything is as before.
    Abandoned(String),
    /// Something happened that ends the session.
    Ended(Notice),
    /// It has ended between two attempts.
    Over(End),
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
                Ok(Notice::CaughtUp) => self.tell(SessionEvent::CaughtUp),
                Ok(Notice::Held | Notice::Drained) => {}
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

    /// Exchanges the versions. An attempt whose pause would be too long is abandoned and made again a little later.
    pub(super) fn exchange_soon(&mut self) -> std::result::Result<(u32, Duration), Exchange> {
        let deadline = Instant::now() + self.options.step_timeout;
        loop {
            let begun = Instant::now();
            let backlog = self.gauge.read().records();
            let attempt = if backlog > MAX_BACKLOG {
                Err(Exchange::Abandoned(format!("the follower is {backlog} records behind")))
            } else {
                self.exchange(self.options.pause_limit)
            };
            match attempt {
                Ok(descriptors) => return Ok((descriptors, begun.elapsed())),
                Err(Exchange::Abandoned(reason)) if Instant::now() < deadline => {
                    tracing::debug!(reason, "an attempt to exchange the versions was abandoned");
                }
                Err(other) => return Err(other),
            }
            if let Some(end) = self.breathe() {
                return Err(Exchange::Over(end));
            }
        }
    }

    /// Lets the service go on between two attempts, at least until the follower is close behind.
    pub(super) fn breathe(&mut self) -> Option<End> {
        let until = Instant::now() + BETWEEN_ATTEMPTS;
        while let Ok(notice) = self.notices.recv_deadline(until) {
            if let Some(end) = self.on_notice(notice) {
                return Some(end);
            }
        }
        None
    }

    /// Swaps leader and follower: holds, drains, moves the kernel's state, commits, changes the roles.
    pub(super) fn exchange(&mut self, limit: Duration) -> std::result::Result<u32, Exchange> {
        self.lead.ask(|core| with_leading(core, |leading, process, _| leading.hold(process)))?;
        let drained = self.hold_and_drain(limit);
        if let Err(reason) = drained {
            self.go_on();
            return Err(reason);
        }
        match self.swap() {
            Ok(descriptors) => Ok(descriptors),
            Err(error) => {
                self.go_on();
                Err(Exchange::Abandoned(error.to_string()))
            }
        }
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
