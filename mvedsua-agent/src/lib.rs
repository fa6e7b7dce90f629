//! The agent: answers the calls of a process that follows without a stop.
//!
//! The daemon writes what the leader was told into memory of the follower, and rewrites a call site there so that it jumps to the
//! agent. If the next answer is to this very call, with equal arguments and equal bytes, the program gets what the leader got and
//! goes on. Whatever does not fit is left to the call itself, at which the program stops; what it means is decided by the daemon.
//!
//! This crate has the layout of the memory ([`layout`]) and the code ([`answer()`]), which is tried here like any other. The daemon
//! does not call it: it compiles `blob.rs`, the same code with its entry in assembly, and puts that into the follower.
//!
//! The code makes no call, allocates nothing, and uses general registers alone: the program's vector registers stay as they are.
#![cfg_attr(not(test), no_std)]

mod answer;
pub mod layout;
#[cfg(test)]
mod tests;

pub use answer::answer;
