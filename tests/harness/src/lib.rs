//! Starts real servers and guests, drives them with checking clients, and proves that nothing is left behind.
//!
//! - [`server`]: Redis, Memcached, lighttpd and Python's `http.server` on free loopback ports.
//! - [`fleet`]: every server that updates are tried on, each with clients that speak its protocol.
//! - [`kvstore`]: the project's own key-value store, whose versions differ.
//! - [`load`]: clients that check every reply against a model and remember the longest request.
//! - [`daemon`]: the real `mvedsuad`, with directories of its own.
//! - [`disk`]: a disk that is full when a test says so.
//! - [`site`]: a server under load beside a daemon whose disk fails.
//! - [`guests`]: small programs that check themselves, for each row of the system-call table.
//! - [`corners`]: a program for each odd way to use a call.
//! - [`side_by_side`]: programs under `mvedsuad run`.
//! - [`snapshot`]: what a process looks like from outside, before and after.
//! - [`systemd`]: a real systemd that starts, watches and ends services.
//! - [`prometheus`]: a real Prometheus that scrapes the daemon, and is asked.
//! - [`tmux`]: a real terminal, in which a program is looked at and typed to.
//! - [`restore`]: damaged values for Redis.
//! - [`process`]: processes by pid, with deadlines; nothing that was started survives its owner.

pub mod corners;
pub mod daemon;
pub mod debian;
pub mod disk;
pub mod fleet;
pub mod guests;
pub mod kvstore;
pub mod load;
pub mod process;
pub mod prometheus;
pub mod restore;
pub mod server;
pub mod side_by_side;
pub mod site;
pub mod snapshot;
pub mod stand;
pub mod stock;
pub mod systemd;
pub mod tmux;
pub mod wait;

/// Says that a test, or a part of one, is left out, and why. What tests print is kept back where they pass; this is not.
pub fn left_out(what: &str, why: &str) {
    use std::io::Write as _;
    // Not by a macro: those are what the test runner listens to.
    let _ = writeln!(std::io::stderr(), "left out: {what}: {why}");
}
