//! HTTP: a checking dialogue for servers of static files.

use rand::Rng;
use rand::rngs::StdRng;

use super::{Dialogue, Persistence, Verdict};
use crate::server::web_files;

/// A client that asks for the files of [`web_files`], and for some that are not there.
#[derive(Debug)]
pub struct HttpClient {
    persistence: Persistence,
    files: Vec<(String, Vec<u8>)>,
    /// Status and body that must come; a body of `None` may be anything.
    expected: (u32, Option<usize>),
    path: String,
    /// The server has said that this reply is the connection's last: each has a number of requests after which it does.
    last: bool,
}

impl HttpClient {
    /// Makes a client; says whether the server keeps connections open.
    #[must_use]
    pub fn new(persistence: Persistence) -> HttpClient {
        HttpClient { persistence, files: web_files(), expected: (200, None), path: String::new(), last: false }
    }
}

impl Dialogue for HttpClient {
    fn request(&mut self, random: &mut StdRng, out: &mut Vec<u8>) {
        let number = random.random_range(0..=self.files.len());
        (self.path, self.expected) = match self.files.get(number) {
            Some((name, _)) => (format!("/{name}"), (200, Some(number))),
            None => (format!("/missing-{}", random.random_range(0..100)), (404, None)),
        };
        out.extend_from_slice(format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", self.path).as_bytes());
    }

    fn check(&mut self, input: &[u8]) -> Verdict {
        let Some(head) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Verdict::Incomplete };
        let text = String::from_utf8_lossy(&input[..head]).to_ascii_lowercase();
        let status = text.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if status != self.expected.0 {
            return Verdict::Wrong(format!("{} was answered with status {status}", self.path));
        }
        self.last = text.lines().any(|line| line.trim_end() == "connection: close");
        let Some(length) = length else { return Verdict::Wrong(format!("{}: no length in {text:?}", self.path)) };
        let body = &input[head + 4..];
        if let Some(number) = self.expected.1 {
            let file = &self.files[number].1;
            if length != file.len() || !file.starts_with(&body[..body.len().min(file.len())]) {
                return Verdict::Wrong(format!("{} was answered with another body of {length} bytes", self.path));
            }
        }
        if body.len() < length { Verdict::Incomplete } else { Verdict::Right(head + 4 + length) }
    }

    fn persistence(&self) -> Persistence {
        if self.last { Persistence::OneReply } else { self.persistence }
    }
}
