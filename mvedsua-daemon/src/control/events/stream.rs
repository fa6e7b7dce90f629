//! Telling a client of the socket what happens.

use std::io;

use tokio::io::AsyncBufReadExt as _;
use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::Event;
use crate::control::audit::Peer;
use crate::control::daemon::Daemon;
use crate::control::protocol::{Answer, Body};
use crate::control::server::say;

/// How many events are taken from the ring at once.
const AT_ONCE: usize = 64;

/// What a client wants to hear.
#[derive(Clone, Copy, Debug)]
pub(in crate::control) struct Wanted {
    /// What came after this number; without one, all that is kept, or with `follow` what is to come.
    pub(in crate::control) since: Option<u64>,
    pub(in crate::control) follow: bool,
    pub(in crate::control) pid: Option<i32>,
}

impl Wanted {
    /// Says whether a client wants to hear of an event, and may.
    pub(in crate::control) fn is(&self, peer: Peer, event: &Event) -> bool {
        let may_see = peer.uid == 0 || event.owner == Some(peer.uid);
        may_see && self.pid.is_none_or(|pid| event.pid == Some(pid))
    }
}

/// Tells what has happened, and with `follow` what happens, until the client leaves or the daemon ends. The ring waits for no
/// client: one that is too slow is told what it missed.
pub(in crate::control) async fn tell(
    daemon: &Daemon,
    peer: Peer,
    wanted: Wanted,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let events = &daemon.shared.events;
    let mut newest = events.newest();
    let mut told = match wanted.since {
        Some(since) => since,
        None if wanted.follow => *newest.borrow(),
        None => 0,
    };
    let mut is_first = true;
    loop {
        newest.borrow_and_update();
        let batch = events.after(told, AT_ONCE);
        if let Some((after, next)) = batch.missed {
            // Whoever asks for everything that is kept misses nothing.
            if wanted.since.is_some() || !is_first {
                events.counts().missed += next.saturating_sub(after + 1);
                say(writer, Body::Event(Answer::Missed { after, next })).await?;
            }
        }
        is_first = false;
        if let Some(last) = batch.events.last() {
            told = last.seq;
            for event in batch.events.iter().filter(|event| wanted.is(peer, event)) {
                say(writer, Body::Event(Answer::Happened(Box::new((**event).clone())))).await?;
            }
            continue;
        }
        if !wanted.follow {
            return say(writer, Body::Ok(Answer::Done {})).await;
        }
        tokio::select! {
            changed = newest.changed() => if changed.is_err() {
                return say(writer, Body::Ok(Answer::Done {})).await;
            },
            // Whatever it says now, it wants to hear no more.
            read = reader.fill_buf() => {
                read?;
                return say(writer, Body::Ok(Answer::Done {})).await;
            }
        }
    }
}
