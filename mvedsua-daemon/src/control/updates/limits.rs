//! Holds the new version to its limits: the memory that it may take, and how long it may compute.
//!
//! Both are read from `/proc` a few times a second while two versions run, from the outside, so that they hold for every
//! engine and cost the versions nothing.
//!
//! - **Memory** is what the new version's process has of its own: anonymous pages that are resident, and what of them is
//!   swapped out. Right after the fork that is what the old version had, too.
//! - **Time** is what each version computes in user space between its calls, since the follower had caught up. Both live
//!   through the same requests, and waiting costs neither, so a new version that needs more for the same shows at once,
//!   before it leads. The kernel counts in ticks, and a version that is stopped at each call computes with colder caches: less
//!   than [`SLACK`] beyond the budget is none, and a budget below 200 % ends sound updates.

use std::fs;
use std::time::Duration;

use crate::control::process;
use crate::lifecycle::{Stage, State};
use crate::package::Terms;
use crate::update::Which;

/// How much more the new version may compute than its budget says before that counts.
const SLACK: Duration = Duration::from_millis(200);

/// What each version had computed when the comparison began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Base {
    old: (i32, Duration),
    new: (i32, Duration),
}

/// Watches one update.
#[derive(Debug, Default)]
pub(super) struct Limits {
    base: Option<Base>,
}

impl Limits {
    /// Returns what is exceeded, if anything.
    pub(super) fn look(&mut self, terms: &Terms, state: &State) -> Option<String> {
        let run = state.run()?;
        // While roles change nobody knows for an instant which process is which.
        let (is_compared, is_fixed) = match state.stage() {
            Stage::Validating | Stage::UpdatedLeader => (true, true),
            Stage::Updating | Stage::CatchingUp => (false, true),
            Stage::SingleLeader | Stage::Promoting | Stage::RollingBack | Stage::Ended => (false, false),
        };
        if !is_fixed {
            return None;
        }
        let (old, new) = match run.leads {
            Which::Old => (run.leader, run.follower),
            Which::New => (run.follower, run.leader),
        };
        if let Some(limit) = terms.memory_limit
            && let Some(taken) = own_memory(new)
            && taken > limit
        {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            return Some(format!(
                "the new version takes {} MiB of memory, its limit is {} MiB",
                mib(taken),
                mib(limit)
            ));
        }
        let percent = terms.latency_budget_percent?;
        if !is_compared {
            self.base = None;
            return None;
        }
        let old = (old, process::user_time(old)?);
        let new = (new, process::user_time(new)?);
        let base = *self.base.get_or_insert(Base { old, new });
        // Another attempt has another follower, and after a promotion the leader runs the other version.
        if (base.old.0, base.new.0) != (old.0, new.0) {
            self.base = None;
            return None;
        }
        over_budget(old.1.saturating_sub(base.old.1), new.1.saturating_sub(base.new.1), percent)
    }
}

/// Compares what both have computed.
fn over_budget(old: Duration, new: Duration, percent: u32) -> Option<String> {
    let allowed = old.saturating_mul(percent) / 100;
    (new > allowed + SLACK).then(|| {
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let (new, old) = (seconds(new), seconds(old));
        format!("the new version computed for {new} where the old one took {old}; its budget is {percent} %")
    })
}

/// Returns the memory that a process has of its own, bytes.
fn own_memory(pid: i32) -> Option<u64> {
    // The process may have any bytes in its name.
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    parse_memory(&String::from_utf8_lossy(&status))
}

fn parse_memory(status: &str) -> Option<u64> {
    let kib = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().strip_suffix(" kB")?.parse().ok()
    };
    Some((kib("RssAnon")? + kib("VmSwap").unwrap_or(0)) << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::{Plan, Policy, Run, Soak};
    use crate::package::Wishes;

    fn terms(memory_limit: Option<u64>, latency_budget_percent: Option<u32>) -> Terms {
        Wishes { memory_limit, latency_budget_percent, ..Wishes::default() }.terms()
    }

    /// Two versions that are compared; the test itself stands for both.
    fn validating() -> State {
        let pid = std::process::id().cast_signed();
        let plan = Plan::new(Policy::default());
        State::Validating { plan, run: Run { leader: pid, follower: pid, ..Run::default() }, soak: Soak::Running }
    }

    #[test]
    fn a_limit_on_memory_holds_what_the_process_has_of_its_own() {
        assert_eq!(parse_memory("VmRSS:\t 9 kB\nRssAnon:\t       7 kB\nVmSwap:\t 2 kB\n"), Some(9 << 10));
        assert_eq!(parse_memory("Name:\tkthread\n"), None);
        let look = |limit| Limits::default().look(&terms(Some(limit), None), &validating());
        assert!(look(1).is_some_and(|what| what.ends_with("its limit is 1 MiB")));
        assert_eq!(look(1 << 50), None);
        let single = State::new(std::process::id().cast_signed());
        assert_eq!(Limits::default().look(&terms(Some(1), None), &single), None, "nobody is new");
    }

    #[test]
    fn a_budget_is_exceeded_only_beyond_what_the_kernel_can_tell() {
        let ms = Duration::from_millis;
        assert_eq!(over_budget(ms(0), ms(200), 100), None);
        assert_eq!(over_budget(ms(1000), ms(3200), 300), None);
        let what = over_budget(ms(1000), ms(20_000), 300).expect("it is twenty times slower");
        assert_eq!(what, "the new version computed for 20.00 s where the old one took 1.00 s; its budget is 300 %");
        let mut limits = Limits::default();
        assert_eq!(limits.look(&terms(None, Some(100)), &validating()), None, "the first look is the base");
        assert!(limits.base.is_some());
    }
}
