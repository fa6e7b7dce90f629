//! HTTP bodies in chunks: a checking dialogue, and a server that sends back what it gets, for programs that pass on both.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::rngs::StdRng;

use super::{Dialogue, Verdict};

/// The path that the dialogue asks for.
pub const PATH: &str = "/echo";
/// No chunk is longer.
const LONGEST: usize = 3000;

/// A client that sends bodies in chunks and expects them back.
#[derive(Debug, Default)]
pub struct ChunkClient {
    body: Vec<u8>,
}

impl Dialogue for ChunkClient {
    fn request(&mut self, random: &mut StdRng, out: &mut Vec<u8>) {
        self.body.clear();
        out.extend_from_slice(
            format!("POST {PATH} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes(),
        );
        for _ in 0..random.random_range(0..6) {
            let (first, len): (u8, usize) = (random.random(), random.random_range(1..LONGEST));
            let chunk: Vec<u8> = (0..len).map(|at| first.wrapping_add((at % 251) as u8)).collect();
            write_chunk(out, &chunk);
            self.body.extend_from_slice(&chunk);
        }
        write_chunk(out, &[]);
    }

    fn check(&mut self, input: &[u8]) -> Verdict {
        let Some(head) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Verdict::Incomplete };
        if !input.starts_with(b"HTTP/1.1 200 ") {
            let line = input.split(|byte| *byte == b'\r').next().unwrap_or_default();
            return Verdict::Wrong(format!("a body in chunks was answered {:?}", String::from_utf8_lossy(line)));
        }
        let mut rest = BufReader::new(&input[head + 4..]);
        let mut body = vec![];
        let whole = loop {
            match read_chunk(&mut rest) {
                Ok(chunk) if chunk.is_empty() => break true,
                Ok(chunk) => body.extend_from_slice(&chunk),
                Err(Broken::Incomplete) => break false,
                Err(Broken::Wrong) => return Verdict::Wrong("a body came back in broken chunks".to_owned()),
            }
        };
        if !self.body.starts_with(&body) || whole && body.len() != self.body.len() {
            let (sent, got) = (self.body.len(), body.len());
            return Verdict::Wrong(format!("a body of {sent} bytes came back as another one of {got}"));
        }
        if !whole {
            return Verdict::Incomplete;
        }
        let left = rest.buffer().len() + rest.get_ref().len();
        Verdict::Right(input.len() - left)
    }
}

fn write_chunk(out: &mut Vec<u8>, chunk: &[u8]) {
    out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
    out.extend_from_slice(chunk);
    out.extend_from_slice(b"\r\n");
}

/// Why a chunk cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Incomplete,
    Wrong,
}

/// Reads one chunk; the last one is empty.
fn read_chunk(input: &mut impl BufRead) -> Result<Vec<u8>, Broken> {
    let mut line = vec![];
    let read = input.by_ref().take(20).read_until(b'\n', &mut line);
    if read.is_err() || !line.ends_with(b"\n") {
        return Err(if line.len() < 20 { Broken::Incomplete } else { Broken::Wrong });
    }
    let digits = std::str::from_utf8(&line).map_err(|_| Broken::Wrong)?.trim_end();
    let len = usize::from_str_radix(digits, 16).map_err(|_| Broken::Wrong)?;
    let mut chunk = vec![0; len.min(1 << 24) + 2];
    input.read_exact(&mut chunk).map_err(|_| Broken::Incomplete)?;
    if !chunk.ends_with(b"\r\n") {
        return Err(Broken::Wrong);
    }
    chunk.truncate(chunk.len() - 2);
    Ok(chunk)
}

/// A server on a loopback port that sends bodies back in the chunks in which they came.
#[derive(Debug)]
pub struct Echo {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Echo {
    /// Starts it; it ends when it is dropped. Its connections live as long as their other side.
    pub fn start() -> Result<Echo> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("listening")?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(SeqCst) {
                    return;
                }
                // However a connection ends, its client says what that means.
                std::thread::spawn(move || serve(stream));
            }
        });
        Ok(Echo { address, stop, accepting: Some(accepting) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        if TcpStream::connect(self.address).is_ok()
            && let Some(accepting) = self.accepting.take()
        {
            let _ = accepting.join();
        }
    }
}

fn serve(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(stream.try_clone()?);
    let mut output = stream;
    loop {
        loop {
            let mut line = String::new();
            ensure!(input.read_line(&mut line)? > 0, "the connection ends");
            if line == "\r\n" {
                break;
            }
        }
        let mut reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        loop {
            let chunk = read_chunk(&mut input).ok().context("a chunk is broken")?;
            write_chunk(&mut reply, &chunk);
            if chunk.is_empty() {
                break;
            }
        }
        output.write_all(&reply)?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::{Load, Plan};

    #[test]
    fn bodies_come_back() {
        let echo = Echo::start().unwrap();
        let clients = Load::start(Plan::busy(echo.address, 4), |_| ChunkClient::default());
        clients.wait_requests(200, Duration::from_secs(20));
        clients.stop().expect_clean();
    }

    #[test]
    fn other_bodies_are_noticed() {
        let mut client = ChunkClient { body: b"abcdef".to_vec() };
        let mut judge = |chunks: &str| client.check(format!("HTTP/1.1 200 OK\r\n\r\n{chunks}").as_bytes());
        assert_eq!(judge("3\r\nab"), Verdict::Incomplete);
        assert_eq!(judge("3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"), Verdict::Right(19 + 21));
        assert!(matches!(judge("3\r\nabc\r\n0\r\n\r\n"), Verdict::Wrong(_)));
        assert!(matches!(judge("3\r\nabd\r\n"), Verdict::Wrong(_)));
        assert!(matches!(judge("x\r\nabd\r\n"), Verdict::Wrong(_)));
    }
}
