//! The columns that say what a call means, beside its arguments and its class.
//!
//! Each answers one question that recorder, matcher, replayer or monitor ask of a call. What most calls are stands first in each,
//! and is what a row says that does not name the column. A question that only one place asks, and that is answered by doing
//! something else for each call, is no column.

use super::irregular;
use super::model::{Irregular, Row};

/// Says what a call may wait for, signal(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Wait {
    /// It returns as soon as the kernel has done it.
    #[default]
    Never,
    /// For bytes, a message or a connection where none is there yet.
    Input,
    /// For somebody to make room or to give way: a full pipe, a lock of a file, the other end of a FIFO.
    Others,
    /// For a descriptor to be ready, or for a time to be over.
    Ready,
    /// For a time to be over.
    Time,
    /// For a child.
    Child,
    /// For another thread of the process; the operations of `futex(2)` that do are named by [`waits_inside`].
    Thread,
    /// For a signal that is delivered.
    Signal,
    /// For a signal that it takes, so that no handler runs.
    TakenSignal,
    /// For what the call waits for that it goes on with.
    Resumed,
}

impl Wait {
    /// Says whether to wait is the purpose of the call, so that it is no news when it is slow.
    #[must_use]
    pub const fn is_purpose(self) -> bool {
        match self {
            Wait::Never | Wait::Input | Wait::Others => false,
            Wait::Ready
            | Wait::Time
            | Wait::Child
            | Wait::Thread
            | Wait::Signal
            | Wait::TakenSignal
            | Wait::Resumed => true,
        }
    }

    /// Says whether the call waits for something to come in, or for a time, and may be ended as by a signal before it has.
    #[must_use]
    pub const fn takes_in(self) -> bool {
        match self {
            Wait::Input | Wait::Ready | Wait::Time | Wait::Signal => true,
            Wait::Never | Wait::Others | Wait::Child | Wait::Thread | Wait::TakenSignal | Wait::Resumed => false,
        }
    }
}

/// Says whether a call moves something where it succeeds, and which way.
///
/// Calls that only look, or wait, move nothing, nor do those that change what a name or a descriptor stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Moves {
    #[default]
    Nothing,
    /// Bytes or messages into the second argument's memory, those that come next.
    In,
    /// The same from a place in a file that the fourth argument names.
    InFrom,
    /// Bytes or messages out of the second argument's memory, to where the next ones go.
    Out,
    /// The same to a place in a file that the fourth argument names.
    OutTo,
    /// From one descriptor to another, without the program's memory.
    Between,
    /// A connection in.
    Connection,
}

/// Says what a call does to the numbers of descriptors, where it succeeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fds {
    #[default]
    Keeps,
    /// The result is a new one.
    Makes(Made),
    /// Two new ones, in the memory behind this argument.
    MakesTwo { at: u8, what: Made },
    /// The result is another number for the first argument.
    Duplicates,
    /// The second argument becomes another number for the first one; what it stood for is closed.
    DuplicatesOnto,
    /// The first argument is closed.
    Closes,
    /// Those from the first argument to the second are closed, or marked for the end of the program (`close_range(2)`).
    ClosesRange,
    /// New ones may come in a message, `SCM_RIGHTS` of unix(7).
    Receives,
}

/// Says what stands behind a new descriptor, where that is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Made {
    Other,
    /// What the call's path names.
    File,
    Socket,
    /// A connection of the socket that the first argument is.
    Connection,
    Pipe,
    Epoll,
    /// What wakes a thread that waits for it once it is written to.
    Event,
}

/// Says what it means that one version makes a call and the other one does not, once they have parted
/// and the version that made it is taken to be wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Alone {
    /// The other version may miss what it got or changed.
    #[default]
    Parts,
    /// The world got something, and the version nothing but how much of it.
    Output,
    /// It only asked.
    Question,
    /// It has a file of its own from then on.
    Opens,
}

/// Says what a call asks for that takes something from the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Asks {
    /// Something that is there, or nothing.
    #[default]
    World,
    /// The time, or the processor that the thread is on: it is another one whenever it is asked for.
    Time,
    /// What the process or the thread is called.
    Name(Identity),
}

/// Says who is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    Process,
    Thread,
    Parent,
}

/// Says what a call has to do with signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Signals {
    #[default]
    None,
    /// It sends one, perhaps to its own thread; the argument is the process or thread that gets it.
    Sends { to: u8 },
    /// It changes which signals are taken, so that one that waits may come with it.
    LetsIn,
}

/// Says what becomes of a call that the new version makes while it is applied in place: the leader makes none of them, so no record
/// answers it, and what has an effect, or depends on what only the leader has, ends the update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Applying {
    /// It ends the update, unless it is the version's own business at any time ([`super::Class::Local`]).
    #[default]
    Refused,
    /// It is made as it stands.
    Made,
    /// It is made on a descriptor, the first argument, that the version has opened itself since.
    OnOwn,
    /// The same, and of one that the leader has it is asked what the leader would be told.
    OnAny,
    /// It is made if the first argument, a folder, is the working one or one that the version has opened itself.
    Below,
}

/// Says what limits how long a call waits, and what it returns then.
///
/// Only of calls that answer `EINTR` to whatever wakes them: of the others the kernel itself knows how much time is left when
/// they go on (signal(7), `restart_syscall(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub after: After,
    /// The error, 0 for none.
    pub errno: i32,
}

/// Says where a limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// In this argument, milliseconds; there is none where it is below 0.
    Milliseconds { arg: u8 },
    /// In a `struct timespec` behind this argument; there is none where it is null.
    Timespec { arg: u8 },
    /// In the socket's `SO_RCVTIMEO`, socket(7).
    Receiving,
    /// In the socket's `SO_SNDTIMEO`.
    Sending,
}

impl Limit {
    const AGAIN: i32 = 11;
    const IN_PROGRESS: i32 = 115;

    /// The limit of what waits for the readiness of descriptors: it says that none is ready.
    pub(super) const fn ready(after: After) -> Limit {
        Limit { after, errno: 0 }
    }

    /// The limit of what is to be tried again.
    pub(super) const fn again(after: After) -> Limit {
        Limit { after, errno: Limit::AGAIN }
    }

    /// The limit of a connection, which is made all the same.
    pub(super) const fn connection() -> Limit {
        Limit { after: After::Sending, errno: Limit::IN_PROGRESS }
    }
}

/// Returns the row that says most of a call without looking at memory: that of its request, command or option where the call is
/// described by those, else its own.
#[must_use]
pub fn row_of(nr: u32, args: &[u64; 6]) -> Option<&'static Row> {
    irregular::chosen(nr, args).or_else(|| super::row(nr))
}

/// Says whether a call of the thread's own may wait for another thread of its process, or for a signal.
#[must_use]
pub fn waits_inside(nr: u32, args: &[u64; 6]) -> bool {
    let Some(row) = super::row(nr) else { return false };
    match row.wait {
        Wait::Thread => row.irregular != Some(Irregular::Futex) || irregular::futex_waits(args[1]),
        Wait::Signal => true,
        Wait::Never
        | Wait::Input
        | Wait::Others
        | Wait::Ready
        | Wait::Time
        | Wait::Child
        | Wait::TakenSignal
        | Wait::Resumed => false,
    }
}
