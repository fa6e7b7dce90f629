//! A real systemd, for machines where it is process 1 and for others.
//!
//! It runs as a user's manager: in control groups of its own, and in a mount namespace of its own where `/run/systemd` tells
//! that systemd has booted the machine. It starts, watches, restarts and stops services as the system's does. All of it ends
//! with its owner: the manager, by pid; what is left in its control groups; the groups; and with its last process the
//! namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::daemon::Output;
use crate::process::{self, Program};
use crate::wait::try_wait_for;

const MANAGER: &str = "/lib/systemd/systemd";
/// How long the manager may take until it answers, or until it has ended with its services.
const LIMIT: Duration = Duration::from_secs(20);

/// Takes the folder and the control groups; becomes the manager. What services may not see, the manager covers with what the
/// system's manager would have made in `inaccessible`.
const START: &str = r#"
dir=$1; shift
for group; do echo $$ > "$group/cgroup.procs" || exit; done
mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system || exit
inaccessible=/run/systemd/inaccessible
mkdir -p $inaccessible/dir && : > $inaccessible/reg && mkfifo $inaccessible/fifo || exit
mknod $inaccessible/chr c 0 0 && mknod $inaccessible/blk b 0 0 || exit
unset DBUS_SESSION_BUS_ADDRESS NOTIFY_SOCKET
export HOME="$dir/home" XDG_RUNTIME_DIR="$dir/run" XDG_CONFIG_HOME="$dir/config"
exec /lib/systemd/systemd --user --log-target=console
"#;

/// Kills what is left in the control groups when its standard input closes, however that comes, and removes them.
const GUARD: &str = r#"
read -r _
for try in 1 2 3 4 5 6 7 8 9 10; do
    for group; do
        [ -d "$group" ] || continue
        find "$group" -name cgroup.procs -exec cat {} + | xargs -r kill -KILL
        find "$group" -depth -type d -exec rmdir {} +
    done
    sleep 0.1
done
"#;

/// A running manager.
#[derive(Debug)]
pub struct Systemd {
    program: Option<Program>,
    guard: Child,
    groups: Vec<PathBuf>,
    dir: TempDir,
}

impl Systemd {
    /// Starts a manager without any service.
    pub fn start() -> Result<Systemd> {
        ensure!(
            Path::new(MANAGER).is_file(),
            "systemd is not installed; `cargo xtask setup` installs what the tests need"
        );
        let dir = tempfile::Builder::new().prefix("mvedsua-systemd-").tempdir()?;
        for name in ["home", "run", "config/systemd/user"] {
            fs::create_dir_all(dir.path().join(name))?;
        }
        let groups = make_groups()?;
        let shown = || groups.iter().map(|group| group.display().to_string());
        let guard = Command::new("setsid")
            .args(["sh", "-c", GUARD, "sh"])
            .args(shown())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the guard")?;
        let mut systemd = Systemd { program: None, guard, groups: groups.clone(), dir };
        let mut args: Vec<String> =
            ["--mount", "--propagation", "private", "sh", "-c", START, "sh"].map(str::to_owned).to_vec();
        args.push(systemd.dir.path().display().to_string());
        args.extend(shown());
        let log = systemd.dir.path().join("log");
        let program = Program::start(&process::find_program("unshare")?, &args, systemd.dir.path(), &log)?;
        let pid = program.pid();
        systemd.program = Some(program);
        let up = try_wait_for(LIMIT, || {
            (!process::alive(pid) || systemd.ctl(&["show", "--property=Version"]).is_ok_and(|output| output.code == 0))
                .then_some(())
        });
        ensure!(up.is_some() && process::alive(pid), "systemd did not start: {}", systemd.log());
        Ok(systemd)
    }

    /// A folder for what the services need; removed with the manager.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What the manager and its services have printed.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Runs `systemctl --user`.
    pub fn ctl(&self, args: &[&str]) -> Result<Output> {
        let output = Command::new("systemctl")
            .arg("--user")
            .args(args)
            .env("XDG_RUNTIME_DIR", self.dir.path().join("run"))
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .stdin(Stdio::null())
            .output()
            .context("running systemctl")?;
        Ok(Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs `systemctl --user` and panics unless it exits with 0.
    #[track_caller]
    pub fn expect(&self, args: &[&str]) {
        let output = self.ctl(args).expect("systemctl runs");
        assert_eq!(
            output.code,
            0,
            "systemctl {}: {}{}\nsystemd: {}",
            args.join(" "),
            output.stdout,
            output.stderr,
            self.log()
        );
    }

    /// Writes the file of a unit and lets the manager read it.
    pub fn install(&self, unit: &str, text: &str) -> Result<()> {
        fs::write(self.dir.path().join("config/systemd/user").join(unit), text)?;
        let output = self.ctl(&["daemon-reload"])?;
        ensure!(output.code == 0, "systemctl daemon-reload: {}", output.stderr);
        Ok(())
    }

    /// Returns a property of a unit, as `systemctl show` prints it.
    #[must_use]
    pub fn property(&self, unit: &str, property: &str) -> String {
        let output = self.ctl(&["show", "--value", &format!("--property={property}"), unit]);
        output.map(|output| output.stdout.trim().to_owned()).unwrap_or_default()
    }

    /// Returns the number of a unit's main process; 0 when it has none.
    #[must_use]
    pub fn main_pid(&self, unit: &str) -> i32 {
        self.property(unit, "MainPID").parse().unwrap_or(0)
    }

    /// Returns the processes in a unit's control group.
    #[must_use]
    pub fn members(&self, unit: &str) -> Vec<i32> {
        let named = |dir: &PathBuf| dir.file_name().is_some_and(|name| name == unit);
        let mut pids: Vec<i32> =
            self.groups.iter().flat_map(|group| below(group)).filter(named).flat_map(|dir| procs(&dir)).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // By pid and before its pipe closes: it is not needed any more.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        if std::thread::panicking() {
            eprintln!("--- systemd printed:\n{}", self.log());
        }
        if let Some(program) = self.program.take() {
            let pid = program.pid();
            process::signal(pid, Signal::SIGTERM);
            let _ = try_wait_for(LIMIT, || {
                process::reap(pid);
                (!process::alive(pid)).then_some(())
            });
        }
        let emptied = try_wait_for(LIMIT, || {
            let left: Vec<i32> =
                self.groups.iter().flat_map(|group| below(group)).flat_map(|dir| procs(&dir)).collect();
            for pid in &left {
                process::signal(*pid, Signal::SIGKILL);
                process::reap(*pid);
            }
            left.is_empty().then_some(())
        });
        let removed = try_wait_for(LIMIT, || {
            for group in &self.groups {
                // The innermost first.
                below(group).iter().rev().for_each(|dir| drop(fs::remove_dir(dir)));
            }
            self.groups.iter().all(|group| !group.exists()).then_some(())
        });
        if (emptied.is_none() || removed.is_none()) && !std::thread::panicking() {
            panic!("control groups are left: {:?}", self.groups);
        }
    }
}

/// Makes a control group in each hierarchy that systemd uses to keep services apart.
fn make_groups() -> Result<Vec<PathBuf>> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("mvedsua-test-{}-{}", std::process::id(), COUNT.fetch_add(1, SeqCst));
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let mut groups = Vec::new();
    for mount in mounts.lines() {
        // `25 20 0:22 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw`
        let Some((head, tail)) = mount.split_once(" - ") else { continue };
        let kind = tail.split_whitespace().next().unwrap_or_default();
        let named = kind == "cgroup" && tail.contains("name=systemd");
        if kind != "cgroup2" && !named {
            continue;
        }
        let fields: Vec<&str> = head.split_whitespace().collect();
        let [_, _, _, root, place, ..] = fields[..] else { bail!("a mount: {mount}") };
        let prefix = if named { ":name=systemd:" } else { "0::" };
        let within = own.lines().find_map(|line| line.split_once(prefix)).map_or("/", |(_, path)| path);
        let within = within.strip_prefix(root).unwrap_or(within).trim_start_matches('/');
        let group = Path::new(place).join(within).join(&name);
        fs::create_dir(&group).with_context(|| format!("making the control group {}", group.display()))?;
        groups.push(group);
    }
    ensure!(!groups.is_empty(), "no control groups that systemd could use are mounted");
    Ok(groups)
}

/// Returns a folder and all folders in it, each before what it holds.
fn below(dir: &Path) -> Vec<PathBuf> {
    if !dir.is_dir() {
        return Vec::new();
    }
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let inner = entries.filter(|path| path.is_dir()).flat_map(|path| below(&path));
    std::iter::once(dir.to_owned()).chain(inner).collect()
}

fn procs(group: &Path) -> Vec<i32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1).collect()
}
