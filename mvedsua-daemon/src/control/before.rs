//! A short look at a process before it is forked: how much does it read and write?
//!
//! Only the monitor can tell, since nothing may be stopped for it. Of a process that is observed it knows already; any other is
//! observed for [`LOOK`], if it does anything at all. Where the kernel refuses that nothing is guessed.

use std::time::Duration;

use super::Observer;
use super::process;
use super::slowdown::Before;
use crate::monitor::{AttachOptions, Mode, StatsSnapshot};
use crate::record::toll::moves;

/// How long it is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long it takes to see that a process does nothing, and how much it may compute meanwhile.
const GLANCE: Duration = Duration::from_millis(40);
const NOTHING: Duration = Duration::from_micros(400);

/// What a process had done when it was looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    moved: f64,
    seconds: f64,
}

impl Seen {
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    fn of(stats: &StatsSnapshot, pid: i32) -> Seen {
        let own = stats.processes.iter().filter(|process| process.pid == pid).flat_map(|process| &process.calls);
        let done = |call: &crate::monitor::CallStats| {
            let failed: u64 = call.errors.iter().map(|error| error.count).sum();
            call.count.saturating_sub(failed)
        };
        let moved: u64 = own.filter(|call| moves(call.nr)).map(done).sum();
        Seen { moved: moved as f64, seconds: stats.observed_ns as f64 / 1e9 }
    }

    fn since(self, earlier: Seen) -> Seen {
        Seen { moved: self.moved - earlier.moved, seconds: self.seconds - earlier.seconds }
    }

    /// Returns the rate, where it was looked at for long enough to tell one: a window of the sampled mode.
    fn rate(self) -> Option<f64> {
        (self.seconds >= 0.015).then(|| self.moved.max(0.0) / self.seconds)
    }
}

/// Looks at a process; takes half a second where it has to. Of one that is observed the higher rate counts, that of the whole
/// time or that of the moment: it could do either.
pub(crate) fn look(observer: &dyn Observer, pid: i32) -> Before {
    let observed = observer.targets().iter().any(|target| target.pid == pid);
    let busy = is_busy(pid);
    if !observed && !busy {
        return Before::Moved { per_second: 0.0 };
    }
    if !observed {
        let options = AttachOptions { mode: Mode::Exact, ..AttachOptions::default() };
        if let Err(problem) = observer.attach(pid, options) {
            return Before::NotKnown { because: problem.why };
        }
    }
    let rate = (|| {
        let first = Seen::of(&observer.stats(pid)?, pid);
        if !busy {
            return Ok(first.rate());
        }
        std::thread::sleep(LOOK);
        let last = Seen::of(&observer.stats(pid)?, pid);
        let rates = [last.rate(), last.since(first).rate()];
        Ok(rates.into_iter().flatten().max_by(f64::total_cmp))
    })();
    if !observed && let Err(problem) = observer.detach(pid) {
        tracing::warn!(pid, why = problem.why, "a process that was looked at is still observed");
    }
    match rate {
        Ok(Some(per_second)) => Before::Moved { per_second },
        Ok(None) => Before::NotKnown { because: "it was not observed for long enough".to_owned() },
        Err(problem) => not_known(problem),
    }
}

fn not_known(problem: super::protocol::Problem) -> Before {
    Before::NotKnown { because: problem.why }
}

/// Says whether a process computes at all.
fn is_busy(pid: i32) -> bool {
    let Some(before) = process::processor_time(pid) else { return true };
    std::thread::sleep(GLANCE);
    process::processor_time(pid).is_none_or(|after| after.saturating_sub(before) > NOTHING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_takes_some_time_to_look() {
        let early = Seen { moved: 10.0, seconds: 10.0 };
        let late = Seen { moved: 2010.0, seconds: 10.5 };
        assert_eq!(late.since(early).rate(), Some(4000.0));
        assert_eq!(late.since(late).rate(), None);
    }
}
