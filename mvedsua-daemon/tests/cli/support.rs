//! A daemon with directories of its own, and processes to try it on; both end with the test.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const NOBODY: u32 = 65534;

/// The directories of one daemon; it is ended with the test.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
}

pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {} {}", self.out, self.err))
    }
}

impl Place {
    pub(crate) fn new() -> Place {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // Other users may come as far as the socket's directory.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        Place { dir }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mvedsuad"));
        command
            .env("MVEDSUA_RUNTIME_DIR", self.dir.path().join("run"))
            .env("MVEDSUA_STATE_DIR", self.dir.path().join("state"))
            .env("MVEDSUA_CONFIG", self.dir.path().join("mvedsuad.toml"))
            .env("MVEDSUA_UPDATES_DIR", self.dir.path().join("updates"))
            .stdin(Stdio::null())
            .args(args);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Said {
        said(&mut self.command(args))
    }

    /// Runs a command and panics unless it exits with `code`.
    #[track_caller]
    pub(crate) fn expect(&self, args: &[&str], code: i32) -> Said {
        let said = self.run(args);
        assert_eq!(said.code, code, "mvedsuad {args:?}\nout: {}\nerr: {}\n{}", said.out, said.err, self.log());
        said
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("state/daemon.log")).unwrap_or_default()
    }

    pub(crate) fn daemon(&self) -> Option<i32> {
        let said = self.run(&["status", "--json"]);
        (said.code == 0).then(|| said.json()["daemon"]["pid"].as_i64().expect("a pid") as i32)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(pid) = self.daemon() else { return };
        let pid = nix::unistd::Pid::from_raw(pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        wait_for("the end of the daemon", || self.daemon().is_none().then_some(()));
    }
}

pub(crate) fn said(command: &mut Command) -> Said {
    let output = command.output().expect("the binary is built");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {LIMIT:?} in vain for {what}");
        std::thread::yield_now();
    }
}

/// A process that is ended with the test.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn sleep() -> Server {
        let mut command = Command::new("sleep");
        Server { child: quiet(command.arg("1000")), port: 0 }
    }

    pub(crate) fn redis(dir: &Path) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]).current_dir(dir);
        let child = quiet(&mut command);
        // Connecting alone proves nothing: where nobody listens, a connection may be given that very port and meet itself.
        wait_for("redis to answer", || ping(port).ok().filter(|answer| answer == PONG));
        Server { child, port }
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

pub(crate) fn quiet(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it is installed")
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PONG: &str = "+PONG\r\n";

fn ping(port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer)
}

pub(crate) fn redis_ping(port: u16) {
    assert_eq!(ping(port).expect("redis answers"), PONG);
}
