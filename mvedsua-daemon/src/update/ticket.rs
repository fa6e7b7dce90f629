//! What is agreed between who asks a tracer thread for something and the thread that does it.
//!
//! ```text
//!            begin            decide
//!   Asked ──────────► Begun ──────────► Decided        the thread's steps
//!     │                 │                  ╳
//!     └─── withdraw ────┴──► Withdrawn                  the asker's, who does not wait any longer
//! ```
//!
//! A request that nobody waits for any more is not carried out: whoever asked has gone on as if it had not been, perhaps asked
//! somebody else. Where a request does what cannot be undone (the commit of an exchange), the thread decides right before that
//! whether somebody still waits; an asker who comes too late to withdraw waits for what comes of it. So both always know the same.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::ptrace::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    Asked,
    Begun,
    Decided,
    Withdrawn,
}

/// One request, as both sides see it.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// Which of the requests to its thread it is, the first being 1.
    pub(crate) number: u64,
    state: AtomicU8,
}

impl Ticket {
    pub(crate) fn new(number: u64) -> Ticket {
        Ticket { number, state: AtomicU8::new(State::Asked as u8) }
    }

    fn step(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The thread has come to it. Says whether it is still wanted.
    pub(crate) fn begin(&self) -> bool {
        self.step(State::Asked, State::Begun)
    }

    /// The asker does not wait any longer. Says whether it can do as if it had never asked.
    pub(crate) fn withdraw(&self) -> bool {
        self.step(State::Asked, State::Withdrawn) || self.step(State::Begun, State::Withdrawn)
    }

    /// Says whether what cannot be undone was decided.
    pub(crate) fn is_decided(&self) -> bool {
        self.state.load(Ordering::Acquire) == State::Decided as u8
    }
}

/// The right to do what cannot be undone, once, while somebody waits for it. Dropped, nothing of it is done.
#[derive(Debug)]
#[must_use = "nothing is decided by a permit that is dropped"]
pub(crate) struct Permit<'a>(&'a Ticket);

impl<'a> Permit<'a> {
    /// Returns the permit of a request that was begun.
    pub(super) fn of(ticket: &'a Ticket) -> Permit<'a> {
        Permit(ticket)
    }

    /// Decides that it is done.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where nobody waits for it any more: then it must not be done.
    pub(crate) fn decide(self) -> Result<()> {
        match self.0.step(State::Begun, State::Decided) {
            true => Ok(()),
            false => Err(Error::Unsupported(format!("request {} was withdrawn: it took too long", self.0.number))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::{Arc, Barrier};

    use super::*;

    #[test]
    fn what_was_withdrawn_is_neither_begun_nor_decided() {
        let ticket = Ticket::new(1);
        assert!(ticket.withdraw() && !ticket.withdraw() && !ticket.begin());
        let ticket = Ticket::new(2);
        assert!(ticket.begin() && !ticket.begin() && ticket.withdraw());
        let refused = Permit::of(&ticket).decide().expect_err("nobody waits");
        assert!(refused.to_string().contains("request 2 was withdrawn"), "{refused}");
    }

    #[test]
    fn what_was_decided_is_not_withdrawn() {
        let ticket = Ticket::new(1);
        assert!(ticket.begin() && !ticket.is_decided());
        Permit::of(&ticket).decide().expect("it is wanted");
        assert!(ticket.is_decided() && !ticket.withdraw());
    }

    #[test]
    fn both_sides_know_the_same_whoever_is_first() {
        const ROUNDS: u32 = 2000;
        let (decided, withdrawn) = (AtomicU32::new(0), AtomicU32::new(0));
        let count = |counter: &AtomicU32| counter.fetch_add(1, Ordering::Relaxed);
        for round in 0..ROUNDS {
            let (ticket, start) = (Arc::new(Ticket::new(1)), Arc::new(Barrier::new(2)));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    (0..round % 64).for_each(|_| std::hint::spin_loop());
                    if ticket.begin() && Permit::of(&ticket).decide().is_ok() {
                        count(&decided);
                    }
                });
                start.wait();
                (0..round % 96).for_each(|_| std::hint::spin_loop());
                if ticket.withdraw() {
                    count(&withdrawn);
                }
            });
        }
        assert_eq!(decided.into_inner() + withdrawn.into_inner(), ROUNDS, "one of the two each time");
    }
}
