//! Clients of an HTTP server on this machine, none of which can do much harm.
//!
//! There are [`MOST_CONNECTIONS`] at once, each is answered once and closed, a request's head has a limit and must come in
//! time, bodies are not read, and nothing can be changed.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many clients are served at once; others are sent away.
const MOST_CONNECTIONS: usize = 32;
/// The most bytes of a request's head.
const LONGEST_HEAD: usize = 16 << 10;
/// How long a client may take to ask.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// How long it may take in all, its reading of the answer included.
const OVER_WITHIN: Duration = Duration::from_secs(30);

pub(crate) type Answer = Response<Full<Bytes>>;

/// The places for clients.
#[derive(Debug)]
pub(crate) struct Front {
    places: Arc<Semaphore>,
    /// Clients that were sent away.
    sent_away: AtomicU64,
}

impl Default for Front {
    fn default() -> Front {
        Front { places: Arc::new(Semaphore::new(MOST_CONNECTIONS)), sent_away: AtomicU64::new(0) }
    }
}

impl Front {
    /// Serves a client that finds a place; others are sent away.
    pub(crate) fn receive<S, A, F>(&self, stream: S, answer: &A)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => drop(tokio::spawn(client(stream, place, answer.clone()))),
            Err(_) => {
                self.sent_away.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Returns how many clients were sent away.
    pub(crate) fn sent_away(&self) -> u64 {
        self.sent_away.load(Ordering::Relaxed)
    }
}

async fn client<S, A, F>(stream: S, place: OwnedSemaphorePermit, answer: A)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Answer>,
{
    let service = service_fn(|request| {
        let answering = answer(request);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ASK_WITHIN)
        .keep_alive(false)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(OVER_WITHIN, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::debug!(error = %e, "a client of HTTP left"),
        Err(_) => tracing::debug!("a client of HTTP took too long"),
    }
    drop(place);
}

/// Returns what is said to a request that nobody answers: one that would change something, or that is meant for another machine.
pub(crate) fn refused<B>(request: &Request<B>) -> Option<Answer> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "nothing can be changed here");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(answer);
    }
    let host = request.headers().get(HOST).map(|value| value.to_str().unwrap_or("?"));
    if !host.is_none_or(is_of_this_machine) {
        return Some(refusal(StatusCode::MISDIRECTED_REQUEST, "the header `Host` names another machine"));
    }
    None
}

/// Says whether `Host` names this machine: a page of a stranger that a browser here has open shall not read what is told.
fn is_of_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.is_empty() || name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(crate) fn refusal(status: StatusCode, why: &str) -> Answer {
    text(status, "text/plain; charset=utf-8", &format!("{why}\n"))
}

pub(crate) fn text(status: StatusCode, kind: &'static str, text: &str) -> Answer {
    written(status, kind, Bytes::copy_from_slice(text.as_bytes()))
}

pub(crate) fn written(status: StatusCode, kind: &'static str, text: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_meant() {
        for host in ["127.0.0.1:9468", "localhost", "[::1]:80", ""] {
            assert!(is_of_this_machine(host), "{host}");
        }
        for host in ["rebound.example:9468", "192.0.2.1", "[2001:db8::1]"] {
            assert!(!is_of_this_machine(host), "{host}");
        }
    }
}
