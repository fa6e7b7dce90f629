//! The control plane: the daemon, its socket, and what it remembers.
//!
//! ```text
//!  mvedsuad CLI ──newline-delimited JSON──► server ──► daemon ──► updates (one task each) ──► lifecycle::step
//!                                             │           │              │  ▲
//!                                        access, audit    │      commands ▼  │ events
//!                                                      observer         engine (its own threads)
//!                                                         │              │
//!                                                      monitor       journal, history
//! ```
//!
//! tokio runs here and nowhere else, on one thread. The engine and the monitor are reached through two small traits,
//! [`Engine`] and [`Observer`], so that a test can put a script in their place. It waits for no disk: threads of their own write
//! the files ([`line_writer`], [`journal_writer`]). What must survive the daemon is in the
//! [`journal`]; what the operator may want to know later is in the [`history`]; who asked for what is in the [`audit`]; everything
//! that happens is told in the [`events`].

pub mod access;
pub mod audit;
mod before;
mod busy;
pub(crate) mod clock;
mod code;
pub mod daemon;
pub mod dirs;
mod engine;
pub mod events;
pub mod gates;
pub mod history;
pub mod http;
pub mod journal;
mod journal_writer;
pub mod led;
mod line_writer;
mod lines;
mod lock;
mod metrics;
pub mod names;
pub mod next_version;
pub(crate) mod observer;
pub mod packages;
mod panics;
mod places;
pub mod process;
pub mod protocol;
mod requests;
pub mod server;
pub mod slowdown;
pub mod status;
#[cfg(test)]
mod tests;
mod updates;
pub mod webhooks;

pub use code::Code;
pub use engine::{Ability, Engine, SessionHandle};
pub use observer::Observer;
