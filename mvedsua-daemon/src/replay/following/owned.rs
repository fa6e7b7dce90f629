//! What the kernel does for a process by numbers that are the follower's own: the values that come with the signals of its
//! timers, and the thread ids by which it finds the locks of a thread that ends.

use super::*;

/// `SI_TIMER`, `include/uapi/asm-generic/siginfo.h`.
const SI_TIMER: i32 = -2;
/// Where a `siginfo_t` of a timer says which it was, and what its owner wanted to be told.
const TIMER_ID: usize = 16;
const VALUE: usize = 24;
/// `FUTEX_TID_MASK` and `ROBUST_LIST_LIMIT`, `include/uapi/linux/futex.h`.
const TID_MASK: u32 = 0x3fff_ffff;
const ROBUST_LIST_LIMIT: usize = 2048;
/// Of how many deleted timers the values are kept.
const DELETED_TIMERS: usize = 64;

/// What the follower wants to be told with the signals of its timers.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// By the timer's id.
    values: BTreeMap<i32, u64>,
    /// Those that were deleted last; a signal of theirs may still wait.
    deleted: VecDeque<i32>,
}

impl Timers {
    /// Remembers the value that the follower gave to a timer; the leader's is another where their addresses differ.
    pub(super) fn note(&mut self, call: &Call, ret: &CallReturn) {
        if i64::from(call.nr) == libc::SYS_timer_delete && ret.ret == 0 {
            self.deleted.push_back(call.args[0] as i32);
            if self.deleted.len() > DELETED_TIMERS
                && let Some(oldest) = self.deleted.pop_front()
            {
                self.values.remove(&oldest);
            }
            return;
        }
        if i64::from(call.nr) != libc::SYS_timer_create || ret.ret != 0 {
            return;
        }
        let value = call.inputs.iter().find(|piece| piece.arg == 1 && piece.part == 1);
        let id = ret.outputs.iter().find(|piece| piece.arg == 2);
        if let (Some(value), Some(id)) = (value, id)
            && let (Ok(value), Ok(id)) = (value.bytes[..].try_into(), id.bytes[..].try_into())
        {
            let id = i32::from_ne_bytes(id);
            // The kernel may give a number again.
            self.deleted.retain(|deleted| *deleted != id);
            self.values.insert(id, u64::from_ne_bytes(value));
        }
    }

    /// Puts the follower's value into the particulars of a timer's signal.
    pub(super) fn own_value(&self, info: &mut [u8]) {
        let number =
            |at: usize| info.get(at..at + 4).map(|bytes| bytes.iter().rev().fold(0, |n, b| n << 8 | i32::from(*b)));
        if number(8) != Some(SI_TIMER) {
            return;
        }
        if let Some(value) = number(TIMER_ID).and_then(|id| self.values.get(&id))
            && let Some(place) = info.get_mut(VALUE..VALUE + 8)
        {
            place.copy_from_slice(&value.to_ne_bytes());
        }
    }
}

impl Following {
    /// Gives a thread the signal that it stopped for, with the leader's particulars.
    pub(super) fn deliver(&self, tid: Tid, signal: &SignalRecord) -> Result<()> {
        let mut info = [0; 128];
        let len = signal.siginfo.len().min(128);
        info[..len].copy_from_slice(&signal.siginfo[..len]);
        self.known.timers.own_value(&mut info);
        sys::set_siginfo(tid, &info)?;
        sys::resume(tid, Resume::Sysemu, signal.signo)
    }

    /// Makes the locks of a thread that is about to end its own by its own id, as the kernel knows it: else it would not tell
    /// the others that their owner has died (`get_robust_list(2)`). A program keeps the leader's ids in them.
    pub(super) fn own_locks(&self, process: &Process, tid: Tid) {
        let memory = &process.memory;
        let Ok((head, _)) = sys::get_robust_list(tid) else { return };
        let word = |at: u64| memory.read_u64(at).ok();
        let (Some(first), Some(offset), Some(pending)) = (word(head), word(head + 8), word(head + 16)) else { return };
        let mut entries = Vec::new();
        let mut entry = first & !1;
        while entry != head && entry != 0 && entries.len() < ROBUST_LIST_LIMIT {
            entries.push(entry);
            entry = word(entry).unwrap_or(0) & !1;
        }
        entries.extend((pending != 0).then_some(pending & !1));
        for entry in entries {
            let place = entry.wrapping_add(offset);
            if let Ok(lock) = memory.read_u32(place)
                && lock & TID_MASK != 0
                && let Err(error) = memory.write(place, &(lock & !TID_MASK | tid.0 as u32).to_ne_bytes())
            {
                tracing::warn!(%tid, %error, "a lock of a thread that ends could not be given up");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::Call;
    use crate::record::{LeaderAddr, Nanos, PieceDir};

    fn made(id: i32, value: u64) -> (Call, CallReturn) {
        let piece = |arg, part, dir, bytes: &[u8]| {
            let bytes = bytes::Bytes::copy_from_slice(bytes);
            Piece { arg, part, dir, addr: LeaderAddr(0), bytes }
        };
        let inputs = vec![piece(1, 1, PieceDir::In, &value.to_ne_bytes())];
        let nr = libc::SYS_timer_create as u32;
        let call = Call { nr, args: [0; 6], row: None, inputs, since: Instant::now() };
        (call, CallReturn { ret: 0, outputs: vec![piece(2, 0, PieceDir::Out, &id.to_ne_bytes())], at: Nanos(0) })
    }

    fn told(timers: &Timers, id: i32) -> u64 {
        let mut info = [0; 128];
        info[8..12].copy_from_slice(&SI_TIMER.to_ne_bytes());
        info[TIMER_ID..TIMER_ID + 4].copy_from_slice(&id.to_ne_bytes());
        timers.own_value(&mut info);
        info[VALUE..VALUE + 8].try_into().map_or(0, u64::from_ne_bytes)
    }

    #[test]
    fn a_signal_brings_the_value_that_the_follower_gave_its_timer() {
        let mut timers = Timers::default();
        let (call, ret) = made(3, 0x1234);
        timers.note(&call, &ret);
        assert_eq!((told(&timers, 3), told(&timers, 4)), (0x1234, 0));
        let args = [3, 0, 0, 0, 0, 0];
        let delete = Call { nr: libc::SYS_timer_delete as u32, args, inputs: Vec::new(), ..call };
        timers.note(&delete, &CallReturn { outputs: Vec::new(), ..ret });
        assert_eq!(told(&timers, 3), 0x1234, "a signal may still wait");
    }
}
