//! The bounded log between recorder and replayer.
//!
//! ```text
//!   Writer (recorder's thread)                                          Reader (replayer's thread)
//!     append ──► memory, up to Config::memory ───────────────────────────────────► next, peek
//!           └──► thread at the disk: spill file, up to Config::disk, once memory is full ──┘
//!           └──► Full: the record is handed back, nothing that was written is lost
//! ```
//!
//! One producer, one consumer, neither of which ever blocks in here: a third thread ([`disk`]) writes the file and reads it, and
//! what waits for it is bounded. A disk that does not take the records in time makes the log full. While unread records lie in the spill file every
//! new one goes there too, so the order is kept without sorting; when the file is worked off, memory is used again.
//! The spill file has no name, so whatever ends the daemon, nothing is left of it; consumed parts of it are given back
//! to the file system. Records hold payloads of the service: the file is readable by its owner only.
//!
//! A side that has nothing to do *arms* itself ([`Reader::arm`], [`Writer::arm`]) and then waits in its own inbox; the
//! other side calls its waker at most once per arming. `arm` says no when there is something to do already, so that a
//! wake-up cannot be lost.
//!
//! Memory is counted until the reader has *consumed* a record, by [`Record::footprint`](crate::record::Record::footprint).

mod disk;
mod gauge;
mod reader;
mod shared;
mod spill;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

pub use gauge::{Forecast, Gauge, Reading, forecast};
pub use reader::Reader;
pub use writer::{Full, FullReason, Writer};

/// Wakes a thread that has armed itself; called from the other side's thread, must not block.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// The budgets of a log.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of memory for records that are not consumed yet.
    pub memory: u64,
    /// Bytes of the spill file; 0 means that there is none.
    pub disk: u64,
    /// Where the spill file lies; created when the first record is spilled.
    pub spill_dir: PathBuf,
}

/// Creates a log; each half belongs to one thread.
#[must_use]
pub fn channel(config: Config) -> (Writer, Reader) {
    let dir = config.spill_dir.clone();
    open(&config, Box::new(move || spill::create(&dir)))
}

fn open(config: &Config, opener: spill::Opener) -> (Writer, Reader) {
    let shared = Arc::new(shared::Shared::new(config.memory, config.disk));
    (Writer::new(Arc::clone(&shared), opener), Reader::new(shared))
}
