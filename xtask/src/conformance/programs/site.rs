//! A small web server on the loopback, for the lines that fetch something.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};

/// Serves until the process ends.
#[derive(Debug)]
pub(super) struct Site {
    address: SocketAddr,
}

impl Site {
    pub(super) fn start() -> Result<Site> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("a port for the site")?;
        let address = listener.local_addr()?;
        std::thread::Builder::new().name("site".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away before its answer is its own affair.
                std::thread::spawn(move || drop(serve(stream)));
            }
        })?;
        Ok(Site { address })
    }

    /// Where it listens, as `127.0.0.1:port`.
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }
}

/// Answers the requests of one connection.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let (mut length, mut close, mut expects) = (0, first.contains("HTTP/1.0"), false);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            close |= header == "connection: close";
            expects |= header == "expect: 100-continue";
        }
        if expects {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let path = first.split(' ').nth(1).unwrap_or("/");
        let (status, content) = match path {
            "/" => ("200 OK", b"site\n".to_vec()),
            "/text" => ("200 OK", (0..500).flat_map(|n| format!("line {n}\n").into_bytes()).collect()),
            "/echo" => ("200 OK", body),
            _ => ("404 Not Found", b"nothing\n".to_vec()),
        };
        let end = if close { "close" } else { "keep-alive" };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: {end}\r\n\r\n", content.len());
        stream.write_all(head.as_bytes())?;
        if !first.starts_with("HEAD ") {
            stream.write_all(&content)?;
        }
        if close {
            return Ok(());
        }
    }
}
