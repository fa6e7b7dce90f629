//! The types a row of the system-call table is made of.

/// Says which way the bytes behind a pointer travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dir {
    /// The kernel reads the memory.
    In,
    /// The kernel writes the memory.
    Out,
    /// The kernel reads the memory and writes it.
    InOut,
}

/// Says how many bytes stand behind a pointer. Argument indices count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// Always this many bytes.
    Fixed(u32),
    /// `args[len] * scale` bytes.
    FromArg { len: u8, scale: u32 },
    /// `result * scale` bytes, never more than `args[cap] * scale`; nothing when the call failed.
    FromRet { cap: u8, scale: u32 },
    /// The length is an integer of `width` bytes at the address `args[len]`; for an output it is read before the call
    /// (the room) and after it (the full length), and the smaller of the two was written. See `getsockname(2)`.
    FromPtr { len: u8, width: u8 },
    /// Up to and including the terminating NUL.
    CStr,
    /// An array of `args[count]` `struct iovec`; for an output the result says how many bytes were filled.
    IoVec { count: u8 },
    /// One `struct msghdr` with its name, iovecs and control data.
    MsgHdr,
    /// Only the irregular handler of the row knows.
    Irregular,
}

/// Describes one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arg {
    /// A number that both versions must pass alike.
    Int,
    /// A bit set that both versions must pass alike.
    Flags,
    /// A descriptor number; alike in both versions, since the follower's table mirrors the leader's.
    Fd,
    /// An address or other value that may differ between versions and is never compared.
    Addr,
    /// A pointer to memory that the kernel reads or writes. A null pointer stands for no memory.
    Mem(Dir, Extent),
}

/// Says what leader and follower do with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The leader performs it; the follower gets its result and the memory it wrote. Ordered by its exit.
    Supply,
    /// Like `Supply`, and the input memory must be equal too: what the world can see. Ordered by its entry.
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

/// Names the calls that a row cannot describe; each has its reason in `irregular.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Irregular {
    Ioctl,
    Fcntl,
    Prctl,
    ArchPrctl,
    Clone,
    Clone3,
    Futex,
    Mmap,
    EpollCtl,
    EpollWait,
    Msghdr,
    Select,
    Poll,
    Exit,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The x86-64 number, `arch/x86/entry/syscalls/syscall_64.tbl`.
    pub nr: u32,
    pub name: &'static str,
    pub class: Class,
    pub args: &'static [Arg],
    pub outcome: Outcome,
    /// Set where the row alone does not tell the whole story.
    pub irregular: Option<Irregular>,
    /// Why the row is as it is, where that is not obvious; empty otherwise.
    pub note: &'static str,
}

/// Says at which of its two stops a call takes its place in the total order (DESIGN: an output is ordered by its entry,
/// an input by its exit; otherwise a reader could be ordered before the write that woke it).
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
