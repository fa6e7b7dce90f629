//! Memcached's text protocol: a checking dialogue.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

use super::resp::check_bytes;
use super::{Dialogue, Verdict};

const KEYS: u32 = 24;

/// A client with keys of its own.
#[derive(Debug)]
pub struct MemcachedClient {
    name: String,
    /// Flags and value.
    values: BTreeMap<String, (u32, Vec<u8>)>,
    numbers: BTreeMap<String, u64>,
    expected: Vec<u8>,
    command: String,
}

impl MemcachedClient {
    /// Makes a client whose keys begin with `name`.
    #[must_use]
    pub fn new(name: &str) -> MemcachedClient {
        MemcachedClient {
            name: name.to_owned(),
            values: BTreeMap::new(),
            numbers: BTreeMap::new(),
            expected: Vec::new(),
            command: String::new(),
        }
    }

    fn ask(&mut self, out: &mut Vec<u8>, line: String, body: Option<&[u8]>, expected: Vec<u8>) {
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
        if let Some(body) = body {
            out.extend_from_slice(body);
            out.extend_from_slice(b"\r\n");
        }
        self.command = line;
        self.expected = expected;
    }
}

impl Dialogue for MemcachedClient {
    fn request(&mut self, random: &mut StdRng, out: &mut Vec<u8>) {
        let key = format!("{}:{}", self.name, random.random_range(0..KEYS));
        match random.random_range(0..10) {
            0..=2 => {
                let size = if random.random_range(0..20) == 0 { 30_000 } else { random.random_range(0..200) };
                let seed: u8 = random.random();
                let value: Vec<u8> = (0..size).map(|i: usize| seed.wrapping_add((i % 253) as u8)).collect();
                let flags: u32 = random.random_range(0..1000);
                let line = format!("set {key} {flags} 0 {}", value.len());
                self.ask(out, line, Some(&value), b"STORED\r\n".to_vec());
                self.values.insert(key, (flags, value));
            }
            3..=6 => {
                let expected = match self.values.get(&key) {
                    Some((flags, value)) => {
                        let head = format!("VALUE {key} {flags} {}\r\n", value.len());
                        [head.as_bytes(), value, b"\r\nEND\r\n"].concat()
                    }
                    None => b"END\r\n".to_vec(),
                };
                self.ask(out, format!("get {key}"), None, expected);
            }
            7 => {
                let found = self.values.remove(&key).is_some();
                let expected = if found { b"DELETED\r\n".to_vec() } else { b"NOT_FOUND\r\n".to_vec() };
                self.ask(out, format!("delete {key}"), None, expected);
            }
            8 => {
                let tail = vec![b'+'; random.random_range(1..9)];
                let expected = match self.values.get_mut(&key) {
                    Some((_, value)) => {
                        value.extend_from_slice(&tail);
                        b"STORED\r\n".to_vec()
                    }
                    None => b"NOT_STORED\r\n".to_vec(),
                };
                self.ask(out, format!("append {key} 0 0 {}", tail.len()), Some(&tail), expected);
            }
            _ => {
                let key = format!("{key}:n");
                match self.numbers.get_mut(&key) {
                    Some(number) => {
                        let step = random.random_range(0..100);
                        *number += step;
                        let expected = format!("{number}\r\n").into_bytes();
                        self.ask(out, format!("incr {key} {step}"), None, expected);
                    }
                    None => {
                        self.numbers.insert(key.clone(), 10);
                        self.ask(out, format!("set {key} 0 0 2"), Some(b"10"), b"STORED\r\n".to_vec());
                    }
                }
            }
        }
    }

    fn check(&mut self, input: &[u8]) -> Verdict {
        check_bytes(&self.expected, input, &self.command)
    }
}
