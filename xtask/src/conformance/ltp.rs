//! `cargo xtask conformance ltp`: test programs of the Linux Test Project, each alone and with a follower beside it.
//!
//! The project's sources are fetched by whoever runs this (<https://github.com/linux-test-project/ltp>), and built where they
//! lie. Of its tests of system calls those are tried whose calls a server may make, and that need no device and no other
//! machine. The library's page of results is a shared mapping of a file, which no follower can have; it becomes anonymous.
//!
//! A program that passes alone must end the same with a follower beside it, whatever becomes of the follower; the table says
//! how many followers lived through all of it, and why the others were dropped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::process;
use harness::wait::try_wait_for;
use nix::sys::signal::Signal;
use serde::Serialize;
use serde_json::Value;

use super::cycle::cause;
use super::table::{self, Lean};
use crate::{build, setup, sh};

/// What building takes.
const PACKAGES: &[&str] = &["autoconf", "automake", "gcc", "libc6-dev", "m4", "make", "pkgconf"];

/// Folders of its tests that are tried.
const FOLDERS: &str = "\
    accept accept4 access alarm bind brk chdir chmod clock_getres clock_gettime clock_nanosleep close close_range connect \
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd eventfd2 execl execle \
    execlp execv execve execveat execvp exit exit_group faccessat fallocate fchdir fchmod fcntl fdatasync flock fork fstat fsync \
    ftruncate futex getcwd getdents getpid getppid getrandom getrlimit getrusage getsockname getsockopt gettimeofday inotify kill \
    link linkat listen llseek lseek lstat madvise memfd_create mkdir mkdirat mlock mmap mprotect mremap msync munmap nanosleep \
    newuname open openat pause pipe pipe2 poll ppoll prctl pread preadv pselect pwrite pwritev read readahead readlink readlinkat \
    readv recv recvfrom recvmmsg recvmsg rename renameat rmdir rt_sigaction rt_sigprocmask rt_sigqueueinfo rt_sigsuspend \
    rt_sigtimedwait sched_yield select semctl semop send sendfile sendmmsg sendmsg sendto setitimer setpgid setrlimit setsid \
    setsockopt shmat shmctl shmget shutdown sigaction sigaltstack signal signalfd signalfd4 sigpending sigprocmask sigsuspend \
    sigwait socket socketpair splice stat statx symlink sysinfo tee tgkill time timer_create timer_gettime timer_settime timerfd \
    times tkill truncate umask uname unlink unlinkat vfork vmsplice wait wait4 waitid waitpid write writev";

/// What the library maps, and what it maps instead.
const PAGE: [&str; 2] = ["MAP_SHARED, ipc_fd, 0)", "MAP_SHARED | MAP_ANONYMOUS, -1, 0)"];

/// What a test ends with that could not be made here.
const NOT_MADE: i32 = 32;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder of its sources, which are built there; one line of its library is changed
    #[arg(long, value_name = "DIR")]
    source: PathBuf,
    /// Only tests of these system calls
    #[arg(long, num_args = 1.., value_name = "FOLDER")]
    only: Vec<String>,
    /// Seconds that a program may take
    #[arg(long, default_value_t = 60)]
    limit: u64,
    /// Print the result as one line of JSON too
    #[arg(long)]
    json: bool,
    /// Which build of the daemon to try
    #[arg(long, value_enum, default_value_t = build::Profile::Release)]
    profile: build::Profile,
}

/// What came of one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "cause")]
enum Verdict {
    /// It does not pass alone, or not each time.
    NotTried,
    Followed,
    /// It ended the same; its follower did not live through it.
    Dropped(String),
    /// It did not end as it does alone.
    Differs(String),
}

#[derive(Debug, Serialize)]
struct Row {
    folder: String,
    program: String,
    #[serde(flatten)]
    verdict: Verdict,
}

/// Tries the programs; fails where one ends differently.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run(&setup::Args::default())?;
    setup::install(PACKAGES.iter().copied(), "what LTP's sources are built with")?;
    let mvedsuad = build::run(&build::Args { profile: args.profile })?;
    let source = args.source.canonicalize().with_context(|| format!("looking for {}", args.source.display()))?;
    prepare(&source)?;
    let stand = Stand { source, mvedsuad, limit: Duration::from_secs(args.limit) };
    let wanted: Vec<&str> = match args.only.is_empty() {
        true => FOLDERS.split_whitespace().collect(),
        false => args.only.iter().map(String::as_str).collect(),
    };
    let begun = Instant::now();
    let mut rows = Vec::new();
    for folder in wanted {
        for program in stand.built(folder)? {
            let verdict = stand.judge(&program)?;
            let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Verdict::Differs(cause) = &verdict {
                println!("ltp: {program}: {cause}");
            }
            rows.push(Row { folder: folder.to_owned(), program, verdict });
        }
    }
    print!("{}", text(&rows));
    println!("{} programs in {:.0} s", rows.len(), begun.elapsed().as_secs_f64());
    if args.json {
        println!("{}", serde_json::to_string(&rows).context("the result as JSON")?);
    }
    let differ = rows.iter().filter(|row| matches!(row.verdict, Verdict::Differs(_))).count();
    ensure!(differ == 0, "{differ} of {} programs do not end as they do alone", rows.len());
    Ok(())
}

/// Makes the sources ready to be built, and the library's page anonymous.
fn prepare(source: &Path) -> Result<()> {
    let library = source.join("lib/tst_test.c");
    let text = fs::read_to_string(&library)
        .with_context(|| format!("reading {}: is this the folder of LTP's sources?", library.display()))?;
    let [before, after] = PAGE;
    if text.contains(before) {
        fs::write(&library, text.replace(before, after)).with_context(|| format!("writing {}", library.display()))?;
    }
    ensure!(text.contains(before) || text.contains(after), "{} maps its page in another way", library.display());
    if !source.join("configure").exists() {
        sh::run(Command::new("make").arg("autotools").current_dir(source))?;
    }
    if !source.join("include/mk/config.mk").exists() {
        sh::run(Command::new("./configure").current_dir(source))?;
    }
    sh::run(Command::new("make").args(["-s", "-C", "lib"]).current_dir(source))
}

struct Stand {
    source: PathBuf,
    mvedsuad: PathBuf,
    limit: Duration,
}

/// How a program ended; `None` where it did not within its time.
type End = Option<i32>;

impl Stand {
    /// Builds the programs of a folder and returns them, without those that they execute themselves.
    fn built(&self, folder: &str) -> Result<Vec<PathBuf>> {
        let dir = self.source.join("testcases/kernel/syscalls").join(folder);
        // What cannot be built here is not there afterwards.
        let made = Command::new("make").args(["-s", "-k", "-C"]).arg(&dir).stderr(Stdio::null()).status();
        made.with_context(|| format!("making {}", dir.display()))?;
        let entries = fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
        let mut programs: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        programs.retain(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let executable =
                fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
            executable && !name.contains(['.', '-']) && !name.contains("child") && !name.contains("helper")
        });
        programs.sort();
        Ok(programs)
    }

    fn judge(&self, program: &Path) -> Result<Verdict> {
        if self.alone(program)? != Some(0) {
            return Ok(Verdict::NotTried);
        }
        let report = tempfile::NamedTempFile::new().context("making a file for the report")?;
        let mut command = Command::new(&self.mvedsuad);
        command.args(["run", "--self", "1", "--report"]).arg(report.path()).arg("--").arg(program);
        let end = self.end(&mut command, program)?;
        // What does not even pass alone each time is not held against anybody; what is not made here now was made before.
        if end != Some(0) && (0..2).any(|_| !matches!(self.alone(program), Ok(Some(0 | NOT_MADE)))) {
            return Ok(Verdict::NotTried);
        }
        let text = fs::read_to_string(report.path()).context("reading the report")?;
        let report: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        let follower = &report["followers"][0];
        let reason = follower["reason"].as_str().unwrap_or("no reason is given");
        Ok(match (end, follower["outcome"].as_str()) {
            (Some(0), Some("complete")) => Verdict::Followed,
            (Some(0), _) => Verdict::Dropped(cause(reason)),
            (Some(code), _) => Verdict::Differs(format!("it ends with {code} instead of 0; the follower: {reason}")),
            (None, _) => Verdict::Differs(format!("it does not end within {:?}; the follower: {reason}", self.limit)),
        })
    }

    fn alone(&self, program: &Path) -> Result<End> {
        self.end(&mut Command::new(program), program)
    }

    /// Runs a program in a session and a folder of its own.
    fn end(&self, command: &mut Command, program: &Path) -> Result<End> {
        let dir = tempfile::tempdir().context("making a folder")?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).context("opening the folder to all")?;
        let path = std::env::var("PATH").unwrap_or_default();
        let folder = program.parent().unwrap_or(Path::new("/"));
        let output = File::create(dir.path().join(".output")).context("making a file for the output")?;
        command
            .current_dir(dir.path())
            .env("PATH", format!("{}:{path}", folder.display()))
            .env("TMPDIR", dir.path())
            .env("LTPROOT", &self.source)
            .env("LTP_TIMEOUT_MUL", "5")
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("the output once more")?)
            .stderr(output);
        // SAFETY: `setsid` is safe between fork and exec.
        unsafe { command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?)) };
        let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let session = child.id() as i32;
        let status = try_wait_for(self.limit, || child.try_wait().transpose()).transpose().context("waiting for it")?;
        for member in process::session(session) {
            process::signal(member.pid, Signal::SIGKILL);
        }
        if status.is_none() {
            child.wait().context("waiting for what was killed")?;
        }
        Ok(status.map(|status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))))
    }
}

fn text(rows: &[Row]) -> String {
    let heads = [("", Lean::Left), ("programs", Lean::Right)];
    let count = |what: fn(&Verdict) -> bool| rows.iter().filter(|row| what(&row.verdict)).count().to_string();
    let lines = [
        ("followed to the end", count(|verdict| *verdict == Verdict::Followed)),
        ("the same, the follower dropped", count(|verdict| matches!(verdict, Verdict::Dropped(_)))),
        ("ended differently", count(|verdict| matches!(verdict, Verdict::Differs(_)))),
        ("do not pass alone", count(|verdict| *verdict == Verdict::NotTried)),
    ];
    let cells: Vec<Vec<String>> = lines.into_iter().map(|(what, count)| vec![what.to_owned(), count]).collect();
    let mut out = format!("\n{}", table::render(&heads, &cells));
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in rows {
        if let Verdict::Dropped(reason) = &row.verdict {
            reasons.entry(reason).or_default().push(&row.program);
        }
    }
    let mut reasons: Vec<(&str, Vec<&str>)> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, programs)| std::cmp::Reverse(programs.len()));
    for (reason, programs) in reasons {
        out.push_str(&table::wrap(&format!("{} × {reason}: {}", programs.len(), programs.join(" ")), 100, "  "));
        if !out.ends_with('\n') {
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted() {
        let row = |program: &str, verdict| Row { folder: "kill".to_owned(), program: program.to_owned(), verdict };
        let dropped = || Verdict::Dropped("no way".to_owned());
        let rows = [row("kill01", dropped()), row("kill02", Verdict::Followed), row("kill03", dropped())];
        let shown = text(&rows);
        assert!(shown.contains("2 × no way: kill01 kill03"), "{shown}");
    }
}
