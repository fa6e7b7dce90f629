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
    /// `function+offset (object)` where a symbol is known.
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
    /// The follower ended or was killed from outside.
    Gone { status: String },
    /// The leader or the follower made a call that is refused.
    Refused { call: String, reason: String },
    /// The stream of records has a hole, or something could not be read or written.
    Gap { reason: String },
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
    /// The rule that came nearest, where rules were given.
    pub nearest_rule: Option<String>,
}
