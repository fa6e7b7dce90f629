//! Where the follower has its copies of the files that the leader has mapped.
//!
//! A copy is anonymous memory, which a file's mapping is not: what is given up of it (`MADV_DONTNEED`) reads as zeros. So what
//! the file had is kept, within a limit, and put back behind such a call; of what is shared or was never written it is there
//! already, and nothing is given up. What a mapping has more when it was made larger (`mremap`) nobody has recorded.

use bytes::Bytes;

use super::real::What;
use super::*;
use crate::record::IN_MAPPING;

/// How much of a file's contents is kept for one mapping.
const KEPT: u64 = 64 << 20;
const PAGE: u64 = 4096;
const MADV_DONTNEED_LOCKED: i32 = 24;

/// The copies of one process; none overlaps another in the follower.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copies {
    all: Vec<Copy>,
    /// Since something was moved, the leader's addresses are not known of all.
    moved: bool,
}

#[derive(Clone, Debug)]
struct Copy {
    /// Where it is in the leader, unless it was moved.
    leader: Option<u64>,
    place: u64,
    len: u64,
    shared: bool,
    contents: Contents,
}

/// What the file has, by the place of the copy.
#[derive(Clone, Debug)]
enum Contents {
    /// Later parts count where two overlap; between them there are zeros.
    Kept(Arc<Vec<(u64, Bytes)>>),
    /// The program may not write to it, so the copy is as the file is.
    Untouched,
    /// It is too long.
    Unknown,
}

/// What the follower's own call is about to do to its copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing but what happens to all memory.
    Plain,
    /// It gives up pages that read as the file afterwards.
    GiveUp { start: u64, len: u64 },
    /// Nothing is given up, and the call succeeds: all of it is as the file is.
    AsTheFile,
    /// It moves a mapping.
    Move { from: u64, len: u64, kept: u64 },
    /// It cannot be made, and why.
    Refused(&'static str),
}

/// A mapping of the leader's, and the copy of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapped {
    pub(super) leader: u64,
    pub(super) place: u64,
    pub(super) len: u64,
    pub(super) shared: bool,
    pub(super) writable: bool,
}

fn overlap(one: (u64, u64), other: (u64, u64)) -> Option<(u64, u64)> {
    let (start, end) = (one.0.max(other.0), one.0.saturating_add(one.1).min(other.0.saturating_add(other.1)));
    (start < end).then(|| (start, end - start))
}

fn pages(len: u64) -> u64 {
    len.checked_next_multiple_of(PAGE).unwrap_or(len)
}

impl Copy {
    fn span(&self) -> (u64, u64) {
        (self.place, self.len)
    }

    /// Returns what is left of it before an address, and behind another.
    fn without(self, start: u64, end: u64) -> impl Iterator<Item = Copy> {
        let (place, len) = self.span();
        let parts = [(place, start.min(place + len)), (end.max(place), place + len)];
        parts.into_iter().filter(|(from, to)| from < to).map(move |(from, to)| Copy {
            leader: self.leader.map(|leader| leader + (from - place)),
            place: from,
            len: to - from,
            ..self.clone()
        })
    }
}

impl Copies {
    /// Takes note of a copy, in place of others that were there.
    pub(super) fn insert(&mut self, mapped: Mapped, contents: &[(u64, Bytes)]) {
        let Mapped { leader, place, len, shared, writable } = mapped;
        let len = pages(len);
        self.remove(place, len);
        for copy in &mut self.all {
            if copy.leader.is_some_and(|other| overlap((other, copy.len), (leader, len)).is_some()) {
                copy.leader = None;
            }
        }
        let size: u64 = contents.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let contents = match (shared, writable) {
            // What is given up of a shared mapping is there still.
            (true, _) | (false, false) => Contents::Untouched,
            (false, true) if size <= KEPT => {
                let part = |(offset, bytes): &(u64, Bytes)| (place + offset, bytes.clone());
                Contents::Kept(Arc::new(contents.iter().map(part).collect()))
            }
            (false, true) => Contents::Unknown,
        };
        self.all.push(Copy { leader: Some(leader), place, len, shared, contents });
    }

    /// Something else is mapped there from now on, or nothing.
    fn remove(&mut self, start: u64, len: u64) {
        let (start, len) = (start, pages(len));
        if !self.all.iter().any(|copy| overlap(copy.span(), (start, len)).is_some()) {
            return;
        }
        let parts = |copy: Copy| match overlap(copy.span(), (start, len)) {
            None => vec![copy],
            Some(_) => copy.without(start, start + len).collect(),
        };
        self.all = std::mem::take(&mut self.all).into_iter().flat_map(parts).collect();
    }

    /// Forgets all: another program runs now.
    pub(super) fn clear(&mut self) {
        *self = Copies::default();
    }

    /// Returns where that is which stands at an address of the leader; nothing for what is no copy, or is not any more.
    fn place(&self, addr: u64, len: u64) -> Option<u64> {
        self.all.iter().find_map(|copy| {
            let offset = addr.checked_sub(copy.leader?)?;
            (offset.checked_add(len)? <= copy.len).then_some(copy.place + offset)
        })
    }

    /// Brings what a call of the leader has changed in its mappings into the copies. Says whether there was a place for all of
    /// it.
    pub(super) fn change(&mut self, memory: &Memory, ret: &CallReturn) -> Result<bool> {
        for piece in ret.outputs.iter().filter(|piece| piece.arg == IN_MAPPING) {
            let len = piece.bytes.len() as u64;
            let Some(place) = self.place(piece.addr.0, len) else {
                if self.moved {
                    return Ok(false);
                }
                continue;
            };
            memory.force(place, &piece.bytes)?;
            for copy in self.all.iter_mut().filter(|copy| overlap(copy.span(), (place, len)).is_some()) {
                if let Contents::Kept(parts) = &mut copy.contents {
                    Arc::make_mut(parts).push((place, piece.bytes.clone()));
                }
            }
        }
        Ok(true)
    }

    /// Returns what a call does to copies, and takes note of what it takes away; it is about to be made.
    pub(super) fn begin(&mut self, nr: u32, args: &[u64; 6]) -> Change {
        if self.all.is_empty() {
            return Change::Plain;
        }
        let [start, len, ..] = *args;
        match i64::from(nr) {
            libc::SYS_munmap => self.remove(start, len),
            libc::SYS_mmap if args[3] as i32 & libc::MAP_FIXED != 0 => self.remove(start, len),
            libc::SYS_mprotect | libc::SYS_pkey_mprotect if args[2] as i32 & libc::PROT_WRITE != 0 => {
                self.may_be_written(start, pages(len));
            }
            libc::SYS_madvise if [libc::MADV_DONTNEED, MADV_DONTNEED_LOCKED].contains(&(args[2] as i32)) => {
                return self.give_up(start, pages(len));
            }
            libc::SYS_mremap => return self.moves(args),
            _ => {}
        }
        Change::Plain
    }

    /// What nobody could write to has its file's contents as long as that is so.
    fn may_be_written(&mut self, start: u64, len: u64) {
        for copy in self.all.iter_mut().filter(|copy| overlap(copy.span(), (start, len)).is_some()) {
            if !copy.shared && matches!(copy.contents, Contents::Untouched) {
                copy.contents = Contents::Unknown;
            }
        }
    }

    fn give_up(&self, start: u64, len: u64) -> Change {
        let given_up: Vec<(u64, &Contents)> =
            self.all.iter().filter_map(|copy| Some((overlap(copy.span(), (start, len))?.1, &copy.contents))).collect();
        let covered: u64 = given_up.iter().map(|(len, _)| len).sum();
        let all = |wanted: fn(&Contents) -> bool| given_up.iter().all(|(_, contents)| wanted(contents));
        match covered {
            0 => Change::Plain,
            _ if covered == len && all(|contents| matches!(contents, Contents::Untouched)) => Change::AsTheFile,
            _ if all(|contents| matches!(contents, Contents::Kept(_))) => Change::GiveUp { start, len },
            _ => Change::Refused(
                "it gives up pages of a mapped file of which the follower does not have the contents any more",
            ),
        }
    }

    fn moves(&mut self, args: &[u64; 6]) -> Change {
        let [from, old, new, flags, to, _] = *args;
        let (old, new) = (pages(old), pages(new));
        if flags as i32 & libc::MREMAP_FIXED != 0 {
            self.remove(to, new);
        }
        if !self.all.iter().any(|copy| overlap(copy.span(), (from, old.max(1))).is_some()) {
            return Change::Plain;
        }
        if new > old {
            return Change::Refused(
                "it makes the mapping of a file larger, of which the follower has a copy as it was",
            );
        }
        Change::Move { from, len: old, kept: new }
    }

    /// A mapping was moved.
    fn moved(&mut self, (from, len, kept): (u64, u64, u64), to: u64) {
        self.remove(from + kept, len - kept);
        if from == to {
            return;
        }
        for copy in self.all.iter_mut().filter(|copy| overlap(copy.span(), (from, kept)).is_some()) {
            let shift = to.wrapping_sub(from);
            copy.place = copy.place.wrapping_add(shift);
            copy.leader = None;
            if let Contents::Kept(parts) = &mut copy.contents {
                let moved = |(place, bytes): &(u64, Bytes)| (place.wrapping_add(shift), bytes.clone());
                *parts = Arc::new(parts.iter().map(moved).collect());
            }
        }
        self.moved = true;
    }

    /// Returns what is to be written where pages were given up, in this order.
    fn given_up(&self, start: u64, len: u64) -> Vec<(u64, Bytes)> {
        let mut writes = Vec::new();
        for copy in &self.all {
            let (Some(span), Contents::Kept(parts)) = (overlap(copy.span(), (start, len)), &copy.contents) else {
                continue;
            };
            writes.extend(parts.iter().filter_map(|(place, bytes)| {
                let (from, len) = overlap(span, (*place, bytes.len() as u64))?;
                let at = (from - place) as usize;
                Some((from, bytes.slice(at..at + len as usize)))
            }));
        }
        writes
    }
}

impl Following {
    /// Returns where the follower has what stands at an address of a file that the leader has mapped.
    pub(crate) fn place_of_copy(&self, addr: u64, len: u64) -> Option<u64> {
        self.known.copies.place(addr, len)
    }

    /// A thread stands at the entry of a call that each version makes for itself. Says whether it changes copies, and what is to
    /// be done was done.
    pub(super) fn change_copies(&mut self, process: &Process, tid: Tid, nr: u32, args: &[u64; 6]) -> Result<bool> {
        match self.known.copies.begin(nr, args) {
            Change::Plain => Ok(false),
            Change::AsTheFile => {
                sys::set_result(tid, 0)?;
                self.go(tid, Resume::Sysemu, State::Running { local: None })?;
                Ok(true)
            }
            change @ (Change::GiveUp { .. } | Change::Move { .. }) => {
                self.make(tid, nr, State::real(What::Copies(change)))?;
                Ok(true)
            }
            Change::Refused(reason) => {
                let call = syscalls::name(nr).unwrap_or("a call").to_owned();
                let Some(slot) = process.slot(tid) else { return Ok(true) };
                let kind = DivergenceKind::Refused { call, reason: reason.to_owned() };
                let divergence = self.describe(slot, kind, self.due.first_of(slot), None);
                self.diverge(process, divergence);
                Ok(true)
            }
        }
    }

    /// The call has returned that changes copies.
    pub(super) fn finish_change(&mut self, process: &Process, tid: Tid, change: Change, ret: i64) -> Result<()> {
        match change {
            Change::GiveUp { start, len } => {
                for (place, bytes) in self.known.copies.given_up(start, len) {
                    process.memory.force(place, &bytes)?;
                }
            }
            Change::Move { from, len, kept } if ret > 0 => self.known.copies.moved((from, len, kept), ret as u64),
            Change::Plain | Change::AsTheFile | Change::Move { .. } | Change::Refused(_) => {}
        }
        self.go(tid, Resume::Sysemu, State::Running { local: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(leader: u64, place: u64, len: u64) -> Mapped {
        Mapped { leader, place, len, shared: false, writable: true }
    }

    fn advise(copies: &mut Copies, start: u64, len: u64) -> Change {
        copies.begin(libc::SYS_madvise as u32, &[start, len, libc::MADV_DONTNEED as u64, 0, 0, 0])
    }

    #[test]
    fn a_later_copy_takes_the_place_of_those_before() {
        let mut copies = Copies::default();
        copies.insert(mapped(0x1000, 0x5000, 0x2000), &[]);
        copies.insert(mapped(0x8000, 0x9000, 0x1000), &[]);
        assert_eq!(copies.place(0x1800, 0x100), Some(0x5800));
        assert_eq!((copies.place(0x2f00, 0x200), copies.place(0x800, 1), copies.place(0x7000, 1)), (None, None, None));
        copies.insert(mapped(0x2000, 0xa000, 0x1000), &[]);
        assert_eq!((copies.place(0x1800, 1), copies.place(0x2800, 1)), (None, Some(0xa800)));
        assert_eq!(copies.place(0x8010, 16), Some(0x9010));
        copies.begin(libc::SYS_munmap as u32, &[0x9000, 1, 0, 0, 0, 0]);
        assert_eq!(copies.place(0x8010, 16), None);
    }

    #[test]
    fn what_is_given_up_reads_as_the_file() {
        let mut copies = Copies::default();
        let file = [(0, Bytes::from(vec![1; 0x1800]))];
        copies.insert(mapped(0x1000, 0x5000, 0x3000), &file);
        assert_eq!(advise(&mut copies, 0x20000, 0x1000), Change::Plain);
        let change = advise(&mut copies, 0x6000, 0x1000);
        assert_eq!(change, Change::GiveUp { start: 0x6000, len: 0x1000 });
        let write = |(place, bytes): &(u64, Bytes)| (*place, bytes.len());
        assert_eq!(copies.given_up(0x6000, 0x1000).iter().map(write).collect::<Vec<_>>(), [(0x6000, 0x800)]);
        // In the middle something else is mapped.
        copies.begin(libc::SYS_munmap as u32, &[0x6000, 0x1000, 0, 0, 0, 0]);
        assert_eq!(copies.given_up(0x5000, 0x3000).iter().map(write).collect::<Vec<_>>(), [(0x5000, 0x1000)]);
        assert_eq!(
            (copies.place(0x1000, 1), copies.place(0x2000, 1), copies.place(0x3000, 1)),
            (Some(0x5000), None, Some(0x7000))
        );
    }

    #[test]
    fn what_nobody_could_write_to_is_not_given_up() {
        let mut copies = Copies::default();
        copies.insert(Mapped { writable: false, ..mapped(0x1000, 0x5000, 0x2000) }, &[]);
        copies.insert(Mapped { shared: true, ..mapped(0x8000, 0x9000, 0x1000) }, &[]);
        assert_eq!(advise(&mut copies, 0x5000, 0x2000), Change::AsTheFile);
        assert_eq!(advise(&mut copies, 0x9000, 0x1000), Change::AsTheFile);
        assert!(matches!(advise(&mut copies, 0x5000, 0x3000), Change::Refused(_)), "anonymous memory is behind it");
        let write = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        copies.begin(libc::SYS_mprotect as u32, &[0x5000, 0x1000, write, 0, 0, 0]);
        assert!(matches!(advise(&mut copies, 0x5000, 0x2000), Change::Refused(_)));
    }

    #[test]
    fn a_mapping_is_moved_and_never_grows() {
        let mut copies = Copies::default();
        copies.insert(mapped(0x1000, 0x5000, 0x2000), &[(0, Bytes::from(vec![1; 0x2000]))]);
        let remap = |copies: &mut Copies, new| copies.begin(libc::SYS_mremap as u32, &[0x5000, 0x2000, new, 1, 0, 0]);
        assert!(matches!(remap(&mut copies, 0x3000), Change::Refused(_)));
        let Change::Move { from, len, kept } = remap(&mut copies, 0x1000) else { panic!("it is moved") };
        copies.moved((from, len, kept), 0x7000);
        assert_eq!(
            copies.given_up(0, 0x10000).iter().map(|(place, bytes)| (*place, bytes.len())).collect::<Vec<_>>(),
            [(0x7000, 0x1000)]
        );
        assert!(copies.moved && copies.place(0x1000, 1).is_none());
    }
}
