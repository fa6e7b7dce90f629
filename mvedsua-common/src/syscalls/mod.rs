//! The declarative table of system calls.
//!
//! One row a line; a call without a row is refused by name and there is no default. Everything else is derived: what is
//! recorded, compared and supplied, how a call prints, what the eBPF side captures. What a row cannot say is in one file
//! of named exceptions.

mod model;

pub use model::{Arg, Class, Dir, Extent, Irregular, Order, Outcome, Row};
