//! What a rehearsal costs the service, against what it may cost.
//!
//! **Measured** is how many calls of the process move something in a second: reads, writes, and what sends, receives and
//! accepts ([`record::toll`](crate::record::toll)). Before the fork the monitor counts them, after it the recorder.
//!
//! A rate falls when the load falls, and when the program computes for long by itself. Neither is our doing. So both of these
//! must hold, over a window of at least [`WINDOW`], before anything is concluded:
//!
//! - **It is held up by us** for at least half of the window: a thread of it is kept from going on, or it stands in stops. That
//!   is what is left of the window without the time in which all its threads were in calls or nothing stopped it, and without
//!   what it computed while none was kept. A program that has nothing to do is in calls; one that computes by itself computes. Where threads keep the turn
//!   for too long again and again ([`SPINS`]), they wait for each other in loops, and the time in which they run beside each other
//!   is none in which the program gets on by itself.
//! - **It moves less than it is known to be able to**: what it moved in a second before, by more than the factor that is allowed.
//!   It did that much before, and now, though it is held up and hence would do more, it does not.
//!
//! Where the first does not hold nothing is said, and where too little is known of the time before ([`LEAST_BEFORE`]), neither:
//! then `status` shows what is measured, and why it is not judged.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::lifecycle::Stage;
use crate::package::MaxSlowdown;
use crate::record::toll::Toll;

/// Over how long it is measured.
pub(crate) const WINDOW: Duration = Duration::from_secs(5);
/// The least share of the window in which the process must be held up.
const HELD_UP: f64 = 0.5;
/// How often in a second a thread must have kept the turn for too long. One that computes for long by itself does so once.
const SPINS: f64 = 5.0;
/// How many calls in a second must have moved something before: a process that had hardly anything to do has shown nothing.
const LEAST_BEFORE: f64 = 100.0;

/// What is known of a process before it is forked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Before {
    /// How many of its calls moved something in a second.
    Moved { per_second: f64 },
    /// Nothing, and why.
    NotKnown { because: String },
}

/// What it costs, over the last window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub seconds: f64,
    /// How many calls moved something in a second.
    pub per_second: f64,
    /// Shares of the time: held up by us, and waiting in calls.
    pub held_up: f64,
    pub waited: f64,
    /// How often a thread computed for its whole turn while another waited for it.
    pub overdue: u64,
}

/// What `status` and `report` show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slowdown {
    pub before: Before,
    pub max: MaxSlowdown,
    pub now: Option<Measured>,
}

/// Returns what two readings of one recording say, where they are far enough apart.
#[expect(clippy::cast_precision_loss, reason = "rates and shares")]
fn measure(from: &Toll, to: &Toll) -> Option<Measured> {
    let window = to.at_us.checked_sub(from.at_us).filter(|us| u128::from(*us) >= WINDOW.as_micros())?;
    let between = |from: u64, to: u64| to.saturating_sub(from).min(window);
    let kept = between(from.kept_us, to.kept_us);
    let waited = between(from.waited_us, to.waited_us);
    let free = between(from.free_us, to.free_us);
    let overdue = to.overdue.saturating_sub(from.overdue);
    let seconds = window as f64 / 1e6;
    let spins = overdue as f64 / seconds >= SPINS;
    let beside = if spins { between(from.beside_us, to.beside_us) } else { 0 };
    // It may have computed while a thread was kept, too; so the stops are at least this.
    let stood = window.saturating_sub(kept + beside + waited + free + between(from.computed_us, to.computed_us));
    let share = |us: u64| us as f64 / window as f64;
    Some(Measured {
        seconds,
        per_second: to.moved.saturating_sub(from.moved) as f64 / seconds,
        held_up: share(kept + beside + stood).min(1.0),
        waited: share(waited),
        overdue,
    })
}

impl Slowdown {
    pub(crate) fn new(before: Before, max: MaxSlowdown) -> Slowdown {
        Slowdown { before, max, now: None }
    }

    /// Returns how many times slower the process is than it can be, as far as that is known.
    fn factor(&self) -> Option<f64> {
        let (Before::Moved { per_second: before }, Some(now)) = (&self.before, &self.now) else { return None };
        let judged = *before >= LEAST_BEFORE && now.held_up >= HELD_UP;
        // A single call in the window is the least that can be told from none.
        judged.then(|| before / now.per_second.max(1.0 / now.seconds))
    }

    /// Says what is wrong, where it costs more than it may.
    pub(crate) fn judge(&self) -> Option<String> {
        let MaxSlowdown::Times(max) = self.max else { return None };
        let factor = self.factor().filter(|factor| *factor > f64::from(max))?;
        let now = self.now?;
        let spinning = match now.overdue {
            0 => String::new(),
            times => format!(
                "; {times} times a thread computed for its whole turn while others waited, as threads do that wait for each \
                 other in loops: rehearse with fewer of them, or when there is less to do"
            ),
        };
        Some(format!(
            "it cost the service too much: {}, {} times less, and at most {max} times is allowed \
             (--max-slowdown){spinning}",
            self.told(),
            rate(factor)
        ))
    }

    fn told(&self) -> String {
        let before = match &self.before {
            Before::Moved { per_second } => format!("it read and wrote {} times a second before", rate(*per_second)),
            Before::NotKnown { because } => format!("how much it read and wrote before is not known ({because})"),
        };
        match &self.now {
            None => before,
            Some(now) => format!(
                "{before}, and {} times a second in the last {:.0} s, of which the recording held it up for {:.0} %",
                rate(now.per_second),
                now.seconds,
                now.held_up * 100.0
            ),
        }
    }
}

impl fmt::Display for Slowdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told())?;
        match (&self.before, &self.now, self.max) {
            (_, _, MaxSlowdown::Off) => f.write_str("; no limit"),
            (Before::NotKnown { .. }, _, MaxSlowdown::Times(_)) => f.write_str("; not judged"),
            (Before::Moved { per_second }, _, MaxSlowdown::Times(_)) if *per_second < LEAST_BEFORE => {
                f.write_str("; not judged, that is too little to compare with")
            }
            (Before::Moved { .. }, Some(now), MaxSlowdown::Times(max)) if now.held_up < HELD_UP => {
                write!(f, "; at most {max} times less is allowed, and it had less to do, or computed by itself")
            }
            (Before::Moved { .. }, _, MaxSlowdown::Times(max)) => write!(f, "; at most {max} times less is allowed"),
        }
    }
}

fn rate(per_second: f64) -> String {
    if per_second < 9.95 { format!("{per_second:.1}") } else { format!("{per_second:.0}") }
}

/// Watches one update.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) known: Slowdown,
    readings: VecDeque<Toll>,
}

impl Watch {
    pub(crate) fn new(known: Slowdown) -> Watch {
        Watch { known, readings: VecDeque::new() }
    }

    /// Takes note of a reading; says what is wrong, where it costs more than it may.
    pub(crate) fn take(&mut self, toll: Toll, stage: Stage) -> Option<String> {
        let is_rehearsal = match stage {
            Stage::Updating | Stage::CatchingUp | Stage::Validating => true,
            Stage::SingleLeader | Stage::Promoting | Stage::UpdatedLeader | Stage::RollingBack | Stage::Ended => false,
        };
        // Another attempt is another recording; and while the versions are exchanged the process stands still on purpose.
        if !is_rehearsal || self.readings.back().is_some_and(|last| last.at_us > toll.at_us) {
            self.readings.clear();
        }
        if !is_rehearsal {
            return None;
        }
        self.readings.push_back(toll);
        let is_old_enough = |from: &Toll| measure(from, &toll).is_some();
        while self.readings.get(1).is_some_and(is_old_enough) {
            self.readings.pop_front();
        }
        if let Some(measured) = self.readings.front().and_then(|from| measure(from, &toll)) {
            self.known.now = Some(measured);
            return self.known.judge();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// A recording that goes on in the same way.
    #[derive(Clone, Copy, Default)]
    struct Way {
        moved: u64,
        kept: u64,
        waited: u64,
        computed: u64,
        beside: u64,
        overdue: u64,
        free: u64,
    }

    /// What is said of a process that moved `before` in a second, after ten seconds of each way, in per mille of the time.
    fn judged(before: f64, max: MaxSlowdown, ways: &[Way]) -> Option<String> {
        let mut watch = Watch::new(Slowdown::new(Before::Moved { per_second: before }, max));
        let mut toll = Toll { computed_us: 77 * SECOND, ..Toll::default() };
        for way in ways {
            for _ in 0..10 {
                if let Some(what) = watch.take(toll, Stage::Validating) {
                    return Some(what);
                }
                toll.at_us += SECOND;
                toll.moved += way.moved;
                toll.kept_us += way.kept * 1000;
                toll.waited_us += way.waited * 1000;
                toll.computed_us += way.computed * 1000;
                toll.beside_us += way.beside * 1000;
                toll.overdue += way.overdue;
                toll.free_us += way.free * 1000;
            }
        }
        watch.take(toll, Stage::Validating)
    }

    const DEFAULT: MaxSlowdown = MaxSlowdown::Times(25);

    #[test]
    fn threads_that_spin_for_each_other_are_too_slow() {
        let spinning = Way { moved: 20, kept: 960, computed: 990, ..Way::default() };
        let what = judged(3400.0, DEFAULT, &[spinning]).expect("170 times");
        assert!(what.contains("3400 times a second before, and 20 times a second in the last 5 s"), "{what}");
        assert!(what.contains("held it up for 96 %, 170 times less, and at most 25 times is allowed"), "{what}");
        assert_eq!(judged(3400.0, MaxSlowdown::Times(200), &[spinning]), None);
        assert_eq!(judged(3400.0, MaxSlowdown::Off, &[spinning]), None);
        let beside = Way { kept: 100, beside: 870, overdue: 30, ..spinning };
        assert!(judged(3400.0, DEFAULT, &[beside]).is_some_and(|what| what.contains("150 times a thread computed")));
        assert_eq!(judged(99.0, DEFAULT, &[Way { moved: 0, ..spinning }]), None, "it had hardly anything to do before");
    }

    #[test]
    fn a_busy_server_that_is_stopped_at_each_call_is_not() {
        let busy = Way { moved: 30_000, waited: 50, computed: 300, ..Way::default() };
        assert_eq!(judged(130_000.0, DEFAULT, &[busy]), None, "it keeps a quarter");
        assert!(judged(1_300_000.0, DEFAULT, &[busy]).is_some(), "nor is it held up for nothing");
    }

    #[test]
    fn a_load_that_falls_says_nothing() {
        let busy = Way { moved: 30_000, waited: 50, computed: 300, ..Way::default() };
        for waited in [600, 900, 1000] {
            let idle = Way { moved: 1, waited, ..Way::default() };
            assert_eq!(judged(100_000.0, DEFAULT, &[busy, idle, busy]), None, "{waited}");
        }
    }

    #[test]
    fn a_program_that_computes_by_itself_is_not_held_up() {
        let script = Way { moved: 0, computed: 1000, ..Way::default() };
        assert_eq!(judged(100_000.0, DEFAULT, &[script]), None);
        // Another thread waited for the turn, once.
        let watched = Way { kept: 20, beside: 980, overdue: 1, ..script };
        assert_eq!(judged(100_000.0, DEFAULT, &[watched]), None);
    }

    #[test]
    fn one_that_runs_without_stops_is_not_held_up_whatever_it_does() {
        let free = Way { moved: 0, free: 1000, ..Way::default() };
        assert_eq!(judged(100_000.0, DEFAULT, &[free]), None);
        let held = Way { free: 300, kept: 600, ..free };
        assert!(judged(100_000.0, DEFAULT, &[held]).is_some(), "most of the time it is held back");
    }

    #[test]
    fn one_that_moves_nothing_any_more_is_told_without_dividing_by_it() {
        let stuck = Way { kept: 1000, computed: 1000, ..Way::default() };
        let what = judged(1000.0, DEFAULT, &[stuck]).expect("nothing moves");
        assert!(what.contains("0.0 times a second") && what.contains("5000 times less"), "{what}");
    }

    #[test]
    fn nothing_is_said_without_a_window_or_of_another_attempt() {
        let mut watch = Watch::new(Slowdown::new(Before::Moved { per_second: 1e6 }, DEFAULT));
        let at = |seconds: u64| Toll { at_us: seconds * SECOND, kept_us: seconds * SECOND, ..Toll::default() };
        for seconds in [0, 2, 4] {
            assert_eq!(watch.take(at(seconds), Stage::Validating), None);
        }
        assert_eq!(watch.take(at(1), Stage::Validating), None, "a recording of its own");
        assert_eq!(watch.take(at(5), Stage::Promoting), None);
        assert_eq!(watch.take(at(8), Stage::Validating), None, "the promotion was abandoned; it begins anew");
        assert!(watch.take(at(13), Stage::Validating).is_some());
        assert_eq!(watch.known.now.expect("it is shown").seconds, 5.0);
    }

    #[test]
    fn what_is_not_known_is_said_and_never_judged() {
        let because = "the kernel refuses eBPF".to_owned();
        let mut watch = Watch::new(Slowdown::new(Before::NotKnown { because }, DEFAULT));
        let stuck = |seconds: u64| Toll { at_us: seconds * SECOND, kept_us: seconds * SECOND, ..Toll::default() };
        assert_eq!(watch.take(stuck(0), Stage::Validating), None);
        assert_eq!(watch.take(stuck(9), Stage::Validating), None);
        let shown = watch.known.to_string();
        assert!(shown.contains("not known (the kernel refuses eBPF)") && shown.ends_with("not judged"), "{shown}");
    }
}
