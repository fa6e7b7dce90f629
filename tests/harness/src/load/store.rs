//! The project's own key-value store: a checking dialogue.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

use super::resp::check_bytes;
use super::{Dialogue, Verdict};

const KEYS: u32 = 24;

/// What a client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// What both versions answer alike: it asks for and deletes entries that the store began with.
    Common,
    /// What version 1 knows.
    Plain,
    /// What version 2 knows.
    Typed,
}

/// A client with keys of its own, and with a share of those that the store began with.
#[derive(Debug)]
pub struct StoreClient {
    name: String,
    speech: Speech,
    /// Of the keys that the store began with: every how many-eth is ours, and which are deleted.
    share: (u64, u64, u64),
    deleted: BTreeMap<u64, ()>,
    /// Type and value.
    values: BTreeMap<String, (&'static str, String)>,
    expected: Vec<u8>,
    command: String,
}

impl StoreClient {
    /// Makes client `index` of `clients` of a store that began with `entries`.
    #[must_use]
    pub fn new(speech: Speech, index: usize, clients: usize, entries: u64) -> StoreClient {
        StoreClient {
            name: format!("c{index}"),
            speech,
            share: (index as u64, clients as u64, entries),
            deleted: BTreeMap::new(),
            values: BTreeMap::new(),
            expected: Vec::new(),
            command: String::new(),
        }
    }

    /// The client speaks otherwise from now on.
    pub fn speak(&mut self, speech: Speech) {
        self.speech = speech;
    }

    fn first_key(&self, random: &mut StdRng) -> Option<u64> {
        let (index, clients, entries) = self.share;
        let mine = (entries + clients - 1 - index) / clients;
        (mine > 0).then(|| index + random.random_range(0..mine) * clients)
    }

    fn ask(&mut self, out: &mut Vec<u8>, line: String, expected: String) {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
        self.command = line;
        self.expected = format!("{expected}\n").into_bytes();
    }

    fn common(&mut self, random: &mut StdRng, out: &mut Vec<u8>) {
        match (random.random_range(0..20), self.first_key(random)) {
            (0, Some(key)) => {
                let gone = self.deleted.insert(key, ()).is_some();
                self.ask(out, format!("del key{key}"), if gone { "NOT FOUND" } else { "OK" }.to_owned());
            }
            (1..16, Some(key)) => {
                let gone = self.deleted.contains_key(&key);
                self.ask(out, format!("get key{key}"), if gone { "NOT FOUND".into() } else { format!("value{key}") });
            }
            (16 | 17, _) => self.ask(out, "what is this".to_owned(), "ERROR".to_owned()),
            _ => {
                let key = format!("{}:{}", self.name, random.random_range(0..KEYS));
                let expected = self.values.get(&key).map_or("NOT FOUND".to_owned(), |(_, value)| value.clone());
                self.ask(out, format!("get {key}"), expected);
            }
        }
    }
}

impl Dialogue for StoreClient {
    fn request(&mut self, random: &mut StdRng, out: &mut Vec<u8>) {
        let puts = self.speech != Speech::Common && random.random_range(0..3) == 0;
        if !puts {
            return self.common(random, out);
        }
        let key = format!("{}:{}", self.name, random.random_range(0..KEYS));
        let number: u32 = random.random();
        match self.speech {
            Speech::Plain => {
                self.ask(out, format!("put {key} v{number}"), "OK".to_owned());
                self.values.insert(key, ("string", format!("v{number}")));
            }
            Speech::Common | Speech::Typed => match random.random_range(0..4) {
                0 => {
                    self.ask(out, format!("put int {key} {number}"), "OK".to_owned());
                    self.values.insert(key, ("int", number.to_string()));
                }
                1 => {
                    self.ask(out, format!("put string {key} v{number}"), "OK".to_owned());
                    self.values.insert(key, ("string", format!("v{number}")));
                }
                2 => {
                    let expected = self.values.get(&key).map_or("NOT FOUND", |(kind, _)| kind).to_owned();
                    self.ask(out, format!("type {key}"), expected);
                }
                _ => self.ask(out, format!("put {key} v{number}"), "ERROR".to_owned()),
            },
        }
    }

    fn check(&mut self, input: &[u8]) -> Verdict {
        check_bytes(&self.expected, input, &self.command)
    }
}
