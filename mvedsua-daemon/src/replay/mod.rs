//! The replayer: makes the follower live through the leader's records.
//!
//! [`following`] drives the follower's threads under `PTRACE_SYSEMU`: each call stops before it is executed, and then is
//! answered from the log, or made for real where the table says `Local`. [`epoll`] translates what each version registered
//! with its epoll sets; [`pouring`] finds the place for what the leader got; [`objects`] knows which calls
//! concern the same thing; [`elastic`] names the calls that may differ in number; [`proc_self`] is about what a process reads of itself; [`situations`] tells where a difference is looked for again; [`own`] says what a follower may do while it applies a new version.

pub(crate) mod epoll;
pub(crate) mod following;
pub(crate) mod objects;
mod own;
mod pouring;
mod proc_self;
pub(crate) mod situations;
mod sockets;
