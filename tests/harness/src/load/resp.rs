//! Redis: a checking dialogue, and a plain client for single commands.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::Rng;
use rand::rngs::StdRng;

use super::{Dialogue, Verdict};

/// Keys of each type that a client uses.
const KEYS: u32 = 24;
/// A list never grows longer.
const LIST_MAX: usize = 12;

/// A client with keys of its own, so that it knows the reply to each of its commands byte for byte.
#[derive(Debug)]
pub struct RedisClient {
    name: String,
    strings: BTreeMap<String, Vec<u8>>,
    numbers: BTreeMap<String, i64>,
    lists: BTreeMap<String, VecDeque<Vec<u8>>>,
    hashes: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Keys that `DEBUG POPULATE` made and nobody changes.
    populated: u64,
    value_size: usize,
    expected: Vec<u8>,
    /// The command that is in flight, for the message.
    command: String,
}

impl RedisClient {
    /// Makes a client whose keys begin with `name`.
    #[must_use]
    pub fn new(name: &str) -> RedisClient {
        RedisClient {
            name: name.to_owned(),
            strings: BTreeMap::new(),
            numbers: BTreeMap::new(),
            lists: BTreeMap::new(),
            hashes: BTreeMap::new(),
            populated: 0,
            value_size: 0,
            expected: Vec::new(),
            command: String::new(),
        }
    }

    /// Lets the client also read keys of `DEBUG POPULATE count key size`.
    #[must_use]
    pub fn with_populated(mut self, count: u64, size: usize) -> RedisClient {
        self.populated = count;
        self.value_size = size;
        self
    }

    fn key(&self, kind: &str, random: &mut StdRng) -> String {
        format!("{}:{kind}:{}", self.name, random.random_range(0..KEYS))
    }

    fn ask(&mut self, out: &mut Vec<u8>, command: &[&[u8]], expected: Vec<u8>) {
        encode(out, command);
        self.command = command.iter().take(2).map(|part| String::from_utf8_lossy(part)).collect::<Vec<_>>().join(" ");
        self.expected = expected;
    }

    /// Compares the whole model with the server and deletes the client's keys. To be called when the load has stopped.
    pub fn verify_and_delete(&self, client: &mut RespClient) -> Result<()> {
        for (key, value) in &self.strings {
            client.expect(&[b"GET", key.as_bytes()], &bulk(Some(value)))?;
            client.expect(&[b"DEL", key.as_bytes()], b":1\r\n")?;
        }
        for (key, value) in &self.numbers {
            client.expect(&[b"GET", key.as_bytes()], &bulk(Some(value.to_string().as_bytes())))?;
            client.expect(&[b"DEL", key.as_bytes()], b":1\r\n")?;
        }
        for (key, list) in self.lists.iter().filter(|(_, list)| !list.is_empty()) {
            client.expect(&[b"LRANGE", key.as_bytes(), b"0", b"-1"], &array(list.iter()))?;
            client.expect(&[b"DEL", key.as_bytes()], b":1\r\n")?;
        }
        for (key, hash) in self.hashes.iter().filter(|(_, hash)| !hash.is_empty()) {
            client.expect(&[b"HLEN", key.as_bytes()], format!(":{}\r\n", hash.len()).as_bytes())?;
            for (field, value) in hash {
                client.expect(&[b"HGET", key.as_bytes(), field.as_bytes()], &bulk(Some(value)))?;
            }
            client.expect(&[b"DEL", key.as_bytes()], b":1\r\n")?;
        }
        Ok(())
    }
}

fn random_value(random: &mut StdRng) -> Vec<u8> {
    // Mostly short; some larger than a socket buffer takes at once.
    let size = match random.random_range(0..100) {
        0 => random.random_range(20_000..100_000),
        1..10 => random.random_range(1_000..5_000),
        _ => random.random_range(0..120),
    };
    let seed: u8 = random.random();
    (0..size).map(|i: usize| seed.wrapping_add((i % 251) as u8)).collect()
}

impl Dialogue for RedisClient {
    fn request(&mut self, random: &mut StdRng, out: &mut Vec<u8>) {
        match random.random_range(0..if self.populated > 0 { 15 } else { 13 }) {
            0..=1 => {
                let (key, value) = (self.key("s", random), random_value(random));
                self.ask(out, &[b"SET", key.as_bytes(), &value], b"+OK\r\n".to_vec());
                self.strings.insert(key, value);
            }
            2..=4 => {
                let key = self.key("s", random);
                let expected = bulk(self.strings.get(&key).map(Vec::as_slice));
                self.ask(out, &[b"GET", key.as_bytes()], expected);
            }
            5 => {
                let key = self.key("s", random);
                let tail = vec![b'+'; random.random_range(1..9)];
                let value = self.strings.entry(key.clone()).or_default();
                value.extend_from_slice(&tail);
                let expected = format!(":{}\r\n", value.len()).into_bytes();
                self.ask(out, &[b"APPEND", key.as_bytes(), &tail], expected);
            }
            6 => {
                let key = self.key("s", random);
                let expected = format!(":{}\r\n", u8::from(self.strings.remove(&key).is_some())).into_bytes();
                self.ask(out, &[b"DEL", key.as_bytes()], expected);
            }
            7..=8 => {
                let key = self.key("n", random);
                let step: i64 = random.random_range(-5..50);
                let number = self.numbers.entry(key.clone()).or_default();
                *number += step;
                let expected = format!(":{number}\r\n").into_bytes();
                self.ask(out, &[b"INCRBY", key.as_bytes(), step.to_string().as_bytes()], expected);
            }
            9 => {
                let (key, value) = (self.key("l", random), random_value(random));
                let list = self.lists.entry(key.clone()).or_default();
                if list.len() >= LIST_MAX {
                    let expected = bulk(list.pop_back().as_deref());
                    self.ask(out, &[b"RPOP", key.as_bytes()], expected);
                } else {
                    list.push_front(value.clone());
                    let expected = format!(":{}\r\n", list.len()).into_bytes();
                    self.ask(out, &[b"LPUSH", key.as_bytes(), &value], expected);
                }
            }
            10 => {
                let key = self.key("l", random);
                let expected = self.lists.get(&key).map_or_else(|| b"*0\r\n".to_vec(), |list| array(list.iter()));
                self.ask(out, &[b"LRANGE", key.as_bytes(), b"0", b"-1"], expected);
            }
            11 => {
                let (key, value) = (self.key("h", random), random_value(random));
                let field = format!("f{}", random.random_range(0..6));
                let hash = self.hashes.entry(key.clone()).or_default();
                let new = hash.insert(field.clone(), value.clone()).is_none();
                let expected = format!(":{}\r\n", u8::from(new)).into_bytes();
                self.ask(out, &[b"HSET", key.as_bytes(), field.as_bytes(), &value], expected);
            }
            12 => {
                let key = self.key("h", random);
                let field = format!("f{}", random.random_range(0..6));
                let expected = bulk(self.hashes.get(&key).and_then(|hash| hash.get(&field)).map(Vec::as_slice));
                self.ask(out, &[b"HGET", key.as_bytes(), field.as_bytes()], expected);
            }
            _ => {
                let number = random.random_range(0..self.populated);
                let mut value = format!("value:{number}").into_bytes();
                value.resize(self.value_size, 0);
                self.ask(out, &[b"GET", format!("key:{number}").as_bytes()], bulk(Some(&value)));
            }
        }
    }

    fn check(&mut self, input: &[u8]) -> Verdict {
        check_bytes(&self.expected, input, &self.command)
    }
}

/// Judges a reply of which every byte is known.
pub(super) fn check_bytes(expected: &[u8], input: &[u8], command: &str) -> Verdict {
    let length = input.len().min(expected.len());
    if input[..length] != expected[..length] {
        let show = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        return Verdict::Wrong(format!("{command} was answered {:?}, not {:?}", show(input), show(expected)));
    }
    if length < expected.len() { Verdict::Incomplete } else { Verdict::Right(expected.len()) }
}

pub(super) fn encode(out: &mut Vec<u8>, command: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
    for part in command {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

pub(super) fn bulk(value: Option<&[u8]>) -> Vec<u8> {
    match value {
        Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
        None => b"$-1\r\n".to_vec(),
    }
}

fn array<'a>(values: impl ExactSizeIterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", values.len()).into_bytes();
    for value in values {
        bytes.extend_from_slice(&bulk(Some(value)));
    }
    bytes
}

/// A client that sends one command and waits for the reply.
#[derive(Debug)]
pub struct RespClient {
    stream: BufReader<TcpStream>,
}

impl RespClient {
    /// Connects; every reply must come within `limit`.
    pub fn connect(address: SocketAddr, limit: Duration) -> Result<RespClient> {
        let stream = TcpStream::connect_timeout(&address, limit).with_context(|| format!("connecting to {address}"))?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_nodelay(true)?;
        Ok(RespClient { stream: BufReader::new(stream) })
    }

    /// Sends a command given as words and returns the reply: a string, number or status as text.
    pub fn command(&mut self, words: &[&str]) -> Result<String> {
        let parts: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.send(&parts)?;
        let reply = self.reply().with_context(|| format!("reply to {}", words.join(" ")))?;
        let (head, body) = reply.split_at(reply.iter().position(|byte| *byte == b'\n').unwrap_or(0) + 1);
        match head.first() {
            Some(b'-') => bail!("{}: {}", words.join(" "), String::from_utf8_lossy(head).trim_end()),
            Some(b'$') => Ok(String::from_utf8_lossy(body).trim_end_matches("\r\n").to_owned()),
            _ => Ok(String::from_utf8_lossy(head.get(1..).unwrap_or_default()).trim_end().to_owned()),
        }
    }

    /// Sends a command and fails unless the reply is exactly `expected`.
    pub fn expect(&mut self, command: &[&[u8]], expected: &[u8]) -> Result<()> {
        self.send(command)?;
        let mut reply = vec![0; expected.len()];
        let read = self.stream.read_exact(&mut reply);
        let name = || command.iter().take(2).map(|part| String::from_utf8_lossy(part)).collect::<Vec<_>>().join(" ");
        read.with_context(|| format!("reply to {}", name()))?;
        if reply != expected {
            let show = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
            bail!("{} was answered {:?}, not {:?}", name(), show(&reply), show(expected));
        }
        Ok(())
    }

    /// Sends a command and returns the reply as it comes, unless it is an array.
    pub fn answer(&mut self, command: &[&[u8]]) -> Result<Vec<u8>> {
        self.send(command)?;
        self.reply()
    }

    fn send(&mut self, command: &[&[u8]]) -> Result<()> {
        let mut bytes = Vec::new();
        encode(&mut bytes, command);
        Ok(self.stream.get_mut().write_all(&bytes)?)
    }

    /// Reads one reply that is no array, head and body.
    fn reply(&mut self) -> Result<Vec<u8>> {
        let mut reply = Vec::new();
        self.stream.read_until(b'\n', &mut reply)?;
        if reply.first() == Some(&b'$') && reply.get(1) != Some(&b'-') {
            let head = String::from_utf8_lossy(&reply[1..]).trim_end().to_owned();
            let start = reply.len();
            reply.resize(start + head.parse::<usize>().context("length of a reply")? + 2, 0);
            self.stream.read_exact(&mut reply[start..])?;
        }
        if reply.is_empty() {
            bail!("the server closed the connection");
        }
        Ok(reply)
    }
}
