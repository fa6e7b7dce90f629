//! The pages that are cut out of the new file.

use std::collections::BTreeMap;

use super::builder::{Builder, TRAP};
use super::{PAGE, Protection, Segment};
use crate::image::{Area, Section};

impl Builder<'_, '_> {
    /// Cuts the pages that are needed out of the new file.
    pub(super) fn pages(&self, frames: Option<&[u8]>) -> Pages {
        let mut pages = Pages::default();
        for index in &self.loaded {
            if let Some(function) = self.new.functions.get(*index) {
                let bytes = self.new.image.bytes_at(function.start, function.len()).unwrap_or_default();
                pages.put(function.start, bytes, Protection::Code);
            }
        }
        for stub in &self.stubs {
            let at = self.new.image.stubs.partition_point(|(range, _)| range.start <= *stub);
            if let Some((range, _)) = at.checked_sub(1).and_then(|at| self.new.image.stubs.get(at)) {
                let len = usize::try_from(range.end - range.start).unwrap_or(0);
                pages.put(range.start, self.new.image.bytes_at(range.start, len).unwrap_or_default(), Protection::Code);
            }
        }
        if !self.loaded.is_empty() {
            // Nothing tells where a constant ends.
            let constant = |section: &&Section<'_>| {
                section.area == Area::Constant
                    && (section.name.starts_with(".rodata") || section.name.starts_with(".gcc_except_table"))
            };
            for section in self.new.image.sections.iter().filter(constant) {
                pages.put(section.start, section.bytes, Protection::Constant);
            }
        }
        if let Some(frames) = frames.filter(|_| !self.loaded.is_empty()) {
            pages.put(self.new.image.eh_frame.0, frames, Protection::Constant);
        }
        for slot in &self.slots {
            pages.put(*slot, &[0; 8], Protection::Constant);
        }
        for (start, end) in &self.tables {
            let area = self.new.image.area_at(*start);
            let protection = if area == Some(Area::Relro) { Protection::Constant } else { Protection::Data };
            let bytes: Vec<u8> = (*start..*end).map(|at| self.new.image.initial(at).unwrap_or(0)).collect();
            pages.put(*start, &bytes, protection);
        }
        pages
    }
}

/// Pages that are filled piece by piece.
#[derive(Default)]
pub(super) struct Pages {
    /// By page.
    all: BTreeMap<u64, (Protection, Vec<u8>)>,
    /// Code and writable data share a page.
    pub(super) mixed: bool,
}

impl Pages {
    fn put(&mut self, start: u64, bytes: &[u8], protection: Protection) {
        let mut at = start;
        let mut rest = bytes;
        while !rest.is_empty() {
            let page = at / PAGE;
            let offset = usize::try_from(at % PAGE).unwrap_or(0);
            let room = (PAGE as usize - offset).min(rest.len());
            let (now, later) = rest.split_at(room);
            let fill = if protection == Protection::Code { TRAP } else { 0 };
            let (known, content) = self.all.entry(page).or_insert_with(|| (protection, vec![fill; PAGE as usize]));
            // Slots and tables may share a page with writable objects, and constants one with code.
            let kinds = (*known, protection);
            self.mixed |= matches!(kinds, (Protection::Code, Protection::Data) | (Protection::Data, Protection::Code));
            *known = (*known).max(protection);
            if let Some(place) = content.get_mut(offset..offset + room) {
                place.copy_from_slice(now);
            }
            at += room as u64;
            rest = later;
        }
    }

    pub(super) fn into_segments(self) -> Vec<Segment> {
        let mut segments: Vec<Segment> = vec![];
        for (page, (protection, bytes)) in self.all {
            let start = page * PAGE;
            match segments.last_mut() {
                Some(last) if last.protection == protection && last.start + last.bytes.len() as u64 == start => {
                    last.bytes.extend_from_slice(&bytes);
                }
                _ => segments.push(Segment { start, protection, bytes }),
            }
        }
        segments
    }
}
