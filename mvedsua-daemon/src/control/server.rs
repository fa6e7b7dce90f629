//! The socket: who is there, what they say, and how much of it is listened to.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, timeout};

use super::audit::Peer;
use super::daemon::Daemon;
use super::dirs::Dirs;
use super::events::stream::{self, Wanted};
use super::places::Places;
use super::protocol::{self, Answer, Body, MAX_REQUEST, Problem, Reply, Request};
use super::{Code, accept, panics, webhooks};

/// How long a client may be silent before its first request.
const FIRST_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may be silent between requests, or take to write one or to read an answer.
const SILENT_FOR: Duration = Duration::from_secs(60);
/// How long a client that has written too much may go on, so that it comes to read why nobody listens.
const LINGER: Duration = Duration::from_secs(2);
/// How often it is told what a request waits for that takes long.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// How often the daemon looks whether something is wrong with what it keeps.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The socket on which requests come in.
pub struct Socket {
    pub listener: UnixListener,
    pub maker: Maker,
}

/// Who made the socket, and so who removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    Daemon,
    Systemd,
}

/// Takes the socket that systemd has made for the daemon, or binds one. The daemon's lock is held, so a socket that lies
/// there is a dead daemon's.
///
/// # Errors
///
/// Those of the file system and of `bind(2)`, and where something else than a socket was given.
pub fn bind(dirs: &Dirs, daemon: &Daemon) -> io::Result<Socket> {
    let path = dirs.socket();
    let (listener, maker, path) = match given()? {
        Some(listener) => {
            let address = listener.local_addr()?;
            (listener, Maker::Systemd, address.as_pathname().map(std::path::Path::to_owned))
        }
        None => {
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => {}
            }
            (std::os::unix::net::UnixListener::bind(&path)?, Maker::Daemon, Some(path))
        }
    };
    listener.set_nonblocking(true)?;
    // Whoever connects is checked by their credentials; where only root may do anything nobody else gets that far.
    let mode = if daemon.config.access.is_open() { 0o666 } else { 0o600 };
    if let Some(path) = path {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(Socket { listener: UnixListener::from_std(listener)?, maker })
}

/// Returns the socket with which systemd has started this process, see sd_listen_fds(3).
fn given() -> io::Result<Option<std::os::unix::net::UnixListener>> {
    let mut given = sd_notify::listen_fds()?;
    let Some(number) = given.next() else { return Ok(None) };
    if given.len() > 0 {
        return Err(io::Error::other("more than one socket was given; the unit of the socket may name one"));
    }
    // SAFETY: `LISTEN_PID` says that the descriptor was passed to this very process, which nothing else has taken, since
    // this is called once.
    let socket = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(number) };
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.local_addr().map_err(|e| io::Error::other(format!("what was given is no unix socket: {e}")))?;
    Ok(Some(listener))
}

/// Serves clients until the daemon is asked to end, then undoes what is under way.
pub async fn serve(daemon: Arc<Daemon>, listener: UnixListener) {
    webhooks::start(&daemon);
    let places = Places::new(nix::unistd::geteuid().as_raw());
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = look.tick() => {
                daemon.tell_troubles();
                continue;
            }
            () = daemon.stop.notified() => break,
        };
        if let Some((stream, _)) = accept::or_wait(accepted, "the control socket").await {
            receive(&daemon, &places, stream);
        }
    }
    daemon.undo_all().await;
    daemon.tell_troubles();
    webhooks::end(&daemon).await;
    daemon.keep_files();
}

/// Serves a client that has a place, and sends others away at once: nobody waits for the clients of another user.
fn receive(daemon: &Arc<Daemon>, places: &Places, stream: UnixStream) {
    let peer = match stream.peer_cred() {
        Ok(cred) => Peer { uid: cred.uid(), gid: cred.gid(), pid: cred.pid() },
        Err(e) => return tracing::warn!(error = %e, "a client without credentials"),
    };
    match places.take(peer.uid) {
        Ok(place) => {
            let daemon = Arc::clone(daemon);
            tokio::spawn(async move {
                client(&daemon, peer, stream).await;
                drop(place);
            });
        }
        Err(why) => {
            let problem = Problem::new(Code::Refused, "connecting", why, "end some of them, and try again");
            // It is new, so there is room for a line; one that has left already misses nothing.
            if let Ok(line) = line_of(Body::Error(problem)) {
                let _ = stream.try_write(&line);
            }
        }
    }
}

async fn client(daemon: &Daemon, peer: Peer, stream: UnixStream) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut within = FIRST_WITHIN;
    while let Some(line) = read_line(&mut reader, within).await {
        within = SILENT_FOR;
        let going_on = match line {
            Ok(line) => respond(daemon, peer, &line, &mut reader, &mut writer).await,
            Err(problem) => {
                let _ = say(&mut writer, Body::Error(problem)).await;
                let _ = timeout(LINGER, drain(&mut reader)).await;
                return;
            }
        };
        if let Err(e) = going_on {
            tracing::debug!(error = %e, ?peer, "a client left");
            return;
        }
    }
}

/// Reads what nobody wants to know, to its end.
async fn drain(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<()> {
    loop {
        let length = reader.fill_buf().await?.len();
        if length == 0 {
            return Ok(());
        }
        reader.consume(length);
    }
}

/// Reads one line; `None` when the client is done, an error when nothing more can be understood.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>, within: Duration) -> Option<Result<Vec<u8>, Problem>> {
    let mut line = vec![];
    let mut bounded = reader.take(MAX_REQUEST as u64 + 1);
    match timeout(within, bounded.read_until(b'\n', &mut line)).await {
        Err(_) if line.is_empty() => None,
        Err(_) => {
            let seconds = within.as_secs();
            Some(Err(unreadable(format!("{} bytes came within {seconds} s, and no newline", line.len()))))
        }
        Ok(Err(_)) => None,
        Ok(Ok(0)) => None,
        Ok(Ok(_)) if line.last() == Some(&b'\n') => {
            line.pop();
            Some(Ok(line))
        }
        Ok(Ok(_)) if line.len() > MAX_REQUEST => {
            Some(Err(unreadable(format!("it is longer than {MAX_REQUEST} bytes"))))
        }
        Ok(Ok(read)) => Some(Err(unreadable(format!("it ends after {read} bytes without a newline")))),
    }
}

fn unreadable(why: String) -> Problem {
    let remedy = r#"a request is one line such as {"v":1,"request":{"status":{}}}, and a newline"#;
    Problem::new(Code::Usage, "reading the request", why, remedy)
}

async fn respond(
    daemon: &Daemon,
    peer: Peer,
    line: &[u8],
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let request = match protocol::parse(line) {
        Ok(request) => request,
        Err(problem) => return say(writer, Body::Error(problem)).await,
    };
    let follow = match &request {
        Request::Follow { pid } => Some(*pid),
        _ => None,
    };
    let happenings = match &request {
        Request::Events { since, follow, pid } => Some(Wanted { since: *since, follow: *follow, pid: *pid }),
        _ => None,
    };
    let mut lasting = match &request {
        Request::Promote { pid, .. } | Request::Confirm { pid } | Request::Rollback { pid, .. } => Some(*pid),
        _ => None,
    };
    let verb = request.verb();
    let mut answering = pin!(panics::catch_async(daemon.answer(peer, request)));
    let mut tell = tokio::time::interval_at(Instant::now() + TELL_EVERY, TELL_EVERY);
    let answer = loop {
        tokio::select! {
            answer = &mut answering => break answer,
            _ = tell.tick() => {
                if let Some(status) = lasting.and_then(|pid| daemon.followed(pid).ok())
                    && say(writer, Body::Event(Answer::Status(Box::new(status)))).await.is_err()
                {
                    // Who asked has gone; what was asked for goes on, and what comes of it is written down.
                    lasting = None;
                }
            }
        }
    };
    let answer = answer.unwrap_or_else(|why| {
        let remedy = "`mvedsuad status` shows where everything stands; the daemon's log says more";
        Err(Problem::new(Code::Unreachable, format!("`{verb}`"), format!("the daemon itself failed: {why}"), remedy))
    });
    match answer {
        Err(problem) => say(writer, Body::Error(problem)).await,
        Ok(answer) => match (follow, happenings) {
            (Some(pid), _) => narrate(daemon, pid, writer).await,
            (None, Some(wanted)) => stream::tell(daemon, peer, wanted, reader, writer).await,
            (None, None) => say(writer, Body::Ok(answer)).await,
        },
    }
}

/// Tells the status of an update at each change until it has a result.
async fn narrate(daemon: &Daemon, pid: i32, writer: &mut OwnedWriteHalf) -> io::Result<()> {
    let Some(mut handle) = daemon.handle(pid) else {
        return say(writer, Body::Ok(Answer::Done {})).await;
    };
    loop {
        let result = {
            let view = handle.view.borrow_and_update();
            view.status.update.as_ref().is_some_and(|update| update.result.is_some())
        };
        // The process that serves may be another one by now; the update is the same.
        let status = match daemon.followed(pid) {
            Ok(status) => Box::new(status),
            Err(problem) => return say(writer, Body::Error(problem)).await,
        };
        if result || handle.view.has_changed().is_err() {
            return say(writer, Body::Ok(Answer::Status(status))).await;
        }
        say(writer, Body::Event(Answer::Status(status))).await?;
        // An update that is over is told by its last value.
        let _ = handle.view.changed().await;
    }
}

fn line_of(body: Body) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Reply::new(body))?;
    line.push(b'\n');
    Ok(line)
}

/// Writes one line to a client, which must read it in time.
pub(super) async fn say(writer: &mut OwnedWriteHalf, body: Body) -> io::Result<()> {
    let line = line_of(body)?;
    match timeout(SILENT_FOR, writer.write_all(&line)).await {
        Ok(written) => written,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")),
    }
}
