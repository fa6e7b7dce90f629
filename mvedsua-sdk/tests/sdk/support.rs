//! Compiles programs of the test folder with the SDK and talks to them.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn sdk() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Builds the static library and returns the folder that holds it.
pub(crate) fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let exe = std::env::current_exe().expect("the test knows where it is");
        let folder = exe.ancestors().skip(1).find(|dir| !dir.ends_with("deps")).expect("the build's folder").to_owned();
        let profile = if folder.ends_with("release") { "release" } else { "dev" };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--profile", profile, "--package", "mvedsua-sdk"]).current_dir(sdk());
        run(&mut build);
        folder
    })
}

/// Runs a command to its end and panics unless it succeeds.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Compiles one version.
#[track_caller]
pub(crate) fn version(source: &Path, out: &Path, defines: &[&str]) {
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=gnu17", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-pthread"]);
    gcc.arg("-I").arg(sdk().join("include")).args(defines).arg("-o").args([out, source]);
    run(&mut gcc);
}

/// Links the executable that loads versions.
#[track_caller]
pub(crate) fn executable(out: &Path) {
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-Wall", "-Werror", "-o"]).args([out, &sdk().join("driver/mvedsua-run.c")]);
    gcc.arg("-Wl,--export-dynamic-symbol=mvedsua_*").arg(library().join("libmvedsua.a"));
    run(&mut gcc);
}

/// A running program, its input and its output.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

impl Program {
    /// Starts a version; `next` is where a direct update finds the next one.
    pub(crate) fn start(executable: &Path, version: &Path, args: &[&str], next: &Path) -> Program {
        let mut child = Command::new(executable)
            .arg(version)
            .args(args)
            .env("MVEDSUA_DIRECT", next)
            .env("MVEDSUA_LIMIT_MS", "1000")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = lines_of(child.stdout.take().expect("its output"));
        let errors = lines_of(child.stderr.take().expect("its messages"));
        let stdin = child.stdin.take();
        let mut program = Program { child, stdin, lines, errors };
        program.wait_ready();
        program
    }

    /// Waits until a signal asks for an update and does not end the program.
    #[track_caller]
    fn wait_ready(&mut self) {
        let until = Instant::now() + LIMIT;
        while Instant::now() < until {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the program's status");
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).expect("what it handles");
            if u64::from_str_radix(caught, 16).expect("a mask") & (1 << (libc::SIGUSR2 - 1)) != 0 {
                return;
            }
            assert!(self.child.try_wait().expect("a child").is_none(), "the program has ended");
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the program does not get ready");
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends a line and returns the answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, line: &str) -> String {
        let stdin = self.stdin.as_mut().expect("its input is open");
        writeln!(stdin, "{line}").expect("the program reads");
        self.lines.recv_timeout(LIMIT).unwrap_or_else(|error| panic!("no answer to {line:?}: {error}"))
    }

    /// Asks for a direct update and returns what the runtime says about it.
    #[track_caller]
    pub(crate) fn update(&mut self) -> String {
        // SAFETY: a child of ours that was not waited for.
        assert_eq!(unsafe { libc::kill(self.pid(), libc::SIGUSR2) }, 0);
        self.message()
    }

    /// The next line of the program's messages.
    #[track_caller]
    pub(crate) fn message(&mut self) -> String {
        self.errors.recv_timeout(LIMIT).expect("the runtime says what came of it")
    }

    /// Ends its input and waits for its end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> i32 {
        self.stdin = None;
        let until = Instant::now() + LIMIT;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code().unwrap_or(-1);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the program does not end");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of `tests/kinds`, compiled as both versions.
#[derive(Debug)]
pub(crate) struct Kind {
    dir: TempDir,
}

impl Kind {
    #[track_caller]
    pub(crate) fn compile(name: &str, defines: &[&str]) -> Kind {
        let dir = tempfile::Builder::new().prefix("mvedsua-sdk-").tempdir().expect("a folder");
        let source = sdk().join("tests/kinds").join(name);
        executable(&dir.path().join("program"));
        for number in ["1", "2"] {
            let define = format!("-DVERSION={number}");
            let defines: Vec<&str> = defines.iter().copied().chain([define.as_str()]).collect();
            version(&source, &dir.path().join(format!("v{number}.so")), &defines);
        }
        Kind { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn start(&self) -> Program {
        Program::start(&self.path("program"), &self.path("v1.so"), &[], &self.path("v2.so"))
    }
}
