//! How the leader's threads run beside each other while they are recorded.
//!
//! Threads share memory, and no record says which of two wrote first. As long as they run at the same time the follower's
//! may see another order and do something else, which looks like a difference between the versions and is none.
//!
//! *One by one* there is nothing to see: the thread that has its turn is the only one in user code, from the end of one call to
//! the entry of the next that waits for somebody, and the follower's threads run in the same order. Locks need no record
//! then, whoever takes them: whether a lock is free is the same in both versions. The calls by which threads wait for each
//! other (`futex`, `sched_yield`) are made by the leader alone and supplied like others. This is how rr records
//! (O'Callahan et al., ATC'17, section 2), but for preemption: a thread that computes for long is not interrupted at an
//! instruction that the follower could be interrupted at too, others are let go beside it (`record/leading/serial.rs`).
//!
//! The price is that the leader's threads do not use several processors for what they compute between two calls.

use mvedsua_common::syscalls::{Ordering, Pairing, Row, in_order};
use serde::{Deserialize, Serialize};

use crate::calls;

/// How threads run beside each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Interleaving {
    /// One at a time, in an order that is recorded.
    #[default]
    OneByOne,
    /// As the kernel lets them; the order of their locks is guessed.
    Free,
}

impl Interleaving {
    /// Returns the row of a call whose order among threads is recorded although each version would make it for itself, and
    /// what the call is to other threads. `is_thread` says whether a thread of the process is called so.
    pub(crate) fn ordered(
        self,
        pairing: Pairing,
        nr: u32,
        args: &[u64; 6],
        is_thread: impl Fn(i32) -> bool,
    ) -> Option<(&'static Row, Ordering)> {
        let found = in_order(nr, args).filter(|_| self == Interleaving::OneByOne)?;
        // Paired processes may share memory, where the follower's wait for each other and not for the leader's. One that
        // waits for the end of a thread does so in its own memory, whatever the C library says (pthread_join(3)).
        let shared = i64::from(nr) == libc::SYS_futex && args[1] as i32 & libc::FUTEX_PRIVATE_FLAG == 0;
        let within = pairing == Pairing::Threads || !shared || is_thread(args[2] as i32);
        within.then_some(found)
    }
}

/// Says whether a thread that makes this recorded call keeps its turn. One that asks for the time may come to no stop at all
/// and be in user code again.
pub(crate) fn keeps_turn(nr: u32) -> bool {
    calls::asks_time(nr) || calls::lets_in(nr)
}
