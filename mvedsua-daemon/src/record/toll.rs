//! What being recorded costs a program, counted where it is recorded.
//!
//! A program that is recorded is at each instant in one of five places, of which four can be told from here:
//!
//! - It is *kept*: one of its threads stands where we hold it. It waits for its turn, for room in the log, for the other
//!   version's agreement, or for an exchange of the versions.
//! - It *waits*: each of its threads is in a call. What is shorter than [`LEAST_WAIT`] is not counted: that is how long it
//!   takes until we notice that a call has returned at once.
//! - It runs *beside itself*: a thread that had the turn for as long as it may computes on, others go on beside it, and nobody is
//!   kept.
//! - It is *free*: it runs without stops, and whether it computes or waits is its own business.
//! - Else it computes, or it stands in a stop. The kernel knows how long it computed; the rest are stops.
//!
//! What it gets done is counted in calls that *move* something: read, write, send, receive, accept. Calls that only look, or
//! wait, say nothing of that: a thread that asks a thousand times whether there is something to do does no more than one that
//! asks once.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mvedsua_common::syscalls::{self, Moves};
use serde::{Deserialize, Serialize};

/// The shortest time in which all threads are in calls that counts as waiting.
const LEAST_WAIT: Duration = Duration::from_micros(200);

/// Returns whether a call moves something, where it succeeds.
#[must_use]
pub fn moves(nr: u32) -> bool {
    syscalls::row(nr).is_some_and(|row| row.moves != Moves::Nothing)
}

/// What was counted since the recording began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toll {
    /// When it was read, microseconds since the recording began.
    pub at_us: u64,
    /// Calls that moved something.
    pub moved: u64,
    /// How long a thread was kept from going on, and how long all were waiting, microseconds.
    pub kept_us: u64,
    pub waited_us: u64,
    /// How long it ran without stops, microseconds.
    #[serde(default)]
    pub free_us: u64,
    /// How long a thread computed on that is not waited for any more, while nobody was kept, microseconds.
    pub beside_us: u64,
    /// The process's processor time, microseconds; it does not begin at 0.
    pub computed_us: u64,
    /// How often a thread had the turn for as long as it may while others waited for it.
    pub overdue: u64,
}

/// Where a program is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// It computes, or stands in a stop.
    #[default]
    Going,
    Kept,
    Beside,
    Free,
    Waiting,
}

/// Counts; written to by the recorder, read by the session.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<Counted>);

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    begun: Option<Instant>,
    place: Place,
    since: Option<Instant>,
    moved: u64,
    kept: Duration,
    beside: Duration,
    free: Duration,
    waited: Duration,
    overdue: u64,
}

impl Counted {
    fn comes_to(&mut self, place: Place, now: Instant) {
        self.begun.get_or_insert(now);
        if place == self.place {
            return;
        }
        let lasted = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        match self.place {
            Place::Kept => self.kept += lasted,
            Place::Beside => self.beside += lasted,
            Place::Free => self.free += lasted,
            Place::Waiting if lasted >= LEAST_WAIT => self.waited += lasted,
            Place::Waiting | Place::Going => {}
        }
        (self.place, self.since) = (place, Some(now));
    }
}

impl Meter {
    fn with<T>(&self, what: impl FnOnce(&mut Counted) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The program is in this place from now on.
    pub(crate) fn comes_to(&self, place: Place, now: Instant) {
        self.with(|counted| counted.comes_to(place, now));
    }

    /// A call has moved something.
    pub(crate) fn moved(&self) {
        self.with(|counted| counted.moved += 1);
    }

    /// A thread has kept the turn for too long.
    pub(crate) fn overdue(&self) {
        self.with(|counted| counted.overdue += 1);
    }

    /// Reads everything, what goes on at the moment included.
    pub(crate) fn read(&self, computed: Duration, now: Instant) -> Toll {
        let mut counted = self.with(|counted| *counted);
        let place = counted.place;
        let other = if place == Place::Going { Place::Kept } else { Place::Going };
        counted.comes_to(other, now);
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Toll {
            at_us: micros(counted.begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun))),
            moved: counted.moved,
            kept_us: micros(counted.kept),
            waited_us: micros(counted.waited),
            beside_us: micros(counted.beside),
            free_us: micros(counted.free),
            computed_us: micros(computed),
            overdue: counted.overdue,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_at_the_moment_counts_and_short_waits_do_not() {
        let (meter, begun) = (Meter::default(), Instant::now());
        let at = |us: u64| begun + Duration::from_micros(us);
        meter.comes_to(Place::Going, at(0));
        meter.comes_to(Place::Waiting, at(100));
        meter.comes_to(Place::Going, at(250));
        meter.comes_to(Place::Waiting, at(300));
        meter.comes_to(Place::Waiting, at(1300));
        meter.moved();
        let toll = meter.read(Duration::from_micros(7), at(2300));
        assert_eq!((toll.at_us, toll.moved, toll.kept_us, toll.waited_us, toll.computed_us), (2300, 1, 0, 2000, 7));
        meter.comes_to(Place::Kept, at(3300));
        meter.overdue();
        let toll = meter.read(Duration::ZERO, at(3350));
        assert_eq!((toll.kept_us, toll.waited_us, toll.overdue), (50, 3000, 1));
        meter.comes_to(Place::Going, at(3400));
        assert_eq!(meter.read(Duration::ZERO, at(9000)).kept_us, 100, "reading changes nothing");
        meter.comes_to(Place::Beside, at(9000));
        assert_eq!(meter.read(Duration::ZERO, at(9500)).beside_us, 500);
        meter.comes_to(Place::Free, at(10_000));
        let toll = meter.read(Duration::ZERO, at(10_050));
        assert_eq!((toll.free_us, toll.beside_us), (50, 1000));
    }

    #[test]
    fn asking_again_and_again_moves_nothing() {
        assert!(moves(libc::SYS_write as u32) && moves(libc::SYS_accept4 as u32));
        assert!(!moves(libc::SYS_epoll_wait as u32) && !moves(libc::SYS_sched_yield as u32));
        assert!(!moves(libc::SYS_futex as u32));
    }
}
