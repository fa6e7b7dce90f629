//! Comparing what the follower does with what the leader did.
//!
//! A mismatch is a value, [`Divergence`], not an error. Nothing here knows ptrace, tokio or BPF.

mod divergence;

pub use divergence::{CallView, Divergence, DivergenceKind, Frame, MatchedCall};
