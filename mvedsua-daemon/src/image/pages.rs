//! Which pages differ between two images.
//!
//! A fork shares every page until one of the two writes to it. So where both have the same physical page ([`pagemap`]) their
//! contents are the same, and nothing of it has to be looked at, copied or moved. Both processes stand still while this is
//! asked.
//!
//! [`pagemap`]: crate::ptrace::pagemap

use super::PAGE;
use crate::ptrace::Result;
use crate::ptrace::memory::Span;
use crate::ptrace::pagemap::PageMap;

/// What is to be done with pages of the service so that they hold what is in the image to come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Differing {
    /// The contents are to be copied.
    pub(crate) copied: Vec<Span>,
    /// They are to be as if nobody had written to them.
    pub(crate) dropped: Vec<Span>,
}

impl Differing {
    /// Returns how many bytes are to be copied.
    pub(crate) fn bytes(&self) -> u64 {
        self.copied.iter().map(|span| span.len()).sum()
    }
}

/// Adds a page to spans that are in ascending order.
pub(super) fn add(spans: &mut Vec<Span>, at: u64) {
    match spans.last_mut() {
        Some(last) if last.end == at => last.end += PAGE,
        _ => spans.push(Span { start: at, end: at + PAGE }),
    }
}

/// How many entries are read at once.
const AT_ONCE: usize = 16 << 10;

/// Returns which pages of a span the process has written since they were mapped.
pub(crate) fn own(pages: &PageMap, span: Span) -> Result<Vec<Span>> {
    let (mut entries, mut own) = (Vec::new(), Vec::new());
    for part in chunks(pages.populated(span)?) {
        pages.read(part, &mut entries)?;
        for (at, entry) in (part.start..).step_by(PAGE as usize).zip(&entries) {
            if entry.is_own() {
                add(&mut own, at);
            }
        }
    }
    Ok(own)
}

/// Returns which pages of a span are there at all.
pub(crate) fn there(pages: &PageMap, span: Span) -> Result<Vec<Span>> {
    pages.populated(span)
}

/// Returns in which pages of a span the image to come differs from the service's.
pub(crate) fn differing(service: &PageMap, coming: &PageMap, span: Span, differing: &mut Differing) -> Result<()> {
    let parts = union(service.populated(span)?, coming.populated(span)?);
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for part in chunks(parts) {
        service.read(part, &mut here)?;
        coming.read(part, &mut there)?;
        for ((at, here), there) in (part.start..).step_by(PAGE as usize).zip(&here).zip(&there) {
            if here.is_same(*there) {
                continue;
            }
            add(if there.is_own() { &mut differing.copied } else { &mut differing.dropped }, at);
        }
    }
    Ok(())
}

fn chunks(parts: Vec<Span>) -> impl Iterator<Item = Span> {
    const LEN: u64 = AT_ONCE as u64 * PAGE;
    let cut = |part: Span| {
        let starts = (part.start..part.end).step_by(LEN as usize);
        starts.map(move |start| Span { start, end: part.end.min(start + LEN) })
    };
    parts.into_iter().flat_map(cut)
}

/// Returns the spans that are in either list, both of them in ascending order.
fn union(one: Vec<Span>, other: Vec<Span>) -> Vec<Span> {
    let mut all = [one, other].concat();
    all.sort_unstable();
    let mut joined: Vec<Span> = Vec::new();
    for span in all {
        match joined.last_mut() {
            Some(last) if last.end >= span.start => last.end = last.end.max(span.end),
            _ => joined.push(span),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    use super::*;
    use crate::ptrace::Pid;

    #[test]
    fn only_what_was_written_since_a_fork_differs() {
        const PAGES: usize = 64;
        let len = (PAGES * PAGE as usize).try_into().expect("not zero");
        // SAFETY: a new mapping, unmapped at the end of the test.
        let memory =
            unsafe { mmap_anonymous(None, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE) }
                .expect("memory");
        let page = |number: usize| {
            assert!(number < PAGES);
            // SAFETY: within the mapping.
            unsafe { memory.cast::<u8>().add(number * PAGE as usize) }
        };
        for number in [1, 2, 3, 4, 10] {
            // SAFETY: within the mapping, and nobody else looks at it.
            unsafe { page(number).write(1) };
        }
        // SAFETY: the child writes to memory that is its own, and waits to be killed.
        let child = match unsafe { libc::fork() } {
            0 => {
                // SAFETY: within the mapping; the calls take no lock.
                unsafe {
                    page(2).write(2);
                    page(20).write(2);
                    libc::madvise(page(4).as_ptr().cast(), PAGE as usize, libc::MADV_DONTNEED);
                    libc::raise(libc::SIGSTOP);
                    libc::_exit(0)
                }
            }
            pid => Pid(pid),
        };
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        assert_eq!(unsafe { libc::waitpid(child.0, &raw mut status, libc::WUNTRACED) }, child.0);
        // SAFETY: within the mapping.
        unsafe { page(3).write(3) };
        let here = PageMap::open(Pid(std::process::id() as i32)).expect("our own pages");
        let there = PageMap::open(child).expect("its pages");
        let start = memory.as_ptr() as u64;
        let whole = Span { start, end: start + (PAGES as u64) * PAGE };
        let mut differing = Differing::default();
        super::differing(&here, &there, whole, &mut differing).expect("it can be compared");
        let at = |first: u64, end: u64| Span { start: start + first * PAGE, end: start + end * PAGE };
        assert_eq!(differing.copied, [at(2, 4), at(20, 21)]);
        assert_eq!(differing.dropped, [at(4, 5)]);
        assert_eq!(own(&there, whole).expect("its own"), [at(1, 4), at(10, 11), at(20, 21)]);
        // SAFETY: sends a signal to the child alone, waits for it, and unmaps what nobody uses any more.
        unsafe {
            libc::kill(child.0, libc::SIGKILL);
            libc::waitpid(child.0, &raw mut status, 0);
            munmap(memory, len.get()).expect("it is mapped");
        }
    }

    #[test]
    fn a_large_span_with_little_in_it_is_looked_at_quickly() {
        const LEN: usize = 1 << 40;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping, unmapped at the end of the test.
        let memory = unsafe { mmap_anonymous(None, LEN.try_into().expect("not zero"), ProtFlags::all(), flags) };
        let memory = memory.expect("room for it");
        // SAFETY: within the mapping.
        unsafe { memory.cast::<u8>().add(LEN / 2).write(1) };
        let pages = PageMap::open(Pid(std::process::id() as i32)).expect("our own pages");
        let start = memory.as_ptr() as u64;
        let found = there(&pages, Span { start, end: start + LEN as u64 }).expect("it can be looked at");
        let at = start + LEN as u64 / 2;
        assert_eq!(found, [Span { start: at, end: at + PAGE }]);
        // SAFETY: nobody uses it any more.
        unsafe { munmap(memory, LEN) }.expect("it is mapped");
    }
}
