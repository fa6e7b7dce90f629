//! The monitor on guests whose calls are known. Needs root and gcc, both of which the test command has.

mod exact;
mod sampled;
mod slow;
mod strace;
mod support;
