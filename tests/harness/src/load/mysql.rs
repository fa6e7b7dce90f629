//! The protocol of MySQL and MariaDB, as far as queries in text need it: a checking dialogue.
//!
//! <https://mariadb.com/kb/en/clientserver-protocol/>

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

use super::{Dialogue, Verdict};

const KEYS: u32 = 24;

const PROTOCOL_41: u32 = 0x200;
const SECURE_CONNECTION: u32 = 0x8000;
const PLUGIN_AUTH: u32 = 0x8_0000;
/// `utf8_general_ci`.
const CHARSET: u8 = 33;
const QUERY: u8 = 3;

const OK: u8 = 0;
const END: u8 = 0xfe;
const NULL: u8 = 0xfb;
const ERROR: u8 = 0xff;

/// What must come.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    /// The server speaks first.
    Greeting,
    /// Done, with any number of rows.
    Done,
    /// Done, with so many rows changed.
    Changed(u64),
    /// One column: the value of each row.
    Rows(Vec<Option<String>>),
}

/// A client with a table of its own.
#[derive(Debug)]
pub struct MysqlClient {
    name: String,
    /// Requests on this connection so far.
    asked: u32,
    values: BTreeMap<u32, String>,
    expected: Expected,
    query: String,
}

impl MysqlClient {
    /// Makes a client whose table is called by `name`. The server must let `root` in without a password.
    #[must_use]
    pub fn new(name: &str) -> MysqlClient {
        MysqlClient {
            name: name.to_owned(),
            asked: 0,
            values: BTreeMap::new(),
            expected: Expected::Greeting,
            query: String::new(),
        }
    }

    fn log_in(&mut self, out: &mut Vec<u8>) {
        let mut body = (PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH).to_le_bytes().to_vec();
        body.extend_from_slice(&(1u32 << 24).to_le_bytes());
        body.push(CHARSET);
        body.extend_from_slice(&[0; 23]);
        // No password: an answer of length 0.
        body.extend_from_slice(b"root\0\0mysql_native_password\0");
        packet(out, 1, &body);
        self.query = "login".to_owned();
        self.expected = Expected::Done;
    }

    fn ask(&mut self, out: &mut Vec<u8>, query: String, expected: Expected) {
        packet(out, 0, &[&[QUERY], query.as_bytes()].concat());
        self.query = query;
        self.expected = expected;
    }

    fn judge(&self, input: &[u8]) -> Result<Option<usize>, String> {
        let fault = |body: &[u8]| {
            let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
            Err(format!("{} was answered {text:?}, not {:?}", self.query, self.expected))
        };
        let Some((body, mut at)) = first(input) else { return Ok(None) };
        match (&self.expected, body.first()) {
            (_, None | Some(&ERROR)) => fault(body),
            (Expected::Greeting, Some(10)) => Ok(Some(at)),
            (Expected::Done, Some(&OK)) => Ok(Some(at)),
            (Expected::Changed(rows), Some(&OK)) if body.get(1).copied().map(u64::from) == Some(*rows) => Ok(Some(at)),
            (Expected::Rows(rows), Some(1)) => {
                // The column, an end, the rows, an end.
                let mut came = Vec::new();
                let mut ends = 0;
                while ends < 2 {
                    let Some((body, length)) = first(&input[at..]) else { return Ok(None) };
                    at += length;
                    match body.first() {
                        Some(&END) if body.len() < 9 => ends += 1,
                        Some(&NULL) if ends == 1 => came.push(None),
                        Some(length) if ends == 1 && body.len() == 1 + usize::from(*length) => {
                            came.push(Some(String::from_utf8_lossy(&body[1..]).into_owned()));
                        }
                        _ if ends == 0 => {}
                        _ => return fault(body),
                    }
                }
                if came == *rows { Ok(Some(at)) } else { fault(format!("{came:?}").as_bytes()) }
            }
            _ => fault(body),
        }
    }
}

/// Writes a packet: three bytes of length, its number, the body.
fn packet(out: &mut Vec<u8>, number: u8, body: &[u8]) {
    out.extend_from_slice(&(body.len() as u32).to_le_bytes()[..3]);
    out.push(number);
    out.extend_from_slice(body);
}

/// Returns the first packet's body and whole length; `None` while a part of it is missing.
fn first(input: &[u8]) -> Option<(&[u8], usize)> {
    let head = input.get(..4)?;
    let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
    Some((input.get(4..4 + length)?, 4 + length))
}

impl Dialogue for MysqlClient {
    fn request(&mut self, random: &mut StdRng, out: &mut Vec<u8>) {
        self.asked += 1;
        let table = format!("shop.t_{}", self.name);
        match self.asked {
            1 => {
                self.query = "connecting".to_owned();
                self.expected = Expected::Greeting;
                return;
            }
            2 => return self.log_in(out),
            3 => return self.ask(out, "CREATE DATABASE IF NOT EXISTS shop".to_owned(), Expected::Done),
            4 => {
                let columns = "(k INT PRIMARY KEY, v TEXT) ENGINE=InnoDB";
                return self.ask(out, format!("CREATE TABLE IF NOT EXISTS {table} {columns}"), Expected::Done);
            }
            _ => {}
        }
        let key = random.random_range(0..KEYS);
        match random.random_range(0..8) {
            0..=2 => {
                let value: String = (0..random.random_range(1..200)).map(|_| random.random_range('a'..='z')).collect();
                let changed = if self.values.contains_key(&key) { 2 } else { 1 };
                self.ask(out, format!("REPLACE INTO {table} VALUES ({key}, '{value}')"), Expected::Changed(changed));
                self.values.insert(key, value);
            }
            3 => {
                let changed = u64::from(self.values.remove(&key).is_some());
                self.ask(out, format!("DELETE FROM {table} WHERE k = {key}"), Expected::Changed(changed));
            }
            4 => {
                let count = self.values.len().to_string();
                self.ask(out, format!("SELECT COUNT(*) FROM {table}"), Expected::Rows(vec![Some(count)]));
            }
            _ => {
                let rows = self.values.get(&key).map(|value| Some(value.clone())).into_iter().collect();
                self.ask(out, format!("SELECT v FROM {table} WHERE k = {key}"), Expected::Rows(rows));
            }
        }
    }

    fn connected(&mut self) {
        self.asked = 0;
    }

    fn check(&mut self, input: &[u8]) -> Verdict {
        match self.judge(input) {
            Ok(None) => Verdict::Incomplete,
            Ok(Some(length)) => Verdict::Right(length),
            Err(what) => Verdict::Wrong(what),
        }
    }
}
