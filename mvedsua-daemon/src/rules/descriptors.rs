//! What each of the leader's descriptors is, as far as its calls tell.

use std::collections::HashMap;
use std::sync::Arc;

use mvedsua_common::syscalls::{self, regions};
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
        match i64::from(entry.nr) {
            libc::SYS_close => {
                self.known.remove(&fd);
            }
            libc::SYS_accept | libc::SYS_accept4 => {
                set(Descriptor::Client);
            }
            libc::SYS_socket => {
                set(Descriptor::Socket);
            }
            libc::SYS_epoll_create | libc::SYS_epoll_create1 => {
                set(Descriptor::Epoll);
            }
            libc::SYS_open | libc::SYS_creat => {
                set(Descriptor::File(path(entry, 0)));
            }
            libc::SYS_openat | libc::SYS_openat2 => {
                set(Descriptor::File(path(entry, 1)));
            }
            libc::SYS_listen => {
                self.known.insert(fd, Arc::new(Descriptor::Listener));
            }
            libc::SYS_dup | libc::SYS_dup2 | libc::SYS_dup3 | libc::SYS_fcntl => {
                let duplicates = i64::from(entry.nr) != libc::SYS_fcntl
                    || [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC].contains(&(entry.args[1] as i32));
                if let (true, Some(made), Some(what)) = (duplicates, made, self.known.get(&fd).cloned()) {
                    self.known.insert(made as i32, what);
                }
            }
            libc::SYS_pipe | libc::SYS_pipe2 | libc::SYS_socketpair => {
                let what =
                    if i64::from(entry.nr) == libc::SYS_socketpair { Descriptor::Socket } else { Descriptor::Pipe };
                let written = ret.filter(|_| made.is_some()).map(|ret| ret.outputs.as_slice()).unwrap_or_default();
                for number in written.iter().flat_map(|piece| piece.bytes.as_chunks::<4>().0) {
                    self.known.insert(i32::from_ne_bytes(*number), Arc::new(what.clone()));
                }
            }
            _ => {}
        }
    }
}

fn path(entry: &CallEntry, arg: u8) -> String {
    let bytes = syscalls::row(entry.nr).and_then(|row| calls::payload(row, arg, &entry.inputs, None));
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
