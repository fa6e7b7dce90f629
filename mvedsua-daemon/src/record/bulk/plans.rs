//! What the recorder's programs do with each call, derived from the table of system calls.

use mvedsua_common::bulk::{
    AT_ENTRY, AT_ENTRY_PERHAPS, AT_EXIT, AT_EXIT_PERHAPS, CALLS, EXTENT_ARGUMENT, EXTENT_BEHIND, EXTENT_BITS,
    EXTENT_FILLED, EXTENT_FIXED, EXTENT_RESULT, EXTENT_STRING, EXTENT_VECTOR, KIND_LAST, KIND_MMAP, KIND_NEVER,
    KIND_RECORD, KIND_SKIP, KIND_STOP, PLANNED, Plan, PlannedPiece,
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

fn plan(row: &Row) -> Plan {
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
        // Perhaps it has sent the signal to its own thread, which is given it before the result.
        libc::SYS_kill
        | libc::SYS_tkill
        | libc::SYS_tgkill
        | libc::SYS_rt_sigqueueinfo
        | libc::SYS_rt_tgsigqueueinfo
        | libc::SYS_pidfd_send_signal => return Plan::of(KIND_STOP),
        // The locks' structure, which one of the commands changes.
        libc::SYS_fcntl => {
            return with(KIND_RECORD, [(fixed(2, LOCK), AT_ENTRY_PERHAPS), (fixed(2, LOCK), AT_EXIT_PERHAPS)]);
        }
        libc::SYS_ioctl => return with(KIND_STOP, [(fixed(2, IFREQ), AT_ENTRY_PERHAPS)]),
        libc::SYS_clone3 => return with(KIND_STOP, [(fixed(0, CLONE_ARGS), AT_ENTRY_PERHAPS)]),
        _ => {}
    }
    if syscalls::in_order(row.nr, &[0; 6]).is_some() {
        return Plan::of(KIND_RECORD);
    }
    match row.class {
        Class::Local => return Plan::of(KIND_SKIP),
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
    // One that has made a child has stopped by that already; this is one that has failed.
    if let Some(Irregular::Fork) = row.irregular {
        draft.stop();
    }
    draft.plan
}

/// `sizeof(struct flock)`, `sizeof(struct ifreq)`, and what of `struct clone_args` is looked at.
const LOCK: u32 = 32;
const IFREQ: u32 = 40;
const CLONE_ARGS: u32 = 64;
const MSGHDR: u32 = 56;

fn fixed(arg: u8, len: u32) -> PlannedPiece {
    PlannedPiece { arg, extent: EXTENT_FIXED, of: 0, when: 0, scale: len }
}

fn with<const N: usize>(kind: u32, pieces: [(PlannedPiece, u8); N]) -> Plan {
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
            // It is looked at while its thread stands still, unless it has changed its question by then.
            None => self.plan.kind = self.plan.kind.max(if when == AT_ENTRY { KIND_NEVER } else { KIND_STOP }),
        }
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
            Extent::MMsgHdr { .. } if dir == Dir::Out => self.plan.kind = KIND_NEVER,
            Extent::MMsgHdr { .. }
            | Extent::MsgBuf { .. }
            | Extent::Semaphores { .. }
            | Extent::SizeFirst { .. }
            | Extent::ToldSize { .. }
            | Extent::Strings
            | Extent::CloneArgs
            | Extent::MountId { .. } => self.stop(),
            Extent::Flock
            | Extent::IfReq
            | Extent::IfReqIndex
            | Extent::EthTool
            | Extent::IfConf
            | Extent::FileHandle
            | Extent::XattrArgs => match dir {
                Dir::In => self.stop(),
                Dir::Out | Dir::InOut | Dir::Always | Dir::TimeLeft => self.plan.kind = KIND_NEVER,
            },
        }
    }
}

const _: () = assert!(KIND_RECORD < KIND_STOP && KIND_STOP < KIND_NEVER, "a plan only gets worse");
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
        assert_eq!(of(libc::SYS_recvmmsg).kind, KIND_NEVER);
        for row in syscalls::rows().chain(syscalls::irregular::variants()) {
            let plan = of(i64::from(row.nr));
            for (index, arg) in (0..).zip(row.args) {
                let Arg::Mem(Dir::InOut | Dir::Always, extent) = arg else { continue };
                let entry = |piece: &PlannedPiece| [AT_ENTRY, AT_ENTRY_PERHAPS].contains(&piece.when);
                let read = plan.pieces.iter().any(|piece| piece.arg == index && entry(piece));
                let kept = matches!(extent, Extent::PollFds { .. } | Extent::MMsgHdr { .. });
                assert!(read || kept || plan.kind == KIND_NEVER, "{}, argument {index}", row.name);
            }
        }
    }

    #[test]
    fn a_number_without_a_row_stops_its_thread() {
        assert_eq!(of(511).kind, KIND_STOP);
    }
}
