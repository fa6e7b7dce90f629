//! Which physical pages a process has where, `Documentation/admin-guide/mm/pagemap.rst`.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use super::memory::Span;
use super::{Error, Pid, Result};

const PAGE: u64 = 4096;

/// What `pagemap` says of one page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry(u64);

impl Entry {
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    /// It is a file's page, or one of shared memory.
    const FILE: u64 = 1 << 61;
    /// Nobody else has it mapped.
    const EXCLUSIVE: u64 = 1 << 56;
    /// The number of the physical page, or where in the swap it is. It is zero for who may not know it.
    const PLACE: u64 = (1 << 55) - 1;

    fn is_there(self) -> bool {
        self.0 & (Self::PRESENT | Self::SWAPPED) != 0
    }

    /// Says whether the page is the process's own: written since it was mapped.
    pub(crate) fn is_own(self) -> bool {
        self.is_there() && self.0 & Self::FILE == 0
    }

    /// Says whether two processes are sure to have the same contents here.
    pub(crate) fn is_same(self, other: Entry) -> bool {
        let both = Self::PRESENT | Self::SWAPPED;
        let is_one_page = self.0 & both == other.0 & both
            && self.0 & Self::PLACE == other.0 & Self::PLACE
            && self.0 & Self::PLACE != 0;
        match (self.is_own(), other.is_own()) {
            // Two pages of a private area that hold what is in the file, or nothing.
            (false, false) => true,
            // A page that both have is not exclusive to one: it has not moved between the two looks.
            (true, true) => is_one_page && (self.0 | other.0) & Self::EXCLUSIVE == 0,
            _ => false,
        }
    }
}

/// The pages of a process.
#[derive(Debug)]
pub(crate) struct PageMap {
    file: File,
    path: String,
}

impl PageMap {
    pub(crate) fn open(pid: Pid) -> Result<PageMap> {
        let path = format!("/proc/{pid}/pagemap");
        match File::open(&path) {
            Ok(file) => Ok(PageMap { file, path }),
            Err(source) => Err(Error::Proc { path, source }),
        }
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::Proc { path: self.path.clone(), source }
    }

    /// Reads what there is to say of each page of a span.
    pub(crate) fn read(&self, span: Span, entries: &mut Vec<Entry>) -> Result<()> {
        let mut bytes = vec![0; (span.len() / PAGE) as usize * 8];
        self.file.read_exact_at(&mut bytes, span.start / PAGE * 8).map_err(|error| self.failed(error))?;
        let (words, _) = bytes.as_chunks::<8>();
        entries.clear();
        entries.extend(words.iter().map(|word| Entry(u64::from_ne_bytes(*word))));
        Ok(())
    }

    /// Returns the parts of a span in which any page is there. A span may be far larger than what is in it.
    pub(crate) fn populated(&self, span: Span) -> Result<Vec<Span>> {
        let mut found = Vec::new();
        let mut regions = [Region::default(); 512];
        let mut at = span.start;
        while at < span.end {
            let mut scan = Scan::of(Span { start: at, end: span.end }, &mut regions);
            // SAFETY: the structure and the regions that it points at outlive the call, and have the kernel's layout.
            let ret = unsafe { libc::ioctl(self.file.as_raw_fd(), PAGEMAP_SCAN, &raw mut scan) };
            let Ok(count) = usize::try_from(ret) else {
                let error = std::io::Error::last_os_error();
                // Older kernels than Linux 6.7 look at all of it.
                return if error.raw_os_error() == Some(libc::ENOTTY) {
                    Ok(vec![span])
                } else {
                    Err(self.failed(error))
                };
            };
            for region in &regions[..count.min(regions.len())] {
                match found.last_mut() {
                    Some(Span { end, .. }) if *end == region.start => *end = region.end,
                    _ => found.push(Span { start: region.start, end: region.end }),
                }
            }
            at = if scan.walk_end > at { scan.walk_end } else { span.end };
        }
        Ok(found)
    }
}

/// `PAGEMAP_SCAN`, `include/uapi/linux/fs.h`.
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Debug)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

impl Scan {
    fn of(span: Span, regions: &mut [Region]) -> Scan {
        const PAGE_IS_PRESENT: u64 = 1 << 3;
        const PAGE_IS_SWAPPED: u64 = 1 << 4;
        Scan {
            size: size_of::<Scan>() as u64,
            flags: 0,
            start: span.start,
            end: span.end,
            walk_end: 0,
            regions: regions.as_mut_ptr() as u64,
            regions_len: regions.len() as u64,
            max_pages: 0,
            category_inverted: 0,
            category_mask: 0,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            // Nothing of it is looked at, so that parts with different categories are told as one.
            return_mask: PAGE_IS_PRESENT,
        }
    }
}
