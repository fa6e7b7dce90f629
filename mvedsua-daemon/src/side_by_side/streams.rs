//! The streams of a run: each process of the leader has one, with a log for each follower.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::OnDivergence;
use super::recorder::Entrance;
use super::report::FollowerEnd;
use crate::log::{self, Reader, Writer};
use crate::ptrace::wait::Bell;
use crate::record::StreamId;
use crate::record::agreement::{Agreement, Quorum, Voice};
use crate::record::interleaving::Interleaving;
use crate::record::leading::processes;
use crate::record::stream::Stream;

/// What one follower has not taken yet.
#[derive(Debug)]
struct Taker {
    bell: Arc<Bell>,
    /// `None` once the follower is dropped.
    waiting: Mutex<Option<HashMap<StreamId, Branch>>>,
    gone: Arc<AtomicBool>,
}

/// A follower's end of a stream.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) id: StreamId,
    pub(super) reader: Reader,
    /// Where it announces what it has agreed to, and who is to be woken then, where outputs wait for that.
    pub(super) agreement: Option<(Arc<AtomicU64>, Arc<Bell>)>,
}

/// Opens streams, and keeps their readers until the followers come to the records of the births.
#[derive(Debug)]
pub(super) struct Streams {
    next: AtomicU32,
    config: log::Config,
    quorum: Option<Quorum>,
    on_divergence: OnDivergence,
    leader: Arc<Bell>,
    takers: Vec<Taker>,
    recorder: Option<Entrance>,
    /// How the leader's threads run beside each other.
    pub(super) interleaving: Interleaving,
}

impl Streams {
    /// `leader` is woken when a log has room again, a follower when there are records for it; followers that could not be
    /// started have no bell.
    pub(super) fn new(
        config: log::Config,
        (quorum, on_divergence): (Option<Quorum>, OnDivergence),
        leader: Arc<Bell>,
        followers: Vec<Option<Arc<Bell>>>,
    ) -> Streams {
        let taker = |bell: Option<Arc<Bell>>| {
            let waiting = Mutex::new(bell.is_some().then(HashMap::new));
            let gone = Arc::new(AtomicBool::new(bell.is_none()));
            Taker { bell: bell.unwrap_or_else(|| Arc::clone(&leader)), waiting, gone }
        };
        let takers = followers.into_iter().map(taker).collect();
        let leader = Arc::clone(&leader);
        Streams {
            next: AtomicU32::new(0),
            config,
            quorum,
            on_divergence,
            leader,
            takers,
            recorder: None,
            interleaving: Interleaving::default(),
        }
    }

    /// The same streams, recorded too.
    pub(super) fn recorded(self, recorder: Option<Entrance>) -> Streams {
        Streams { recorder, ..self }
    }

    /// The same streams, of a program whose threads run like this.
    pub(super) fn interleaved(self, interleaving: Interleaving) -> Streams {
        Streams { interleaving, ..self }
    }

    /// Opens a stream that somebody else than a leader writes, for the first follower; `room` is called when its log has
    /// room again. Returns nothing once the follower is dropped.
    pub(super) fn feed(&self, id: StreamId, room: log::Waker) -> Option<Writer> {
        let taker = self.takers.first()?;
        let mut waiting = taker.lock();
        let (writer, reader) = log::channel(self.config.clone());
        writer.set_waker(room);
        let follower = Arc::clone(&taker.bell);
        reader.set_waker(Arc::new(move || follower.ring()));
        waiting.as_mut()?.insert(id, Branch { id, reader, agreement: None });
        Some(writer)
    }

    /// Returns a follower's end of a stream, once.
    pub(super) fn take(&self, follower: usize, stream: StreamId) -> Option<Branch> {
        self.takers.get(follower)?.lock().as_mut()?.remove(&stream)
    }

    /// Says whether anybody follows.
    pub(super) fn have_takers(&self) -> bool {
        self.takers.iter().any(|taker| taker.lock().is_some())
    }

    /// A follower takes no more streams.
    pub(super) fn abandon(&self, follower: usize, end: &FollowerEnd) {
        if let Some(taker) = self.takers.get(follower) {
            // Where one that is dropped stops the run, nothing gets out meanwhile.
            taker.gone.store(end.is_good() || self.on_divergence == OnDivergence::Drop, Ordering::Release);
            *taker.lock() = None;
            // Nobody waits for its agreement any more.
            self.leader.ring();
        }
    }
}

impl Taker {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<HashMap<StreamId, Branch>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl processes::Streams for Streams {
    fn open(&self) -> (StreamId, Stream) {
        let id = StreamId(self.next.fetch_add(1, Ordering::Relaxed));
        let (mut writers, mut voices) = (Vec::new(), Vec::new());
        for taker in &self.takers {
            if let Some(waiting) = taker.lock().as_mut() {
                let (writer, reader) = log::channel(self.config.clone());
                let (leader, follower) = (Arc::clone(&self.leader), Arc::clone(&taker.bell));
                writer.set_waker(Arc::new(move || leader.ring()));
                reader.set_waker(Arc::new(move || follower.ring()));
                let agreed = Arc::new(AtomicU64::new(0));
                voices.push(Voice { agreed: Arc::clone(&agreed), gone: Arc::clone(&taker.gone) });
                let agreement = self.quorum.map(|_| (agreed, Arc::clone(&self.leader)));
                waiting.insert(id, Branch { id, reader, agreement });
                writers.push(writer);
            }
        }
        if let Some(recorder) = &self.recorder {
            let (writer, reader) = log::channel(self.config.clone());
            let leader = Arc::clone(&self.leader);
            writer.set_waker(Arc::new(move || leader.ring()));
            recorder.admit(id, reader);
            writers.push(writer);
        }
        let stream = Stream::branching(writers).numbered(id);
        (
            id,
            match self.quorum {
                Some(quorum) => stream.wait_for(Agreement { quorum, voices }),
                None => stream,
            },
        )
    }
}
