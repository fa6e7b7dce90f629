//! Libraries that read the processor's clock: what they read is recorded like a call, see [`sites`].

use std::path::Path;

use super::*;
use crate::ptrace::tsc::sites;

impl Leading {
    /// A file was mapped, perhaps with code: where that reads the clock, it is stopped from now on. The follower gets a copy of
    /// what is mapped, and so the same.
    pub(super) fn stop_at_reads(&self, process: &mut Process, call: &Call, ret: i64) -> Result<()> {
        let [_, len, protection, _, fd, offset] = call.entry.args;
        let code = matches!(call.treatment, Treatment::MmapFile(_)) && protection & libc::PROT_EXEC as u64 != 0;
        if !code || ret <= 0 || self.failed || self.settings.pairing == Pairing::Threads {
            return Ok(());
        }
        let file = format!("/proc/{}/fd/{}", process.pid, fd as i32);
        let sites = match sites::of(Path::new(&file), offset..offset.saturating_add(len)) {
            Ok(sites) => sites,
            Err(error) => {
                tracing::debug!(%error, "not known whether it reads the processor's clock");
                return Ok(());
            }
        };
        for site in sites.iter() {
            let addr = ret as u64 + (site.offset - offset);
            let mut there = [0; 3];
            let there = &mut there[..site.bytes().len()];
            if process.memory.read_some(addr, there) == there.len() && *there == *site.bytes() {
                process.memory.force(addr, site.trap())?;
                process.footprint.clock.sites.push((addr, *site));
            }
        }
        Ok(())
    }
}
