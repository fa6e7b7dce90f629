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

/// What an exchange means for children of the version that leads, which only that version can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Children {
    /// There is none before it has waited for them.
    Awaited,
    /// They are waited for that long.
    AwaitedFor(Duration),
    /// The version that leads is to lead no longer, whatever becomes of them.
    Abandoned,
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
                Ok(Notice::Held | Notice::Drained | Notice::MemoryShort(_)) => {}
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
    /// the follower is not close enough for that, the leader is held back.
    pub(super) fn exchange_soon(
        &mut self,
        within: Duration,
        children: Children,
    ) -> std::result::Result<(u32, Duration), Exchange> {
        let asked = Instant::now();
        let deadline = asked + within;
        let mut close = MAX_BACKLOG;
        let outcome = loop {
            let begun = Instant::now();
            let behind = self.behind();
            let children = match children {
                Children::AwaitedFor(time) if asked.elapsed() >= time => Children::Abandoned,
                other => other,
            };
            // Nobody is stopped or held back for what can be seen without: a child may live for long.
            let children_left = self.without_children(children).err();
            let waits = children_left.is_some();
            if waits {
                self.pace.release();
                close = MAX_BACKLOG;
            }
            let attempt = match children_left {
                Some(why) => Err(why),
                None if behind > close => Err(Exchange::Abandoned(format!(
                    "the follower is {behind} records behind; {close} are close enough"
                ))),
                None => self.exchange(Hold::AtCalls, self.options.pause_limit, children),
            };
            match attempt {
                Ok(descriptors) => break Ok((descriptors, begun.elapsed())),
                Err(Exchange::Abandoned(reason)) if Instant::now() < deadline => {
                    tracing::debug!(reason, "an attempt to exchange the versions was abandoned");
                }
                Err(other) => break Err(other),
            }
            if !waits && self.behind() <= close {
                // Close, and still not worked off within the pause.
                close = (close / 2).max(MIN_BACKLOG);
            }
            if let Some(end) = self.breathe(if waits { u64::MAX } else { close }) {
                break Err(Exchange::Over(end));
            }
        };
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

    /// Helps a follower that does not catch up by itself: the leader is held back a little.
    pub(super) fn help_to_catch_up(&mut self) {
        let late = self.applied_at.is_some_and(|applied_at| applied_at.elapsed() > CATCH_UP_ALONE);
        if late && !self.caught_up && self.stage == Stage::Outdated {
            self.pace.slower(SLOWEST_TO_CATCH_UP);
        }
    }

    /// The follower is close behind for the first time.
    pub(super) fn on_caught_up(&mut self) {
        if !self.caught_up {
            self.caught_up = true;
            self.pace.release();
        }
        self.tell(SessionEvent::CaughtUp);
    }

    /// Swaps leader and follower: holds, drains, moves the kernel's state, commits, changes the roles.
    pub(super) fn exchange(
        &mut self,
        hold: Hold,
        limit: Duration,
        children: Children,
    ) -> std::result::Result<u32, Exchange> {
        self.lead.ask(move |core| with_leading(core, move |leading, process, _| leading.hold(process, hold)))?;
        let drained = self.hold_and_drain(limit).and_then(|()| self.without_children(children));
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

    /// Says why the leader cannot be exchanged yet. A child can be waited for by its parent alone, and the kernel has no way to
    /// give it another: the version that takes over would be told that it has no such child, and what it does when the child
    /// has ended (a server that dumps its data in a child, for one) would never be done.
    fn without_children(&self, children: Children) -> std::result::Result<(), Exchange> {
        if children == Children::Abandoned {
            return Ok(());
        }
        let mut left = procfs::children(self.leader)?;
        left.retain(|child| *child != self.follower);
        match left.len() {
            0 => Ok(()),
            count => {
                let (pid, first) = (self.leader, left[0]);
                let what = format!("process {pid} has {count} children that it has not waited for, such as {first}");
                Err(Exchange::Abandoned(format!("{what}; another process cannot wait for them in its place")))
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
