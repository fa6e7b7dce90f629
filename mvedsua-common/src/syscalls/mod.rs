//! The declarative table of system calls.
//!
//! One row a line; a call without a row is refused by name and there is no default. Everything else is derived: what is
//! recorded, compared and supplied, how a call prints, what the eBPF side captures. What a row cannot say is in one place
//! of named exceptions, [`irregular`].
//!
//! How it is used, by recorder and replayer alike:
//!
//! 1. at the entry of a call, [`treatment`] says what is done with it and which [`Row`] describes it. That is the row of
//!    this very request: `ioctl(FIONREAD)` has another one than `ioctl(FIONBIO)`;
//! 2. [`regions::inputs`] resolves the memory that the kernel reads, [`regions::notes`] keeps what must be remembered;
//! 3. [`regions::outputs`] resolves the memory that the kernel wrote. The follower, where nothing is performed, resolves
//!    it with its own arguments and the leader's result; pieces and regions are paired by argument and part.

mod columns;
mod descriptors;
mod files;
pub mod format;
mod identity;
pub mod instructions;
mod ipc;
pub mod irregular;
mod machine;
mod memory;
mod model;
mod names;
mod net;
mod poll;
mod process;
mod refused;
pub mod regions;
mod retired;
mod signals;
#[cfg(test)]
mod tests;
mod threads;
mod time;
mod words;

pub use columns::{
    After, Alone, Applying, Asks, Fds, Identity, Limit, Made, Moves, Signals, Wait, row_of, waits_inside,
};
pub use irregular::{Ordering, Pairing, Treatment, in_order, locks_inheriting, treatment, treatment_of};
pub use model::{Arg, Class, Dir, Extent, Irregular, Order, Outcome, Row};
pub use names::{by_name, name};

/// The families, in the order of the files above.
const FAMILIES: [&[Row]; 14] = [
    files::ROWS,
    descriptors::ROWS,
    net::ROWS,
    poll::ROWS,
    memory::ROWS,
    threads::ROWS,
    signals::ROWS,
    time::ROWS,
    process::ROWS,
    identity::ROWS,
    ipc::ROWS,
    machine::ROWS,
    retired::ROWS,
    refused::ROWS,
];

/// One more than the highest number of Linux 6.18.
const LIMIT: usize = 470;

/// Rows by number, so that looking one up is one load.
static BY_NUMBER: [Option<&'static Row>; LIMIT] = dense();

/// Spreads the families over their numbers; a number that two of them claim, or a name that is not the number's, does not
/// compile.
const fn dense() -> [Option<&'static Row>; LIMIT] {
    let mut table: [Option<&'static Row>; LIMIT] = [None; LIMIT];
    let mut family = 0;
    while family < FAMILIES.len() {
        let rows = FAMILIES[family];
        let mut i = 0;
        while i < rows.len() {
            let nr = rows[i].nr;
            assert!(table[nr as usize].is_none(), "one call, one row");
            match name(nr) {
                Some(known) => assert!(same(known, rows[i].name), "a row has the name of its number"),
                None => panic!("a row has a number that Linux knows"),
            }
            table[nr as usize] = Some(&rows[i]);
            i += 1;
        }
        family += 1;
    }
    table
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Returns the row of a call, or `None` for one that the table does not know and that is therefore refused.
#[must_use]
pub const fn row(nr: u32) -> Option<&'static Row> {
    if (nr as usize) < LIMIT { BY_NUMBER[nr as usize] } else { None }
}

/// Returns every row, by family; the rows of single requests, commands and options are in [`irregular::variants`].
pub fn rows() -> impl Iterator<Item = &'static Row> {
    FAMILIES.iter().flat_map(|rows| rows.iter())
}
