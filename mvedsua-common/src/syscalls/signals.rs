//! Signals: dispositions and masks are each version's own, sending is an output, waiting an input.

use super::columns::{After, Limit, Signals, Wait};
use super::model::Arg::{Addr, Fd, Flags, Int, Int32, Mem};
use super::model::Dir::Out;
use super::model::Extent::{FromArg, IfPositive};
use super::model::Outcome::{Fd as NewFd, Int as Num, Never};
use super::model::{Irregular, Row};
use super::words::{check, compare, local, reads, reads_arg, supply};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    local(13, "rt_sigaction", &[Int, Addr, Addr, Int], Num).signals(Signals::LetsIn),
    local(14, "rt_sigprocmask", &[Int, Addr, Addr, Int], Num).signals(Signals::LetsIn),
    local(15, "rt_sigreturn", &[], Never).signals(Signals::LetsIn),
    local(34, "pause", &[], Num).note("ended by a signal alone, which each version is given").waits(Wait::Signal),
    compare(62, "kill", &[Int32, Int32], Num).signals(Signals::Sends { to: 0 }),
    supply(127, "rt_sigpending", &[Mem(Out, FromArg { len: 1, scale: 1 }), Int], Num),
    supply(128, "rt_sigtimedwait", &[reads_arg(3), Mem(Out, IfPositive(128)), reads(16), Int], Num).waits(Wait::TakenSignal).limit(Limit::again(After::Timespec { arg: 2 })),
    compare(129, "rt_sigqueueinfo", &[Int32, Int32, reads(128)], Num).signals(Signals::Sends { to: 0 }),
    local(130, "rt_sigsuspend", &[Addr, Int], Num).note("its mask holds while the signal is delivered").waits(Wait::Signal),
    local(131, "sigaltstack", &[Addr, Addr], Num),
    compare(200, "tkill", &[Int32, Int32], Num).signals(Signals::Sends { to: 0 }),
    supply(219, "restart_syscall", &[], Num).but(Irregular::Restart).waits(Wait::Resumed),
    compare(234, "tgkill", &[Int32, Int32, Int32], Num).signals(Signals::Sends { to: 1 }),
    compare(297, "rt_tgsigqueueinfo", &[Int32, Int32, Int32, reads(128)], Num).signals(Signals::Sends { to: 1 }),
    compare(424, "pidfd_send_signal", &[Fd, Int32, reads(128), Flags], Num),
    supply(434, "pidfd_open", &[Int32, Flags], NewFd),
];

const _: () = check(ROWS);
