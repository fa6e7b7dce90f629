//! `tests/servers/turn.py`: a checking dialogue, and a plain client for single commands.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use rand::Rng;
use rand::rngs::StdRng;

use super::resp::check_bytes;
use super::{Dialogue, Verdict};

/// A client that knows how often it has asked on this connection.
#[derive(Debug, Default)]
pub struct LineClient {
    asked: u64,
    expected: Vec<u8>,
}

impl Dialogue for LineClient {
    fn request(&mut self, random: &mut StdRng, out: &mut Vec<u8>) {
        self.asked += 1;
        if random.random_range(0..3) == 0 {
            out.extend_from_slice(b"count\n");
            self.expected = format!("{}\n", self.asked).into_bytes();
        } else {
            let text: String = (0..random.random_range(1..300)).map(|_| random.random_range('a'..='z')).collect();
            out.extend_from_slice(format!("echo {text}\n").as_bytes());
            self.expected = format!("{text}\n").into_bytes();
        }
    }

    fn connected(&mut self) {
        self.asked = 0;
    }

    fn check(&mut self, input: &[u8]) -> Verdict {
        check_bytes(&self.expected, input, "the line")
    }
}

/// Sends one line on a connection of its own and returns the answer.
pub fn ask(address: SocketAddr, line: &str, limit: Duration) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    ensure!(answer.ends_with('\n'), "the server closed the connection after {line:?}");
    Ok(answer.trim_end().to_owned())
}
