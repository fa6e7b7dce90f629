//! `serve`: what the daemon knows, live in a browser on this machine.
//!
//! It is a client of the daemon as the other verbs are, with the rights of whoever runs it, and asks nothing that changes
//! anything. Whoever shows the token sees what that user may see: the address that is printed holds it, and is good for a browser's
//! first visit, which gets a cookie for the rest. Others on this machine, and pages of strangers in a browser here, get nothing.

mod page;
#[cfg(test)]
mod tests;
mod token;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_SECURITY_POLICY, COOKIE, HeaderValue, LOCATION, REFERRER_POLICY, SET_COOKIE};
use hyper::header::{X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use hyper::{HeaderMap, Request as HttpRequest, StatusCode, Uri};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use self::page::Seen;
use self::token::Token;
use super::args::{Cli, ServeArgs};
use super::client::{Client, mismatched};
use super::{out, page as report_page};
use crate::control::clock::now_ms;
use crate::control::dirs::Dirs;
use crate::control::http::front::{self, Answer as HttpAnswer, Front, refusal, text, written};
use crate::control::protocol::{Answer, Problem, Request};
use crate::control::{Code, accept};
use crate::report::Payloads;

/// How many updates that are over are listed.
const MOST_PAST: usize = 50;
/// How long what was asked of the daemon is passed on to others who look.
const FRESH: Duration = Duration::from_millis(400);
const HTML: &str = "text/html; charset=utf-8";
/// What a browser may load for the live page: what it has come with, and what this server says.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// What it may load for a report: nothing.
const REPORT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
/// What keeps the page up to date.
const SCRIPT: &str = include_str!("live.js");

/// Serves the pages until it is interrupted.
pub(super) fn serve(cli: &Cli, args: &ServeArgs) -> Result<Code, Problem> {
    let tried = format!("serving at {}", args.listen);
    let failed = |e: io::Error| Problem::new(Code::Usage, tried.clone(), e.to_string(), "choose another --listen");
    if !args.listen.ip().is_loopback() {
        let why = "it is no address of this machine alone: what is told would go over the network as it is";
        let remedy = "listen at 127.0.0.1, and reach it from elsewhere with `ssh -L`";
        return Err(Problem::new(Code::Usage, tried, why, remedy));
    }
    let token = Token::take(args.token_file.as_deref())?;
    // Who may not ask is told so at once.
    look(&cli.place.dirs())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        say_where(cli, address, &token);
        let site = Site::new(cli.place.dirs(), token, address);
        site.serve(&listener).await;
        Ok(Code::Done)
    })
}

/// Prints the address, which lets a browser in.
fn say_where(cli: &Cli, address: SocketAddr, token: &Token) {
    let address = format!("http://{address}/?token={}", token.text());
    if cli.json {
        out::json(&json!({"address": address}));
    } else {
        out::text(&format!("{address}\n"));
        if !cli.quiet {
            // Not part of the answer.
            let _ = writeln!(io::stderr(), "whoever has this address sees what you may see; ctrl-c ends it");
        }
    }
}

/// What requests act on.
struct Site {
    dirs: Dirs,
    token: Token,
    /// Cookies are told apart by name only: another server on this machine has another port.
    cookie: String,
    seen: Mutex<Option<(Instant, Bytes)>>,
    front: Front,
}

impl Site {
    fn new(dirs: Dirs, token: Token, address: SocketAddr) -> Arc<Site> {
        let cookie = format!("mvedsuad-{}", address.port());
        Arc::new(Site { dirs, token, cookie, seen: Mutex::default(), front: Front::default() })
    }

    /// Serves clients for as long as the runtime lives.
    async fn serve(self: Arc<Site>, listener: &TcpListener) {
        let answer = {
            let site = Arc::clone(&self);
            move |request: HttpRequest<Incoming>| {
                let site = Arc::clone(&site);
                async move { site.answer(&request).await }
            }
        };
        loop {
            if let Some((stream, _)) = accept::or_wait(listener.accept().await, "the page").await {
                self.front.receive(stream, &answer);
            }
        }
    }

    async fn answer<B>(&self, request: &HttpRequest<B>) -> HttpAnswer {
        let mut answer = match front::refused(request) {
            Some(refused) => refused,
            None => self.page(request).await,
        };
        let headers = answer.headers_mut();
        headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(POLICY));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        // The address may hold the token.
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        answer
    }

    async fn page<B>(&self, request: &HttpRequest<B>) -> HttpAnswer {
        if let Some(shown) = token_of(request.uri()) {
            return if self.token.is(shown) { self.let_in() } else { not_let_in() };
        }
        if !self.is_let_in(request.headers()) {
            return not_let_in();
        }
        match request.uri().path() {
            "/" => match self.live().await {
                Ok(live) => text(StatusCode::OK, HTML, &page::whole(&String::from_utf8_lossy(&live))),
                Err(problem) => text(StatusCode::OK, HTML, &page::whole(&page::unreachable(&problem))),
            },
            "/live" => match self.live().await {
                Ok(live) => written(StatusCode::OK, HTML, live),
                Err(problem) => text(StatusCode::OK, HTML, &page::unreachable(&problem)),
            },
            "/live.js" => text(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT),
            path => match path.strip_prefix("/updates/").and_then(|number| number.parse().ok()) {
                Some(number) => self.report(number).await,
                None => refusal(StatusCode::NOT_FOUND, "there is no such page; `/` has everything"),
            },
        }
    }

    /// Sends a browser to the page without the token in its address, which others might see.
    fn let_in(&self) -> HttpAnswer {
        let mut answer = refusal(StatusCode::SEE_OTHER, "you are let in");
        let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie, self.token.text());
        match HeaderValue::from_str(&cookie) {
            Ok(cookie) => {
                answer.headers_mut().insert(SET_COOKIE, cookie);
                answer.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
                answer
            }
            Err(_) => not_let_in(),
        }
    }

    fn is_let_in(&self, headers: &HeaderMap) -> bool {
        let all = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let mut pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.any(|(name, value)| name == self.cookie && self.token.is(value))
    }

    /// Returns what changes of the page; whoever asks first asks the daemon, others wait for that.
    async fn live(&self) -> Result<Bytes, Problem> {
        let mut seen = self.seen.lock().await;
        if let Some((_, live)) = seen.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(live.clone());
        }
        let dirs = self.dirs.clone();
        let looked = tokio::task::spawn_blocking(move || look(&dirs)).await;
        let looked = looked.unwrap_or_else(|e| Err(failed(&e.to_string())))?;
        let live = Bytes::from(page::live(&looked));
        *seen = Some((Instant::now(), live.clone()));
        Ok(live)
    }

    async fn report(&self, update: u64) -> HttpAnswer {
        let dirs = self.dirs.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let mut client = Client::connect(&dirs)?;
            client.ask(Request::Report { pid: None, update: Some(update) })
        });
        let answer = match asked.await {
            Ok(Ok(Answer::Report(past))) if !past.is_empty() => {
                let page = report_page::page(&past[0], Payloads::Redacted, now_ms());
                let mut answer = text(StatusCode::OK, HTML, &page);
                let policy = HeaderValue::from_static(REPORT_POLICY);
                answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
                return answer;
            }
            Ok(Ok(other)) => mismatched(&other),
            Ok(Err(problem)) => problem,
            Err(e) => failed(&e.to_string()),
        };
        let status = if answer.code == Code::Usage { StatusCode::NOT_FOUND } else { StatusCode::BAD_GATEWAY };
        text(status, HTML, &page::whole(&page::unreachable(&answer)))
    }
}

fn failed(why: &str) -> Problem {
    Problem::new(Code::Unreachable, "asking the daemon", why, "try again")
}

fn not_let_in() -> HttpAnswer {
    let why = "you are not let in: open the address that `mvedsuad serve` has printed, with its token";
    refusal(StatusCode::FORBIDDEN, why)
}

/// Returns the token that an address shows.
fn token_of(uri: &Uri) -> Option<&str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("token="))
}

/// Asks the daemon for everything that the page shows.
fn look(dirs: &Dirs) -> Result<Seen, Problem> {
    let mut client = Client::connect(dirs)?;
    let status = match client.ask(Request::Status { pid: None })? {
        Answer::Status(status) => *status,
        other => return Err(mismatched(&other)),
    };
    let past = match client.ask(Request::History { pid: None, limit: MOST_PAST })? {
        Answer::History(past) => past,
        other => return Err(mismatched(&other)),
    };
    let mut led = vec![];
    for target in status.targets.iter().filter(|target| target.monitor.is_some()) {
        // It may have been detached meanwhile.
        if let Ok(Answer::Stats(stats)) = client.ask(Request::Stats { pid: target.pid }) {
            led.push((target.pid, stats.led));
        }
    }
    Ok(Seen { status, past, led, at_ms: now_ms() })
}
