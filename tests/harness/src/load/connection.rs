//! One client connection, and the loop that drives many.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::transport::{Stream, Transport};
use super::{Dialogue, Persistence, Plan, Shared, Verdict};

/// How long the loop sleeps at most: a client that pauses must be woken.
const TICK: Duration = Duration::from_millis(5);

pub(super) struct Connection<D> {
    index: usize,
    dialogue: D,
    random: StdRng,
    stream: Option<Stream>,
    state: State,
    /// The request, and how much of it is sent.
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    /// Requests until this client leaves; 0 when it stays.
    left: u32,
}

#[derive(Clone, Copy)]
enum State {
    /// Makes its next request at this instant.
    Idle(Instant),
    /// Waits since this instant for the server to take its connection. The other clients go on meanwhile: where the server's
    /// queue is full, the kernel asks again only after a second.
    Connecting(Instant),
    /// Sends up to this byte of the request.
    Sending(usize),
    /// Has sent a part and goes on at this instant.
    Paused(Instant),
    Awaiting(Instant),
    /// Something failed: what the server knows of this client is uncertain.
    Dead,
}

impl<D: Dialogue> Connection<D> {
    pub(super) fn new(index: usize, dialogue: D, plan: &Plan) -> Connection<D> {
        Connection {
            index,
            dialogue,
            random: StdRng::seed_from_u64(plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index as u64),
            stream: None,
            state: State::Idle(Instant::now()),
            out: Vec::new(),
            sent: 0,
            input: Vec::new(),
            left: 0,
        }
    }

    fn fail(&mut self, shared: &Shared, what: &str) {
        let doing = match self.state {
            State::Idle(_) => "idle",
            State::Connecting(_) => "connecting",
            State::Sending(_) | State::Paused(_) => "sending",
            State::Awaiting(_) => "waiting for a reply",
            State::Dead => "dead",
        };
        shared.fail(self.index, &format!("{what} while {doing}"));
        self.state = State::Dead;
        self.stream = None;
    }

    /// Does what can be done without waiting for the server.
    fn advance(&mut self, shared: &Shared, stopping: bool) {
        let now = Instant::now();
        match self.state {
            State::Idle(at) if now >= at && !stopping => {
                if self.stream.is_none() {
                    self.connect(shared);
                } else {
                    self.ask(shared);
                }
            }
            State::Paused(at) if now >= at || stopping => {
                self.state = State::Sending(self.out.len());
                self.send(shared);
            }
            State::Sending(_) => self.send(shared),
            State::Awaiting(since) | State::Connecting(since) if now.duration_since(since) > shared.plan.patience => {
                self.fail(shared, &format!("no reply for {:?}", shared.plan.patience));
            }
            State::Idle(_) | State::Connecting(_) | State::Paused(_) | State::Awaiting(_) | State::Dead => {}
        }
    }

    fn one_in(&mut self, count: u32) -> bool {
        count > 0 && self.random.random_range(0..count) == 0
    }

    fn connect(&mut self, shared: &Shared) {
        self.state = State::Connecting(Instant::now());
        match Stream::connect(shared.plan.transport, shared.plan.address) {
            Ok(stream) => self.stream = Some(stream),
            Err(error) => self.fail(shared, &format!("{error}")),
        }
    }

    /// The server's side has answered the connection, or refused it.
    fn connected(&mut self, shared: &Shared) {
        let Some(stream) = &self.stream else { return };
        if let Err(error) = stream.connected() {
            return self.fail(shared, &format!("{error}"));
        }
        shared.connects.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.input.clear();
        self.dialogue.connected();
        self.left = shared.plan.visits.clone().map_or(0, |visits| self.random.random_range(visits));
        self.ask(shared);
    }

    fn ask(&mut self, shared: &Shared) {
        self.out.clear();
        self.sent = 0;
        self.dialogue.request(&mut self.random, &mut self.out);
        // A datagram arrives whole or not at all.
        let divisible = shared.plan.transport == Transport::Tcp && self.out.len() > 1;
        let split = self.one_in(shared.plan.split_one_in) && divisible;
        let until = if split { self.random.random_range(1..self.out.len()) } else { self.out.len() };
        self.state = State::Sending(until);
        self.send(shared);
    }

    fn send(&mut self, shared: &Shared) {
        let State::Sending(until) = self.state else { return };
        while self.sent < until {
            let Some(stream) = &mut self.stream else { return };
            match stream.write(&self.out[self.sent..until]) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.fail(shared, &format!("write: {error}")),
            }
        }
        let now = Instant::now();
        self.state = if until < self.out.len() {
            State::Paused(now + shared.plan.pause.mul_f64(self.random.random_range(0.0..=1.0)))
        } else {
            State::Awaiting(now)
        };
    }

    fn receive(&mut self, shared: &Shared) {
        let mut buffer = [0; 64 << 10];
        loop {
            let Some(stream) = &mut self.stream else { return };
            match stream.read(&mut buffer) {
                Ok(0) if shared.plan.transport == Transport::Tcp => {
                    return self.fail(shared, "the server closed the connection");
                }
                Ok(count) => {
                    self.input.extend_from_slice(&buffer[..count]);
                    self.judge(shared);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.fail(shared, &format!("read: {error}")),
            }
        }
    }

    fn judge(&mut self, shared: &Shared) {
        let State::Awaiting(since) = self.state else {
            let passed_over = self.dialogue.passes_over(&self.input);
            self.input.drain(..passed_over);
            if self.input.is_empty() {
                return;
            }
            let text = String::from_utf8_lossy(&self.input[..self.input.len().min(80)]).into_owned();
            return self.fail(shared, &format!("unasked bytes {text:?}"));
        };
        match self.dialogue.check(&self.input) {
            Verdict::Incomplete => {}
            Verdict::Wrong(what) => self.fail(shared, &what),
            Verdict::Right(length) if length + self.dialogue.passes_over(&self.input[length..]) < self.input.len() => {
                let rest = String::from_utf8_lossy(&self.input[length..]).into_owned();
                self.fail(shared, &format!("bytes after the reply: {rest:?}"));
            }
            Verdict::Right(_) => {
                self.input.clear();
                shared.answered(since.elapsed());
                self.after_reply(shared);
            }
        }
    }

    fn after_reply(&mut self, shared: &Shared) {
        let now = Instant::now();
        let pause = self.one_in(shared.plan.pause_one_in);
        let pause = if pause { shared.plan.pause.mul_f64(self.random.random_range(0.0..=1.0)) } else { Duration::ZERO };
        self.state = State::Idle(now + pause);
        if self.dialogue.persistence() == Persistence::OneReply {
            self.stream = None;
        } else if self.left > 0 {
            self.left -= 1;
            if self.left == 0 {
                self.leave();
            }
        }
    }

    /// Closes the connection; one client in eight leaves in the middle of a request that the server must forget.
    fn leave(&mut self) {
        if self.one_in(8)
            && let Some(stream) = &mut self.stream
        {
            // Half a request in both text protocols. Whether it arrives does not matter.
            let _ = stream.write(b"*2\r\n$3\r\nGE");
        }
        self.stream = None;
    }

    /// Says whether this client has nothing in flight.
    fn is_done(&self) -> bool {
        matches!(self.state, State::Idle(_) | State::Dead)
    }
}

/// Drives the connections until `stop` says so and every request in flight is answered.
pub(super) fn drive<D: Dialogue>(
    mut connections: Vec<Connection<D>>,
    shared: &Shared,
    stop: impl Fn() -> bool,
) -> Vec<D> {
    loop {
        let stopping = stop();
        for connection in &mut connections {
            connection.advance(shared, stopping);
        }
        if stopping && connections.iter().all(Connection::is_done) {
            return connections.into_iter().map(|connection| connection.dialogue).collect();
        }
        let ready = wait(&connections);
        for index in ready {
            let connection = &mut connections[index];
            match connection.state {
                State::Connecting(_) => connection.connected(shared),
                State::Sending(_) => connection.send(shared),
                State::Idle(_) | State::Paused(_) | State::Awaiting(_) | State::Dead => {}
            }
            connection.receive(shared);
            // The next request goes out at once, not after all the others were looked at.
            connection.advance(shared, stopping);
        }
    }
}

/// Waits until something can be done, at most one tick; returns the indices of what is ready.
fn wait<D>(connections: &[Connection<D>]) -> Vec<usize> {
    let open = connections.iter().enumerate().filter_map(|(index, c)| Some((index, c.stream.as_ref()?, c.state)));
    let (indices, mut fds): (Vec<usize>, Vec<PollFd<'_>>) = open
        .map(|(index, stream, state)| {
            let flags = match state {
                State::Connecting(_) => PollFlags::POLLOUT,
                State::Sending(_) => PollFlags::POLLIN | PollFlags::POLLOUT,
                State::Idle(_) | State::Paused(_) | State::Awaiting(_) | State::Dead => PollFlags::POLLIN,
            };
            (index, PollFd::new(stream.as_fd(), flags))
        })
        .unzip();
    let now = Instant::now();
    let next = connections.iter().filter_map(|connection| match connection.state {
        State::Idle(at) | State::Paused(at) => Some(at.saturating_duration_since(now)),
        State::Connecting(_) | State::Sending(_) | State::Awaiting(_) | State::Dead => None,
    });
    let tick = next.min().unwrap_or(TICK).min(TICK);
    let timeout = PollTimeout::from(tick.as_millis() as u8);
    match poll(&mut fds, timeout) {
        Ok(_) => {
            let ready = fds.iter().zip(indices).filter(|(fd, _)| fd.any().unwrap_or(true));
            ready.map(|(_, index)| index).collect()
        }
        // A signal; the next round looks again.
        Err(_) => Vec::new(),
    }
}
