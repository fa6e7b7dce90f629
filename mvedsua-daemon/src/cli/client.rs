//! Talking to the daemon.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use crate::control::Code;
use crate::control::dirs::Dirs;
use crate::control::protocol::{Answer, Body, Envelope, Problem, Reply, Request, VERSION};

/// A connection to the daemon.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
    reader: BufReader<UnixStream>,
}

impl Client {
    /// Connects, or says that nobody is there.
    pub(super) fn connect(dirs: &Dirs) -> Result<Client, Problem> {
        let socket = dirs.socket();
        let stream = UnixStream::connect(&socket).map_err(|e| {
            let remedy = match e.kind() {
                io::ErrorKind::PermissionDenied => {
                    "run it as root; an administrator can let other users in with the configuration file"
                }
                _ => "`mvedsuad attach <pid>` starts the daemon, and so does `mvedsuad daemon`; or --runtime-dir is wrong",
            };
            Problem::new(Code::Unreachable, format!("connecting to {}", socket.display()), e.to_string(), remedy)
        })?;
        Ok(Client { socket, reader: BufReader::new(stream) })
    }

    /// Asks, and returns the answer.
    pub(super) fn ask(&mut self, request: Request) -> Result<Answer, Problem> {
        self.follow(request, |_| {})
    }

    /// Asks, passes each event on, and returns the answer.
    pub(super) fn follow(&mut self, request: Request, mut event: impl FnMut(Answer)) -> Result<Answer, Problem> {
        let verb = request.verb();
        let lost = |why: String| {
            Problem::new(
                Code::Unreachable,
                format!("`{verb}` over {}", self.socket.display()),
                why,
                "the daemon may have ended; its log in the state directory says why",
            )
        };
        let mut line = serde_json::to_vec(&Envelope { v: VERSION, request }).map_err(|e| lost(e.to_string()))?;
        line.push(b'\n');
        self.reader.get_mut().write_all(&line).map_err(|e| lost(e.to_string()))?;
        loop {
            let mut line = String::new();
            match self.reader.read_line(&mut line) {
                Ok(0) => return Err(lost("the connection ended before the answer".to_owned())),
                Ok(_) => {}
                Err(e) => return Err(lost(e.to_string())),
            }
            let reply: Reply =
                serde_json::from_str(&line).map_err(|e| lost(format!("the answer is not understood: {e}")))?;
            match reply.body {
                Body::Ok(answer) => return Ok(answer),
                Body::Event(answer) => event(answer),
                Body::Error(problem) => return Err(problem),
            }
        }
    }
}

/// Returns the problem of an answer that does not fit the question.
pub(super) fn mismatched(answer: &Answer) -> Problem {
    let kind = match answer {
        Answer::Hello { .. } => "hello",
        Answer::Attached(_) => "attached",
        Answer::Done {} => "done",
        Answer::Stats(_) => "stats",
        Answer::Export(_) => "export",
        Answer::Started { .. } => "started",
        Answer::Status(_) => "status",
        Answer::History(_) => "history",
        Answer::Report(_) => "report",
        Answer::Happened(_) => "happened",
        Answer::Missed { .. } => "missed",
    };
    Problem::new(
        Code::Unreachable,
        "reading the answer",
        format!("the daemon answered `{kind}` to another question"),
        "client and daemon are of different versions; restart the daemon",
    )
}
