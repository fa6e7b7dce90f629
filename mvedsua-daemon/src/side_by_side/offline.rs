//! A version that follows a recording, without any leader.
//!
//! The recording is one file with the records of all processes mixed as they came ([`recorder`](super::recorder)); here
//! each process gets its stream back, and the follower lives through them as it would beside a leader. When a log has no room
//! the reading waits: nothing is lost, and nobody is kept from anything.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, unbounded};
use serde_json::{Value, json};

use super::conductor::{CLOCK, Told};
use super::follow::{Open, Says, Ways};
use super::report::{Followed, FollowerEnd, FollowerReport};
use super::start::{Ready, start_follower};
use super::streams::Streams;
use super::tree::Handle;
use super::{Layout, OnDivergence, Version};
use crate::log::{FullReason, Writer};
use crate::ptrace::{self, Pid, launch};
use crate::record::{Ending, Event, Record, StreamId};
use crate::report::Payloads;
use crate::rules::recording::{Frame, Reader, RecordingError};

/// What is to be replayed.
#[derive(Clone, Debug)]
pub struct Offline {
    pub recording: PathBuf,
    /// What follows it. Its environment will be the recorded one.
    pub version: Version,
    pub layout: Layout,
    /// The budgets of the log of each process.
    pub log: crate::log::Config,
    /// How long the follower may be silent although a record waits for it.
    pub hang_timeout: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// How the recorded program ended; `None` where the recording ends before.
    pub leader: Option<Ending>,
    /// Why the recording is not whole, if it is not.
    pub torn: Option<String>,
    pub follower: FollowerReport,
}

/// Why nothing was replayed.
#[derive(Debug, thiserror::Error)]
pub enum NotReplayed {
    #[error("opening {path}: {source}")]
    Open { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Recording { path: PathBuf, source: RecordingError },
    #[error(
        "{0} was recorded by an update, from the middle of its program's life; only what `mvedsuad run --record` recorded \
         can be replayed"
    )]
    FromTheMiddle(PathBuf),
    #[error(transparent)]
    Engine(#[from] ptrace::Error),
}

/// Lets a version live through a recording, to its end or to the first difference.
pub fn replay(plan: Offline) -> Result<Replayed, NotReplayed> {
    let path = plan.recording;
    let file = File::open(&path).map_err(|source| NotReplayed::Open { path: path.clone(), source })?;
    let recording = Reader::open(BufReader::new(file));
    let recording = recording.map_err(|source| NotReplayed::Recording { path: path.clone(), source })?;
    let header = recording.header();
    let start = header.start.clone().ok_or(NotReplayed::FromTheMiddle(path))?;
    let interleaving = header.interleaving;
    let open = Open::Recorded(header.descriptors.clone());
    let ready = Ready { pid: Pid(header.pid), secrets: start.random };
    let name = plan.version.name.clone();
    let rules = plan.version.rules.clone();
    let version = Version { program: plan.version.program.with_environment(&start.environment), ..plan.version };
    let (tell, told) = unbounded();
    let (send, receive) = bounded(1);
    let mask = launch::signal_mask();
    let handle = start_follower(0, &version, (plan.layout, mask), &ready, receive, tell.clone())?;
    let bell = || Arc::clone(&handle.bell);
    let streams = Streams::new(plan.log, (None, OnDivergence::Drop), bell(), vec![Some(bell())]);
    let streams = Arc::new(streams.interleaved(interleaving));
    let mut feeder = Feeder::new(Arc::clone(&streams), recording);
    let ways = Ways {
        number: 0,
        streams,
        hang_timeout: plan.hang_timeout,
        rules,
        open,
        // It is heard to the end.
        tell: Box::new(move |says| drop(tell.send(Told::Follower(0, says)))),
    };
    // A thread that has ended has told why.
    let _ = send.send(ways);
    let (end, followed) = feeder.feed(&handle, &told);
    handle.join();
    let follower = FollowerReport { name, end, followed };
    Ok(Replayed { leader: feeder.ending, torn: feeder.torn, follower })
}

/// Gives each process of a recording its stream back.
struct Feeder {
    streams: Arc<Streams>,
    recording: Reader<BufReader<File>>,
    writers: HashMap<StreamId, Writer>,
    /// Those that were opened, though they may have ended.
    born: HashSet<StreamId>,
    /// Records of processes whose births come later in the recording.
    early: HashMap<StreamId, VecDeque<Record>>,
    /// Whose records come next.
    current: StreamId,
    room: Receiver<()>,
    wake: crate::log::Waker,
    ending: Option<Ending>,
    torn: Option<String>,
}

/// Why the feeding stops before the recording's end: the follower has ended.
struct Over(FollowerEnd, Followed);

impl Feeder {
    fn new(streams: Arc<Streams>, recording: Reader<BufReader<File>>) -> Feeder {
        let (wake, room) = bounded(1);
        // One wake-up that waits is enough for all.
        let wake: crate::log::Waker = Arc::new(move || {
            let _ = wake.try_send(());
        });
        let mut feeder = Feeder {
            streams,
            recording,
            writers: HashMap::new(),
            born: HashSet::new(),
            early: HashMap::new(),
            current: StreamId(0),
            room,
            wake,
            ending: None,
            torn: None,
        };
        feeder.open(StreamId(0));
        feeder
    }

    fn open(&mut self, id: StreamId) {
        if self.born.insert(id)
            && let Some(writer) = self.streams.feed(id, Arc::clone(&self.wake))
        {
            self.writers.insert(id, writer);
        }
    }

    /// Feeds the follower with everything, and waits for its end.
    fn feed(&mut self, handle: &Handle, told: &Receiver<Told>) -> (FollowerEnd, Followed) {
        let end = match self.feed_all(handle, told) {
            Ok(()) => None,
            Err(Over(end, followed)) => Some((end, followed)),
        };
        // What has no end yet will have none.
        self.writers.clear();
        let end = end.or_else(|| {
            loop {
                match heard(told, CLOCK) {
                    Ok(Some(Over(end, followed))) => break Some((end, followed)),
                    Ok(None) => handle.bell.ring(),
                    Err(()) => break None,
                }
            }
        });
        end.unwrap_or_else(|| (FollowerEnd::Failed("its tracer thread has ended".into()), Followed::default()))
    }

    fn feed_all(&mut self, handle: &Handle, told: &Receiver<Told>) -> Result<(), Over> {
        let mut fed = 0_u64;
        while let Some(frame) = self.recording.next() {
            match frame {
                Frame::Process(id) => self.current = id,
                Frame::Record(record) => self.put(record, handle, told)?,
                Frame::Direction(_) => {}
                Frame::End(_) => break,
            }
            fed += 1;
            // Its clock ticks while it is fed, too.
            if fed.is_multiple_of(256) {
                handle.bell.ring();
                if let Ok(Some(over)) = heard(told, Duration::ZERO) {
                    return Err(over);
                }
            }
        }
        self.torn = self.torn.take().or_else(|| self.recording.torn().map(str::to_owned));
        Ok(())
    }

    /// Feeds a record, and what was kept of the processes that it gives birth to.
    fn put(&mut self, record: Record, handle: &Handle, told: &Receiver<Told>) -> Result<(), Over> {
        if !self.born.contains(&self.current) {
            self.early.entry(self.current).or_default().push_back(record);
            return Ok(());
        }
        let mut due = VecDeque::from([(self.current, record)]);
        while let Some((of, record)) = due.pop_front() {
            if let Event::ProcessStarted { stream, .. } = record.event {
                // Its reader must be there when the follower comes to the birth.
                self.open(stream);
                due.extend(self.early.remove(&stream).into_iter().flatten().map(|early| (stream, early)));
            }
            self.append(of, record, handle, told)?;
        }
        Ok(())
    }

    fn append(&mut self, of: StreamId, record: Record, handle: &Handle, told: &Receiver<Told>) -> Result<(), Over> {
        match &record.event {
            Event::ProcessEnded(ending) if of == StreamId(0) => self.ending = Some(*ending),
            Event::Gap(gap) => self.torn = Some(gap.reason.clone()),
            _ => {}
        }
        let ends = matches!(record.event, Event::ProcessEnded(_));
        let Some(writer) = self.writers.get_mut(&of) else { return Ok(()) };
        let (mut slot, mut event) = (record.slot, record.event);
        loop {
            match writer.append(slot, event) {
                Ok(_) => break,
                Err(full) if matches!(full.reason, FullReason::ReaderGone) => break,
                Err(full) if matches!(full.reason, FullReason::Oversized { .. }) => {
                    self.torn = Some(full.reason.to_string());
                    self.writers.remove(&of);
                    return Ok(());
                }
                Err(full) => {
                    (slot, event) = (full.slot, *full.event);
                    if writer.arm() {
                        let _ = self.room.recv_timeout(CLOCK);
                    }
                    handle.bell.ring();
                    if let Ok(Some(over)) = heard(told, Duration::ZERO) {
                        return Err(over);
                    }
                }
            }
        }
        if ends {
            self.writers.remove(&of);
        }
        Ok(())
    }
}

/// Hears of the follower's end, if it comes within `limit`; fails where nobody can tell it any more.
fn heard(told: &Receiver<Told>, limit: Duration) -> Result<Option<Over>, ()> {
    match told.recv_timeout(limit) {
        Ok(Told::Follower(_, Says::Ended(end, followed))) => Ok(Some(Over(end, followed))),
        Ok(_) | Err(crossbeam_channel::RecvTimeoutError::Timeout) => Ok(None),
        Err(crossbeam_channel::RecvTimeoutError::Disconnected) => Err(()),
    }
}

impl Replayed {
    /// Returns what came of it, for programs.
    #[must_use]
    pub fn to_json(&self, payloads: Payloads) -> Value {
        let leader = self.leader.map(|ending| match ending {
            Ending::Exited(code) => json!({"exited": code}),
            Ending::Killed(signo) => json!({"killed": signo}),
        });
        json!({"leader": leader, "torn": self.torn, "followers": [self.follower.to_json(payloads)]})
    }

    /// Returns what came of it, for people.
    #[must_use]
    pub fn text(&self) -> String {
        let leader = match (self.leader, &self.torn) {
            (_, Some(torn)) => format!("the recording is not whole: {torn}\n"),
            (Some(ending), None) => format!("the recorded program {ending}\n"),
            (None, None) => "the recording ends before its program\n".to_owned(),
        };
        self.follower.text(1) + &leader
    }

    /// Says whether the recording was whole and the version has lived through all of it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.follower.end == FollowerEnd::Followed && self.torn.is_none() && self.leader.is_some()
    }
}
