//! What the recorder's programs do with each call, derived from the table of system calls.

use mvedsua_common::bulk::{
    AT_ENTRY, AT_ENTRY_PERHAPS, AT_EXIT, AT_EXIT_PERHAPS, CALLS, EXTENT_ARGUMENT, EXTENT_BEHIND, EXTENT_BITS,
    EXTENT_FILLED, EXTENT_FIXED, EXTENT_RESULT, EXTENT_STRING, EXTENT_VECTOR, KIND_LAST, KIND_MMAP, KIND_RECORD,
    KIND_SKIP, KIND_STOP, PLANNED, Plan, PlannedPiece,
};
use mvedsua_common::syscalls::{self, Arg, Class, Dir, Extent, Irregular, Row};

/// Returns the plan of each call, by number.
pub(super) fn all() -> impl Iterator<Item = (u32, Plan)> {
    (0..CALLS).map(|nr| (nr, of(nr)))
}

/// Returns the plan of a call.
pub(super) fn of(nr: u32) -> Plan {
    syscalls::row(nr).map_or(Plan::of(KIND_STOP), plan)
}

fn plan(row: &'static Row) -> Plan {
    match i64::from(row.nr) {
        libc::SYS_exit | libc::SYS_exit_group => return Plan::of(KIND_LAST),
        libc::SYS_mmap => return Plan::of(KIND_MMAP),
        // A mutex with inherited priority is written into, and so is the second word by some of its operations.
        libc::SYS_futex => return with(KIND_RECORD, [(fixed(4, 4), AT_EXIT_PERHAPS), (fixed(0, 4), AT_EXIT_PERHAPS)]),
        // What comes of it depends on what was blocked before, which is told with each record.
        libc::SYS_rt_sigreturn => return Plan::of(KIND_RECORD),
        libc::SYS_rt_sigprocmask => return with(KIND_RECORD, [(fixed(1, 8), AT_EXIT)]),
        // The thread may have to be stopped by another signal from now on; and which call goes on is known to the daemon alone.
        libc::SYS_rt_sigaction | libc::SYS_restart_syscall => return Plan::of(KIND_STOP),
        // A lock, which one of the commands changes, or an owner.
        libc::SYS_fcntl => {
            let pieces = [LOCK, OWNER].map(|len| fixed(2, len));
            let twice = [AT_ENTRY_PERHAPS, AT_EXIT_PERHAPS].map(|when| pieces.map(|piece| (piece, when)));
            return with(KIND_RECORD, twice.into_iter().flatten());
        }
        // What it points to may end anywhere.
        libc::SYS_ioctl => {
            return with(KIND_STOP, [IFREQ, 16, 8, 4].map(|len| (fixed(2, len), AT_ENTRY_PERHAPS)));
        }
        libc::SYS_clone3 => return with(KIND_STOP, [(fixed(0, CLONE_ARGS), AT_ENTRY_PERHAPS)]),
        _ => {}
    }
    if syscalls::in_order(row.nr, &[0; 6]).is_some() {
        return Plan::of(KIND_RECORD);
    }
    match row.class {
        Class::Local if row.irregular.is_none() => return Plan::of(KIND_SKIP),
        Class::Local => return Plan::of(KIND_STOP),
        Class::Refuse(_) | Class::Both => return Plan::of(KIND_STOP),
        Class::Supply | Class::Compare => {}
    }
    // Of calls that are many the rows differ.
    if row.irregular.is_some_and(|irregular| irregular.is_many() && !matches!(irregular, Irregular::Open { .. })) {
        return Plan::of(KIND_STOP);
    }
    let mut draft = Draft { plan: Plan::of(KIND_RECORD), used: 0 };
    for (index, arg) in (0..).zip(row.args) {
        if let Arg::Mem(dir, extent) = *arg {
            draft.memory(index, dir, extent);
        }
    }
    // One of its requests has other memory than these say.
    if syscalls::irregular::variants().any(|variant| variant.nr == row.nr && !has_same_memory(variant, row)) {
        draft.stop();
    }
    // One that has made a child has stopped by that already; this is one that has failed.
    if let Some(Irregular::Fork) = row.irregular {
        draft.stop();
    }
    draft.plan
}

fn has_same_memory(one: &'static Row, other: &'static Row) -> bool {
    let memory = |row: &'static Row| (0..).zip(row.args).filter(|(_, arg)| matches!(arg, Arg::Mem(..)));
    memory(one).eq(memory(other))
}

/// `sizeof(struct flock)`, `sizeof(struct f_owner_ex)`, `sizeof(struct ifreq)`, and what of `struct clone_args` is looked at.
const LOCK: u32 = 32;
const OWNER: u32 = 8;
const IFREQ: u32 = 40;
const CLONE_ARGS: u32 = 64;
const MSGHDR: u32 = 56;
const MMSGHDR: u32 = 64;

fn fixed(arg: u8, len: u32) -> PlannedPiece {
    PlannedPiece { arg, extent: EXTENT_FIXED, of: 0, when: 0, scale: len }
}

fn with(kind: u32, pieces: impl IntoIterator<Item = (PlannedPiece, u8)>) -> Plan {
    let mut plan = Plan::of(kind);
    for (place, (piece, when)) in plan.pieces.iter_mut().zip(pieces) {
        *place = PlannedPiece { when, ..piece };
    }
    plan
}

struct Draft {
    plan: Plan,
    used: usize,
}

impl Draft {
    fn put(&mut self, piece: PlannedPiece, when: u8) {
        match self.plan.pieces.get_mut(self.used) {
            Some(place) => {
                *place = PlannedPiece { when, ..piece };
                self.used += 1;
            }
            // It is looked at while its thread stands still. No call has as many questions that it changes.
            None => self.stop(),
        }
    }

    /// The first bytes are its question; the rest is looked at while the thread stands still.
    fn asked(&mut self, arg: u8, len: u32) {
        self.put(fixed(arg, len), AT_ENTRY);
        self.stop();
    }

    /// The memory is looked at while the thread stands still.
    fn stop(&mut self) {
        self.plan.kind = self.plan.kind.max(KIND_STOP);
    }

    fn memory(&mut self, arg: u8, dir: Dir, extent: Extent) {
        let piece = |extent, of, scale| PlannedPiece { arg, extent, of, when: 0, scale };
        let changed = matches!(dir, Dir::InOut | Dir::Always);
        match extent {
            Extent::Fixed(len) => {
                if changed {
                    self.put(piece(EXTENT_FIXED, 0, len), AT_ENTRY);
                }
                // Where the time that was left goes to may be anywhere.
                let when = if dir == Dir::TimeLeft { AT_EXIT_PERHAPS } else { AT_EXIT };
                self.put(piece(EXTENT_FIXED, 0, len), when);
            }
            Extent::IfPositive(len) => self.put(piece(EXTENT_FIXED, 0, len), AT_EXIT),
            Extent::FromArg { len, scale } => self.put(piece(EXTENT_ARGUMENT, len, scale), AT_EXIT),
            Extent::FromRet { cap, scale } => self.put(piece(EXTENT_RESULT, cap, scale), AT_EXIT),
            Extent::FromPtr { len } => self.put(piece(EXTENT_BEHIND, len, 1), AT_EXIT),
            Extent::LengthOf { .. } | Extent::LengthTold { .. } => {
                self.put(piece(EXTENT_FIXED, 0, 4), AT_ENTRY);
                self.put(piece(EXTENT_FIXED, 0, 4), AT_EXIT);
            }
            Extent::CStr => self.put(piece(EXTENT_STRING, 0, 1), AT_EXIT),
            Extent::IoVec { count } if dir == Dir::In => self.put(piece(EXTENT_VECTOR, count, 1), AT_EXIT),
            Extent::IoVec { count } => self.put(piece(EXTENT_FILLED, count, 1), AT_EXIT),
            // Of an entry the kernel writes what is not its question.
            Extent::PollFds { count } => self.put(piece(EXTENT_ARGUMENT, count, 8), AT_EXIT),
            Extent::FdSet { nfds } => {
                if changed {
                    self.put(piece(EXTENT_BITS, nfds, 8), AT_ENTRY);
                }
                self.put(piece(EXTENT_BITS, nfds, 8), AT_EXIT);
            }
            Extent::EpollEvent => self.put(piece(EXTENT_FIXED, 0, 12), AT_EXIT),
            Extent::SigEvent => self.put(piece(EXTENT_FIXED, 0, 16), AT_EXIT),
            // How much room there was for the name is written over.
            Extent::MsgHdr => {
                self.put(piece(EXTENT_FIXED, 0, MSGHDR), AT_ENTRY);
                self.stop();
            }
            Extent::MMsgHdr { count } if dir == Dir::Out => {
                self.put(piece(EXTENT_ARGUMENT, count, MMSGHDR), AT_ENTRY);
                self.stop();
            }
            Extent::MMsgHdr { .. }
            | Extent::MsgBuf { .. }
            | Extent::Semaphores { .. }
            | Extent::SizeFirst { .. }
            | Extent::ToldSize { .. }
            | Extent::Strings
            | Extent::CloneArgs
            | Extent::MountId { .. } => self.stop(),
            Extent::Flock => self.asked(arg, LOCK),
            Extent::IfReq | Extent::IfReqIndex | Extent::EthTool => self.asked(arg, IFREQ),
            Extent::IfConf | Extent::XattrArgs => self.asked(arg, 16),
            Extent::FileHandle => self.asked(arg, 4),
        }
    }
}

const _: () = assert!(KIND_RECORD < KIND_STOP, "a plan only gets worse");
const _: () = assert!(PLANNED >= 8, "select has four pieces that are read twice");

#[cfg(test)]
mod tests {
    use super::*;

    fn of(nr: i64) -> Plan {
        super::of(nr as u32)
    }

    #[test]
    fn what_a_busy_server_calls_is_recorded_without_a_stop() {
        for nr in [
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_writev,
            libc::SYS_recvfrom,
            libc::SYS_sendto,
            libc::SYS_epoll_wait,
            libc::SYS_epoll_pwait,
            libc::SYS_epoll_ctl,
            libc::SYS_poll,
            libc::SYS_select,
            libc::SYS_accept4,
            libc::SYS_close,
            libc::SYS_openat,
            libc::SYS_fcntl,
            libc::SYS_getpid,
            libc::SYS_futex,
        ] {
            assert_eq!(of(nr).kind, KIND_RECORD, "{}", syscalls::name(nr as u32).unwrap_or_default());
        }
    }

    #[test]
    fn each_versions_own_calls_cost_nothing() {
        for nr in [libc::SYS_brk, libc::SYS_munmap, libc::SYS_mprotect, libc::SYS_madvise] {
            assert_eq!(of(nr).kind, KIND_SKIP);
        }
    }

    #[test]
    fn a_call_that_changes_its_question_is_read_before_it() {
        let select = of(libc::SYS_select);
        let entry = select.pieces.iter().filter(|piece| piece.when == AT_ENTRY).map(|piece| piece.arg);
        assert_eq!(entry.collect::<Vec<_>>(), [1, 2, 3, 4]);
        for row in syscalls::rows().chain(syscalls::irregular::variants()) {
            let plan = of(i64::from(row.nr));
            for (index, arg) in (0..).zip(row.args) {
                let Arg::Mem(Dir::InOut | Dir::Always, extent) = arg else { continue };
                let entry = |piece: &PlannedPiece| [AT_ENTRY, AT_ENTRY_PERHAPS].contains(&piece.when);
                let read = plan.pieces.iter().any(|piece| piece.arg == index && entry(piece));
                // What the kernel writes there is not part of the question.
                let kept = matches!(extent, Extent::PollFds { .. } | Extent::MMsgHdr { .. } | Extent::MountId { .. });
                assert!(read || kept, "{}, argument {index}", row.name);
            }
        }
    }

    #[test]
    fn a_number_without_a_row_stops_its_thread() {
        assert_eq!(of(511).kind, KIND_STOP);
    }
}
