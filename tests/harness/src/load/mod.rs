//! Clients that check every reply against a model.
//!
//! Each connection has a [`Dialogue`]: it makes requests and knows the right answer to each, byte for byte. A [`Load`]
//! drives many of them at once from a few threads, one request in flight per connection, and counts what went wrong:
//! a wrong byte, a closed connection, a refused connect, silence. It also behaves as clients do: requests that arrive in
//! two pieces, pauses, clients that leave (some in the middle of a request) and come again.

pub mod beanstalk;
pub mod chunks;
mod connection;
pub mod dns;
pub mod exchange;
pub mod http;
pub mod lines;
pub mod memcached;
pub mod mqtt;
pub mod mysql;
pub mod resp;
pub mod store;
mod transport;
pub mod values;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use serde::Serialize;

use connection::Connection;

pub use transport::Transport;

/// One client's side of a protocol, with its model of the server's state.
pub trait Dialogue: Send + 'static {
    /// Writes the next request.
    fn request(&mut self, random: &mut StdRng, out: &mut Vec<u8>);

    /// Judges what has arrived since the last reply was complete.
    fn check(&mut self, input: &[u8]) -> Verdict;

    /// Says how much of what has come unasked is nothing but the server's asking whether the client is there.
    fn passes_over(&self, _unasked: &[u8]) -> usize {
        0
    }

    /// Is told that the next request goes out on a new connection.
    fn connected(&mut self) {}

    /// Says how long a connection lives.
    fn persistence(&self) -> Persistence {
        Persistence::Open
    }
}

/// What the bytes received so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Right so far.
    Incomplete,
    /// The right reply, which takes this many bytes.
    Right(usize),
    /// Not the reply that the model demands.
    Wrong(String),
}

/// Who ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// The client, when it likes.
    Open,
    /// The server, after each reply.
    OneReply,
}

/// How the clients behave.
#[derive(Clone, Debug)]
pub struct Plan {
    pub address: SocketAddr,
    pub transport: Transport,
    pub connections: usize,
    /// Threads that drive the connections.
    pub threads: usize,
    /// How many requests a client makes before it leaves and comes again; `None`: it stays.
    pub visits: Option<RangeInclusive<u32>>,
    /// One of how many requests is sent in two pieces with a pause between; 0: none.
    pub split_one_in: u32,
    /// One of how many replies is followed by a pause; 0: none.
    pub pause_one_in: u32,
    /// The longest pause.
    pub pause: Duration,
    /// A reply that takes longer is a failure.
    pub patience: Duration,
    /// Makes a run reproducible.
    pub seed: u64,
}

impl Plan {
    /// Clients that stay, send as fast as they are answered, and now and then split a request or pause.
    #[must_use]
    pub fn busy(address: SocketAddr, connections: usize) -> Plan {
        Plan {
            address,
            transport: Transport::Tcp,
            connections,
            threads: 1,
            visits: None,
            split_one_in: 50,
            pause_one_in: 50,
            pause: Duration::from_millis(50),
            patience: Duration::from_secs(10),
            seed: 1,
        }
    }

    /// Clients that connect, ask a few questions, and leave, all the time.
    #[must_use]
    pub fn churn(address: SocketAddr, connections: usize) -> Plan {
        Plan {
            visits: Some(1..=6),
            pause_one_in: 4,
            pause: Duration::from_millis(100),
            ..Plan::busy(address, connections)
        }
    }
}

/// What the clients saw.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    pub requests: u64,
    /// Connections that were made.
    pub connects: u64,
    /// What went wrong, with the time since the start; empty when all was right. At most the first hundred are kept.
    pub failures: Vec<String>,
    pub failed: u64,
    /// The longest request, from its last byte sent to the last byte of its reply.
    pub longest_us: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub seconds: f64,
}

impl Summary {
    /// Panics unless every request was answered rightly and there were some.
    #[track_caller]
    pub fn expect_clean(&self) {
        assert!(self.failed == 0, "{} requests failed or were answered wrongly: {:#?}", self.failed, self.failures);
        assert!(self.requests > 0, "no request was made");
    }
}

/// What the driving threads share with the owner of the load.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) started: Instant,
    stop: AtomicBool,
    pub(crate) requests: AtomicU64,
    pub(crate) connects: AtomicU64,
    failed: AtomicU64,
    /// Longest request since the last [`Load::mark`], microseconds.
    longest_since_mark: AtomicU64,
    failures: Mutex<Vec<String>>,
    histogram: Mutex<Histogram<u64>>,
}

impl Shared {
    pub(crate) fn fail(&self, connection: usize, what: &str) {
        self.failed.fetch_add(1, SeqCst);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < 100 {
            failures.push(format!("{:.3} s, connection {connection}: {what}", self.started.elapsed().as_secs_f64()));
        }
    }

    pub(crate) fn answered(&self, took: Duration) {
        let us = took.as_micros() as u64;
        self.requests.fetch_add(1, SeqCst);
        self.longest_since_mark.fetch_max(us, SeqCst);
        self.histogram.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(us);
    }
}

/// Running clients.
pub struct Load<D> {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<D>>>,
}

impl<D: Dialogue> Load<D> {
    /// Starts the clients; `dialogue` makes the one of each connection.
    #[must_use]
    pub fn start(plan: Plan, dialogue: impl Fn(usize) -> D) -> Load<D> {
        let threads = plan.threads.clamp(1, plan.connections.max(1));
        let shared = Arc::new(Shared {
            started: Instant::now(),
            stop: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            longest_since_mark: AtomicU64::new(0),
            failures: Mutex::default(),
            histogram: Mutex::new(Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are right")),
            plan,
        });
        let mut shares: Vec<Vec<Connection<D>>> = (0..threads).map(|_| Vec::new()).collect();
        for index in 0..shared.plan.connections {
            shares[index % threads].push(Connection::new(index, dialogue(index), &shared.plan));
        }
        let spawn = |share: Vec<Connection<D>>| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || connection::drive(share, &shared, || shared.stop.load(SeqCst)))
        };
        let threads = shares.into_iter().map(spawn).collect();
        Load { shared, threads }
    }

    /// Requests that were answered rightly so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(SeqCst)
    }

    /// Requests that failed or were answered wrongly so far.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(SeqCst)
    }

    /// Returns the longest request since the last mark, and sets the mark.
    pub fn mark(&self) -> Duration {
        Duration::from_micros(self.shared.longest_since_mark.swap(0, SeqCst))
    }

    /// Waits until `count` more requests were answered, or one failed.
    #[track_caller]
    pub fn wait_requests(&self, count: u64, limit: Duration) {
        let goal = self.requests() + count;
        crate::wait::wait_for(&format!("{count} requests"), limit, || {
            (self.requests() >= goal || self.failed() > 0).then_some(())
        });
    }

    /// Lets every client finish its request and returns what they saw.
    #[must_use]
    pub fn stop(self) -> Summary {
        self.stop_with_dialogues().0
    }

    /// Like [`Load::stop`], and returns the dialogues with their models.
    #[must_use]
    pub fn stop_with_dialogues(mut self) -> (Summary, Vec<D>) {
        self.shared.stop.store(true, SeqCst);
        let threads = std::mem::take(&mut self.threads);
        let dialogues =
            threads.into_iter().flat_map(|thread| thread.join().expect("a client thread panicked")).collect();
        let histogram = self.shared.histogram.lock().unwrap_or_else(PoisonError::into_inner);
        let summary = Summary {
            requests: self.shared.requests.load(SeqCst),
            connects: self.shared.connects.load(SeqCst),
            failures: self.shared.failures.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            failed: self.shared.failed.load(SeqCst),
            longest_us: histogram.max(),
            p50_us: histogram.value_at_quantile(0.5),
            p99_us: histogram.value_at_quantile(0.99),
            seconds: self.shared.started.elapsed().as_secs_f64(),
        };
        drop(histogram);
        (summary, dialogues)
    }
}

/// A load whatever its protocol.
pub trait Clients: Send {
    /// Requests that were answered rightly so far.
    fn requests(&self) -> u64;
    /// Requests that failed or were answered wrongly so far.
    fn failed(&self) -> u64;
    /// Returns the longest request since the last mark, and sets the mark.
    fn mark(&self) -> Duration;
    /// Lets every client finish its request and returns what they saw.
    fn stop(self: Box<Self>) -> Summary;
}

impl<D: Dialogue> Clients for Load<D> {
    fn requests(&self) -> u64 {
        Load::requests(self)
    }

    fn failed(&self) -> u64 {
        Load::failed(self)
    }

    fn mark(&self) -> Duration {
        Load::mark(self)
    }

    fn stop(self: Box<Self>) -> Summary {
        Load::stop(*self)
    }
}

impl<D> Drop for Load<D> {
    /// A test that fails half-way leaves no clients behind.
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
