//! Which areas of memory two images have, and what makes the one of the other. Pure: it sees lists and returns lists.
//!
//! The address space is cut where an area of either image begins or ends; of each piece is decided by itself. Most pieces are
//! in both images with the same backing, since one image is a fork of the other: these stay where they are, and only pages that
//! differ are carried over.

use crate::ptrace::memory::Span;
use crate::ptrace::procfs::Mapping;

/// What the contents of a piece are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// By what is behind each page: what neither image has written since the fork is the same physical page in both.
    Page,
    /// By their bytes: the follower has a private copy of what is a file's page in the service.
    Byte,
}

/// A piece that is in both images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) span: Span,
    pub(crate) by: By,
    /// The protection that it has in the service, and is to have.
    pub(crate) has: i32,
    pub(crate) wants: i32,
}

/// A piece that only the image to come has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Created {
    pub(crate) span: Span,
    pub(crate) protection: i32,
    /// The area of the image to come that the piece is of, where a file is mapped there.
    pub(crate) file: Option<Mapping>,
}

/// What makes the areas of one image those of the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Areas that the image to come does not have.
    pub(crate) removed: Vec<Span>,
    pub(crate) created: Vec<Created>,
    pub(crate) kept: Vec<Kept>,
}

/// Why the areas of one image cannot be made those of the other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("{name} is mapped shared at {at:#x} in the service, where the other version has something of its own")]
    SharedInTheWay { name: String, at: u64 },
    #[error("{name} is mapped shared and writable at {at:#x}, of which the other version has a copy of its own")]
    Shared { name: String, at: u64 },
    #[error("the other version has shared memory mapped at two places, the second at {at:#x}")]
    SharedTwice { at: u64 },
    #[error("the kernel's area {name} is not the same in both versions")]
    Kernels { name: String },
}

/// The image of a process as far as its areas go.
#[derive(Clone, Debug)]
pub(crate) struct Areas<'a> {
    pub(crate) maps: &'a [Mapping],
    /// The program break.
    pub(crate) break_at: u64,
}

pub(crate) fn protection(mapping: &Mapping) -> i32 {
    let bit = |have: bool, bit: i32| if have { bit } else { 0 };
    bit(mapping.readable, libc::PROT_READ)
        | bit(mapping.writable, libc::PROT_WRITE)
        | bit(mapping.executable, libc::PROT_EXEC)
}

/// Areas that are the kernel's, the same in every image of a process.
fn is_kernels(mapping: &Mapping) -> bool {
    ["[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]", "[uprobes]"].contains(&mapping.name.as_str())
}

/// Says whether a kernel's area is one that a process has at a place of its own.
fn is_placed(mapping: &Mapping) -> bool {
    is_kernels(mapping) && !["[vsyscall]", "[uprobes]"].contains(&mapping.name.as_str())
}

fn is_stack(mapping: &Mapping) -> bool {
    mapping.name == "[stack]"
}

fn is_heap(mapping: &Mapping) -> bool {
    mapping.name == "[heap]"
}

/// Says whether an area's contents come from a file, or from a device.
fn is_file(mapping: &Mapping) -> bool {
    mapping.inode != 0
}

fn has_same_backing(one: &Mapping, other: &Mapping) -> bool {
    match (is_file(one), is_file(other)) {
        (false, false) => true,
        (true, true) => {
            (one.device, one.inode) == (other.device, other.inode)
                && one.offset.wrapping_sub(one.start) == other.offset.wrapping_sub(other.start)
        }
        _ => false,
    }
}

fn page_up(addr: u64) -> u64 {
    (addr + super::PAGE - 1) & !(super::PAGE - 1)
}

/// What becomes of a piece.
enum Fate {
    Nothing,
    Remove,
    Keep(By, i32, i32),
    Create,
}

/// Compares the areas of the service with those of the image to come. `ours` are the daemon's own in both.
pub(crate) fn compare(service: &Areas<'_>, coming: &Areas<'_>, ours: &[Span]) -> Result<Changes, Unfit> {
    let foreign = |mapping: &&Mapping| !is_kernels(mapping) && !ours.iter().any(|span| span.contains(mapping.start));
    let here: Vec<&Mapping> = service.maps.iter().filter(foreign).collect();
    let there: Vec<&Mapping> = coming.maps.iter().filter(foreign).collect();
    let mut cuts: Vec<u64> = here.iter().chain(&there).flat_map(|mapping| [mapping.start, mapping.end]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let (mut at_here, mut at_there) = (0, 0);
    let mut changes = Changes::default();
    for pair in cuts.windows(2) {
        let span = Span { start: pair[0], end: pair[1] };
        let one = area_at(&here, &mut at_here, span.start);
        let other = area_at(&there, &mut at_there, span.start);
        match fate(one, other, span, page_up(coming.break_at))? {
            Fate::Nothing => {}
            Fate::Remove => changes.remove(span),
            Fate::Keep(by, has, wants) => changes.keep(Kept { span, by, has, wants }),
            Fate::Create => {
                if let Some(other) = other {
                    changes.create(span, other);
                }
            }
        }
    }
    Ok(changes)
}

/// Where an area of the kernel's own is, and where it is to be.
pub(crate) type Placed = (Span, u64);

/// Returns what makes the areas of one image those of another that has nothing in common with it: all are removed, and all
/// created. The kernel's own, of which a process has no second ones, are carried over. `ours` are the daemon's areas in the
/// image to come.
pub(crate) fn replace(service: &[Mapping], coming: &[Mapping], ours: &[Span]) -> Result<(Changes, Vec<Placed>), Unfit> {
    let mut changes = Changes::default();
    for area in service.iter().filter(|area| !is_kernels(area)) {
        changes.remove(Span { start: area.start, end: area.end });
    }
    let foreign = |area: &&Mapping| !is_kernels(area) && !ours.iter().any(|span| span.contains(area.start));
    let mut shared: Vec<&Mapping> = Vec::new();
    for area in coming.iter().filter(foreign) {
        if area.is_shared_memory() {
            let end = |area: &Mapping| area.offset + (area.end - area.start);
            let overlaps = |other: &&Mapping| other.offset < end(area) && area.offset < end(other);
            if shared.iter().any(|other| other.inode == area.inode && overlaps(other)) {
                return Err(Unfit::SharedTwice { at: area.start });
            }
            shared.push(area);
        }
        // Each by itself: the stack is not to become a part of what lies beside it.
        let file = is_file(area).then(|| area.clone());
        let span = Span { start: area.start, end: area.end };
        changes.created.push(Created { span, protection: protection(area), file });
    }
    let placed = |area: &&Mapping| is_placed(area);
    let carried = service.iter().filter(placed).map(|area| {
        let twin = coming.iter().find(|twin| twin.name == area.name && twin.end - twin.start == area.end - area.start);
        let twin = twin.ok_or_else(|| Unfit::Kernels { name: area.name.clone() })?;
        Ok((Span { start: area.start, end: area.end }, twin.start))
    });
    let carried = carried.collect::<Result<Vec<Placed>, Unfit>>()?;
    match coming.iter().filter(placed).nth(carried.len()) {
        Some(area) => Err(Unfit::Kernels { name: area.name.clone() }),
        None => Ok((changes, carried)),
    }
}

/// Refuses what of a service cannot be replaced: what it shares with others, of which a version that was started by itself has a
/// copy. `ours` are the daemon's areas in the service.
pub(crate) fn check_replaceable(service: &[Mapping], ours: &[Span]) -> Result<(), Unfit> {
    let foreign = |area: &&Mapping| !ours.iter().any(|span| span.contains(area.start));
    let shared = |area: &&Mapping| area.shared && area.writable && !area.is_shared_memory();
    match service.iter().filter(foreign).find(shared) {
        Some(area) => Err(Unfit::Shared { name: area.name.clone(), at: area.start }),
        None => Ok(()),
    }
}

/// Returns the area at an address; asked for ascending addresses.
fn area_at<'a>(areas: &[&'a Mapping], next: &mut usize, addr: u64) -> Option<&'a Mapping> {
    while areas.get(*next).is_some_and(|area| area.end <= addr) {
        *next += 1;
    }
    areas.get(*next).copied().filter(|area| area.start <= addr)
}

fn fate(here: Option<&Mapping>, there: Option<&Mapping>, span: Span, break_page: u64) -> Result<Fate, Unfit> {
    let read_write = libc::PROT_READ | libc::PROT_WRITE;
    Ok(match (here, there) {
        (None, None) => Fate::Nothing,
        // What is shared is the service's. A version that does not use it any more does no harm by not having it removed.
        (Some(here), None) if here.shared => Fate::Nothing,
        // The break takes the heap along.
        (Some(here), None) if is_heap(here) && span.start >= break_page => Fate::Nothing,
        // The stack of the other version has not grown that far.
        (Some(here), None) if is_stack(here) => Fate::Keep(By::Page, protection(here), protection(here)),
        (Some(_), None) => Fate::Remove,
        // The stack grows when it is written to, and the heap with the break.
        (None, Some(there)) if is_stack(there) => Fate::Keep(By::Page, protection(there), protection(there)),
        (None, Some(there)) if is_heap(there) && span.end <= break_page => {
            Fate::Keep(By::Page, read_write, protection(there))
        }
        (None, Some(_)) => Fate::Create,
        (Some(here), Some(there)) if here.shared => match there.shared || !is_file(there) {
            true => Fate::Nothing,
            false => return Err(Unfit::SharedInTheWay { name: here.name.clone(), at: span.start }),
        },
        (Some(here), Some(there)) if has_same_backing(here, there) => {
            Fate::Keep(By::Page, protection(here), protection(there))
        }
        // The follower has no descriptor to map a file from, and is given a private copy instead.
        (Some(here), Some(there)) if is_file(here) && !is_file(there) => {
            Fate::Keep(By::Byte, protection(here), protection(there))
        }
        (Some(_), Some(_)) => Fate::Create,
    })
}

impl Changes {
    fn remove(&mut self, span: Span) {
        match self.removed.last_mut() {
            Some(last) if last.end == span.start => last.end = span.end,
            _ => self.removed.push(span),
        }
    }

    fn keep(&mut self, kept: Kept) {
        match self.kept.last_mut() {
            Some(last)
                if last.span.end == kept.span.start
                    && (last.by, last.has, last.wants) == (kept.by, kept.has, kept.wants) =>
            {
                last.span.end = kept.span.end;
            }
            _ => self.kept.push(kept),
        }
    }

    fn create(&mut self, span: Span, area: &Mapping) {
        let file = is_file(area).then(|| area.clone());
        let created = Created { span, protection: protection(area), file };
        match self.created.last_mut() {
            Some(last)
                if last.span.end == span.start
                    && last.protection == created.protection
                    && last.file == created.file =>
            {
                last.span.end = span.end;
            }
            _ => self.created.push(created),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn area(start: u64, end: u64, rights: &str, inode: u64, name: &str) -> Mapping {
        let has = |right: char| rights.contains(right);
        Mapping {
            start,
            end,
            readable: has('r'),
            writable: has('w'),
            executable: has('x'),
            shared: has('s'),
            offset: if inode == 0 { 0 } else { start },
            device: 1,
            inode,
            name: name.to_owned(),
        }
    }

    fn changes(here: &[Mapping], there: &[Mapping]) -> Changes {
        let (here, there) = (Areas { maps: here, break_at: 0 }, Areas { maps: there, break_at: 0 });
        compare(&here, &there, &[]).expect("they fit")
    }

    fn span(start: u64, end: u64) -> Span {
        Span { start, end }
    }

    #[test]
    fn of_an_image_with_nothing_in_common_everything_moves() {
        let here = [
            area(0x1000, 0x2000, "rw", 0, ""),
            area(0x2000, 0x3000, "rw", 0, "[heap]"),
            area(0x8000, 0x9000, "rx", 0, "[vdso]"),
        ];
        let there = [
            area(0x2000, 0x3000, "rx", 5, "/bin/a"),
            area(0x3000, 0x4000, "rw", 0, ""),
            area(0x4000, 0x5000, "rw", 0, "[stack]"),
            area(0x6000, 0x7000, "rx", 0, "[vdso]"),
            area(0xa000, 0xb000, "rw", 0, ""),
        ];
        let (changes, placed) = replace(&here, &there, &[span(0xa000, 0xb000)]).expect("they fit");
        assert_eq!(changes.removed, [span(0x1000, 0x3000)]);
        assert_eq!(placed, [(span(0x8000, 0x9000), 0x6000)]);
        let created: Vec<_> = changes.created.iter().map(|created| created.span).collect();
        assert_eq!(created, [span(0x2000, 0x3000), span(0x3000, 0x4000), span(0x4000, 0x5000)]);
        let without = replace(&here, &there[..3], &[]);
        assert_eq!(without, Err(Unfit::Kernels { name: "[vdso]".to_owned() }));
        assert_eq!(replace(&here[..2], &there, &[]), Err(Unfit::Kernels { name: "[vdso]".to_owned() }));
    }

    #[test]
    fn memory_that_is_shared_with_others_is_not_replaced() {
        let file = area(0x1000, 0x2000, "rws", 9, "/var/lib/x");
        assert!(matches!(check_replaceable(std::slice::from_ref(&file), &[]), Err(Unfit::Shared { at: 0x1000, .. })));
        assert_eq!(check_replaceable(&[file], &[span(0x1000, 0x2000)]), Ok(()));
        let nameless = |start, end| Mapping { offset: 0, ..area(start, end, "rws", 7, "/dev/zero (deleted)") };
        assert_eq!(check_replaceable(&[nameless(0x1000, 0x2000)], &[]), Ok(()));
        let twice = [nameless(0x1000, 0x2000), nameless(0x3000, 0x4000)];
        assert_eq!(replace(&[], &twice, &[]), Err(Unfit::SharedTwice { at: 0x3000 }));
    }

    const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

    #[test]
    fn what_both_have_is_kept_and_the_rest_removed_or_created() {
        let here = [area(0x1000, 0x4000, "rw", 0, ""), area(0x8000, 0x9000, "r", 7, "/lib/a")];
        let there = [area(0x2000, 0x6000, "rw", 0, ""), area(0x8000, 0x9000, "rw", 7, "/lib/a")];
        let found = changes(&here, &there);
        assert_eq!(found.removed, [span(0x1000, 0x2000)]);
        assert_eq!(found.created, [Created { span: span(0x4000, 0x6000), protection: RW, file: None }]);
        let kept: Vec<_> = found.kept.iter().map(|kept| (kept.span, kept.has, kept.wants)).collect();
        assert_eq!(kept, [(span(0x2000, 0x4000), RW, RW), (span(0x8000, 0x9000), libc::PROT_READ, RW)]);
    }

    #[test]
    fn what_is_shared_stays_as_it_is() {
        let here = [area(0x1000, 0x2000, "rws", 9, "/dev/shm/x"), area(0x3000, 0x4000, "rws", 9, "/dev/shm/x")];
        let there = [area(0x1000, 0x2000, "rw", 0, "")];
        assert_eq!(changes(&here, &there), Changes::default());
        let there = [area(0x1000, 0x2000, "r", 5, "/lib/b")];
        let (here, there) = (Areas { maps: &here, break_at: 0 }, Areas { maps: &there, break_at: 0 });
        assert!(matches!(compare(&here, &there, &[]), Err(Unfit::SharedInTheWay { at: 0x1000, .. })));
    }

    #[test]
    fn a_copy_of_a_file_is_compared_by_its_bytes() {
        let here = [area(0x1000, 0x2000, "rx", 9, "/lib/a")];
        let there = [area(0x1000, 0x2000, "rx", 0, "")];
        assert_eq!(changes(&here, &there).kept[0].by, By::Byte);
    }

    #[test]
    fn the_stack_and_the_heap_grow_by_themselves() {
        let here = [area(0x1000, 0x2000, "rw", 0, "[heap]"), area(0x9000, 0xa000, "rw", 0, "[stack]")];
        let there = [area(0x1000, 0x4000, "rw", 0, "[heap]"), area(0x8000, 0xa000, "rw", 0, "[stack]")];
        let grown = compare(&Areas { maps: &here, break_at: 0x2000 }, &Areas { maps: &there, break_at: 0x3f00 }, &[])
            .expect("they fit");
        assert_eq!((grown.removed.len(), grown.created.len()), (0, 0));
        let back = compare(&Areas { maps: &there, break_at: 0x3f00 }, &Areas { maps: &here, break_at: 0x2000 }, &[])
            .expect("they fit");
        assert_eq!((back.removed.len(), back.created.len()), (0, 0), "the break removes what is behind it");
    }

    /// Areas that do not overlap, in ascending order.
    fn areas() -> impl Strategy<Value = Vec<Mapping>> {
        proptest::collection::vec((0u64..4, 1u64..5, any::<bool>(), 0u64..3), 0..12).prop_map(|pieces| {
            let mut at = 0x10;
            let mut areas = Vec::new();
            for (gap, len, writable, inode) in pieces {
                let start = at + gap;
                at = start + len;
                let rights = if writable { "rw" } else { "r" };
                areas.push(area(start << 12, at << 12, rights, inode, ""));
            }
            areas
        })
    }

    proptest! {
        /// Whoever does what is said gets the areas of the image to come.
        #[test]
        fn the_changes_make_the_other_image(here in areas(), there in areas()) {
            let found = changes(&here, &there);
            let page = |areas: &[Mapping], at: u64| {
                areas.iter().find(|area| area.start <= at && at < area.end).map(protection)
            };
            for at in (0..0x80).map(|number| (0x10 + number) << 12) {
                let mut now = page(&here, at);
                if found.removed.iter().any(|span| span.contains(at)) {
                    now = None;
                }
                if let Some(created) = found.created.iter().find(|created| created.span.contains(at)) {
                    now = Some(created.protection);
                }
                if let Some(kept) = found.kept.iter().find(|kept| kept.span.contains(at)) {
                    prop_assert_eq!(now, Some(kept.has));
                    now = Some(kept.wants);
                }
                prop_assert_eq!(now, page(&there, at));
            }
        }
    }
}
