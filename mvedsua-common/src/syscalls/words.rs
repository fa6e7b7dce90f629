//! The words that rows are written with, and the checks that they pass when the crate is compiled.

use super::columns::{After, Alone, Applying, Asks, Fds, Limit, Moves, Signals, Wait};
use super::model::{Arg, Class, Dir, Extent, Irregular, Outcome, Row};

/// A path or other string that the kernel reads.
pub(super) const PATH: Arg = Arg::Mem(Dir::In, Extent::CStr);

/// Memory of a fixed size that the kernel reads.
pub(super) const fn reads(bytes: u32) -> Arg {
    Arg::Mem(Dir::In, Extent::Fixed(bytes))
}

/// Memory of a fixed size that the kernel writes.
pub(super) const fn writes(bytes: u32) -> Arg {
    Arg::Mem(Dir::Out, Extent::Fixed(bytes))
}

/// Memory of a fixed size that the kernel reads and writes.
pub(super) const fn updates(bytes: u32) -> Arg {
    Arg::Mem(Dir::InOut, Extent::Fixed(bytes))
}

/// A buffer that the kernel reads, of as many bytes as argument `len` says.
pub(super) const fn reads_arg(len: u8) -> Arg {
    Arg::Mem(Dir::In, Extent::FromArg { len, scale: 1 })
}

/// A buffer that the kernel fills with as many bytes as the result says, with room for `args[cap]`.
pub(super) const fn fills(cap: u8) -> Arg {
    Arg::Mem(Dir::Out, Extent::FromRet { cap, scale: 1 })
}

/// A buffer whose room and length are behind argument `len`.
pub(super) const fn fills_ptr(len: u8) -> Arg {
    Arg::Mem(Dir::Out, Extent::FromPtr { len })
}

/// The length that belongs to the buffer in argument `of`.
pub(super) const fn length_of(of: u8) -> Arg {
    Arg::Mem(Dir::Always, Extent::LengthOf { of })
}

/// The same where the length is told although argument `of` is null.
pub(super) const fn length_told(of: u8) -> Arg {
    Arg::Mem(Dir::Always, Extent::LengthTold { of })
}

/// A row of [`Class::Supply`].
pub(super) const fn supply(nr: u32, name: &'static str, args: &'static [Arg], outcome: Outcome) -> Row {
    Row::new(nr, name, Class::Supply, args, outcome)
}

/// A row of [`Class::Compare`].
pub(super) const fn compare(nr: u32, name: &'static str, args: &'static [Arg], outcome: Outcome) -> Row {
    Row::new(nr, name, Class::Compare, args, outcome)
}

/// A row of [`Class::Local`].
pub(super) const fn local(nr: u32, name: &'static str, args: &'static [Arg], outcome: Outcome) -> Row {
    Row::new(nr, name, Class::Local, args, outcome)
}

/// A row of [`Class::Both`].
pub(super) const fn both(nr: u32, name: &'static str, args: &'static [Arg], outcome: Outcome) -> Row {
    Row::new(nr, name, Class::Both, args, outcome)
}

/// A row of [`Class::Refuse`].
pub(super) const fn refuse(nr: u32, name: &'static str, reason: &'static str) -> Row {
    Row::new(nr, name, Class::Refuse(reason), &[], Outcome::Int)
}

/// A row of a number that Linux gave away and has no call for, or no longer: it fails with `ENOSYS` whatever it is passed.
pub(super) const fn gone(nr: u32, name: &'static str) -> Row {
    Row::new(nr, name, Class::Supply, &[], Outcome::Int).note("not there in Linux 6.18: ENOSYS")
}

impl Row {
    /// Says why the row is as it is.
    pub(super) const fn note(mut self, note: &'static str) -> Row {
        self.note = note;
        self
    }

    /// Says what it may wait for.
    pub(super) const fn waits(mut self, wait: Wait) -> Row {
        self.wait = wait;
        self
    }

    /// Says what limits how long it waits.
    pub(super) const fn limit(mut self, limit: Limit) -> Row {
        self.limit = Some(limit);
        self
    }

    /// Says that it moves something.
    pub(super) const fn moves(mut self, moves: Moves) -> Row {
        self.moves = moves;
        self
    }

    /// Says what it does to the numbers of descriptors; that a result is one the outcome says.
    pub(super) const fn numbers(mut self, fds: Fds) -> Row {
        self.fds = fds;
        self
    }

    /// Says what it means where the leader alone makes it.
    pub(super) const fn alone(mut self, alone: Alone) -> Row {
        self.alone = alone;
        self
    }

    /// Says what it asks for.
    pub(super) const fn asks(mut self, asks: Asks) -> Row {
        self.asks = asks;
        self
    }

    /// Says what it has to do with signals.
    pub(super) const fn signals(mut self, signals: Signals) -> Row {
        self.signals = signals;
        self
    }

    /// Says what becomes of it while the new version is applied.
    pub(super) const fn applying(mut self, applying: Applying) -> Row {
        self.applying = applying;
        self
    }

    /// Names the handler that tells the rest.
    pub(super) const fn but(mut self, irregular: Irregular) -> Row {
        self.irregular = Some(irregular);
        self
    }
}

/// Fails the compilation of a table with a row that cannot be right.
pub(super) const fn check(rows: &[Row]) {
    let mut i = 0;
    while i < rows.len() {
        assert!(i == 0 || rows[i - 1].nr < rows[i].nr, "a file's rows are sorted by number, without doubles");
        check_row(&rows[i]);
        i += 1;
    }
}

/// Fails the compilation of a row that cannot be right: too many arguments, or one that speaks of an argument that is not
/// there or is not a number or pointer that a length can come from.
pub(super) const fn check_row(row: &Row) {
    assert!(row.args.len() <= 6, "a call has at most six arguments");
    let mut i = 0;
    while i < row.args.len() {
        if let Arg::Mem(dir, extent) = row.args[i] {
            check_extent(row.args, dir, extent);
        }
        i += 1;
    }
    if let Some(limit) = row.limit {
        check_limit(row, limit);
    }
    check_moves(row);
    check_fds(row);
    let named = match row.irregular {
        Some(Irregular::Open { flags: arg } | Irregular::Myself { arg } | Irregular::MMsg { count: arg }) => arg,
        _ => 0,
    };
    assert!(named == 0 || (named as usize) < row.args.len(), "an irregular row names an argument that it has");
}

const fn check_fds(row: &Row) {
    let is_made = matches!(row.fds, Fds::Makes(_) | Fds::Duplicates | Fds::DuplicatesOnto);
    assert!(is_made == matches!(row.outcome, Outcome::Fd), "what makes a descriptor returns one");
    if let Fds::MakesTwo { at, .. } = row.fds {
        let is_pair = matches!(row.args[at as usize], Arg::Mem(Dir::Out, Extent::Fixed(8)));
        assert!(is_pair, "two descriptors are eight bytes");
    }
}

const fn check_moves(row: &Row) {
    let second = if row.args.len() > 1 { row.args[1] } else { Arg::Addr };
    let fourth = if row.args.len() > 3 { row.args[3] } else { Arg::Addr };
    match row.moves {
        Moves::In | Moves::InFrom => assert!(matches!(second, Arg::Mem(Dir::Out, _)), "what comes in goes to memory"),
        Moves::Out | Moves::OutTo => assert!(matches!(second, Arg::Mem(..)), "what goes out comes from memory"),
        Moves::Nothing | Moves::Between | Moves::Connection => {}
    }
    if matches!(row.moves, Moves::InFrom | Moves::OutTo) {
        assert!(matches!(fourth, Arg::Int), "a place in a file is a number");
    }
}

const fn check_limit(row: &Row, limit: Limit) {
    assert!(!matches!(row.wait, Wait::Never), "what does not wait needs no limit");
    match limit.after {
        After::Milliseconds { arg } => check_number(row.args, arg),
        After::Timespec { arg } => {
            let is_span = (arg as usize) < row.args.len()
                && matches!(row.args[arg as usize], Arg::Mem(Dir::In, Extent::Fixed(16)));
            assert!(is_span, "a span of time is a struct timespec");
        }
        After::Receiving | After::Sending => {
            assert!(matches!(row.args[0], Arg::Fd), "a socket is a descriptor");
        }
    }
}

const fn check_extent(args: &[Arg], dir: Dir, extent: Extent) {
    match extent {
        Extent::FromArg { len, .. } => check_number(args, len),
        Extent::FromRet { cap, .. } => {
            check_number(args, cap);
            assert!(matches!(dir, Dir::Out), "only an output is as long as the result says");
        }
        Extent::IoVec { count } | Extent::MMsgHdr { count } | Extent::PollFds { count } => check_number(args, count),
        Extent::FdSet { nfds } => check_number(args, nfds),
        Extent::MsgBuf { size: at } | Extent::Semaphores { id: at } | Extent::ToldSize { cap: at } => {
            check_number(args, at);
        }
        Extent::MountId { flags } => {
            assert!((flags as usize) < args.len() && matches!(args[flags as usize], Arg::Flags), "flags are flags");
        }
        Extent::FromPtr { len } => {
            assert!((len as usize) < args.len(), "the length's argument exists");
            let is_length =
                matches!(args[len as usize], Arg::Mem(_, Extent::LengthOf { .. } | Extent::LengthTold { .. }));
            assert!(is_length, "a length behind a pointer is declared as such");
        }
        Extent::LengthOf { of } | Extent::LengthTold { of } => {
            assert!((of as usize) < args.len(), "the buffer's argument exists");
            assert!(matches!(args[of as usize], Arg::Mem(..)), "a length belongs to a buffer");
        }
        Extent::Fixed(_)
        | Extent::IfPositive(_)
        | Extent::CStr
        | Extent::MsgHdr
        | Extent::EpollEvent
        | Extent::SigEvent
        | Extent::Flock
        | Extent::IfReq
        | Extent::IfReqIndex
        | Extent::IfConf
        | Extent::EthTool
        | Extent::SizeFirst { .. }
        | Extent::FileHandle
        | Extent::XattrArgs
        | Extent::Strings
        | Extent::CloneArgs => {}
    }
}

const fn check_number(args: &[Arg], at: u8) {
    assert!((at as usize) < args.len(), "the length's argument exists");
    assert!(matches!(args[at as usize], Arg::Int | Arg::Int32), "a length is a number");
}
