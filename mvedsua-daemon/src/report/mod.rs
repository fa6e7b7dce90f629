//! Says what went wrong, for people and for programs.
//!
//! A [`Divergence`](crate::compare::Divergence) is rendered as text of at most [`WIDTH`] columns, or as JSON in which
//! payloads are redacted unless they are asked for: they are the service's secrets. Equal divergences are grouped, so
//! that eight attempts that failed at the same place read as one.

mod group;
pub(crate) mod hex;
mod json;
mod names;
pub(crate) mod text;

pub use group::{Group, group};
pub use json::{Payloads, divergence_to_json};
pub use names::{call_name, signal_name};
pub(crate) use text::{call_line, windows, wrap};
pub use text::{headline, render, write_failure};

/// The widest line of a report.
pub const WIDTH: usize = 100;
