//! What each of the leader's descriptors is, as far as its calls tell.

use std::collections::HashMap;
use std::sync::Arc;

use mvedsua_common::syscalls::{Fds, Made, Row, regions, row_of};
use serde::{Deserialize, Serialize};

use super::ast::Kind;
use super::calls;
use crate::record::{CallEntry, CallReturn};

/// What a descriptor stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Descriptor {
    /// A socket that accepts connections.
    Listener,
    /// A connection that was accepted.
    Client,
    /// Any other socket.
    Socket,
    Pipe,
    Epoll,
    /// A file, by the path that it was opened with.
    File(String),
}

impl Descriptor {
    /// Says whether it is of a kind.
    #[must_use]
    pub fn is(&self, kind: &Kind) -> bool {
        match (kind, self) {
            (Kind::Listener, Descriptor::Listener)
            | (Kind::Client, Descriptor::Client)
            | (Kind::Socket, Descriptor::Listener | Descriptor::Client | Descriptor::Socket)
            | (Kind::Pipe, Descriptor::Pipe)
            | (Kind::Epoll, Descriptor::Epoll)
            | (Kind::File(None), Descriptor::File(_)) => true,
            (Kind::File(Some(pattern)), Descriptor::File(path)) => glob(pattern.as_bytes(), path.as_bytes()),
            _ => false,
        }
    }
}

/// Says whether a path is of a pattern in which `*` stands for anything; takes at most the product of their lengths.
fn glob(pattern: &[u8], path: &[u8]) -> bool {
    let (mut p, mut s, mut star) = (0, 0, None);
    while s < path.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, s));
            p += 1;
        } else if pattern.get(p) == Some(&path[s]) {
            p += 1;
            s += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (p, s) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The leader's descriptors.
#[derive(Clone, Debug, Default)]
pub struct Descriptors {
    known: HashMap<i32, Arc<Descriptor>>,
}

impl Descriptors {
    /// Starts with what was open before the recording began.
    pub fn new(open: impl IntoIterator<Item = (i32, Descriptor)>) -> Descriptors {
        Descriptors { known: open.into_iter().map(|(fd, what)| (fd, Arc::new(what))).collect() }
    }

    /// Returns what a descriptor is, if that is known.
    #[must_use]
    pub fn get(&self, fd: i32) -> Option<&Arc<Descriptor>> {
        self.known.get(&fd)
    }

    /// Returns all that is known, for a recording.
    pub fn iter(&self) -> impl Iterator<Item = (i32, &Descriptor)> {
        self.known.iter().map(|(fd, what)| (*fd, &**what))
    }

    /// Takes in what a call did to the table; `ret` is `None` for a call that has only been entered.
    pub(super) fn note(&mut self, entry: &CallEntry, ret: Option<&CallReturn>) {
        let made = ret.map(|ret| ret.ret).filter(|ret| !regions::failed(*ret));
        let fd = entry.args[0] as i32;
        let mut set = |what: Descriptor| made.map(|made| self.known.insert(made as i32, Arc::new(what)));
        let Some(row) = row_of(entry.nr, &entry.args) else { return };
        match row.fds {
            Fds::Closes => {
                self.known.remove(&fd);
            }
            Fds::Makes(what) => {
                if let Some(what) = descriptor(what, || path(row, entry)) {
                    set(what);
                }
            }
            Fds::MakesTwo { what, .. } => {
                let Some(what) = descriptor(what, || path(row, entry)) else { return };
                let written = ret.filter(|_| made.is_some()).map(|ret| ret.outputs.as_slice()).unwrap_or_default();
                for number in written.iter().flat_map(|piece| piece.bytes.as_chunks::<4>().0) {
                    self.known.insert(i32::from_ne_bytes(*number), Arc::new(what.clone()));
                }
            }
            Fds::Duplicates | Fds::DuplicatesOnto => {
                if let (Some(made), Some(what)) = (made, self.known.get(&fd).cloned()) {
                    self.known.insert(made as i32, what);
                }
            }
            Fds::Keeps if i64::from(entry.nr) == libc::SYS_listen => {
                self.known.insert(fd, Arc::new(Descriptor::Listener));
            }
            Fds::Keeps | Fds::ClosesRange | Fds::Receives => {}
        }
    }
}

/// Returns what a call has made, where rules tell it apart.
fn descriptor(what: Made, path: impl FnOnce() -> String) -> Option<Descriptor> {
    match what {
        Made::File => Some(Descriptor::File(path())),
        Made::Socket => Some(Descriptor::Socket),
        Made::Connection => Some(Descriptor::Client),
        Made::Pipe => Some(Descriptor::Pipe),
        Made::Epoll => Some(Descriptor::Epoll),
        Made::Event | Made::Other => None,
    }
}

fn path(row: &Row, entry: &CallEntry) -> String {
    let bytes = row.path().and_then(|arg| calls::payload(row, arg, &entry.inputs, None));
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, path, expected) in [
            ("/var/log/*", "/var/log/a/b.log", true),
            ("*.log", "/var/log/x.log", true),
            ("/a*b*c", "/a1b2b3c", true),
            ("/a*b*c", "/a1b2b3", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), path.as_bytes()), expected, "{pattern} {path}");
        }
        assert!(!glob(&b"*a".repeat(40), &b"a".repeat(39)));
    }
}
