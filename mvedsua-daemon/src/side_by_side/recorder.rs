//! Writes all streams of a run into one file, as one more follower would read them.
//!
//! The thread is behind the leader by what lies in its logs, one for each process, like any follower; whether the leader
//! waits for it when one of them is full is said by the same policy.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};

use crate::log::Reader;
use crate::ptrace::{Error, Result};
use crate::record::{Event, Gap, Record, Seq, Slot, StreamId};
use crate::rules::recording::{Frame, Header, Writer};

/// Makes the file of a recording. It must not be there yet: nothing is written over. It may hold secrets, so its owner alone
/// can read it.
pub(super) fn create(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => {
            let what = format!("the file {} is there already; take another name for the recording", path.display());
            Error::Unsupported(what)
        }
        _ => Error::Own { doing: format!("making the recording {}", path.display()), source },
    })
}

/// Removes the file of a recording that never began.
pub(super) fn discard(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(%error, path = %path.display(), "removing a recording that never began");
    }
}

/// How the streams reach the recorder.
#[derive(Clone, Debug)]
pub(super) struct Entrance {
    streams: Sender<(StreamId, Reader)>,
    wake: Sender<()>,
}

impl Entrance {
    /// Has a stream recorded.
    pub(super) fn admit(&self, id: StreamId, reader: Reader) {
        let wake = self.wake.clone();
        // One wake-up that waits is enough for all.
        reader.set_waker(Arc::new(move || {
            let _ = wake.try_send(());
        }));
        // A recorder that has failed takes no more; the run says so at its end.
        let _ = self.streams.send((id, reader));
    }
}

/// The recording thread.
#[derive(Debug)]
pub(super) struct Recorder {
    join: JoinHandle<Option<String>>,
}

impl Recorder {
    /// Begins a recording in a new file of [`create`].
    pub(super) fn begin(file: File, header: &Header) -> Result<(Recorder, Entrance)> {
        let failed = |source| Error::Own { doing: "beginning the recording".into(), source };
        let writer = Writer::begin(BufWriter::new(file), header, u64::MAX).map_err(failed)?;
        let (streams, admitted) = unbounded();
        let (wake, woken) = bounded(1);
        let join = std::thread::Builder::new()
            .name("mvedsua-record".into())
            .spawn(move || Recording::new(writer).run(&admitted, &woken))
            .map_err(|source| Error::Own { doing: "starting thread mvedsua-record".into(), source })?;
        Ok((Recorder { join }, Entrance { streams, wake }))
    }

    /// Waits until everything is written, once every [`Entrance`] is gone; returns why the recording is not whole, if so.
    pub(super) fn finish(self) -> Option<String> {
        self.join.join().unwrap_or_else(|_| Some("the recording thread panicked".to_owned()))
    }
}

/// One stream on its way into the file.
struct Source {
    reader: Reader,
    next: u64,
    /// The last record was written: of its process's end, or of why there are no more.
    ended: bool,
}

struct Recording {
    writer: Writer<BufWriter<File>>,
    /// Whose records are being written.
    current: StreamId,
    sources: BTreeMap<StreamId, Source>,
    torn: Option<String>,
}

impl Recording {
    fn new(writer: Writer<BufWriter<File>>) -> Recording {
        Recording { writer, current: StreamId(0), sources: BTreeMap::new(), torn: None }
    }

    fn run(mut self, admitted: &Receiver<(StreamId, Reader)>, woken: &Receiver<()>) -> Option<String> {
        let mut more_may_come = true;
        while more_may_come || !self.sources.is_empty() {
            for (id, reader) in admitted.try_iter() {
                self.admit(id, reader);
            }
            if self.write_all() {
                continue;
            }
            if let Some(reason) = self.writer.ended() {
                // Nobody holds the leader up for a file that cannot be written.
                return Some(format!("the recording ends early: {reason}"));
            }
            if self.sources.values_mut().any(|source| !source.reader.arm()) {
                continue;
            }
            if more_may_come {
                select! {
                    recv(admitted) -> stream => match stream {
                        Ok((id, reader)) => self.admit(id, reader),
                        Err(_) => more_may_come = false,
                    },
                    // The other end lives in the logs.
                    recv(woken) -> _ => {}
                }
            } else if woken.recv().is_err() {
                break;
            }
        }
        match self.writer.end("all processes have ended") {
            Ok(()) => self.torn,
            Err(error) => Some(format!("the recording may be torn: {error}")),
        }
    }

    fn admit(&mut self, id: StreamId, reader: Reader) {
        self.sources.insert(id, Source { reader, next: 0, ended: false });
    }

    /// Writes what is there; says whether there was anything.
    fn write_all(&mut self) -> bool {
        let mut moved = false;
        for (id, source) in &mut self.sources {
            while !source.ended
                && let Some(record) = source.reader.next()
            {
                moved = true;
                source.ended = matches!(record.event, Event::ProcessEnded(_) | Event::Gap(_));
                if let Event::Gap(gap) = &record.event {
                    self.torn.get_or_insert_with(|| gap.reason.clone());
                }
                source.next = record.seq.0 + 1;
                put(&mut self.writer, &mut self.current, *id, record);
            }
        }
        let ended = |source: &Source| source.ended || source.reader.is_finished();
        let over: Vec<StreamId> = self.sources.iter().filter(|(_, one)| ended(one)).map(|(id, _)| *id).collect();
        for id in over {
            moved = true;
            let Some(source) = self.sources.remove(&id) else { continue };
            if !source.ended {
                let reason = "the log had no room for more of this process".to_owned();
                self.torn.get_or_insert_with(|| reason.clone());
                let gap = Record { seq: Seq(source.next), slot: Slot(0), event: Event::Gap(Gap { reason }) };
                put(&mut self.writer, &mut self.current, id, gap);
            }
        }
        moved
    }
}

fn put(writer: &mut Writer<BufWriter<File>>, current: &mut StreamId, id: StreamId, record: Record) {
    if *current != id {
        writer.add(&Frame::Process(id));
        *current = id;
    }
    writer.add(&Frame::Record(record));
}
