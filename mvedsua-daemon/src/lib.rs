//! mvedsuad updates running servers in place.
//!
//! See ARCHITECTURE.md for the picture. The parts know each other through data only: a recorder writes
//! [`record::Record`]s into a log, a replayer makes the follower live through them, [`compare`] says where they part,
//! and [`lifecycle`] decides what follows from it.

mod allocator;
mod calls;
pub mod cli;
pub mod compare;
pub mod control;
pub mod doctor;
mod image;
pub mod lifecycle;
pub mod log;
mod matcher;
pub mod monitor;
pub mod outdated;
pub mod package;
pub mod ptrace;
pub mod record;
pub mod replay;
pub mod report;
pub mod rules;
pub mod side_by_side;
pub mod symbols;
mod tracee;
pub mod units;
pub mod update;
