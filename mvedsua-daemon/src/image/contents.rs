//! What of the contents of areas differs between two images: pages that are two physical ones, and hold different bytes.

use super::PAGE;
use super::areas::{By, Kept};
use super::pages::{self, Differing};
use crate::ptrace::Result;
use crate::ptrace::memory::{Memory, Span};
use crate::ptrace::pagemap::PageMap;

/// Finds what of the contents of areas differs.
pub(super) struct Comparison<'a> {
    here: (PageMap, &'a Memory),
    pub(super) there: (PageMap, &'a Memory),
    /// Room for what is read of either.
    ours: Vec<u8>,
    theirs: Vec<u8>,
}

/// How much is compared at once.
const COMPARED: usize = 1 << 20;

impl<'a> Comparison<'a> {
    pub(super) fn new(here: &'a Memory, there: &'a Memory) -> Result<Comparison<'a>> {
        Ok(Comparison {
            here: (PageMap::open(here.pid())?, here),
            there: (PageMap::open(there.pid())?, there),
            ours: vec![0; COMPARED],
            theirs: vec![0; COMPARED],
        })
    }

    /// Compares what is in an area that both images have.
    pub(super) fn differing(&mut self, kept: &Kept) -> Result<Differing> {
        let mut found = Differing::default();
        match kept.by {
            By::Page => pages::differing(&self.here.0, &self.there.0, kept.span, &mut found)?,
            By::Byte => found.copied = pages::there(&self.there.0, kept.span)?,
        }
        // Both versions have mostly written the same.
        let mut unequal = Vec::new();
        let mut some = Vec::new();
        let mut len = 0;
        for span in std::mem::take(&mut found.copied) {
            for start in (span.start..span.end).step_by(COMPARED) {
                let part = (span.end - start).min(COMPARED as u64) as usize;
                if len + part > COMPARED {
                    self.compare(&some, kept.by, &mut unequal)?;
                    some.clear();
                    len = 0;
                }
                some.push((start, part));
                len += part;
            }
        }
        self.compare(&some, kept.by, &mut unequal)?;
        found.copied = unequal;
        Ok(found)
    }

    /// Adds the pages of these pieces whose contents differ.
    fn compare(&mut self, pieces: &[(u64, usize)], by: By, unequal: &mut Vec<Span>) -> Result<()> {
        let page = PAGE as usize;
        let len = pieces.iter().map(|(_, len)| len).sum();
        let (ours, theirs) = (&mut self.ours[..len], &mut self.theirs[..len]);
        let all = pieces.iter().flat_map(|(start, len)| (*start..start + *len as u64).step_by(page));
        self.there.1.read_pieces(pieces, theirs)?;
        if self.here.1.read_pieces(pieces, ours).is_err() {
            let pairs = ours.chunks_exact_mut(page).zip(theirs.chunks_exact(page));
            for (at, (ours, theirs)) in all.clone().zip(pairs) {
                match (self.here.1.peek(at, page), by) {
                    (Ok(bytes), _) => ours.copy_from_slice(&bytes),
                    // Its stack or its heap has not grown that far yet.
                    (Err(_), By::Page) => ours.fill(0),
                    // Behind the end of a file there is nothing that anybody could have.
                    (Err(_), By::Byte) => ours.copy_from_slice(theirs),
                }
            }
        }
        let pairs = ours.chunks_exact(page).zip(theirs.chunks_exact(page));
        for (at, _) in all.zip(pairs).filter(|(_, (ours, theirs))| ours != theirs) {
            pages::add(unequal, at);
        }
        Ok(())
    }
}
