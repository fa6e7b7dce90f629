//! Registers, and the rewinding of interrupted calls.

use super::sys::Regs;

/// Length of the `syscall` instruction.
const SYSCALL_LEN: u64 = 2;
/// The kernel's internal results of an interrupted call, `include/linux/errno.h`; user space never sees them.
pub const ERESTARTSYS: i64 = -512;
pub const ERESTARTNOINTR: i64 = -513;
pub const ERESTARTNOHAND: i64 = -514;
pub const ERESTART_RESTARTBLOCK: i64 = -516;
pub const EINTR: i64 = -(libc::EINTR as i64);

/// Says whether a result means that the call was interrupted and may be made again.
#[must_use]
pub fn is_interrupted(ret: i64) -> bool {
    matches!(ret, ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND | ERESTART_RESTARTBLOCK | EINTR)
}

/// Says whether a call is over although its result says that it was interrupted: `close` has given its descriptor up
/// by then (close(2), "Dealing with error returns from close()"), and another thread may have got the number. `restart_syscall`
/// says so once a handler has run since the call that it goes on with was interrupted, and would say it again and again
/// (`do_no_restart_syscall` of kernel/signal.c).
#[must_use]
pub fn is_over(nr: u32, ret: i64) -> bool {
    ret == EINTR && [libc::SYS_close, libc::SYS_restart_syscall].contains(&i64::from(nr))
}

/// Says whether the kernel writes into a call's timeout how much of it is left when the call is interrupted, `select(2)` and
/// `poll(2)`, "C library/kernel differences".
#[must_use]
pub fn shortens(nr: u32) -> bool {
    [libc::SYS_select, libc::SYS_pselect6, libc::SYS_ppoll].contains(&i64::from(nr))
}

/// The call that a thread was in when it was stopped, undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewound {
    pub nr: u32,
    pub args: [u64; 6],
}

/// Returns the six arguments of the call whose registers these are.
#[must_use]
pub fn args(regs: &Regs) -> [u64; 6] {
    [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9]
}

/// What a thread's EINTR may be taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eintr {
    /// It was caused by our stop: rewind it.
    Ours,
    /// A signal is pending that the program is to see: leave it.
    Theirs,
}

/// Turns the registers of a thread outside of a system-call stop into those of a thread that has not made its interrupted
/// call yet: it will execute the `syscall` instruction when it goes on. Returns the call, or `None` when the thread was
/// not in an interrupted call; then the registers are unchanged but for `orig_rax`, which no longer asks for a restart.
///
/// A timed call of the restart-block kind goes on as `restart_syscall(2)`, which knows how much time is left. Some calls
/// answer EINTR to a mere ptrace stop (signal(7), "Interruption of system calls and library functions by stop signals");
/// which ones depends on the kernel, so every EINTR is rewound that no signal explains.
pub fn rewind(regs: &mut Regs, eintr: Eintr) -> Option<Rewound> {
    let nr = regs.orig_rax as i64;
    if nr < 0 {
        return None;
    }
    let call = Rewound { nr: nr as u32, args: args(regs) };
    let again = match regs.rax as i64 {
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND => Some(nr),
        ERESTART_RESTARTBLOCK => Some(libc::SYS_restart_syscall),
        ret @ EINTR if eintr == Eintr::Ours && !is_over(call.nr, ret) => Some(nr),
        _ => None,
    };
    regs.orig_rax = u64::MAX;
    let again = again?;
    regs.rip -= SYSCALL_LEN;
    regs.rax = again as u64;
    Some(call)
}

/// Takes back what [`rewind`] did to a timed call: the thread stands at the return of call `nr`, interrupted, as it did. For
/// one that is given a signal before it has gone on: once a handler has run the kernel no longer knows how much time is left,
/// and `restart_syscall` would answer EINTR for ever. Returns the result that says "interrupted", or `None` for every other
/// thread, whose registers stay.
pub fn interrupt_again(regs: &mut Regs, nr: u32) -> Option<i64> {
    if (regs.orig_rax as i64) >= 0 || regs.rax as i64 != libc::SYS_restart_syscall {
        return None;
    }
    regs.rip += SYSCALL_LEN;
    regs.orig_rax = u64::from(nr);
    regs.rax = ERESTART_RESTARTBLOCK as u64;
    Some(ERESTART_RESTARTBLOCK)
}

/// Ends a call that [`rewind`] has undone: the thread stands behind it, with this result.
pub fn end_rewound(regs: &mut Regs, result: i64) {
    regs.rip += SYSCALL_LEN;
    regs.rax = result as u64;
}

/// Turns the registers of a thread at the *entry* of a call into those of a thread that has not made it yet. Set in one
/// step, they make the kernel skip the call and return straight to the `syscall` instruction.
pub fn undo_entry(regs: &mut Regs, nr: u32) {
    regs.rip -= SYSCALL_LEN;
    regs.rax = u64::from(nr);
    regs.orig_rax = u64::MAX;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(orig_rax: i64, rax: i64) -> Regs {
        // SAFETY: the structure holds integers only, for which zero is valid.
        let mut regs: Regs = unsafe { std::mem::zeroed() };
        regs.rip = 0x1002;
        regs.orig_rax = orig_rax as u64;
        regs.rax = rax as u64;
        regs
    }

    #[test]
    fn restart_codes_are_rewound() {
        for code in [ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND] {
            let mut regs = at(libc::SYS_read, code);
            assert_eq!(rewind(&mut regs, Eintr::Theirs).map(|call| call.nr), Some(0));
            assert_eq!((regs.rip, regs.rax, regs.orig_rax), (0x1000, 0, u64::MAX));
        }
    }

    #[test]
    fn timed_calls_go_on_with_the_time_left() {
        let mut regs = at(libc::SYS_poll, ERESTART_RESTARTBLOCK);
        assert_eq!(rewind(&mut regs, Eintr::Ours).map(|call| i64::from(call.nr)), Some(libc::SYS_poll));
        assert_eq!(regs.rax as i64, libc::SYS_restart_syscall);
    }

    #[test]
    fn a_timed_call_can_be_interrupted_again() {
        let before = at(libc::SYS_poll, ERESTART_RESTARTBLOCK);
        let mut regs = before;
        let call = rewind(&mut regs, Eintr::Ours).expect("a call");
        assert_eq!(interrupt_again(&mut regs, call.nr), Some(ERESTART_RESTARTBLOCK));
        assert_eq!((regs.rip, regs.rax, regs.orig_rax), (before.rip, before.rax, before.orig_rax));
        assert_eq!(interrupt_again(&mut regs, call.nr), None);
    }

    #[test]
    fn eintr_is_rewound_only_when_it_is_ours() {
        let mut regs = at(libc::SYS_epoll_wait, EINTR);
        assert_eq!(rewind(&mut regs, Eintr::Theirs), None);
        assert_eq!((regs.rip, regs.rax as i64), (0x1002, EINTR));
        let mut regs = at(libc::SYS_epoll_wait, EINTR);
        assert!(rewind(&mut regs, Eintr::Ours).is_some());
    }

    #[test]
    fn a_close_is_never_made_again() {
        let mut regs = at(libc::SYS_close, EINTR);
        assert_eq!(rewind(&mut regs, Eintr::Ours), None);
        assert_eq!((regs.rip, regs.rax as i64), (0x1002, EINTR));
        assert!(is_over(libc::SYS_close as u32, EINTR) && !is_over(libc::SYS_read as u32, EINTR));
        assert!(is_over(libc::SYS_restart_syscall as u32, EINTR), "a handler has run");
    }

    #[test]
    fn a_finished_call_and_user_code_stay() {
        let mut regs = at(libc::SYS_read, 17);
        assert_eq!(rewind(&mut regs, Eintr::Ours), None);
        assert_eq!((regs.rip, regs.rax), (0x1002, 17));
        let mut regs = at(-1, ERESTARTSYS);
        assert_eq!(rewind(&mut regs, Eintr::Ours), None);
        assert_eq!(regs.rip, 0x1002);
    }
}
