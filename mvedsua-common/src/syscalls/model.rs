//! The types a row of the system-call table is made of.

use super::columns::{Alone, Applying, Asks, Fds, Limit, Made, Moves, Signals, Wait};

/// Says which way the bytes behind a pointer travel, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dir {
    /// The kernel reads the memory.
    In,
    /// The kernel writes the memory when the call succeeds.
    Out,
    /// The kernel reads the memory and, when the call succeeds, writes it.
    InOut,
    /// The kernel reads the memory and may write it back even when the call fails: a timeout with what is left of it
    /// (`select(2)`), a length that was too small (`getsockopt(2)`).
    Always,
    /// The kernel writes the time that was left, and only when a signal ended the call (`nanosleep(2)`).
    TimeLeft,
}

impl Dir {
    /// Tells whether the kernel reads the memory.
    #[must_use]
    pub const fn is_read(self) -> bool {
        matches!(self, Dir::In | Dir::InOut | Dir::Always)
    }
}

/// Says how many bytes stand behind a pointer. Argument indices count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// Always this many bytes.
    Fixed(u32),
    /// This many bytes when the result is above 0 (`wait4` with `WNOHANG` writes nothing for the result 0).
    IfPositive(u32),
    /// `args[len] * scale` bytes.
    FromArg { len: u8, scale: u32 },
    /// `result * scale` bytes, never more than `args[cap] * scale`; nothing when the call failed.
    FromRet { cap: u8, scale: u32 },
    /// The length is an integer of four bytes at the address `args[len]`; it is read before the call (the room) and after
    /// it (the full length), and the smaller of the two was written. See `getsockname(2)`.
    FromPtr { len: u8 },
    /// The integer that [`Extent::FromPtr`] speaks of; untouched when `args[of]`, the buffer, is null.
    LengthOf { of: u8 },
    /// The same where the length is told although there is no buffer.
    LengthTold { of: u8 },
    /// Up to and including the terminating NUL, never more than `PATH_MAX`.
    CStr,
    /// An array of `args[count]` `struct iovec`; for an output the result says how many bytes were filled.
    IoVec { count: u8 },
    /// One `struct msghdr` with its name, iovecs and control data.
    MsgHdr,
    /// An array of `args[count]` `struct mmsghdr`; the result says how many were used.
    MMsgHdr { count: u8 },
    /// An array of `args[count]` `struct pollfd`: descriptor and events are read, the whole is written.
    PollFds { count: u8 },
    /// A set of `args[nfds]` bits in whole words of eight bytes.
    FdSet { nfds: u8 },
    /// One `struct epoll_event`: the events are compared, the data belongs to the version that registered it. Not read
    /// when `args[1]` says `EPOLL_CTL_DEL`.
    EpollEvent,
    /// One `struct sigevent`: signal and kind are compared, the value belongs to its version.
    SigEvent,
    /// One `struct flock` without its padding; its `l_pid` is only written.
    Flock,
    /// One `struct ifreq`: the name is read, the whole is written.
    IfReq,
    /// One `struct ifreq` of which the kernel reads the interface's number and writes the whole.
    IfReqIndex,
    /// One `struct ifreq` of which the kernel reads the name, and the structure behind it that begins with a command of ethtool.
    EthTool,
    /// One `struct ifconf` and the buffer that it points to.
    IfConf,
    /// One `struct msgbuf` of System V: its type, eight bytes, and `args[size]` bytes of text; for an output the result says
    /// how many.
    MsgBuf { size: u8 },
    /// A value of two bytes for each semaphore of the set `args[id]`, as many as [`super::regions::Memory`] says.
    Semaphores { id: u8 },
    /// A structure that the kernel reads and whose first four bytes are its size; `least` bytes where they say 0.
    SizeFirst { least: u32 },
    /// A structure that the kernel writes and whose first four bytes then say its size, never more than `args[cap]`.
    ToldSize { cap: u8 },
    /// One `struct file_handle`. Where it is made only the room in it is read; one that is too small (`EOVERFLOW`) is told
    /// the size that it needs.
    FileHandle,
    /// The mount id that `name_to_handle_at` tells even where the handle is too small: four bytes, or eight if `args[flags]`
    /// asks for the unique one.
    MountId { flags: u8 },
    /// One `struct xattr_args` and the value that it points to.
    XattrArgs,
    /// A list of strings, each up to and including its NUL, that a null pointer ends: `argv` and `envp` of `execve(2)`.
    Strings,
    /// One `struct clone_args`; where the flags ask for it, the parent's copy of the tid and the pidfd.
    CloneArgs,
}

/// Describes one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arg {
    /// A number of 64 bits that both versions must pass alike.
    Int,
    /// A number of 32 bits that both versions must pass alike; the upper half of the register is whatever was there.
    Int32,
    /// A bit set of 32 bits that both versions must pass alike; the upper half of the register is whatever was there.
    Flags,
    /// A bit set of a whole register.
    LongFlags,
    /// A descriptor number; alike in both versions, since the follower's table mirrors the leader's. Only its low 32 bits
    /// count: the rest of the register is whatever the compiler left there.
    Fd,
    /// An address or other value that may differ between versions and is never compared.
    Addr,
    /// A pointer to memory that the kernel reads or writes. A null pointer stands for no memory.
    Mem(Dir, Extent),
}

/// Says what leader and follower do with a call.
///
/// The arguments and the input memory of `Supply` and `Compare` alike must be equal in both versions: a follower that asks
/// another question must not get the leader's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It takes something from the world: the leader performs it; the follower gets its result and the memory it wrote.
    /// Ordered by its exit.
    Supply,
    /// It changes something that others can see, an output: performed by the leader only, supplied like `Supply`. Ordered
    /// by its entry.
    Compare,
    /// Each version performs it for itself; it is neither recorded nor compared.
    Local,
    /// Both perform it and the results are mapped onto each other (threads are born and end).
    Both,
    /// Not supported; the reason is for the operator.
    Refuse(&'static str),
}

/// Says what the result of a successful call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A plain number, 0 for most calls.
    Int,
    /// A count of bytes or items.
    Size,
    /// A new descriptor.
    Fd,
    /// An address.
    Addr,
    /// A process or thread id.
    Pid,
    /// The call does not return.
    Never,
}

/// Names the calls that a row alone cannot describe; `irregular` says for each what is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Irregular {
    /// By request.
    Ioctl,
    /// By command.
    Fcntl,
    /// By option.
    Prctl,
    /// By code.
    ArchPrctl,
    /// A thread or a process, by flags.
    Clone,
    /// The same with the flags in memory.
    Clone3,
    /// A process, always.
    Fork,
    /// By operation: those that compare real thread ids are refused.
    Futex,
    /// Anonymous memory or a file.
    Mmap,
    /// An input, or an output when it creates or truncates; the value names the argument with the flags.
    Open { flags: u8 },
    /// The event's data is per version: the replayer keeps it by descriptor.
    EpollCtl,
    /// The events carry the data that the leader registered: the replayer translates it by descriptor.
    EpollWait,
    /// By option: some carry pointers.
    SockOpt,
    /// How the remaining time is written depends on the flags.
    ClockNanosleep,
    /// Local when the argument says "myself" with 0, as the row says otherwise; the value names the argument.
    Myself { arg: u8 },
    /// The same for a priority, whose first argument must name a single thread too.
    Priority,
    /// By command: some carry memory, others a number.
    SemCtl,
    /// By command.
    MsgCtl,
    /// An input, or an output when it creates the queue.
    MqOpen,
    /// One kind of comparison has its second half in memory.
    Kcmp,
    /// By the kind of rule.
    LandlockRule,
    /// Reads a limit, or sets one.
    Prlimit,
    /// By the version in memory, and local for the caller itself.
    Capabilities,
    /// As many messages as the parts of a piece can number.
    MMsg { count: u8 },
    /// As many descriptors as the parts of a piece can number.
    Poll,
    /// Goes on with the call that a stop interrupted.
    Restart,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The x86-64 number, `arch/x86/entry/syscalls/syscall_64.tbl`.
    pub nr: u32,
    /// The call's name; a row of one request, command or option of a call is `call/REQUEST`.
    pub name: &'static str,
    pub class: Class,
    pub args: &'static [Arg],
    pub outcome: Outcome,
    /// Set where the row alone does not tell the whole story.
    pub irregular: Option<Irregular>,
    pub wait: Wait,
    /// Set where the time that it waits may be limited and the kernel does not keep it.
    pub limit: Option<Limit>,
    pub moves: Moves,
    pub fds: Fds,
    pub applying: Applying,
    pub signals: Signals,
    pub asks: Asks,
    pub alone: Alone,
    /// Why the row is as it is, where that is not obvious; empty otherwise.
    pub note: &'static str,
}

impl Row {
    /// Returns a row whose columns say what they say of most calls.
    #[must_use]
    pub const fn new(nr: u32, name: &'static str, class: Class, args: &'static [Arg], outcome: Outcome) -> Row {
        let fds = if matches!(outcome, Outcome::Fd) { Fds::Makes(Made::Other) } else { Fds::Keeps };
        Row {
            nr,
            name,
            class,
            args,
            outcome,
            irregular: None,
            wait: Wait::Never,
            limit: None,
            moves: Moves::Nothing,
            fds,
            applying: Applying::Refused,
            signals: Signals::None,
            asks: Asks::World,
            alone: Alone::Parts,
            note: "",
        }
    }
}

impl Row {
    /// Returns which argument is the path that the call is about, the first one where there are two.
    #[must_use]
    pub fn path(&self) -> Option<u8> {
        let at = self.args.iter().position(|arg| matches!(arg, Arg::Mem(Dir::In, Extent::CStr)))?;
        u8::try_from(at).ok()
    }

    /// Returns the flags with which a path is opened, of a call that takes them as an argument.
    #[must_use]
    pub fn open_flags(&self, args: &[u64; 6]) -> Option<u64> {
        match self.irregular {
            Some(Irregular::Open { flags }) => Some(args[usize::from(flags)]),
            _ => None,
        }
    }

    /// Says whether the thread or the process ends by it.
    #[must_use]
    pub fn ends(&self) -> bool {
        self.class == Class::Both && self.outcome == Outcome::Never
    }

    /// Returns the descriptor that the first argument is, if it is one.
    #[must_use]
    pub fn first_descriptor(&self, args: &[u64; 6]) -> Option<i32> {
        matches!(self.args.first(), Some(Arg::Fd)).then_some(args[0] as i32)
    }
}

/// Says at which of its two stops a call takes its place in the total order (an output is ordered by its entry, an input by
/// its exit; otherwise a reader could be ordered before the write that woke it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    ByEntry,
    ByExit,
}

impl Class {
    /// Returns the place of the class in the total order, or `None` for what is not ordered at all.
    #[must_use]
    pub const fn order(self) -> Option<Order> {
        match self {
            Class::Supply => Some(Order::ByExit),
            Class::Compare | Class::Both => Some(Order::ByEntry),
            Class::Local | Class::Refuse(_) => None,
        }
    }
}
