//! Images: what a version *is*, apart from the process that runs it.
//!
//! An image is the areas of memory of a process and their contents, its break and signal handlers, and of each thread the
//! registers, TLS, extended state, signal mask, alternate stack, robust list, `rseq` and `clear_child_tid` addresses. All else
//! is the service's: its numbers, parent, children, session, descriptors, timers, locks, pending signals, shared memory. A
//! follower is a process that computes an image; a promotion brings it into the process that serves, which stays what it is.
//!
//! ```text
//!  take stock of both          prepare                       commit       the service goes on
//!  [threads] [handlers]  ──►  [areas] [pages] [contents]  ──►  gates,  ──►  programs run: areas moved in, pages copied,
//!  [version]                  compare; [staging] maps new      one          handlers set, threads resumed
//!                             areas beside; [program]          store
//! ```
//!
//! - Until the commit nothing of the service is changed but for areas that lie beside everything else, and each of its threads
//!   stands at a gate that opens to the old image. After it each runs a *program*, a list of calls and copies that lies in an
//!   area outside of both images and needs nobody. So whoever dies at whichever instant, the service goes on with one whole
//!   image ([`crate::ptrace::stub`]).
//! - What neither version has written since the fork is the same physical page in both ([`pages`]) and is left alone. So the
//!   cost follows what was written.
//! - Pages that differ are *copied* into the areas that the service has. Mapping them in from a file in memory would be
//!   quicker, and wrong: what a program then gives up by `MADV_DONTNEED` would come back as it was instead of as zeros, and what
//!   it shares with the children that it forks later would be shared for good.
//!
//! Where one image is no fork of the other (`mvedsuad run` has started both), nothing is the same, and everything moves:
//! [`whole`] is what differs then.
//!
//! [`areas`] and [`program`] are pure. [`place`] carries it out and is a transaction: dropped before its commit it leaves nothing.

pub(crate) mod areas;
mod contents;
mod giving;
pub(crate) mod handlers;
pub(crate) mod pages;
pub(crate) mod place;
pub(crate) mod program;
mod staging;
pub(crate) mod threads;
mod told;
pub(crate) mod version;
pub(crate) mod whole;

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;
