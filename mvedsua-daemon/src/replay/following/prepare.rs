//! Records that the agent can answer: what a thread is told, whatever else the daemon knows, if it makes the recorded call.
//!
//! The matcher is asked whether it would compare the recorded call with itself and find it the same; what it would do beyond
//! that (a tolerance, a name that was chosen, something that is done in the follower) is not for the agent.

use mvedsua_agent::layout::{ARGS, Kind, MOST_BUFFERS, What};
use mvedsua_common::syscalls::regions::failed;
use mvedsua_common::syscalls::{Arg, Class, Dir, Extent, Irregular, Treatment, regions};

use super::*;
use crate::matcher::tolerances::{self, Judgement, Question};
use crate::ptrace::sites::{Part, Prepared};
use crate::record::PieceDir;

/// No memory: what a row does not say without looking is not prepared.
struct Nowhere;

impl regions::Memory for Nowhere {
    fn read(&self, _: u64, _: &mut [u8]) -> usize {
        0
    }
}

/// Says whether calls of this number and with these arguments are answered by the agent at all.
pub(super) fn may_be_prepared(pairing: Pairing, nr: u32, args: &[u64; 6]) -> bool {
    // What is told apart by more than the number is not for the agent.
    let Some(row) = syscalls::row(nr) else { return false };
    let Treatment::Row(_) = syscalls::treatment_of(pairing, nr, args, &Nowhere) else { return false };
    let plain = match row.irregular {
        None => true,
        // With a mask for its time the call lets signals in.
        Some(Irregular::EpollWait) => {
            i64::from(nr) != libc::SYS_epoll_pwait2 && (i64::from(nr) != libc::SYS_epoll_pwait || args[4] == 0)
        }
        Some(_) => false,
    };
    matches!(row.class, Class::Supply | Class::Compare)
        && plain
        && !calls::of_one_thread(nr)
        && !calls::waits(nr, args)
        && !calls::asks_its_name(nr)
        && i64::from(nr) != libc::SYS_getrandom
        && row.args.iter().zip(args).all(|(arg, value)| is_plain(arg, *value))
}

/// Says whether the row says all of an argument's memory, or the agent knows how to find it.
fn is_plain(arg: &Arg, value: u64) -> bool {
    match arg {
        Arg::Mem(..) if value == 0 => true,
        Arg::Int | Arg::Int32 | Arg::Flags | Arg::LongFlags | Arg::Fd | Arg::Addr => true,
        Arg::Mem(Dir::In, extent) => {
            matches!(extent, Extent::Fixed(_) | Extent::FromArg { .. } | Extent::CStr | Extent::IoVec { .. })
        }
        Arg::Mem(Dir::Out, extent) => matches!(
            extent,
            Extent::Fixed(_)
                | Extent::IfPositive(_)
                | Extent::FromArg { .. }
                | Extent::FromRet { .. }
                | Extent::IoVec { .. }
        ),
        Arg::Mem(Dir::InOut | Dir::Always | Dir::TimeLeft, _) => false,
    }
}

impl Following {
    /// Returns the answer to a record's call, and what it proves if it is given.
    pub(super) fn prepare(&self, record: &Record) -> Option<(Prepared, Evidence)> {
        let Event::Call(entry, ret) = &record.event else { return None };
        if !may_be_prepared(self.settings.pairing, entry.nr, &entry.args) || regions::interrupted(ret.ret) {
            return None;
        }
        if self.is_left_open(record) || self.has_input_left() {
            return None;
        }
        let own = &self.known.own_files;
        if own.is_read_by(entry.nr, &entry.args)
            || own.is_stat_read_by(entry.nr, &entry.args)
            || own.memory_at(entry.nr, &entry.args).is_some()
        {
            return None;
        }
        let row = syscalls::row(entry.nr)?;
        let call = Call {
            nr: entry.nr,
            args: entry.args,
            row: Some(row),
            inputs: entry.inputs.clone(),
            since: self.waiting.moved,
        };
        let question = Question {
            call: &call,
            entry,
            ret: Some(ret),
            counting: Counting::Neither,
            leader_reads_itself: false,
            orders: self.orders(),
        };
        if tolerances::judge(&question) != Judgement::Compare {
            return None;
        }
        let agreed = tolerances::agree(&call, entry).ok().filter(|agreed| agreed.chosen.is_none())?;
        let mut prepared =
            Prepared { nr: entry.nr, kinds: [Kind::Any; ARGS], args: entry.args, parts: Vec::new(), ret: ret.ret };
        for (index, arg) in row.args.iter().enumerate() {
            prepared.kinds[index] = kind(arg, entry.args[index]);
        }
        for (index, arg) in row.args.iter().enumerate() {
            let inputs =
                entry.inputs.iter().filter(|piece| usize::from(piece.arg) == index && piece.dir == PieceDir::In);
            let outputs =
                ret.outputs.iter().filter(|piece| usize::from(piece.arg) == index && piece.dir == PieceDir::Out);
            match arg {
                Arg::Mem(Dir::In, extent) => {
                    let len = input_len(extent, &entry.args);
                    prepared.parts.extend(compare(index, extent, inputs, len, &mut prepared.kinds)?);
                }
                Arg::Mem(Dir::Out, extent) if !failed(ret.ret) => {
                    prepared.parts.extend(give(index, extent, outputs, ret.ret)?);
                }
                _ => {
                    if outputs.count() > 0 {
                        return None;
                    }
                }
            }
        }
        // What changed in mappings, or hangs on no argument, is not the agent's.
        let known = |piece: &Piece| usize::from(piece.arg) < row.args.len();
        if !ret.outputs.iter().all(known) || !entry.inputs.iter().all(known) {
            return None;
        }
        if let Some(Irregular::EpollWait) = row.irregular {
            for part in &mut prepared.parts {
                let mut events = part.bytes.to_vec();
                self.known.registrations.translate(entry.args[0] as i32, &mut events);
                part.bytes = events.into();
            }
        }
        Some((prepared, agreed.evidence))
    }
}

fn kind(arg: &Arg, value: u64) -> Kind {
    match arg {
        Arg::Addr => Kind::Any,
        Arg::Fd | Arg::Int32 | Arg::Flags => Kind::Half,
        Arg::Int | Arg::LongFlags => Kind::Whole,
        Arg::Mem(..) if value == 0 => Kind::Null,
        Arg::Mem(..) => Kind::NotNull,
    }
}

/// Returns how many bytes of input there must be; nothing where the bytes themselves say it.
fn input_len(extent: &Extent, args: &[u64; 6]) -> Option<u64> {
    match extent {
        Extent::Fixed(len) => Some(u64::from(*len)),
        Extent::FromArg { len, scale } => args[usize::from(*len)].checked_mul(u64::from(*scale)),
        _ => None,
    }
}

/// Returns what the program must have behind an argument; nothing where that is not known in full.
fn compare<'a>(
    index: usize,
    extent: &Extent,
    inputs: impl Iterator<Item = &'a Piece>,
    len: Option<u64>,
    kinds: &mut [Kind; ARGS],
) -> Option<Option<Part>> {
    let inputs: Vec<&Piece> = inputs.collect();
    let arg = index as u8;
    if let Extent::IoVec { count } = extent {
        // Two versions may cut it differently.
        kinds[usize::from(*count)] = Kind::Any;
        let bytes = joined(&inputs);
        return Some(Some(Part { what: What::CompareBuffers, arg, count: *count, bytes }));
    }
    match &inputs[..] {
        [] => (kinds[index] == Kind::Null || len == Some(0)).then_some(None),
        [piece] if piece.part == 0 && len.is_none_or(|len| len == piece.bytes.len() as u64) => {
            Some(Some(Part { what: What::Compare, arg, count: 0, bytes: piece.bytes.clone() }))
        }
        _ => None,
    }
}

/// Returns what the program gets behind an argument; nothing where it is not known where all of it goes.
fn give<'a>(index: usize, extent: &Extent, outputs: impl Iterator<Item = &'a Piece>, ret: i64) -> Option<Option<Part>> {
    let outputs: Vec<&Piece> = outputs.collect();
    let arg = index as u8;
    if let Extent::IoVec { count } = extent {
        let bytes = joined(&outputs);
        let whole = bytes.len() as i64 == ret && outputs.len() as u64 <= MOST_BUFFERS;
        return whole.then_some(Some(Part { what: What::GiveBuffers, arg, count: *count, bytes }));
    }
    match &outputs[..] {
        [] => Some(None),
        [piece] if piece.part == 0 => Some(Some(Part { what: What::Give, arg, count: 0, bytes: piece.bytes.clone() })),
        _ => None,
    }
}

fn joined(pieces: &[&Piece]) -> bytes::Bytes {
    match pieces {
        [only] => only.bytes.clone(),
        _ => pieces.iter().flat_map(|piece| piece.bytes.iter().copied()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(nr: i64, args: [u64; 6]) -> bool {
        may_be_prepared(Pairing::Threads, nr as u32, &args)
    }

    #[test]
    fn what_a_server_does_all_day_is_prepared() {
        for nr in
            [libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_sendto, libc::SYS_close]
        {
            assert!(may(nr, [5, 1, 1, 0, 0, 0]), "{nr}");
        }
        assert!(may(libc::SYS_recvfrom, [5, 1, 1, 0, 0, 0]) && may(libc::SYS_epoll_wait, [5, 1, 1, 0, 0, 0]));
        assert!(may(libc::SYS_epoll_pwait, [5, 1, 1, 0, 0, 8]));
    }

    #[test]
    fn what_is_more_than_its_answer_is_not() {
        let (null, pointer) = ([5, 1, 1, 0, 0, 0], [5, 1, 1, 0, 0x1000, 0x1000]);
        // The sender's address has a length in memory; the mask lets signals in.
        assert!(!may(libc::SYS_recvfrom, pointer) && !may(libc::SYS_epoll_pwait, pointer));
        let others = [
            libc::SYS_openat,
            libc::SYS_mmap,
            libc::SYS_futex,
            libc::SYS_clone,
            libc::SYS_getpid,
            libc::SYS_clock_gettime,
            libc::SYS_rt_sigprocmask,
            libc::SYS_epoll_ctl,
            libc::SYS_ioctl,
            libc::SYS_fcntl,
            libc::SYS_exit_group,
            libc::SYS_getrandom,
            libc::SYS_pause,
        ];
        for nr in others {
            assert!(!may(nr, null), "{nr}");
        }
    }
}
