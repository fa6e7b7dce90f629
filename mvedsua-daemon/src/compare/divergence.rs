//! The value that says where two versions parted.

use serde::{Deserialize, Serialize};

use crate::record::{Seq, Slot};

/// A call as a divergence shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallView {
    pub nr: u32,
    pub args: [u64; 6],
    /// A limited window of the input memory that was compared, per argument.
    pub inputs: Vec<(u8, Vec<u8>)>,
    /// The result, where there is one.
    pub ret: Option<i64>,
}

/// A record that matched shortly before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchedCall {
    pub seq: Seq,
    pub slot: Slot,
    pub nr: u32,
    pub args: [u64; 6],
    pub ret: i64,
}

/// One frame of the follower's stack, innermost first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    pub address: u64,
    /// `function+offset (object)`, or `function file:line (object)`, where a symbol is known.
    pub symbol: Option<String>,
}

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DivergenceKind {
    /// The follower made another call.
    Call,
    /// The same call with another value in argument `arg`.
    Argument { arg: u8, expected: u64, actual: u64 },
    /// The same call with other bytes behind argument `arg`; `offset` is the first that differs.
    Payload { arg: u8, offset: u64, expected_len: u64, actual_len: u64 },
    /// The follower made a call after the leader's thread had ended, or ended before it.
    End,
    /// No thread of the follower could take the next record: the threads took locks in another order.
    Order { waiting: Vec<String> },
    /// The follower received a fatal signal.
    Crash { signo: i32, address: u64 },
    /// The follower made no call within the deadline although a record was waiting for it.
    Hang { waited_ms: u64 },
    /// The leader, which is the new version, did not come to an output that the follower waits at.
    Silent { waited_ms: u64 },
    /// The follower ended or was killed from outside.
    Gone { status: String },
    /// The leader or the follower made a call that is refused.
    Refused { call: String, reason: String },
    /// The stream of records has a hole, or something could not be read or written.
    Gap { reason: String },
}

impl DivergenceKind {
    /// Says whether the follower can go on although it parted: it is there, and nothing is missing of what it lived through.
    #[must_use]
    pub fn leaves_the_follower_sound(&self) -> bool {
        match self {
            DivergenceKind::Call
            | DivergenceKind::Argument { .. }
            | DivergenceKind::Payload { .. }
            | DivergenceKind::Silent { .. } => true,
            DivergenceKind::End
            | DivergenceKind::Order { .. }
            | DivergenceKind::Crash { .. }
            | DivergenceKind::Hang { .. }
            | DivergenceKind::Gone { .. }
            | DivergenceKind::Refused { .. }
            | DivergenceKind::Gap { .. } => false,
        }
    }
}

/// Says where and how the follower parted from the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    pub kind: DivergenceKind,
    pub slot: Slot,
    /// The record that was due, where there was one.
    pub seq: Option<Seq>,
    pub expected: Option<CallView>,
    pub actual: Option<CallView>,
    /// The last records that matched in this slot, oldest first.
    pub last_matched: Vec<MatchedCall>,
    pub backtrace: Vec<Frame>,
    /// Threads had run beside each other, and in which order they wrote to memory is not known; so it may come of that.
    #[serde(default)]
    pub raced: bool,
    /// The program reads the processor's counter (RDTSC), and nobody records what it reads there; so it may come of that.
    #[serde(default)]
    pub unrecorded_clock: bool,
    /// It answers a line that may have been read in part before any rule was applied, so it may come of that.
    #[serde(default)]
    pub half_read: bool,
    /// What the thread had been told last and which call it was to make, in a number: equal in another attempt when it is told
    /// the same there. `None` where no record was due.
    #[serde(default)]
    pub situation: Option<u64>,
    /// What a program that applies its new version itself has said of that, and what may explain it.
    #[serde(default)]
    pub remark: Option<String>,
    /// The rule that came nearest, where rules were given.
    pub nearest_rule: Option<String>,
}

/// How many bytes of an argument's memory a [`CallView`] shows at most.
pub const WINDOW: usize = 96;
/// How many equal bytes it shows before the first one that differs.
pub const WINDOW_BEFORE: u64 = 32;

/// Returns the offset of the first byte that a [`CallView`] shows of the argument: a little before the difference.
pub(super) fn window_start(kind: &DivergenceKind, arg: u8) -> u64 {
    match kind {
        DivergenceKind::Payload { arg: differs, offset, .. } if *differs == arg => offset.saturating_sub(WINDOW_BEFORE),
        _ => 0,
    }
}

impl Divergence {
    /// Returns the offset, within the argument's memory, of the first byte that `expected` and `actual` show of it.
    #[must_use]
    pub fn window_start(&self, arg: u8) -> u64 {
        window_start(&self.kind, arg)
    }

    /// Returns a key that is equal for divergences with the same cause: the kind without its particulars, the calls, and
    /// the functions on the stack. It does not depend on the run, so reports of different updates can be grouped.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Fnv::default();
        let (name, detail): (&str, String) = match &self.kind {
            DivergenceKind::Call => ("call", String::new()),
            DivergenceKind::Argument { arg, .. } => ("argument", arg.to_string()),
            DivergenceKind::Payload { arg, .. } => ("payload", arg.to_string()),
            DivergenceKind::End => ("end", String::new()),
            DivergenceKind::Order { .. } => ("order", String::new()),
            DivergenceKind::Crash { signo, .. } => ("crash", signo.to_string()),
            DivergenceKind::Hang { .. } => ("hang", String::new()),
            DivergenceKind::Silent { .. } => ("silent", String::new()),
            DivergenceKind::Gone { status } => ("gone", status.clone()),
            DivergenceKind::Refused { call, .. } => ("refused", call.clone()),
            DivergenceKind::Gap { reason } => ("gap", reason.clone()),
        };
        hash.add(name.as_bytes());
        hash.add(detail.as_bytes());
        for call in [&self.expected, &self.actual] {
            hash.add(&call.as_ref().map_or(u32::MAX, |call| call.nr).to_le_bytes());
        }
        for symbol in self.backtrace.iter().filter_map(|frame| frame.symbol.as_deref()) {
            // Without the offset, which changes with the compiler.
            hash.add(symbol.split(['+', ' ']).next().unwrap_or_default().as_bytes());
        }
        hash.0
    }
}

/// FNV-1a, 64 bits: the standard library's hashers promise nothing across versions.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Adds a field; the separator keeps `ab, c` and `a, bc` apart.
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&[0xff]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
