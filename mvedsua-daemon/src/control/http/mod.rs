//! What is answered over HTTP: metrics, and updates for programs that judge a roll-out. Only asked for, never changed.
//!
//! Off unless the configuration names a place to listen at, which is a socket or an address of this machine. A client has few
//! means to do harm, see [`front`], and what is expensive is made at most once in [`FRESH`].

pub(super) mod client;
mod config;
pub(crate) mod front;
mod updates;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::ACCEPT;
use hyper::{Request, StatusCode};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Mutex;

pub use self::config::{HttpConfig, Listen};
use self::front::{Answer, Front, refusal, text, written};
use super::accept;
use super::daemon::Daemon;
use super::metrics::{Format, Metrics};

/// How long what was scraped is passed on to others who ask.
const FRESH: Duration = Duration::from_millis(500);

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
    front: Front,
}

/// Serves clients for as long as the runtime lives.
pub async fn serve(daemon: Arc<Daemon>, listener: Listener) {
    let metrics = Arc::new(Metrics::new(daemon.config.http.max_series));
    let site = Arc::new(Site { daemon, metrics, scraped: Mutex::default(), front: Front::default() });
    let answer = {
        let site = Arc::clone(&site);
        move |request| {
            let site = Arc::clone(&site);
            async move { site.answer(&request).await }
        }
    };
    loop {
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| site.front.receive(stream, &answer)),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| site.front.receive(stream, &answer)),
        };
        accept::or_wait(accepted, "the metrics").await;
    }
}

impl Site {
    async fn answer<B>(&self, request: &Request<B>) -> Answer {
        if let Some(refused) = front::refused(request) {
            return refused;
        }
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
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
        let refused = self.front.sent_away();
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

fn failed(e: &dyn std::fmt::Display) -> Answer {
    tracing::error!(error = %e, "the metrics cannot be written down");
    refusal(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written down; the daemon's log says more")
}

fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    text(status, "application/json", &format!("{value}\n"))
}
