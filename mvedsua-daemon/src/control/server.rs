//! The socket: who is there, what they say, and how much of it is listened to.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Code;
use super::audit::Peer;
use super::daemon::Daemon;
use super::dirs::Dirs;
use super::protocol::{self, Answer, Body, MAX_REQUEST, Problem, Reply, Request};

/// How many clients are served at once; more wait.
const MOST_CLIENTS: usize = 64;
/// How long a client may be silent between requests, or take to write one or to read an answer.
const SILENT_FOR: Duration = Duration::from_secs(60);

/// Binds the socket. The daemon's lock is held, so a socket that lies there is a dead daemon's.
///
/// # Errors
///
/// Those of the file system and of `bind(2)`.
pub fn bind(dirs: &Dirs, daemon: &Daemon) -> io::Result<UnixListener> {
    let path = dirs.socket();
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    // Whoever connects is checked by their credentials; where only root may do anything nobody else gets that far.
    let mode = if daemon.access.is_open() { 0o666 } else { 0o600 };
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Serves clients until the daemon is asked to end, then undoes what is under way.
pub async fn serve(daemon: Arc<Daemon>, listener: UnixListener) {
    let room = Arc::new(Semaphore::new(MOST_CLIENTS));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            () = daemon.stop.notified() => break,
        };
        match accepted {
            Ok((stream, place)) => {
                let daemon = Arc::clone(&daemon);
                tokio::spawn(async move {
                    client(&daemon, stream).await;
                    drop(place);
                });
            }
            Err(e) => {
                tracing::warn!(error = %e, "accepting a client");
                // Out of descriptors, most likely; they come back when clients leave.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    daemon.undo_all().await;
}

/// Waits until there is room for one more client, and for the client.
async fn accept(listener: &UnixListener, room: &Arc<Semaphore>) -> io::Result<(UnixStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    listener.accept().await.map(|(stream, _)| (stream, place))
}

async fn client(daemon: &Daemon, stream: UnixStream) {
    let peer = match stream.peer_cred() {
        Ok(cred) => Peer { uid: cred.uid(), gid: cred.gid(), pid: cred.pid() },
        Err(e) => {
            tracing::warn!(error = %e, "a client without credentials");
            return;
        }
    };
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    while let Some(line) = read_line(&mut reader).await {
        let going_on = match line {
            Ok(line) => respond(daemon, peer, &line, &mut writer).await,
            Err(problem) => {
                let _ = say(&mut writer, Body::Error(problem)).await;
                return;
            }
        };
        if let Err(e) = going_on {
            tracing::debug!(error = %e, ?peer, "a client left");
            return;
        }
    }
}

/// Reads one line; `None` when the client is done, an error when nothing more can be understood.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> Option<Result<Vec<u8>, Problem>> {
    let mut line = vec![];
    let mut bounded = reader.take(MAX_REQUEST as u64 + 1);
    match tokio::time::timeout(SILENT_FOR, bounded.read_until(b'\n', &mut line)).await {
        Err(_) if line.is_empty() => None,
        Err(_) => Some(Err(unreadable(format!("{} bytes came and then nothing for a minute", line.len())))),
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

async fn respond(daemon: &Daemon, peer: Peer, line: &[u8], writer: &mut OwnedWriteHalf) -> io::Result<()> {
    let request = match protocol::parse(line) {
        Ok(request) => request,
        Err(problem) => return say(writer, Body::Error(problem)).await,
    };
    let follow = match &request {
        Request::Follow { pid } => Some(*pid),
        _ => None,
    };
    match daemon.answer(peer, request).await {
        Err(problem) => say(writer, Body::Error(problem)).await,
        Ok(answer) => match follow {
            Some(pid) => narrate(daemon, pid, writer).await,
            None => say(writer, Body::Ok(answer)).await,
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

async fn say(writer: &mut OwnedWriteHalf, body: Body) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Reply::new(body))?;
    line.push(b'\n');
    match tokio::time::timeout(SILENT_FOR, writer.write_all(&line)).await {
        Ok(written) => written,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")),
    }
}
