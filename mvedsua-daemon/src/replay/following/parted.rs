//! Going on after having parted.
//!
//! When the new version leads and the old one, which follows it, makes another call, the new one is taken to be wrong and the
//! old one is to lead again. It need not have lived through what the other did differently, only through what came in from
//! the world. So from then on its own calls count:
//!
//! - an output that both make, with other bytes: the world has those of the leader, the follower goes on as if they were its own
//!   (with `--lockstep` the leader's has not been made, and the follower makes its own when it leads);
//! - a call that the leader alone makes is passed over if it took nothing from the world that the follower would miss: outputs,
//!   queries, and what is done with a file that the leader alone has opened;
//! - a signal that the leader sends itself is not delivered: it is how it ends (`abort(3)`);
//! - anything else ends this: there is no way back, and the new version keeps the service.

use std::collections::{BTreeMap, BTreeSet};

use mvedsua_common::syscalls::{Alone, Signals};

use super::*;

/// How many calls of the leader's alone are passed over.
const MOST_PASSED: u32 = 1000;

/// Says what it means that one version alone makes a call.
fn alone(nr: u32) -> Alone {
    syscalls::row(nr).map_or(Alone::Parts, |row| row.alone)
}

/// What is known since the versions parted.
#[derive(Debug, Default)]
pub(super) struct Parted {
    passed: u32,
    /// Descriptors that the leader alone has.
    opened: BTreeSet<i32>,
    /// Threads whose leader is in a call of its own.
    alone: BTreeSet<Slot>,
    /// Outputs that both are in: how many bytes the leader's has, and the follower's.
    lengths: BTreeMap<Slot, (i64, i64)>,
}

impl Parted {
    /// Says whether a call of the leader's alone may be passed over.
    fn passes(&mut self, entry: &CallEntry, ret: Option<&CallReturn>) -> bool {
        let of_its_own = self.opened.contains(&(entry.args[0] as i32));
        self.passed += 1;
        match alone(entry.nr) {
            Alone::Opens => {
                if let Some(fd) = ret.map(|ret| ret.ret as i32).filter(|fd| *fd >= 0) {
                    self.opened.insert(fd);
                }
            }
            Alone::Output | Alone::Question => {}
            Alone::Parts if !of_its_own => return false,
            Alone::Parts => {
                if i64::from(entry.nr) == libc::SYS_close {
                    self.opened.remove(&(entry.args[0] as i32));
                }
            }
        }
        self.passed <= MOST_PASSED
    }

    /// Says whether the leader's thread is in a call that was passed over.
    pub(super) fn is_alone(&self, slot: Slot) -> bool {
        self.alone.contains(&slot)
    }

    /// The leader's thread has returned from a call that was passed over.
    pub(super) fn passes_return(&mut self, slot: Slot) {
        self.alone.remove(&slot);
    }

    /// Returns the result of an output as the follower is to see it.
    pub(super) fn own_return(&mut self, slot: Slot, ret: &CallReturn) -> CallReturn {
        let own = self.lengths.remove(&slot).filter(|(leaders, _)| *leaders == ret.ret);
        CallReturn { ret: own.map_or(ret.ret, |(_, own)| own), ..ret.clone() }
    }
}

/// Says whether a call is one by which a version ends itself: it ends, or signals one of its own threads (`abort(3)`). The world
/// gets nothing of that.
fn is_own_end(entry: &CallEntry, leaders: &BTreeMap<Slot, Tid>) -> bool {
    let own = |arg: usize| leaders.values().any(|leader| leader.0 == entry.args[arg] as i32);
    syscalls::row(entry.nr).is_some_and(|row| match row.signals {
        Signals::Sends { to } => own(usize::from(to)),
        Signals::None | Signals::LetsIn => row.ends(),
    })
}

/// Says whether the leader has sent a signal to itself. What it does so since the versions parted is how it ends.
pub(super) fn is_own_signal(signal: &SignalRecord, leaders: &BTreeMap<Slot, Tid>) -> bool {
    let word = |at: usize| {
        let bytes = signal.siginfo.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(i32::from_ne_bytes)
    };
    // `siginfo_t`: how it came, and from which process (sigaction(2)).
    let is_sent = matches!(word(8), Some(libc::SI_USER | libc::SI_TKILL));
    is_sent && leaders.values().any(|leader| word(16) == Some(leader.0))
}

impl Following {
    /// The follower has parted from the leader and is to lead again: from here on its own calls count.
    pub(crate) fn go_own_way(&mut self, process: &mut Process) -> Result<()> {
        self.ended = false;
        self.waiting.moved = Instant::now();
        self.parted.get_or_insert_default();
        self.take_agent_out(process)?;
        self.advance(process)
    }

    /// Goes past a difference between a follower's call and its record.
    pub(super) fn go_past(
        &mut self,
        process: &mut Process,
        tid: Tid,
        call: Box<Call>,
        record: &Record,
        kind: DivergenceKind,
    ) -> Result<Applied> {
        let Some((entry, ret)) = record.event.call() else { return Ok(Applied::NotReady) };
        let slot = record.slot;
        let Some(parted) = &mut self.parted else { return Ok(Applied::NotReady) };
        let same_output =
            entry.nr == call.nr && entry.args[0] as i32 == call.args[0] as i32 && alone(call.nr) == Alone::Output;
        if same_output {
            if let DivergenceKind::Payload { expected_len, actual_len, .. } = kind {
                parted.lengths.insert(slot, (expected_len as i64, actual_len as i64));
            } else if let DivergenceKind::Argument { expected, actual, .. } = kind {
                parted.lengths.insert(slot, (expected as i64, actual as i64));
            }
            return match ret {
                Some(ret) => {
                    let own = parted.own_return(slot, ret);
                    self.supply(process, tid, &call, &own)
                }
                None => {
                    self.state(tid, State::Entered(call));
                    Ok(Applied::Done)
                }
            };
        }
        if is_own_end(entry, &self.settings.leaders) || parted.passes(entry, ret) {
            if ret.is_none() {
                parted.alone.insert(slot);
            }
            self.state(tid, State::AtCall(call));
            return Ok(Applied::Done);
        }
        let divergence = self.describe(slot, kind, Some(record), Some(&call));
        self.state(tid, State::AtCall(call));
        Ok(Applied::Diverged(Box::new(divergence)))
    }

    /// Looks whether the leader comes to the outputs that the follower waits at. Where the old version leads that proves
    /// nothing; where the new one does, it has had everything that it takes and is stuck.
    pub(super) fn check_leader(&mut self, process: &Process) {
        if self.settings.silence == Silence::Accepted || self.parted.is_some() || self.ended {
            return;
        }
        let limit = self.settings.hang_timeout;
        let computes = self.leader_computes(limit);
        let waits = |thread: &Thread| {
            let call = thread.state.at_call()?;
            let is_stuck = alone(call.nr) == Alone::Output
                && call.since.elapsed() > limit
                && self.due.first_of(thread.slot).is_none();
            is_stuck.then(|| (thread.slot, call.clone()))
        };
        if self.waiting.moved.elapsed() < limit || !self.due.is_empty() || self.drain.is_some() {
            return;
        }
        let stuck = self.threads.values().find_map(waits).or_else(|| computes.then(|| self.idle()).flatten());
        if let Some((slot, call)) = stuck {
            let kind = DivergenceKind::Silent { waited_ms: call.since.elapsed().as_millis() as u64 };
            let divergence = self.describe(slot, kind, None, Some(&call));
            self.diverge(process, divergence);
        }
    }
}

impl Following {
    /// Says whether the leader has computed on and on since anything moved here. Where the follower has done all that there was to
    /// do, the leader is stuck without a call.
    fn leader_computes(&mut self, limit: Duration) -> bool {
        let leader = self.settings.leaders.values().next().and_then(|leader| procfs::process_of(*leader));
        let Some(used) = leader.and_then(sys::cpu_time) else { return false };
        match self.waiting.leader_used {
            // On a busy machine it may not have been given all of the time.
            Some((moved, before)) if moved == self.waiting.moved => used.saturating_sub(before) * 2 >= limit,
            Some(_) | None => {
                self.waiting.leader_used = Some((self.waiting.moved, used));
                false
            }
        }
    }

    /// Returns a thread that waits at a call, where all of them do.
    fn idle(&self) -> Option<(Slot, Call)> {
        let calls: Option<Vec<_>> =
            self.threads.values().map(|thread| thread.state.at_call().map(|call| (thread.slot, call))).collect();
        calls?.into_iter().next().map(|(slot, call)| (slot, call.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Nanos;

    fn entry(nr: i64, fd: u64) -> CallEntry {
        CallEntry { nr: nr as u32, args: [fd, 0, 0, 0, 0, 0], inputs: Vec::new(), at: Nanos(0) }
    }

    fn ret(ret: i64) -> CallReturn {
        CallReturn { ret, outputs: Vec::new(), at: Nanos(0) }
    }

    #[test]
    fn what_took_nothing_from_the_world_is_passed_over() {
        let mut parted = Parted::default();
        assert!(parted.passes(&entry(libc::SYS_write, 5), Some(&ret(1))));
        assert!(!parted.passes(&entry(libc::SYS_read, 5), Some(&ret(1))), "the follower would miss what was read");
        assert!(!parted.passes(&entry(libc::SYS_close, 5), Some(&ret(0))), "the follower has it open");
        assert!(parted.passes(&entry(libc::SYS_openat, 0), Some(&ret(9))));
        assert!(parted.passes(&entry(libc::SYS_read, 9), Some(&ret(1))));
        assert!(parted.passes(&entry(libc::SYS_close, 9), Some(&ret(0))));
        assert!(!parted.passes(&entry(libc::SYS_read, 9), Some(&ret(1))), "it is another one by now");
    }

    #[test]
    fn an_output_that_was_made_in_full_is_made_in_full() {
        let mut parted = Parted::default();
        for (written, own) in [(10, 12), (7, 7)] {
            parted.lengths.insert(Slot(0), (10, 12));
            assert_eq!(parted.own_return(Slot(0), &ret(written)).ret, own);
        }
        assert_eq!(parted.own_return(Slot(0), &ret(10)).ret, 10, "nothing is known of another one");
    }
}
