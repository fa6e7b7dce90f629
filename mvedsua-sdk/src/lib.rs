//! The runtime of programs that cooperate in their own updates: in-place updates, as Kitsune (OOPSLA'12) does them.
//!
//! A program is a small executable, which holds this runtime, and a *version*: a shared object that it loads. A version
//! names *update points* in its long-running loops. When an update is asked for, every thread stops at its next update
//! point; the runtime loads the new version's object, makes its registered variables out of the old one's, and runs its
//! entry, which comes to the update point of the same name without doing anew what is done: control has migrated.
//!
//! ```text
//!            asked for               every thread is there           entry has come to the point, threads too
//!   Idle ─────────────► Gathering ─────────────────────► Migrating ─────────────────────────────────► Idle (new version)
//!    ▲                      │ a lock is held, one does not come │ a transformer fails, a symbol is missing, …
//!    └──────────────────────┴───────────────────────────────────┘ the old version goes on
//! ```
//!
//! Who asks is one of two: a daemon, which does so in a follower only and is answered with markers
//! ([`mvedsua_common::cooperation`]); or somebody who wants the process to update itself, without a net (`direct`).
//!
//! The old version's frames stay below those of the new one on each stack, and its object stays mapped: string literals
//! and static buffers that heap objects point to remain what they were. Its *code* cannot be executed any more: see
//! [`object`].
//!
//! - [`update`]: the way of the picture above, and the barrier. [`threads`]: who takes part. [`registry`]: variables and
//!   transformers. [`object`]: loaded versions. [`direct`]: updates without a daemon. [`exports`]: the C interface, whose
//!   documentation is `include/mvedsua.h`.

mod condition;
mod direct;
mod escape;
pub mod exports;
mod object;
mod registry;
mod threads;
mod update;
mod wait;
