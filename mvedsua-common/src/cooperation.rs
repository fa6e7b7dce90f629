//! What a program that is built with the SDK and the daemon agree on.
//!
//! The program has one [`Control`] block, which the daemon finds by its ELF symbol [`SYMBOL`]. To ask for an update the
//! daemon writes the path of the new version's object and [`DAEMON`] into the *follower's* block, and then 1 into the flag
//! that every update point of the running version looks at ([`Control::flag`] says where that flag is). The program
//! answers with *markers*: `prctl(2)` calls with the option [`MARKER`], which no kernel knows, so that one which nobody
//! intercepts fails and changes nothing.
//!
//! ```text
//! daemon                          follower
//!   path, request, flag  ──────►    every thread stops at an update point
//!                        ◄──────  prctl(MARKER, BEGIN)        its calls are its own from here on
//!                                   loads, transforms, runs the new version's entry to the same update point
//!                        ◄──────  prctl(MARKER, DOING, text, length)       or REMARK, for the report
//!                        ◄──────  prctl(MARKER, DONE)         it follows again
//!                        ◄──────  prctl(MARKER, FAILED, reason, length, class)
//! ```
//!
//! Where the program wants to know ([`Control::wants_to_know`]) the leader gets [`LEADER`] and its flag at the fork. Both
//! versions come to the same update point then, and do there what makes them agree: the leader calls the program's
//! function, the follower goes to the new version.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// The name of the control block.
pub const SYMBOL: &str = "mvedsua_control";
/// What the control block begins with.
pub const MAGIC: [u8; 16] = *b"mvedsua control\0";
/// Grows with every change of what is said here.
pub const ABI: u32 = 2;
/// The option of the marker calls.
pub const MARKER: u64 = 0x6d76_6564;
/// How long a path may be, with the zero byte at its end.
pub const PATH_LEN: usize = 4096;

/// No update is asked for.
pub const NONE: u32 = 0;
/// The daemon asks for an update; the answers are markers.
pub const DAEMON: u32 = 1;
/// The process is to update itself, without a daemon.
pub const DIRECT: u32 = 2;

/// A copy of this process goes to another version; a program that wants to know is told at its next update point.
pub const LEADER: u32 = 3;

/// Marker: every thread stands at an update point, and the update begins.
pub const BEGIN: u64 = 1;
/// Marker: the new version has come to the update point with every thread.
pub const DONE: u64 = 2;
/// Marker: the update cannot be applied. The arguments are the address and the length of the reason, and its class.
pub const FAILED: u64 = 3;

/// Marker: what the program does now, as it applies the new version; the daemon tells it where that goes wrong. The arguments are
/// the address and the length of the text.
pub const DOING: u64 = 4;
/// Marker: something about the new version that may explain a difference later on. The arguments are as with [`DOING`].
pub const REMARK: u64 = 5;

/// Class of a failure that may not come again: a lock was held, a thread did not come in time.
pub const TIMING: u64 = 1;
/// Class of a failure that will come again.
pub const LASTING: u64 = 2;

/// How an update is asked for.
#[repr(C)]
#[derive(Debug)]
pub struct Control {
    pub magic: [u8; 16],
    pub abi: u32,
    /// [`NONE`], [`DAEMON`], [`DIRECT`] or [`LEADER`].
    pub request: AtomicU32,
    /// Address of the running version's flag, an `int`; 0 before a version runs.
    pub flag: AtomicU64,
    /// How often this process was updated.
    pub generation: AtomicU32,
    /// How long the threads may take to come to their update points, milliseconds.
    pub limit_ms: AtomicU32,
    /// 1 where the program wants to be told when a copy of it is updated ([`LEADER`]).
    pub wants_to_know: AtomicU32,
    /// Where the new version's object is, ended by a zero byte.
    pub path: [AtomicU8; PATH_LEN],
}

impl Control {
    /// Returns the block of a process that nobody has asked anything.
    #[must_use]
    pub const fn new(limit_ms: u32) -> Control {
        Control {
            magic: MAGIC,
            abi: ABI,
            request: AtomicU32::new(NONE),
            flag: AtomicU64::new(0),
            generation: AtomicU32::new(0),
            limit_ms: AtomicU32::new(limit_ms),
            wants_to_know: AtomicU32::new(0),
            path: [const { AtomicU8::new(0) }; PATH_LEN],
        }
    }
}
