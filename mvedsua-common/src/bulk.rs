//! What the recorder's eBPF programs and the daemon tell each other.
//!
//! A thread in *bulk* runs without stops: its calls are written into a ring buffer when they return, with the memory that
//! belongs to them. Which memory that is, the programs read from [`Plan`]s, one for each call, which the daemon derives from
//! the table of system calls. What a plan cannot say, or what fails to be read, is looked at while the thread stands still:
//! the program sends it the *mark*, a signal that it ignores by default and that its tracer sees all the same.
//!
//! ```text
//! one record:  Header, then for each piece of memory a PieceHeader and its bytes, filled up to a multiple of 8
//! ```

/// One more than the highest number of a call that has a plan.
pub const CALLS: u32 = 512;

/// Pieces that a plan names.
pub const PLANNED: usize = 8;

/// The longest piece, bytes. A longer one is looked at while its thread stands still.
pub const LONGEST_PIECE: u32 = 32 << 10;

/// Where the last piece of a record may begin, bytes from its start.
pub const LAST_PIECE: u32 = 64 << 10;

/// Iovecs of one call that are followed.
pub const MOST_IOVECS: u32 = 16;

/// Size of the ring buffer, bytes.
pub const RING_BYTES: u32 = 8 << 20;

/// The thread that is in bulk, if one is. One element, written by the daemon while the thread stands still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Watched {
    /// 0 where none is.
    pub tid: u32,
    /// The signal that stops the thread.
    pub mark: u32,
    /// Where the thread's ring of noted times lies in its memory, 0 where it has none.
    pub times: u64,
    /// How many bytes may wait in the ring buffer before the thread is stopped.
    pub most_waiting: u64,
}

/// The call is each version's own: nothing is recorded.
pub const KIND_SKIP: u32 = 0;
/// It is recorded when it returns.
pub const KIND_RECORD: u32 = 1;
/// The thread is stopped when it returns, and the call is looked at then.
pub const KIND_STOP: u32 = 2;
/// Like [`KIND_SKIP`] where it maps anonymous memory, else like [`KIND_STOP`].
pub const KIND_MMAP: u32 = 3;
/// It does not return: recorded when it is entered.
pub const KIND_LAST: u32 = 4;
/// It cannot be recorded when it has returned, since it has changed what it was asked.
pub const KIND_NEVER: u32 = 5;

/// What the programs do with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Plan {
    pub kind: u32,
    pub padding: u32,
    pub pieces: [PlannedPiece; PLANNED],
}

impl Plan {
    /// A plan without memory.
    #[must_use]
    pub const fn of(kind: u32) -> Plan {
        Plan { kind, padding: 0, pieces: [PlannedPiece::NONE; PLANNED] }
    }
}

/// There is no such piece.
pub const EXTENT_NONE: u8 = 0;
/// `scale` bytes.
pub const EXTENT_FIXED: u8 = 1;
/// `args[of] * scale` bytes.
pub const EXTENT_ARGUMENT: u8 = 2;
/// `result * scale` bytes, at most `args[of] * scale`.
pub const EXTENT_RESULT: u8 = 3;
/// A string with its NUL.
pub const EXTENT_STRING: u8 = 4;
/// An array of `args[of]` iovecs, and what they point to.
pub const EXTENT_VECTOR: u8 = 5;
/// The same of which the call has filled as many bytes as the result says.
pub const EXTENT_FILLED: u8 = 6;
/// As many bytes as the number at `args[of]` says.
pub const EXTENT_BEHIND: u8 = 7;
/// A set of `args[of]` bits in whole words.
pub const EXTENT_BITS: u8 = 8;

/// When a piece is read, and whether it has to be there.
pub const AT_ENTRY: u8 = 1;
pub const AT_EXIT: u8 = 2;
/// At the entry, from an argument that may be no address.
pub const AT_ENTRY_PERHAPS: u8 = 3;
/// At the exit, from an argument that may be no address.
pub const AT_EXIT_PERHAPS: u8 = 4;

/// A piece of memory of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PlannedPiece {
    /// Which argument points to it.
    pub arg: u8,
    pub extent: u8,
    /// The argument that its length depends on.
    pub of: u8,
    pub when: u8,
    pub scale: u32,
}

impl PlannedPiece {
    pub const NONE: PlannedPiece = PlannedPiece { arg: 0, extent: EXTENT_NONE, of: 0, when: 0, scale: 0 };
}

/// Added to when a piece was read: it is a string, and ends where that does.
pub const STRING: u32 = 0x100;

/// The thread was sent the mark.
pub const MARKED: u32 = 1;
/// The call is to be looked at while the thread stands still: not all that belongs to it is here.
pub const UNFINISHED: u32 = 2;
/// The call was entered and does not return.
pub const ENTERED: u32 = 4;
/// The mark is blocked: the thread does not stand still.
pub const UNSTOPPABLE: u32 = 8;
/// See [`KIND_NEVER`].
pub const UNKNOWN: u32 = 16;

/// What a record begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    pub tid: u32,
    pub nr: u32,
    pub args: [u64; 6],
    pub ret: i64,
    /// When the call returned, `CLOCK_MONOTONIC`, nanoseconds; when it was entered, of one that was interrupted.
    pub at_ns: u64,
    /// How many times the thread had noted by then (the head of its ring).
    pub times: u64,
    /// The signals that the thread had blocked when it entered the call.
    pub blocked: u64,
    pub flags: u32,
    /// How many bytes follow.
    pub bytes: u32,
}

/// What a piece begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PieceHeader {
    pub addr: u64,
    pub len: u32,
    /// [`AT_ENTRY`] or [`AT_EXIT`], perhaps with [`STRING`].
    pub when: u32,
}

/// Records that were lost. One element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Lost {
    pub records: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_no_hidden_padding() {
        assert_eq!(size_of::<Watched>(), 24);
        assert_eq!(size_of::<PlannedPiece>(), 8);
        assert_eq!(size_of::<Plan>(), 8 + 8 * PLANNED);
        assert_eq!(size_of::<Header>(), 8 + 48 + 32 + 8);
        assert_eq!(size_of::<PieceHeader>(), 16);
    }
}
