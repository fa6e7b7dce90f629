//! DNS, over UDP and TCP (RFC 1035): a checking dialogue.

use rand::Rng;
use rand::rngs::StdRng;

use super::{Dialogue, Persistence, Transport, Verdict};

/// How many names the servers know: `host0.test`, …
pub const NAMES: u8 = 50;

const OPCODE_AND_REPLY: u8 = 0xf8;
const REPLY: u8 = 0x80;
const NO_ERROR: u8 = 0;
const NO_SUCH_NAME: u8 = 3;
/// Type A, class IN.
const A_IN: [u8; 4] = [0, 1, 0, 1];

/// Returns name and address of each host that the servers know.
pub fn hosts() -> impl Iterator<Item = (String, [u8; 4])> {
    (0..NAMES).map(|number| (format!("host{number}.test"), [10, 7, number, 255 - number]))
}

/// A client that asks for [`hosts`], and for some that are not there.
#[derive(Debug)]
pub struct DnsClient {
    transport: Transport,
    persistence: Persistence,
    id: [u8; 2],
    question: Vec<u8>,
    name: String,
    /// The address that must be named; `None`: there is no such name.
    expected: Option<[u8; 4]>,
}

impl DnsClient {
    #[must_use]
    pub fn new(transport: Transport, persistence: Persistence) -> DnsClient {
        DnsClient { transport, persistence, id: [0; 2], question: Vec::new(), name: String::new(), expected: None }
    }

    /// Judges a whole message.
    fn judge(&self, message: &[u8]) -> Result<(), String> {
        let fault = |what: &str| Err(format!("{}: {what}: {message:02x?}", self.name));
        if message.len() < 12 || message[..2] != self.id {
            return fault("another id");
        }
        if message[2] & OPCODE_AND_REPLY != REPLY {
            return fault("no reply");
        }
        let code = message[3] & 0x0f;
        let answers = u16::from_be_bytes([message[6], message[7]]);
        if !message[12..].starts_with(&self.question) {
            return fault("another question");
        }
        let Some(address) = self.expected else {
            return if code == NO_SUCH_NAME && answers == 0 { Ok(()) } else { fault("a name that is not there") };
        };
        if code != NO_ERROR || answers != 1 {
            return fault("no single answer");
        }
        let answer = &message[12 + self.question.len()..];
        // A name that is a pointer, or written out as in the question.
        let after_name = match answer.first() {
            Some(first) if first & 0xc0 == 0xc0 => 2,
            _ => self.question.len() - A_IN.len(),
        };
        let Some(record) = answer.get(after_name..after_name + 14) else { return fault("a short answer") };
        // Type and class, time to live, length, address.
        let right = record[..4] == A_IN && record[8..10] == [0, 4] && record[10..14] == address;
        if right { Ok(()) } else { fault("another address") }
    }
}

impl Dialogue for DnsClient {
    fn request(&mut self, random: &mut StdRng, out: &mut Vec<u8>) {
        let number = random.random_range(0..NAMES + 10);
        (self.name, self.expected) = match hosts().nth(usize::from(number)) {
            Some((name, address)) => (name, Some(address)),
            None => (format!("missing{number}.test"), None),
        };
        self.id = random.random();
        self.question.clear();
        for label in self.name.split('.') {
            self.question.push(label.len() as u8);
            self.question.extend_from_slice(label.as_bytes());
        }
        self.question.push(0);
        self.question.extend_from_slice(&A_IN);
        let flags = [1, 0];
        let counts = [0, 1, 0, 0, 0, 0, 0, 0];
        let message = [&self.id[..], &flags, &counts, &self.question].concat();
        if self.transport == Transport::Tcp {
            out.extend_from_slice(&(message.len() as u16).to_be_bytes());
        }
        out.extend_from_slice(&message);
    }

    fn check(&mut self, input: &[u8]) -> Verdict {
        let message = match (self.transport, input) {
            (Transport::Udp, whole) => whole,
            (Transport::Tcp, [high, low, rest @ ..]) => {
                match rest.get(..usize::from(u16::from_be_bytes([*high, *low]))) {
                    Some(message) => message,
                    None => return Verdict::Incomplete,
                }
            }
            (Transport::Tcp, _) => return Verdict::Incomplete,
        };
        let prefix = if self.transport == Transport::Tcp { 2 } else { 0 };
        match self.judge(message) {
            Ok(()) => Verdict::Right(prefix + message.len()),
            Err(what) => Verdict::Wrong(what),
        }
    }

    fn persistence(&self) -> Persistence {
        self.persistence
    }
}
