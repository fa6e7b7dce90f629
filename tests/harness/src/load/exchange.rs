//! A checking dialogue for protocols of which a server needs to be asked a few things only: a table of requests, each with what
//! judges its reply.

use rand::Rng;
use rand::rngs::StdRng;

use super::{Dialogue, Persistence, Verdict};

/// Judges what has arrived of a reply.
pub type Judge = Box<dyn Fn(&[u8]) -> Verdict + Send>;

/// Makes the request of this number on its connection, from 0 on, and what judges its reply.
pub type Ask = Box<dyn FnMut(u32, &mut StdRng) -> (Vec<u8>, Judge) + Send>;

/// A client that asks what a function makes up.
pub struct Exchange {
    ask: Ask,
    persistence: Persistence,
    /// What the server says now and then to see whether the client is there.
    nudge: &'static [u8],
    asked: u32,
    judge: Option<Judge>,
}

impl Exchange {
    /// Makes a client; says who ends its connections.
    #[must_use]
    pub fn new(persistence: Persistence, ask: Ask) -> Exchange {
        Exchange { ask, persistence, nudge: b"", asked: 0, judge: None }
    }

    /// The server says this now and then, and it means nothing.
    #[must_use]
    pub fn nudged_by(self, nudge: &'static [u8]) -> Exchange {
        Exchange { nudge, ..self }
    }
}

impl Dialogue for Exchange {
    fn request(&mut self, random: &mut StdRng, out: &mut Vec<u8>) {
        let (request, judge) = (self.ask)(self.asked, random);
        self.asked += 1;
        self.judge = Some(judge);
        out.extend_from_slice(&request);
    }

    fn check(&mut self, input: &[u8]) -> Verdict {
        match &self.judge {
            Some(judge) => judge(input),
            None => Verdict::Wrong("it speaks before it is asked".to_owned()),
        }
    }

    fn passes_over(&self, unasked: &[u8]) -> usize {
        if !self.nudge.is_empty() && unasked.starts_with(self.nudge) { self.nudge.len() } else { 0 }
    }

    fn connected(&mut self) {
        self.asked = 0;
    }

    fn persistence(&self) -> Persistence {
        self.persistence
    }
}

fn wrong(what: &str, input: &[u8]) -> Verdict {
    let shown = String::from_utf8_lossy(&input[..input.len().min(200)]).into_owned();
    Verdict::Wrong(format!("{what}: {shown:?}"))
}

/// HTTP with a body of JSON: this is sent, and the reply has the length that it says and holds this text.
#[must_use]
pub fn http(method: &str, path: &str, body: &str, holds: String) -> (Vec<u8>, Judge) {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}"
    );
    let judge = move |input: &[u8]| {
        let Some(end) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Verdict::Incomplete };
        let head = String::from_utf8_lossy(&input[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let Some(length) = length.filter(|_| head.starts_with("http/1.1 200")) else {
            return wrong("no success with a length", input);
        };
        let Some(body) = input[end + 4..].get(..length) else { return Verdict::Incomplete };
        let found = String::from_utf8_lossy(body).contains(&holds);
        if found { Verdict::Right(end + 4 + length) } else { wrong(&format!("no {holds:?}"), input) }
    };
    (format!("{head}\r\n\r\n{body}").into_bytes(), Box::new(judge))
}

/// SNMP, version 2c (RFC 3416): asks for an object of the system's group, `1.3.6.1.2.1.1.NUMBER.0`, whose value is this text.
#[must_use]
pub fn snmp(number: u8, value: &str, random: &mut StdRng) -> (Vec<u8>, Judge) {
    // The highest bit stays clear, so that it takes two bytes with any encoding.
    let id: [u8; 2] = [random.random_range(1..0x80), random.random()];
    let name = [0x2b, 6, 1, 2, 1, 1, number, 0];
    let of = |tag: u8, parts: &[&[u8]]| {
        let all = parts.concat();
        [&[tag, all.len() as u8][..], &all].concat()
    };
    let message = |kind: u8, value: &[u8]| {
        let variable = of(0x30, &[&of(6, &[&name]), value]);
        let pdu = of(kind, &[&of(2, &[&id]), &[2, 1, 0, 2, 1, 0], &of(0x30, &[&variable])]);
        of(0x30, &[&[2, 1, 1], &of(4, &[b"public"]), &pdu])
    };
    let expected = message(0xa2, &of(4, &[value.as_bytes()]));
    let judge = move |input: &[u8]| {
        if input == expected { Verdict::Right(input.len()) } else { wrong("another answer", input) }
    };
    (message(0xa0, &[5, 0]), Box::new(judge))
}

/// NTP, version 4 (RFC 5905): asks for the time; the answer repeats what was sent.
#[must_use]
pub fn ntp(random: &mut StdRng) -> (Vec<u8>, Judge) {
    let stamp: [u8; 8] = random.random();
    let mut request = [0; 48];
    request[0] = 0x23;
    request[40..].copy_from_slice(&stamp);
    let judge = move |input: &[u8]| {
        let right = input.len() == 48 && input[0] & 0x3f == 0x24 && input[24..32] == stamp;
        if right { Verdict::Right(48) } else { wrong("no answer of a server to this request", input) }
    };
    (request.to_vec(), Box::new(judge))
}

/// NATS: a connection that hears what it says itself, once the server has told who it is.
#[must_use]
pub fn nats(name: &str, number: u32, random: &mut StdRng) -> (Vec<u8>, Judge) {
    let size: usize = random.random_range(0..2_000);
    let text: String = (0..size).map(|at| char::from(b'a' + ((at + number as usize) % 26) as u8)).collect();
    let (request, expected) = match number {
        0 => (String::new(), String::new()),
        1 => (format!("CONNECT {{\"verbose\":false}}\r\nSUB {name} 1\r\nPING\r\n"), "PONG\r\n".to_owned()),
        _ => (format!("PUB {name} {size}\r\n{text}\r\n"), format!("MSG {name} 1 {size}\r\n{text}\r\n")),
    };
    let judge = move |input: &[u8]| {
        // It asks in between whether the client is there.
        let begin = if input.starts_with(b"PING\r\n") { b"PING\r\n".len() } else { 0 };
        let rest = &input[begin..];
        let told = rest.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        match number {
            0 if told > 0 && rest.starts_with(b"INFO ") => Verdict::Right(begin + told),
            0 => Verdict::Incomplete,
            _ if rest.starts_with(expected.as_bytes()) => Verdict::Right(begin + expected.len()),
            _ if expected.as_bytes().starts_with(rest) || b"PING\r\n".starts_with(rest) => Verdict::Incomplete,
            _ => wrong("another message", rest),
        }
    };
    (request.into_bytes(), Box::new(judge))
}

/// PostgreSQL's protocol, version 3: the console of pgbouncer is asked which version it is.
#[must_use]
pub fn pgbouncer(number: u32) -> (Vec<u8>, Judge) {
    let packet = |kind: &[u8], body: &[u8]| [kind, &(body.len() as u32 + 4).to_be_bytes(), body].concat();
    let request = match number {
        0 => packet(b"", b"\0\x03\0\0user\0test\0database\0pgbouncer\0\0"),
        _ => packet(b"Q", b"SHOW VERSION;\0"),
    };
    let judge = move |input: &[u8]| {
        let (mut at, mut told) = (0, number == 0);
        loop {
            let Some([kind, length @ ..]) = input.get(at..at + 5) else { return Verdict::Incomplete };
            let length = u32::from_be_bytes(length.try_into().unwrap_or_default()) as usize;
            let Some(body) = input.get(at + 5..at + 1 + length) else { return Verdict::Incomplete };
            at += 1 + length;
            match kind {
                b'E' => return wrong("an error", input),
                b'D' => told |= body.windows(9).any(|bytes| bytes == b"PgBouncer"),
                b'Z' if told => return Verdict::Right(at),
                b'Z' => return wrong("no version", input),
                _ => {}
            }
        }
    };
    (request, Box::new(judge))
}

/// FTP (RFC 959): logs in and out again.
#[must_use]
pub fn ftp(user: &str, password: &str) -> (Vec<u8>, Judge) {
    let codes = ["220", "331", "230", "221"];
    let judge = move |input: &[u8]| {
        let whole = input.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let text = String::from_utf8_lossy(&input[..whole]).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        if !lines.iter().zip(codes).all(|(line, code)| line.starts_with(code)) {
            return wrong("another answer", input);
        }
        if lines.len() < codes.len() { Verdict::Incomplete } else { Verdict::Right(whole) }
    };
    (format!("USER {user}\r\nPASS {password}\r\nQUIT\r\n").into_bytes(), Box::new(judge))
}
