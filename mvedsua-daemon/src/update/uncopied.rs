//! Memory that a fork would not copy.
//!
//! `MADV_DONTFORK` leaves a mapping out of a child, `MADV_WIPEONFORK` gives the child zeros (`madvise(2)`). V8 asks for the
//! one where its compiled code lies, libraries of cryptography for the other where their random numbers come from. The
//! follower is no child that the program asked for: it needs all of the memory. So the advice is taken back for the instant
//! of the fork, and given again in both versions.

use crate::ptrace::inject::Remote;
use crate::ptrace::procfs;
use crate::ptrace::{Pid, Result};

/// A mapping, and what the program has advised for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uncopied {
    start: u64,
    len: u64,
    advice: Advice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Advice {
    DontFork,
    WipeOnFork,
}

impl Advice {
    /// Returns the advice that takes this one back.
    fn opposite(self) -> i32 {
        match self {
            Advice::DontFork => libc::MADV_DOFORK,
            Advice::WipeOnFork => libc::MADV_KEEPONFORK,
        }
    }

    fn number(self) -> i32 {
        match self {
            Advice::DontFork => libc::MADV_DONTFORK,
            Advice::WipeOnFork => libc::MADV_WIPEONFORK,
        }
    }
}

/// Finds such memory. The mapping at `ours` is the daemon's own, and no child is to have it.
pub(crate) fn find(pid: Pid, ours: Option<u64>) -> Result<Vec<Uncopied>> {
    let mut found = parse(&procfs::smaps(pid)?);
    found.retain(|mapping| Some(mapping.start) != ours);
    Ok(found)
}

/// Reads the ranges and the flags of `/proc/<pid>/smaps`, `proc_pid_smaps(5)`.
fn parse(smaps: &str) -> Vec<Uncopied> {
    let mut found = Vec::new();
    let mut range = (0, 0);
    for line in smaps.lines() {
        let Some(flags) = line.strip_prefix("VmFlags:") else {
            let bounds = line.split(' ').next().and_then(|word| word.split_once('-'));
            let bounds = bounds.map(|(start, end)| (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)));
            if let Some((Ok(start), Ok(end))) = bounds {
                range = (start, end);
            }
            continue;
        };
        let has = |wanted: &str| flags.split_whitespace().any(|flag| flag == wanted);
        let (start, len) = (range.0, range.1.saturating_sub(range.0));
        // The kernel takes no advice for what a device has mapped.
        let takes_advice = len > 0 && !has("io");
        let advices = [(Advice::DontFork, "dc"), (Advice::WipeOnFork, "wf")];
        let given = advices.into_iter().filter(|(_, flag)| takes_advice && has(flag));
        found.extend(given.map(|(advice, _)| Uncopied { start, len, advice }));
    }
    found
}

/// Takes the advice back for a fork. Returns for which mappings; one that has gone meanwhile is not among them.
pub(crate) fn copy(remote: &mut Remote<'_>, uncopied: Vec<Uncopied>) -> Result<Vec<Uncopied>> {
    let mut copied = Vec::with_capacity(uncopied.len());
    for mapping in uncopied {
        if advise(remote, mapping, mapping.advice.opposite())? == 0 {
            copied.push(mapping);
        }
    }
    Ok(copied)
}

/// Gives the advice again.
pub(crate) fn advise_again(remote: &mut Remote<'_>, copied: &[Uncopied]) -> Result<()> {
    for mapping in copied {
        let ret = advise(remote, *mapping, mapping.advice.number())?;
        if ret != 0 {
            tracing::warn!(?mapping, ret, "what a program advised for its memory could not be advised again");
        }
    }
    Ok(())
}

fn advise(remote: &mut Remote<'_>, mapping: Uncopied, advice: i32) -> Result<i64> {
    remote.raw(libc::SYS_madvise, [mapping.start, mapping.len, advice as u64, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
10000-30000 rw-p 00000000 00:00 0 
Size:                128 kB
VmFlags: rd wr mr mw me ac 
7f0000000000-7f0000001000 r-xp 00000000 00:00 0 
Size:                  4 kB
VmFlags: rd ex mr mw me dc 
7f0000002000-7f0000004000 rw-p 00000000 00:00 0                          [anon:random]
VmFlags: rd wr mr mw me wf 
7f0000005000-7f0000006000 rw-s 00000000 00:06 12 /dev/device
VmFlags: rd wr sh io dc 
";

    #[test]
    fn only_what_was_advised_is_found() {
        let expected = [
            Uncopied { start: 0x7f00_0000_0000, len: 0x1000, advice: Advice::DontFork },
            Uncopied { start: 0x7f00_0000_2000, len: 0x2000, advice: Advice::WipeOnFork },
        ];
        assert_eq!(parse(SMAPS), expected);
    }
}
