//! Debian's servers, as a user would run them: no preparation, no linking, no special build.

use std::cell::RefCell;
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::{self, Program};
use crate::wait::try_wait_for;

/// How long a server may take until it accepts connections.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How often another port is tried when somebody else took the first.
const PORT_ATTEMPTS: u32 = 5;

/// A running server with its folder, which is removed with it.
#[derive(Debug)]
pub struct Server {
    pub program: Program,
    pub address: SocketAddr,
    dir: TempDir,
    /// A server that this one needs; ended after it.
    _beside: Option<Box<Server>>,
}

impl Server {
    /// Keeps another server alive as long as this one.
    #[must_use]
    pub fn with(self, beside: Server) -> Server {
        Server { _beside: Some(Box::new(beside)), ..self }
    }

    /// The pid of the server as it was started.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.program.pid()
    }

    /// The folder that the server runs in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the one process of the session that listens on the server's port, or takes its datagrams.
    #[must_use]
    pub fn serving_pid(&self) -> Option<i32> {
        let members = self.program.members();
        members.into_iter().map(|stat| stat.pid).find(|pid| crate::snapshot::listens(*pid, self.address.port()))
    }

    /// What the server has printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read_to_string(self.dir.path().join("output")).unwrap_or_default()
    }
}

thread_local! {
    /// What servers are started under, see [`under`].
    static WRAPPER: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Starts servers under another program, such as `strace`, which takes the server's command line as its last arguments.
pub fn under<T>(command: &[String], start: impl FnOnce() -> T) -> T {
    let before = WRAPPER.replace(command.to_vec());
    let started = start();
    WRAPPER.set(before);
    started
}

/// Returns a loopback port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?.local_addr()?.port())
}

/// Starts a program that listens on a port; `args` gets the port and the folder.
pub fn start(name: &str, args: impl Fn(u16, &Path) -> Result<Vec<String>>) -> Result<Server> {
    start_program(name, &process::find_program(name)?, args)
}

/// Like [`start`], with the path of the program.
pub(crate) fn start_program(
    name: &str,
    program: &Path,
    args: impl Fn(u16, &Path) -> Result<Vec<String>>,
) -> Result<Server> {
    start_program_until(Ready::Connects, name, program, args)
}

/// How it is seen that a server has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// It takes a connection, and closes it with the client.
    Connects,
    /// It has its socket: one that is asked by datagrams, or that connects to itself all the time.
    Listens,
}

/// The same for a server of which that is seen otherwise.
pub(crate) fn start_program_until(
    ready: Ready,
    name: &str,
    program: &Path,
    args: impl Fn(u16, &Path) -> Result<Vec<String>>,
) -> Result<Server> {
    for _ in 0..PORT_ATTEMPTS {
        let dir = tempfile::Builder::new().prefix("mvedsua-test-").tempdir()?;
        let port = free_port()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let args = args(port, dir.path())?;
        let mut command = WRAPPER.with_borrow(Vec::clone);
        command.push(program.display().to_string());
        command.extend(args);
        let program = Program::start(Path::new(&command[0]), &command[1..], dir.path(), &dir.path().join("output"))?;
        let server = Server { program, address, dir, _beside: None };
        let outcome = try_wait_for(START_LIMIT, || {
            if !server.program.is_running() {
                return Some(false);
            }
            if ready == Ready::Listens {
                return server.serving_pid().is_some().then_some(true);
            }
            match TcpStream::connect(address) {
                Ok(_) => server.serving_pid().is_some().then_some(true),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => None,
                Err(_) => Some(false),
            }
        });
        match outcome {
            Some(true) if ready == Ready::Listens => return Ok(server),
            Some(true) => {
                // The probe itself is a client; the server starts without any.
                let left = try_wait_for(START_LIMIT, || (crate::snapshot::open_connections(port) == 0).then_some(()));
                return left.map(|()| server).with_context(|| format!("{name} does not close a connection"));
            }
            Some(false) if server.output().contains("in use") => {}
            _ => bail!("{name} did not start: {}", server.output()),
        }
    }
    bail!("no free port was found for {name}")
}

/// Returns words as a command line takes them.
#[must_use]
pub fn strings(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

/// Starts `redis-server` without persistence and with `DEBUG` allowed; `extra` is added to its command line.
pub fn redis(extra: &[&str]) -> Result<Server> {
    start("redis-server", |port, dir| Ok(redis_args(port, dir, extra)))
}

/// The same with a file of the caller's.
pub fn redis_of(program: &Path) -> Result<Server> {
    start_program("redis-server", program, |port, dir| Ok(redis_args(port, dir, &[])))
}

fn redis_args(port: u16, dir: &Path, extra: &[&str]) -> Vec<String> {
    let (port, dir) = (port.to_string(), dir.display().to_string());
    let mut args = strings(&["--port", &port, "--bind", "127.0.0.1", "--dir", &dir, "--save", ""]);
    args.extend(strings(&["--appendonly", "no", "--enable-debug-command", "local"]));
    args.extend(strings(extra));
    args
}

/// Starts `memcached` with four worker threads.
pub fn memcached() -> Result<Server> {
    memcached_with(4)
}

/// Starts `memcached` with as many worker threads.
pub fn memcached_with(workers: u32) -> Result<Server> {
    let workers = workers.to_string();
    start("memcached", |port, _| {
        let port = port.to_string();
        Ok(strings(&["-u", "root", "-l", "127.0.0.1", "-p", &port, "-U", "0", "-t", &workers, "-c", "2048"]))
    })
}

/// Compiles and starts the project's own `tests/servers/threaded`, a store with a thread for each connection.
pub fn threaded() -> Result<Server> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers/threaded/threaded.c");
    let built = tempfile::Builder::new().prefix("mvedsua-threaded-").tempdir()?;
    let program = built.path().join("threaded");
    let output = Command::new("gcc")
        .args(["-std=gnu17", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
        .args([&program, &source])
        .output()
        .context("gcc is not installed; `cargo xtask setup` installs what the tests need")?;
    anyhow::ensure!(output.status.success(), "compiling: {}", String::from_utf8_lossy(&output.stderr));
    // Once it runs its file is not needed any more.
    start_program("threaded", &program, |port, _| Ok(vec![port.to_string()]))
}

/// Starts the project's own `turn.py`, a server that does what it is told.
pub fn turn() -> Result<Server> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers/turn.py");
    start("python3", |port, _| Ok(vec!["-u".into(), script.display().to_string(), port.to_string()]))
}

/// The files that the web servers serve: name and content.
#[must_use]
pub fn web_files() -> Vec<(String, Vec<u8>)> {
    let sizes = [0_usize, 1, 100, 5_000, 70_000];
    let content = |size: usize| (0..size).map(|i| b"abcdefghijklmnopqrstuvwxyz0123456789\n"[(i + size) % 37]).collect();
    sizes.iter().map(|size| (format!("file-{size}.txt"), content(*size))).collect()
}

/// Writes [`web_files`] into a new folder `www` and returns its path.
pub fn write_web_files(dir: &Path) -> Result<String> {
    let root = dir.join("www");
    fs::create_dir(&root)?;
    for (name, content) in web_files() {
        fs::write(root.join(name), content)?;
    }
    Ok(root.display().to_string())
}

/// Starts Python's `http.server`, which serves [`web_files`].
pub fn python_http() -> Result<Server> {
    start("python3", |port, dir| {
        let root = write_web_files(dir)?;
        Ok(strings(&["-u", "-m", "http.server", &port.to_string(), "--bind", "127.0.0.1", "--directory", &root]))
    })
}

/// Starts `lighttpd`, which serves [`web_files`].
pub fn lighttpd() -> Result<Server> {
    start("lighttpd", |port, dir| {
        let root = write_web_files(dir)?;
        let config = dir.join("lighttpd.conf");
        let text = format!(
            "server.document-root = \"{root}\"\nserver.port = {port}\nserver.bind = \"127.0.0.1\"\n\
             server.max-keep-alive-requests = 65535\nserver.max-keep-alive-idle = 600\nmimetype.assign = (\".txt\" => \"text/plain\")\n"
        );
        fs::write(&config, text)?;
        Ok(strings(&["-D", "-f", &config.display().to_string()]))
    })
}
