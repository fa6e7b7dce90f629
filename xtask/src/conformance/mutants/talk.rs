//! The fixed load: the same requests in the same order, each with the one answer that is right.
//!
//! One request is under way at a time, over a few connections in turn, so that nothing depends on who is faster, and two runs
//! can be compared answer by answer. What only one version knows (`type`, numbers) is not asked of it as a question that both
//! could answer: nobody can compare that.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Entries that the store begins with: the first few that are added make it grow.
pub(super) const ENTRIES: u64 = 1020;
const CONNECTIONS: usize = 4;
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whose language is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    /// Version 1's: `put KEY VALUE`.
    Old,
    /// Version 2's: `put string KEY VALUE`.
    New,
}

/// Whether some requests arrive in two pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pieces {
    Whole,
    Some,
}

/// A conversation with one server.
pub(super) struct Talk {
    address: SocketAddr,
    connections: Vec<BufReader<TcpStream>>,
    model: HashMap<String, String>,
    speech: Speech,
    pass: u64,
    asked: usize,
    pub(super) pieces: Pieces,
}

/// An answer that was not the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong(pub(super) String);

type Told = Result<(), Wrong>;

fn connect(address: SocketAddr) -> Result<BufReader<TcpStream>, Wrong> {
    let connected = TcpStream::connect_timeout(&address, PATIENCE).and_then(|stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    });
    connected.map_err(|error| Wrong(format!("connecting: {error}")))
}

fn short(text: &str) -> String {
    if text.len() > 60 {
        format!("{:?} … of {} bytes", text.get(..40).unwrap_or(""), text.len())
    } else {
        format!("{text:?}")
    }
}

impl Talk {
    /// Begins a conversation with a store that has just been started.
    pub(super) fn begin(address: SocketAddr, speech: Speech) -> Result<Talk, Wrong> {
        let connections = (0..CONNECTIONS).map(|_| connect(address)).collect::<Result<_, _>>()?;
        let model = (0..ENTRIES).map(|n| (format!("key{n}"), format!("value{n}"))).collect();
        Ok(Talk { address, connections, model, speech, pass: 0, asked: 0, pieces: Pieces::Whole })
    }

    /// Another version serves from now on.
    pub(super) fn speak(&mut self, speech: Speech) {
        self.speech = speech;
    }

    /// Asks everything once.
    pub(super) fn pass(&mut self) -> Told {
        self.pass += 1;
        let pass = self.pass;
        // Three passes ask for each entry that was there at the beginning.
        for n in (pass % 3..ENTRIES).step_by(3) {
            self.get(&format!("key{n}"))?;
            match n % 17 {
                0 => self.put(&format!("key{n}"), &format!("again{n}-{pass}"))?,
                5 => self.count()?,
                9 => self.nonsense((n / 17 + pass) as usize)?,
                13 => self.several(n)?,
                _ => {}
            }
        }
        for n in 0..8 {
            // These stay: the store grows.
            let key = format!("kept-{pass}-{n}");
            self.put(&key, &"v".repeat(1 + (n * 37) as usize))?;
            self.get(&key)?;
        }
        for n in 0..12 {
            let key = format!("gone-{n}");
            self.get(&key)?;
            self.put(&key, &format!("{pass}"))?;
            self.put(&key, &format!("{pass}-{n}"))?;
            self.get(&key)?;
            self.count()?;
            self.del(&key)?;
            self.get(&key)?;
            self.del(&key)?;
        }
        let long = "k".repeat(200);
        self.put(&long, &"long".repeat(700))?;
        self.get(&long)?;
        self.del(&long)?;
        self.del(&format!("key{}", pass % ENTRIES))?;
        self.get(&format!("key{}", pass % ENTRIES))?;
        self.put("\u{e9}t\u{e9}", "\u{fc}")?;
        self.get("\u{e9}t\u{e9}")?;
        // One leaves and comes again.
        let at = (pass as usize) % CONNECTIONS;
        self.connections[at] = connect(self.address)?;
        self.count()
    }

    /// Puts so much that the store grows, and asks for it.
    pub(super) fn fill(&mut self) -> Told {
        let keys: Vec<String> = (0..ENTRIES + 200).map(|n| format!("filled{n}")).collect();
        keys.iter().try_for_each(|key| self.put(key, "full"))?;
        self.count()?;
        keys.iter().try_for_each(|key| self.get(key))?;
        keys.iter().step_by(2).try_for_each(|key| self.del(key))?;
        self.count()
    }

    fn get(&mut self, key: &str) -> Told {
        let right = self.model.get(key).cloned().unwrap_or_else(|| "NOT FOUND".to_owned());
        self.ask(&format!("get {key}\n"), &format!("{right}\n"))
    }

    fn put(&mut self, key: &str, value: &str) -> Told {
        self.model.insert(key.to_owned(), value.to_owned());
        let typed = if self.speech == Speech::New { "string " } else { "" };
        self.ask(&format!("put {typed}{key} {value}\n"), "OK\n")
    }

    fn del(&mut self, key: &str) -> Told {
        let right = if self.model.remove(key).is_some() { "OK\n" } else { "NOT FOUND\n" };
        self.ask(&format!("del {key}\n"), right)
    }

    fn count(&mut self) -> Told {
        let right = format!("{}\n", self.model.len());
        self.ask("count\n", &right)
    }

    /// What neither version understands.
    fn nonsense(&mut self, which: usize) -> Told {
        const NONSENSE: [&str; 8] =
            ["hello\n", "get\n", "get a b\n", "del \n", "count x\n", "\n", "put  x\n", "put a b c\n"];
        self.ask(NONSENSE[which % NONSENSE.len()], "ERROR\n")
    }

    /// Three requests at once, one of them with the line's end of another system.
    fn several(&mut self, n: u64) -> Told {
        let keys = [n, (n + 1) % ENTRIES, (n + 2) % ENTRIES].map(|n| format!("key{n}"));
        let right: String =
            keys.iter().map(|key| format!("{}\n", self.model.get(key).map_or("NOT FOUND", String::as_str))).collect();
        self.ask(&format!("get {}\nget {}\r\nget {}\n", keys[0], keys[1], keys[2]), &right)
    }

    fn ask(&mut self, request: &str, right: &str) -> Told {
        self.asked += 1;
        let at = self.asked % CONNECTIONS;
        let connection = &mut self.connections[at];
        let failed = |error: std::io::Error| Wrong(format!("{}: {error}", short(request)));
        let bytes = request.as_bytes();
        let middle = if self.pieces == Pieces::Some && self.asked.is_multiple_of(29) { bytes.len() / 2 } else { 0 };
        for piece in [&bytes[..middle], &bytes[middle..]] {
            connection.get_mut().write_all(piece).map_err(failed)?;
        }
        for right in right.split_inclusive('\n') {
            let mut said = Vec::new();
            connection.read_until(b'\n', &mut said).map_err(failed)?;
            if said != right.as_bytes() {
                let said = String::from_utf8_lossy(&said).into_owned();
                let (request, said, right) = (short(request), short(&said), short(right));
                return Err(Wrong(format!("{request} was answered with {said}, and right is {right}")));
            }
        }
        Ok(())
    }
}
