//! Which calls of the leader concern the same kernel object, whatever numbers they name it by.
//!
//! The order across threads may be relaxed between calls that have nothing to do with each other ([`super::following`]). A
//! descriptor's number does not tell that: a pipe and a pair of sockets have two ends, `dup(2)` makes other numbers for the
//! same thing, a program may connect to a port that it listens at itself, and a number is used again. So it is kept for each
//! number what it stood for and since which record. What was open before the first record is looked up in `/proc`.
//!
//! Where something is not known, calls count as concerned with each other rather than not: the order is kept then.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use mvedsua_common::syscalls::{self, Arg, Class, Dir, Extent, Fds, Irregular, Made, Outcome, Row, row_of};

use crate::ptrace::{Pid, procfs};
use crate::record::{CallEntry, CallReturn, Event, Piece, Record, Slot};

/// What stands behind a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Object {
    /// Nothing is known but the number.
    Number(i32),
    /// Both ends of a pipe, or one socket: device and inode.
    Inode(u64, u64),
    /// The number that the kernel gives an eventfd.
    Event(u64),
    /// A file by its name.
    File(u64),
    /// The record that made it; of a pair both have the same.
    Made(u64),
    /// The names in all file systems.
    Names,
    /// A number itself, for those that give it away and take it: whatever stands behind it, a call that got it was behind the
    /// one that closed it.
    Place(i32),
    /// Numbers that came in a message, SCM_RIGHTS of unix(7): any.
    SomePlaces,
}

/// On which side of connections within the program a socket may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// It is bound to the address, or accepted there.
    Server,
    /// The program itself connects to the address, or sends there.
    Client,
}

/// The sockets of the UNIX domain that were there before are not told apart.
const UNIX: u64 = 0;

/// One thing that a call has to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Touch {
    object: Object,
    /// Where it meets other sockets: an address, and the side.
    meeting: Option<(u64, Side)>,
    changes: bool,
}

impl Touch {
    fn of(object: Object) -> Touch {
        Touch { object, meeting: None, changes: true }
    }

    fn concerns(&self, other: &Touch) -> bool {
        let meet = match (self.meeting, other.meeting) {
            (Some((one, side)), Some((another, other_side))) => {
                one == another && (side == Side::Client || other_side == Side::Client)
            }
            _ => false,
        };
        let same = match (self.object, other.object) {
            (Object::SomePlaces, Object::Place(_) | Object::SomePlaces) | (Object::Place(_), Object::SomePlaces) => {
                true
            }
            (one, another) => one == another,
        };
        meet || same && (self.object != Object::Names || self.changes || other.changes)
    }
}

/// Everything that a call has to do with.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched(Vec<Touch>);

impl Touched {
    /// Says whether two calls have something in common, so that their order counts.
    pub(super) fn concerns(&self, other: &Touched) -> bool {
        self.0.iter().any(|one| other.0.iter().any(|another| one.concerns(another)))
    }
}

/// What a number stood for.
#[derive(Clone, Copy, Debug)]
struct Meaning {
    /// The first record for which this holds.
    since: u64,
    touch: Touch,
    /// Something that is written to it from within the program can be what makes it ready.
    inward: bool,
}

/// What an epoll set watches that the program itself makes ready.
#[derive(Clone, Copy, Debug)]
struct Watched {
    touch: Touch,
    since: u64,
    until: Option<u64>,
}

/// The leader's descriptors, as its records tell of them.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    /// What each number stood for, oldest first. An empty list: nothing is known.
    by_number: HashMap<i32, Vec<Meaning>>,
    watched: HashMap<Object, Vec<Watched>>,
    /// Calls that were entered, until they return.
    entered: HashMap<Slot, CallEntry>,
}

fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    // 0 is taken.
    hasher.finish() | 1
}

fn port(number: u16) -> u64 {
    hash(("port", number))
}

/// Returns where sockets meet that name this `sockaddr`.
fn address(bytes: &[u8]) -> Option<u64> {
    let family = i32::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    match family {
        libc::AF_INET | libc::AF_INET6 => Some(port(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        libc::AF_UNIX => Some(UNIX),
        _ => None,
    }
}

fn input(entry: &CallEntry, arg: u8) -> Option<&[u8]> {
    entry.inputs.iter().find(|piece| piece.arg == arg && piece.part == 0).map(|piece| &piece.bytes[..])
}

fn output(ret: &CallReturn, arg: u8) -> Option<&[u8]> {
    ret.outputs.iter().find(|piece| piece.arg == arg && piece.part == 0).map(|piece| &piece.bytes[..])
}

fn number_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Returns the two numbers that `pipe` and `socketpair` write.
fn numbers(bytes: Option<&[u8]>) -> Vec<i32> {
    [0, 4].into_iter().filter_map(|at| number_at(bytes?, at)).collect()
}

/// Returns what a call does to the numbers.
fn numbers_of(entry: &CallEntry) -> Fds {
    row_of(entry.nr, &entry.args).map_or(Fds::Keeps, |row| row.fds)
}

/// Says whether the call makes, renames or closes descriptors, or says what they have to do with each other.
fn tells(entry: &CallEntry) -> bool {
    !matches!(numbers_of(entry), Fds::Keeps | Fds::Receives)
        || matches!(i64::from(entry.nr), libc::SYS_bind | libc::SYS_connect | libc::SYS_epoll_ctl)
}

impl Objects {
    /// Looks at what a process has open. What it opens and closes meanwhile its records tell.
    pub(crate) fn of_process(pid: Pid) -> Objects {
        let mut objects = Objects::default();
        let Ok(descriptors) = procfs::descriptors(pid) else { return objects };
        let sockets = super::sockets::Meetings::of(pid, &descriptors);
        for descriptor in &descriptors {
            let path = format!("/proc/{pid}/fd/{}", descriptor.fd);
            let Ok(found) = std::fs::metadata(path) else { continue };
            let kind = found.file_type();
            let (object, inward) = if kind.is_fifo() || kind.is_socket() {
                let meets = kind.is_socket().then(|| sockets.of_inode(found.ino())).flatten();
                (
                    Object::Inode(found.dev(), found.ino()),
                    kind.is_fifo() || meets == Some(super::sockets::Meets::Unnamed),
                )
            } else if let Some(id) = procfs::event_id(pid, descriptor.fd) {
                (Object::Event(id), true)
            } else if descriptor.target.has_root() {
                use std::os::unix::ffi::OsStrExt;
                (Object::File(hash(descriptor.target.as_os_str().as_bytes())), false)
            } else {
                (Object::Number(descriptor.fd), false)
            };
            let meeting = match sockets.of_inode(found.ino()).filter(|_| kind.is_socket()) {
                Some(super::sockets::Meets::ListensAt(number)) => Some((port(number), Side::Server)),
                Some(super::sockets::Meets::ConnectedTo(number)) => Some((port(number), Side::Client)),
                Some(super::sockets::Meets::Named) => Some((UNIX, Side::Server)),
                Some(super::sockets::Meets::Unnamed) => Some((UNIX, Side::Client)),
                None => None,
            };
            let touch = Touch { object, meeting, changes: true };
            objects.by_number.insert(descriptor.fd, vec![Meaning { since: 0, touch, inward }]);
        }
        for descriptor in &descriptors {
            let epoll = descriptor.target.as_os_str() == "anon_inode:[eventpoll]";
            for entry in procfs::epoll_entries(pid, descriptor.fd).ok().filter(|_| epoll).into_iter().flatten() {
                objects.watch(descriptor.fd, entry.fd, 0);
            }
        }
        objects
    }

    /// Takes notice of a record. They come in the log's order; all below `agreed` are over.
    pub(super) fn note(&mut self, record: &Record, agreed: u64) {
        let at = record.seq.0;
        match &record.event {
            Event::Call(entry, ret) if tells(entry) => {
                self.forget(entry, at, agreed);
                self.learn(entry, ret, at, agreed);
            }
            Event::Enter(entry) if tells(entry) => {
                self.forget(entry, at, agreed);
                self.entered.insert(record.slot, entry.clone());
            }
            Event::Return(ret) => {
                if let Some(entry) = self.entered.remove(&record.slot) {
                    self.learn(&entry, ret, at, agreed);
                }
            }
            Event::Call(..)
            | Event::Enter(_)
            | Event::Signal(_)
            | Event::ThreadStarted { .. }
            | Event::ThreadEnded
            | Event::Resumed
            | Event::Overdue
            | Event::Gap(_)
            | Event::ProcessStarted { .. }
            | Event::Executed(_)
            | Event::ProcessEnded(_)
            | Event::Succession(_) => {}
        }
    }

    /// Returns what a call has to do with.
    pub(super) fn touched(&self, record: &Record) -> Touched {
        let at = record.seq.0;
        let Some((entry, ret)) = record.event.call() else { return Touched::default() };
        let Some(row) = row_of(entry.nr, &entry.args) else { return Touched::default() };
        let args =
            row.args.iter().zip(entry.args).filter(|(arg, _)| matches!(arg, Arg::Fd)).map(|(_, value)| value as i32);
        let opened: Vec<i32> = ret.map_or_else(Vec::new, |ret| match row.fds {
            Fds::MakesTwo { at, .. } => numbers(output(ret, at)),
            Fds::Makes(_) | Fds::Duplicates | Fds::DuplicatesOnto => vec![ret.ret as i32],
            Fds::Keeps | Fds::Closes | Fds::ClosesRange | Fds::Receives => Vec::new(),
        });
        let places = opened.iter().copied().chain(self.given_up(entry)).filter(|fd| *fd >= 0);
        let mut places: Vec<Touch> = places.map(|fd| Touch::of(Object::Place(fd))).collect();
        if row.fds == Fds::Receives {
            places.push(Touch::of(Object::SomePlaces));
        }
        // AT_FDCWD and errors are no descriptors.
        let fds = args.chain(opened).chain(ready(row, ret)).filter(|fd| *fd >= 0);
        let mut touched: Vec<Touch> = fds.map(|fd| self.meaning(fd, at)).chain(places).collect();
        if row.path().is_some() {
            touched.push(Touch {
                changes: row.class == Class::Compare || creates(row, entry),
                ..Touch::of(Object::Names)
            });
        }
        if row.irregular == Some(Irregular::EpollWait) {
            let set = self.watched.get(&self.meaning(entry.args[0] as i32, at).object);
            let live = |one: &&Watched| one.since <= at && one.until.is_none_or(|until| at <= until);
            touched.extend(set.into_iter().flatten().filter(live).map(|one| one.touch));
        }
        if i64::from(entry.nr) == libc::SYS_sendto
            && let (Some(to), Some(first)) = (input(entry, 4).and_then(address), touched.first().copied())
        {
            touched.push(Touch { meeting: Some((to, Side::Client)), ..first });
        }
        Touched(touched)
    }

    /// Returns the numbers that a call closes.
    fn given_up(&self, entry: &CallEntry) -> Vec<i32> {
        match numbers_of(entry) {
            Fds::Closes => vec![entry.args[0] as i32],
            Fds::DuplicatesOnto => vec![entry.args[1] as i32],
            Fds::ClosesRange => self.known_in_range(entry),
            Fds::Keeps | Fds::Makes(_) | Fds::MakesTwo { .. } | Fds::Duplicates | Fds::Receives => Vec::new(),
        }
    }

    /// Returns the numbers in the range of `close_range(2)` of which something is known.
    fn known_in_range(&self, entry: &CallEntry) -> Vec<i32> {
        let range = entry.args[0] as u32..=entry.args[1] as u32;
        self.by_number.keys().copied().filter(|fd| range.contains(&(*fd as u32))).collect()
    }

    /// Returns what a call has to do with when it returns that was entered by another record: the number that it is given.
    pub(super) fn touched_by_return(nr: u32, ret: &CallReturn) -> Touched {
        let opens = syscalls::row(nr).is_some_and(|row| row.outcome == Outcome::Fd);
        Touched((opens && ret.ret >= 0).then(|| Touch::of(Object::Place(ret.ret as i32))).into_iter().collect())
    }

    fn known(&self, fd: i32, at: u64) -> Option<Meaning> {
        self.by_number.get(&fd)?.iter().rev().find(|meaning| meaning.since <= at).copied()
    }

    fn meaning(&self, fd: i32, at: u64) -> Touch {
        self.known(fd, at).map_or(Touch::of(Object::Number(fd)), |meaning| meaning.touch)
    }

    fn set(&mut self, fd: i32, meaning: Meaning, agreed: u64) {
        let history = self.by_number.entry(fd).or_default();
        // Of what nobody will ask for any more the last still holds.
        let over = history.iter().rposition(|meaning| meaning.since <= agreed).unwrap_or(0);
        history.drain(..over);
        let former = history.last().copied();
        history.push(meaning);
        if let Some(former) = former.filter(|former| former.touch.object != meaning.touch.object) {
            self.end_watches(former.touch.object, meaning.since, agreed);
        }
    }

    /// A number no longer stands for an object. Once none does, no epoll set watches it, and it watches nothing.
    fn end_watches(&mut self, object: Object, at: u64, agreed: u64) {
        let concerned = |(set, watched): (&Object, &Vec<Watched>)| {
            *set == object || watched.iter().any(|one| one.touch.object == object && one.until.is_none())
        };
        if !self.watched.iter().any(concerned) {
            return;
        }
        let named = |history: &Vec<Meaning>| history.last().is_some_and(|last| last.touch.object == object);
        if self.by_number.values().any(named) {
            return;
        }
        self.watched.retain(|set, watched| {
            watched.retain(|one| one.until.is_none_or(|until| until >= agreed));
            for one in watched.iter_mut().filter(|one| one.until.is_none()) {
                if *set == object || one.touch.object == object {
                    one.until = Some(at);
                }
            }
            !watched.is_empty()
        });
    }

    /// A call begins by which numbers lose their meaning.
    fn forget(&mut self, entry: &CallEntry, at: u64, agreed: u64) {
        let none = |fd| Meaning { since: at + 1, touch: Touch::of(Object::Number(fd)), inward: false };
        match numbers_of(entry) {
            Fds::Closes => self.set(entry.args[0] as i32, none(entry.args[0] as i32), agreed),
            Fds::ClosesRange if entry.args[2] & u64::from(libc::CLOSE_RANGE_CLOEXEC) == 0 => {
                self.known_in_range(entry).into_iter().for_each(|fd| self.set(fd, none(fd), agreed));
            }
            // What takes a number takes it when it returns.
            Fds::Keeps
            | Fds::Makes(_)
            | Fds::MakesTwo { .. }
            | Fds::Duplicates
            | Fds::DuplicatesOnto
            | Fds::ClosesRange
            | Fds::Receives => {}
        }
    }

    /// A call is over by which numbers get a meaning.
    fn learn(&mut self, entry: &CallEntry, ret: &CallReturn, at: u64, agreed: u64) {
        let fd = entry.args[0] as i32;
        let made = Meaning { since: at, touch: Touch::of(Object::Made(at)), inward: false };
        let named = |bytes: &[u8]| Meaning {
            touch: Touch::of(Object::File(hash(bytes.strip_suffix(&[0]).unwrap_or(bytes)))),
            ..made
        };
        match i64::from(entry.nr) {
            // What could not be connected at once may be later.
            libc::SYS_connect => self.meet(fd, input(entry, 1), Side::Client, at, agreed),
            _ if ret.ret < 0 => return,
            libc::SYS_bind => self.meet(fd, input(entry, 1), Side::Server, at, agreed),
            libc::SYS_epoll_ctl => self.register(entry, at, agreed),
            _ => {}
        }
        let Some(row) = row_of(entry.nr, &entry.args) else { return };
        let what = match row.fds {
            Fds::Keeps | Fds::Closes | Fds::ClosesRange | Fds::Receives => return,
            Fds::MakesTwo { at: arg, .. } => return self.pair(output(ret, arg), made, agreed),
            Fds::Duplicates | Fds::DuplicatesOnto => return self.duplicate(fd, ret.ret as i32, at, agreed),
            Fds::Makes(what) => what,
        };
        let meaning = match what {
            Made::Connection => {
                let meeting = self.meaning(fd, at).meeting.map(|(place, _)| (place, Side::Server));
                Meaning { touch: Touch { meeting, ..made.touch }, ..made }
            }
            Made::Event => Meaning { inward: true, ..made },
            Made::File => row.path().and_then(|arg| input(entry, arg)).map_or(made, named),
            Made::Other | Made::Socket | Made::Pipe | Made::Epoll => made,
        };
        self.set(ret.ret as i32, meaning, agreed);
    }

    /// `epoll_ctl(2)` says what a set watches.
    fn register(&mut self, entry: &CallEntry, at: u64, agreed: u64) {
        let (set, of) = (entry.args[0] as i32, entry.args[2] as i32);
        match entry.args[1] as i32 {
            libc::EPOLL_CTL_ADD => self.watch(set, of, at),
            libc::EPOLL_CTL_DEL => self.unwatch(set, of, at, agreed),
            _ => {}
        }
    }

    fn pair(&mut self, bytes: Option<&[u8]>, made: Meaning, agreed: u64) {
        for fd in numbers(bytes) {
            self.set(fd, Meaning { inward: true, ..made }, agreed);
        }
    }

    fn duplicate(&mut self, from: i32, to: i32, at: u64, agreed: u64) {
        let meaning = match self.known(from, at) {
            Some(known) => Meaning { since: at, ..known },
            None => {
                // Both have the first one's number for a name.
                let touch = Touch::of(Object::Number(from));
                Meaning { since: at, touch, inward: true }
            }
        };
        if from != to {
            self.set(to, meaning, agreed);
        }
    }

    fn meet(&mut self, fd: i32, place: Option<&[u8]>, side: Side, at: u64, agreed: u64) {
        let Some(place) = place.and_then(address) else { return };
        let known =
            self.known(fd, at).unwrap_or(Meaning { since: at, touch: Touch::of(Object::Number(fd)), inward: false });
        let touch = Touch { meeting: Some((place, side)), ..known.touch };
        // What is sent to oneself makes the receiver ready.
        let inward = known.inward || side == Side::Client;
        self.set(fd, Meaning { since: at, touch, inward }, agreed);
    }

    fn watch(&mut self, set: i32, fd: i32, at: u64) {
        let Some(known) = self.known(fd, at).filter(|known| known.inward) else { return };
        let set = self.meaning(set, at).object;
        self.watched.entry(set).or_default().push(Watched { touch: known.touch, since: at, until: None });
    }

    fn unwatch(&mut self, set: i32, fd: i32, at: u64, agreed: u64) {
        let object = self.meaning(fd, at).object;
        let set = self.meaning(set, at).object;
        let Some(watched) = self.watched.get_mut(&set) else { return };
        watched.retain(|one| one.until.is_none_or(|until| until >= agreed));
        for one in watched.iter_mut().filter(|one| one.touch.object == object && one.until.is_none()) {
            one.until = Some(at);
        }
    }
}

/// Says whether a call that opens a file may make it.
fn creates(row: &Row, entry: &CallEntry) -> bool {
    let flags = row.open_flags(&entry.args).unwrap_or_default();
    flags as i32 & (libc::O_CREAT | libc::O_TRUNC) != 0
}

/// Returns the descriptors that `poll` or `select` found ready.
fn ready(row: &Row, ret: Option<&CallReturn>) -> Vec<i32> {
    let Some(ret) = ret.filter(|ret| ret.ret > 0) else { return Vec::new() };
    let is_set = |arg: u8| matches!(row.args.get(usize::from(arg)), Some(Arg::Mem(Dir::InOut, Extent::FdSet { .. })));
    if let Some(Arg::Mem(_, Extent::PollFds { .. })) = row.args.first() {
        let found = output(ret, 0).unwrap_or_default().chunks_exact(8);
        return found.filter(|one| one[6..8] != [0, 0]).filter_map(|one| number_at(one, 0)).collect();
    }
    let bits = |piece: &Piece| {
        let set = |(at, byte): (usize, &u8)| {
            (0..8).filter(|bit| byte & 1 << bit != 0).map(|bit| 8 * at as i32 + bit).collect::<Vec<_>>()
        };
        piece.bytes.iter().enumerate().flat_map(set).collect::<Vec<i32>>()
    };
    ret.outputs.iter().filter(|piece| is_set(piece.arg)).flat_map(bits).collect()
}

#[cfg(test)]
mod tests;
