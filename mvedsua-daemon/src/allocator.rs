//! How much memory the C library's allocator keeps of what the daemon has given back to it.
//!
//! A daemon that updates servers for weeks holds much for a moment, such as the eBPF object while it is loaded or the log of a busy
//! server, and then next to nothing: a soak counted 2 to 3 MiB in use between two updates. glibc gives freed memory back to
//! the kernel by two thresholds, which grow by themselves: after the first large block is freed, each thread's *arena* may keep
//! twice that block's size at its end for good, and `malloc_trim` looks at the end of the main arena only (`sysmalloc`, `heap_trim`
//! and `mtrim` in glibc's `malloc/malloc.c` and `arena.c`). Logs pass from one thread to another, so over many
//! updates each arena grew to the most that ever lay in it, and the daemon seemed to leak a hundred KiB an update.
//!
//! Setting a threshold switches its growth off, see `mallopt(3)`.

/// Bytes that an arena may have free at its end; more is given back. A few times of what is asked of the kernel at once
/// (128 KiB), so that a log that fills and empties does not ask for every page anew.
const KEPT: i32 = 512 << 10;
/// Blocks from this size on are mappings of their own, which go back to the kernel when they are freed.
const MAPPED: i32 = 1 << 20;

/// Bounds what the allocator keeps, for the whole process and from now on.
pub(crate) fn bound() {
    for (what, bytes) in [(libc::M_TRIM_THRESHOLD, KEPT), (libc::M_MMAP_THRESHOLD, MAPPED)] {
        // SAFETY: takes two integers; the allocator locks what it changes.
        if unsafe { libc::mallopt(what, bytes) } == 0 {
            tracing::warn!(what, bytes, "the allocator does not take this; memory may seem to grow");
        }
    }
}

/// Returns to the kernel the free pages that lie between others, in every arena. Takes a millisecond or so.
pub(crate) fn give_back() {
    // SAFETY: takes an integer; the allocator locks what it looks at.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 24 << 20;
    const BLOCK: usize = 100 << 10;
    const BLOCKS: usize = 400;
    /// What may be left of it.
    const LEFT_KIB: u64 = 2 << 10;

    /// Returns the memory of this process that is nobody's file. What is mapped of files comes and goes with the code that runs.
    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    /// Holds 40 MB in small blocks for a moment, after a large block has been freed; says whether the memory went back.
    fn goes_back() -> bool {
        bound();
        drop(std::hint::black_box(vec![1u8; LARGE]));
        let before = resident_kib();
        // Nothing else is allocated meanwhile: they lie at the end of the arena, where `give_back` does not look.
        drop((0..BLOCKS).map(|_| std::hint::black_box(vec![1u8; BLOCK])).collect::<Vec<_>>());
        give_back();
        let after = resident_kib();
        eprintln!("{before} KiB before, {after} KiB after");
        after <= before + LEFT_KIB
    }

    #[test]
    fn memory_goes_back_after_a_large_block_was_freed() {
        // The thresholds are the process's, and so is what is resident: in a process of its own.
        // SAFETY: the child uses the allocator, which glibc makes usable in it, and leaves.
        match unsafe { libc::fork() } {
            0 => {
                let status = i32::from(!goes_back());
                // SAFETY: ends the child without running anything of the parent's.
                unsafe { libc::_exit(status) }
            }
            child => {
                let mut status = 0;
                // SAFETY: `status` is a live local, the child is ours.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0);
            }
        }
    }
}
