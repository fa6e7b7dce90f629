//! beanstalkd's text protocol: a checking dialogue.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

use super::resp::check_bytes;
use super::{Dialogue, Verdict};

/// A queue never grows longer.
const MAX_JOBS: usize = 20;

/// What the reply must be.
#[derive(Debug)]
enum Expected {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The number of the job that was put; the server chooses it, higher than all before.
    Number,
}

/// A client with a queue ("tube") of its own for each connection, so that it knows what is in it.
#[derive(Debug)]
pub struct BeanstalkClient {
    name: String,
    visits: u32,
    /// Requests on this connection so far.
    asked: u32,
    /// Body by number; the lowest is the next to come.
    jobs: BTreeMap<u64, Vec<u8>>,
    /// The job that was put, and its number is awaited.
    put: Vec<u8>,
    /// The job that we have reserved.
    reserved: Option<u64>,
    expected: Expected,
    command: String,
}

impl BeanstalkClient {
    /// Makes a client whose queues begin with `name`.
    #[must_use]
    pub fn new(name: &str) -> BeanstalkClient {
        BeanstalkClient {
            name: name.to_owned(),
            visits: 0,
            asked: 0,
            jobs: BTreeMap::new(),
            put: Vec::new(),
            reserved: None,
            expected: Expected::Bytes(Vec::new()),
            command: String::new(),
        }
    }

    fn ask(&mut self, out: &mut Vec<u8>, line: &str, expected: impl Into<Vec<u8>>) {
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
        line.clone_into(&mut self.command);
        self.expected = Expected::Bytes(expected.into());
    }

    fn put(&mut self, random: &mut StdRng, out: &mut Vec<u8>) {
        let size = if random.random_range(0..20) == 0 { 20_000 } else { random.random_range(0..200) };
        let seed: u8 = random.random();
        self.put = (0..size).map(|i: usize| seed.wrapping_add((i % 249) as u8)).collect();
        let line = format!("put 1024 0 600 {}", self.put.len());
        self.ask(out, &line, []);
        out.extend_from_slice(&self.put);
        out.extend_from_slice(b"\r\n");
        self.expected = Expected::Number;
    }
}

/// A reply that carries a job.
fn job(head: &str, number: u64, body: &[u8]) -> Vec<u8> {
    [format!("{head} {number} {}\r\n", body.len()).as_bytes(), body, b"\r\n"].concat()
}

impl Dialogue for BeanstalkClient {
    fn request(&mut self, random: &mut StdRng, out: &mut Vec<u8>) {
        self.asked += 1;
        let tube = format!("{}-{}", self.name, self.visits);
        match self.asked {
            1 => return self.ask(out, &format!("use {tube}"), format!("USING {tube}\r\n")),
            2 => return self.ask(out, &format!("watch {tube}"), "WATCHING 2\r\n"),
            3 => return self.ask(out, "ignore default", "WATCHING 1\r\n"),
            _ => {}
        }
        if let Some(number) = self.reserved.take() {
            self.jobs.remove(&number);
            return self.ask(out, &format!("delete {number}"), "DELETED\r\n");
        }
        let peek = random.random_range(0..4) == 0;
        let take = self.jobs.len() >= MAX_JOBS || random.random_range(0..2) == 0;
        match self.jobs.iter().next() {
            Some((number, body)) if peek => {
                let (line, reply) = (format!("peek {number}"), job("FOUND", *number, body));
                self.ask(out, &line, reply);
            }
            Some((number, body)) if take => {
                let (number, reply) = (*number, job("RESERVED", *number, body));
                self.reserved = Some(number);
                self.ask(out, "reserve-with-timeout 0", reply);
            }
            None if take => self.ask(out, "reserve-with-timeout 0", "TIMED_OUT\r\n"),
            _ => self.put(random, out),
        }
    }

    fn connected(&mut self) {
        self.visits += 1;
        self.asked = 0;
        self.jobs.clear();
        self.reserved = None;
    }

    fn check(&mut self, input: &[u8]) -> Verdict {
        match &self.expected {
            Expected::Bytes(expected) => check_bytes(expected, input, &self.command),
            Expected::Number => {
                let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return Verdict::Incomplete };
                let text = String::from_utf8_lossy(&input[..=end]);
                let number = text.strip_prefix("INSERTED ").and_then(|rest| rest.trim_end().parse().ok());
                let last = self.jobs.keys().next_back().copied().unwrap_or(0);
                match number {
                    Some(number) if number > last => {
                        self.jobs.insert(number, std::mem::take(&mut self.put));
                        Verdict::Right(end + 1)
                    }
                    _ => Verdict::Wrong(format!("{} was answered {text:?}; the last job was {last}", self.command)),
                }
            }
        }
    }
}
