//! What the control plane needs of a monitor.

use super::protocol::Problem;
use crate::monitor::{AttachOptions, Mode, StatsSnapshot, TargetInfo, Totals};

/// Observes processes. Calls are short; they may load programs into the kernel.
pub trait Observer: Send + Sync {
    /// Begins to observe a process.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses it, or the process is gone.
    fn attach(&self, pid: i32, options: AttachOptions) -> Result<TargetInfo, Problem>;

    /// Stops observing a process.
    ///
    /// # Errors
    ///
    /// Where it was not observed.
    fn detach(&self, pid: i32) -> Result<(), Problem>;

    /// Observes a process in another way from now on.
    ///
    /// # Errors
    ///
    /// Where it is not observed, or the kernel refuses it.
    fn set_mode(&self, pid: i32, mode: Mode) -> Result<(), Problem>;

    /// Returns what was observed.
    ///
    /// # Errors
    ///
    /// Where it is not observed.
    fn stats(&self, pid: i32) -> Result<StatsSnapshot, Problem>;

    /// Returns what was observed as an interval log of HdrHistogram.
    ///
    /// # Errors
    ///
    /// Where it is not observed.
    fn export(&self, pid: i32) -> Result<String, Problem>;

    /// Returns everything that was counted of a process and its children since observing began.
    ///
    /// # Errors
    ///
    /// Where it is not observed.
    fn totals(&self, pid: i32) -> Result<Totals, Problem>;

    /// Returns what is observed.
    fn targets(&self) -> Vec<TargetInfo>;
}
