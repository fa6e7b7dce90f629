//! Input that the service has read and the version that leads has not: that one followed at the time, and a rule kept the
//! beginning of a line back from it. What it reads next from the same descriptor begins with that.
//!
//! The kernel has no such bytes any more, so they are put before what it gives: the call is made with as much less room, and
//! what it has read is moved behind them. The record of the call shows what the kernel gave; the version that follows from now
//! on has read the rest itself.

use mvedsua_common::syscalls::{Fds, Moves};

use super::*;
use crate::ptrace::query;

#[derive(Debug, Default)]
pub(super) struct Unread(BTreeMap<i32, Bytes>);

/// What a call gives of it.
#[derive(Clone, Debug)]
pub(super) struct Given {
    bytes: Bytes,
    /// The call is made for the room that is left; otherwise it is not made at all.
    made: bool,
}

/// How a call reads from its descriptor.
enum Reads {
    /// Into one buffer, as `read` does; the flags are those of `recv`.
    Plain { flags: i32 },
    /// In a way in which nothing can be put before.
    Otherwise,
}

fn reads(entry: &CallEntry) -> Option<(i32, Reads)> {
    let row = syscalls::row(entry.nr)?;
    let fd = row.first_descriptor(&entry.args)?;
    match (row.moves, i64::from(entry.nr)) {
        (Moves::In, libc::SYS_read) => Some((fd, Reads::Plain { flags: 0 })),
        (Moves::In, libc::SYS_recvfrom) => {
            let flags = entry.args[3] as i32;
            (flags & (libc::MSG_OOB | libc::MSG_ERRQUEUE) == 0).then_some((fd, Reads::Plain { flags }))
        }
        (Moves::Between, libc::SYS_sendfile) => Some((entry.args[1] as i32, Reads::Otherwise)),
        (Moves::In | Moves::Between, _) => Some((fd, Reads::Otherwise)),
        (Moves::Nothing | Moves::InFrom | Moves::Out | Moves::OutTo | Moves::Connection, _) => None,
    }
}

impl Unread {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets what a call closes.
    fn note(&mut self, entry: &CallEntry) {
        let [first, second, ..] = entry.args;
        match syscalls::row(entry.nr).map(|row| row.fds) {
            Some(Fds::Closes) => drop(self.0.remove(&(first as i32))),
            Some(Fds::DuplicatesOnto) if first as i32 != second as i32 => drop(self.0.remove(&(second as i32))),
            Some(Fds::ClosesRange) => self.0.retain(|fd, _| !(first as u32..=second as u32).contains(&(*fd as u32))),
            Some(_) | None => {}
        }
    }
}

impl Leading {
    /// The version that leads has not read this of what the service has, by descriptor.
    pub(crate) fn has_not_read(&mut self, unread: impl IntoIterator<Item = (i32, Bytes)>) {
        self.unread.0.extend(unread);
    }

    /// Returns the descriptors of which the version that leads has not read all that the service has.
    pub(crate) fn unread(&self) -> Vec<i32> {
        if self.threads.is_empty() {
            return Vec::new();
        }
        // What a call gives is not there before it has returned.
        let calls = self.threads.values().filter_map(|thread| thread.state.in_call());
        let on_the_way = calls.filter(|call| call.given.is_some()).map(|call| call.entry.args[0] as i32);
        self.unread.0.keys().copied().chain(on_the_way).collect()
    }

    /// A thread is about to make a call. Returns what that gives of what was not read.
    pub(super) fn begin_reading(&mut self, process: &Process, tid: Tid, entry: &CallEntry) -> Result<Option<Given>> {
        if self.unread.0.is_empty() {
            return Ok(None);
        }
        self.unread.note(entry);
        let Some((fd, how)) = reads(entry) else { return Ok(None) };
        let Some(unread) = self.unread.0.get(&fd) else { return Ok(None) };
        let Reads::Plain { flags } = how else {
            tracing::warn!(
                fd,
                "a connection is ended: a part of its last line cannot be given to the version that leads"
            );
            self.unread.0.remove(&fd);
            query::end_connection(process.pid, fd)?;
            return Ok(None);
        };
        let room = usize::try_from(entry.args[2]).unwrap_or(usize::MAX);
        let bytes = unread.slice(..unread.len().min(room));
        let waits = flags & libc::MSG_DONTWAIT == 0
            && procfs::open_flags(process.pid, fd).is_none_or(|flags| flags & libc::O_NONBLOCK == 0);
        let made = !waits && room > bytes.len();
        if made {
            let mut regs = sys::get_regs(tid)?;
            regs.rdx = (room - bytes.len()) as u64;
            sys::set_regs(tid, &regs)?;
        } else {
            sys::set_number(tid, -1)?;
        }
        if flags & libc::MSG_PEEK == 0 {
            let rest = unread.slice(bytes.len()..);
            if rest.is_empty() {
                self.unread.0.remove(&fd)
            } else {
                self.unread.0.insert(fd, rest)
            };
        }
        Ok(Some(Given { bytes, made }))
    }

    /// Such a call returns.
    pub(super) fn end_reading(
        &mut self,
        process: &Process,
        tid: Tid,
        call: &Call,
        given: &Given,
        ret: i64,
    ) -> Result<()> {
        let ret = if given.made && !regs::is_interrupted(ret) { ret } else { -i64::from(libc::EAGAIN) };
        self.finish(process, tid, call, ret);
        let [_, buffer, room, ..] = call.entry.args;
        let mut all = given.bytes.to_vec();
        if let Ok(read @ 1..) = usize::try_from(ret) {
            let begin = all.len();
            all.resize(begin + read, 0);
            process.memory.read(buffer, &mut all[begin..])?;
        }
        process.memory.write(buffer, &all)?;
        let mut regs = sys::get_regs(tid)?;
        regs.rax = all.len() as u64;
        regs.rdx = room;
        sys::set_regs(tid, &regs)
    }
}
