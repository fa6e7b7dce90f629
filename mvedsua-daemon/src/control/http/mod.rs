//! What is answered over HTTP: metrics, and updates for programs that judge a roll-out. Only asked for, never changed.
//!
//! Off unless the configuration names a place to listen at, which is a socket or an address of this machine. A client has few
//! means to do harm: there are [`MOST_CONNECTIONS`] at once, each is answered once and closed, a request's head has a limit
//! and must come in time, bodies are not read, and what is expensive is made at most once in [`FRESH`].

pub(super) mod client;
mod config;
mod updates;

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

pub use self::config::{HttpConfig, Listen};
use super::daemon::Daemon;
use super::metrics::{Format, Metrics};

/// How many clients are served at once; others are sent away.
const MOST_CONNECTIONS: usize = 32;
/// The most bytes of a request's head.
const LONGEST_HEAD: usize = 16 << 10;
/// How long a client may take to ask.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// How long it may take in all, its reading of the answer included.
const OVER_WITHIN: Duration = Duration::from_secs(30);
/// How long what was scraped is passed on to others who ask.
const FRESH: Duration = Duration::from_millis(500);

type Answer = Response<Full<Bytes>>;

/// Where clients come in.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Listens where the configuration says so; `None` where it says nothing.
///
/// # Errors
///
/// Those of `bind(2)`.
pub fn bind(daemon: &Daemon) -> io::Result<Option<Listener>> {
    let config = &daemon.config.http;
    let named = |e: io::Error| {
        let place = config.listen.as_ref().map(ToString::to_string).unwrap_or_default();
        io::Error::new(e.kind(), format!("listening at {place} (http.listen in the configuration): {e}"))
    };
    let bound = match &config.listen {
        None => return Ok(None),
        Some(Listen::Tcp(address)) => {
            let listener = std::net::TcpListener::bind(address).map_err(named)?;
            listener.set_nonblocking(true)?;
            Listener::Tcp(TcpListener::from_std(listener)?)
        }
        Some(Listen::Unix(path)) => {
            // The daemon's lock is held, so a socket that lies there is a dead daemon's.
            match std::fs::symlink_metadata(path) {
                Ok(meta) if std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()) => {
                    std::fs::remove_file(path).map_err(named)?;
                }
                Ok(_) | Err(_) => {}
            }
            let listener = std::os::unix::net::UnixListener::bind(path).map_err(named)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(config.socket_mode)).map_err(named)?;
            listener.set_nonblocking(true)?;
            Listener::Unix(UnixListener::from_std(listener)?)
        }
    };
    tracing::info!(at = %config.listen.as_ref().map(ToString::to_string).unwrap_or_default(), "metrics are served");
    Ok(Some(bound))
}

/// What requests act on.
struct Site {
    daemon: Arc<Daemon>,
    metrics: Arc<Metrics>,
    /// What was scraped last in each format; whoever holds it scrapes, others wait.
    scraped: Mutex<Vec<(Format, Instant, Bytes)>>,
    places: Arc<Semaphore>,
    /// Clients that were sent away.
    refused: AtomicU64,
}

/// Serves clients for as long as the runtime lives.
pub async fn serve(daemon: Arc<Daemon>, listener: Listener) {
    let metrics = Arc::new(Metrics::new(daemon.config.http.max_series));
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let (scraped, refused) = (Mutex::default(), AtomicU64::new(0));
    let site = Arc::new(Site { daemon, metrics, scraped, places, refused });
    loop {
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| site.receive(stream)),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| site.receive(stream)),
        };
        if let Err(e) = accepted {
            tracing::warn!(error = %e, "accepting a client of the metrics");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Site {
    /// Serves a client that finds a place.
    fn receive<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self: &Arc<Site>, stream: S) {
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => drop(tokio::spawn(Arc::clone(self).client(stream, place))),
            Err(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn client<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self: Arc<Site>,
        stream: S,
        place: OwnedSemaphorePermit,
    ) {
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let site = Arc::clone(&self);
            async move { Ok::<_, Infallible>(site.answer(&request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(ASK_WITHIN)
            .keep_alive(false)
            .max_buf_size(LONGEST_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        match tokio::time::timeout(OVER_WITHIN, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::debug!(error = %e, "a client of the metrics left"),
            Err(_) => tracing::debug!("a client of the metrics took too long"),
        }
        drop(place);
    }

    async fn answer<B>(&self, request: &Request<B>) -> Answer {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "nothing can be changed here");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        if !header(HOST).is_none_or(is_of_this_machine) {
            return refusal(StatusCode::MISDIRECTED_REQUEST, "the header `Host` names another machine");
        }
        match request.uri().path() {
            "/" => text(StatusCode::OK, "text/plain; charset=utf-8", "/metrics\n/v1/updates\n/v1/updates/NUMBER\n"),
            "/metrics" => self.scrape(Format::wanted(header(ACCEPT).unwrap_or_default())).await,
            "/v1/updates" => json(StatusCode::OK, &updates::list(&self.daemon)),
            path => match path.strip_prefix("/v1/updates/").and_then(|number| number.parse().ok()) {
                Some(number) => match updates::of(&self.daemon, number) {
                    Some(update) => json(StatusCode::OK, &update),
                    None => refusal(StatusCode::NOT_FOUND, "there is no such update"),
                },
                None => refusal(StatusCode::NOT_FOUND, "there is no such page; `/` lists them"),
            },
        }
    }

    async fn scrape(&self, format: Format) -> Answer {
        let mut scraped = self.scraped.lock().await;
        scraped.retain(|(_, at, _)| at.elapsed() < FRESH);
        if let Some((.., text)) = scraped.iter().find(|(known, ..)| *known == format) {
            return written(StatusCode::OK, format.content_type(), text.clone());
        }
        let (daemon, metrics) = (Arc::clone(&self.daemon), Arc::clone(&self.metrics));
        let refused = self.refused.load(Ordering::Relaxed);
        let made = tokio::task::spawn_blocking(move || metrics.scrape(&daemon, refused, format)).await;
        match made {
            Ok(Ok(text)) => {
                let text = Bytes::from(text);
                scraped.push((format, Instant::now(), text.clone()));
                written(StatusCode::OK, format.content_type(), text)
            }
            Ok(Err(e)) => failed(&e),
            Err(e) => failed(&e),
        }
    }
}

/// Says whether `Host` names this machine: a page of a stranger that a browser here has open shall not read what is told.
fn is_of_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.is_empty() || name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn failed(e: &dyn std::fmt::Display) -> Answer {
    tracing::error!(error = %e, "the metrics cannot be written down");
    refusal(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written down; the daemon's log says more")
}

fn refusal(status: StatusCode, why: &str) -> Answer {
    text(status, "text/plain; charset=utf-8", &format!("{why}\n"))
}

fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    text(status, "application/json", &format!("{value}\n"))
}

fn text(status: StatusCode, kind: &'static str, text: &str) -> Answer {
    written(status, kind, Bytes::copy_from_slice(text.as_bytes()))
}

fn written(status: StatusCode, kind: &'static str, text: Bytes) -> Answer {
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
