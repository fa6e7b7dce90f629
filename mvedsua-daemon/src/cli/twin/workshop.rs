//! Where twins are built: a small Debian of its own, in which nothing that is built reaches a network.
//!
//! - What is downloaded is downloaded from outside, by `debootstrap` and `apt-get` of this machine, which check signatures. Only
//!   these two reach a network.
//! - What packages run when they are installed runs as root, in a root directory, processes and a network of its own. They are
//!   the distribution's, signed by it.
//! - What is built runs as a user who is nobody here, without capabilities and with no way to get any, in the same confinement.
//!
//! One twin is built at a time.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};

use super::{Network, Source};
use crate::cli::progress::Progress;
use crate::control::Code;
use crate::control::protocol::Problem;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const MIRROR: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security";
/// Who builds.
const BUILDER: &str = "64917";
/// Where it is built, seen from inside.
const INSIDE: &str = "/build";
/// Lines of the log that are shown where something failed.
const TOLD: usize = 12;

pub(super) struct Workshop<'a> {
    place: &'a Path,
    network: Network,
    progress: &'a Progress,
    suite: String,
    log: PathBuf,
    /// Held as long as something is built.
    _lock: Flock<File>,
}

fn refused(why: impl Into<String>, remedy: &str) -> Problem {
    Problem::new(Code::Refused, "building a twin", why, remedy)
}

/// Returns the name of this machine's release of Debian.
fn suite_of(os_release: &str) -> Option<String> {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_owned())
    };
    let is_word = |name: &String| name.chars().all(|c| c.is_ascii_lowercase());
    (value("ID")? == "debian").then(|| value("VERSION_CODENAME")).flatten().filter(is_word)
}

impl<'a> Workshop<'a> {
    /// Sees that this machine has what it takes.
    pub(super) fn open(place: &'a Path, network: Network, progress: &'a Progress) -> Result<Workshop<'a>, Problem> {
        if !nix::unistd::geteuid().is_root() {
            return Err(refused(
                "a root directory for it takes root's rights",
                "run it as root; what is built runs as nobody",
            ));
        }
        let suite = suite_of(&fs::read_to_string("/etc/os-release").unwrap_or_default()).ok_or_else(|| {
            refused("this is no release of Debian", "name debug files with --debug-old and --debug-new")
        })?;
        for (program, package) in [("debootstrap", "debootstrap"), ("unshare", "util-linux"), ("apt-get", "apt")] {
            if !is_there(program) {
                let remedy = format!("apt-get install {package}");
                return Err(refused(format!("there is no `{program}`"), &remedy));
            }
        }
        if network == Network::None && !succeeds(Command::new("unshare").args(["--net", "true"])) {
            let why = "no network namespace can be made here: what is built could reach every network that this machine \
                       reaches, though only as a user without rights, in a root directory of its own";
            return Err(refused(why, "allow namespaces, or take that with --twin-network host"));
        }
        let io = |e: std::io::Error| refused(format!("{}: {e}", place.display()), "name another with --twins DIR");
        fs::create_dir_all(place).map_err(io)?;
        fs::set_permissions(place, Permissions::from_mode(0o700)).map_err(io)?;
        let lock = File::create(place.join("lock")).map_err(io)?;
        progress.tell("waiting for another twin to be built");
        let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| io(e.into()))?;
        Ok(Workshop { place, network, progress, suite, log: place.join("log"), _lock: lock })
    }

    /// Builds a source package with symbols; returns the directories with the files of its packages.
    pub(super) fn build(&self, source: &Source) -> Result<Vec<PathBuf>, Problem> {
        File::create(&self.log)
            .map_err(|e| refused(format!("{}: {e}", self.log.display()), "see that there is room"))?;
        let base = self.base()?;
        let root = self.place.join("root");
        self.remove(&root)?;
        self.progress.tell(&format!("{source}: making a root directory"));
        self.run("copying the root directory", Command::new("cp").arg("--archive").arg(&base).arg(&root))?;
        let wanted = source.to_string();
        self.progress.tell(&format!("{source}: downloading it and what it is built with"));
        self.run("fetching the lists of the archive", self.apt(&root).arg("update"))?;
        self.run(
            "downloading what it is built with",
            self.apt(&root).args(["--download-only", "--no-install-recommends", "build-dep", &wanted]),
        )?;
        let outside = root.join(INSIDE.trim_start_matches('/'));
        fs::create_dir_all(&outside).map_err(|e| refused(e.to_string(), "see that there is room"))?;
        self.run(
            "downloading the sources",
            self.apt(&root).args(["--download-only", "source", &wanted]).current_dir(&outside),
        )?;
        self.progress.tell(&format!("{source}: installing what it is built with"));
        let apt = ["apt-get", "-q", "-y", "--no-download", "--no-install-recommends", "build-dep", &wanted];
        self.run("installing what it is built with", self.inside(&root).args(CLEAN).args(apt))?;
        let user = ["useradd", "--uid", BUILDER, "--home-dir", INSIDE, "--shell", "/bin/sh", "builder"];
        self.run("making a user who builds", self.inside(&root).args(CLEAN).args(user))?;
        self.run(
            "giving the sources away",
            self.inside(&root).args(["chown", "-R", &format!("{BUILDER}:{BUILDER}"), INSIDE]),
        )?;
        self.progress.tell(&format!("{source}: building it, which may take minutes; {} grows", self.log.display()));
        let script = format!("cd {INSIDE} && dpkg-source -x *.dsc && cd */ && exec nice dpkg-buildpackage -B -us -uc");
        self.run(
            "building it",
            self.inside(&root)
                .args(CONFINED)
                .args(CLEAN)
                .arg(format!("HOME={INSIDE}"))
                .args(BUILD)
                .args(["sh", "-c", &script]),
        )?;
        let tree = directories(&outside).into_iter().find(|dir| dir.join("debian/rules").is_file());
        let packages = tree.map(|tree| directories(&tree.join("debian"))).unwrap_or_default();
        Ok(packages.into_iter().filter(|path| !path.ends_with("tmp")).collect())
    }

    /// Returns the root directory that all twins begin with; made once.
    fn base(&self) -> Result<PathBuf, Problem> {
        let base = self.place.join(&self.suite);
        if base.join("ready").is_file() {
            return Ok(base);
        }
        self.remove(&base)?;
        self.progress.tell(&format!("downloading a Debian {} to build in", self.suite));
        let packed = self.place.join(format!("{}.tgz", self.suite));
        let bootstrap = |command: &mut Command, packed: String| {
            command.args(["--variant=buildd", "--include=fakeroot", "--keyring", KEYRING, &packed, &self.suite]);
            command.arg(&base).arg(MIRROR);
        };
        let mut fetch = Command::new("debootstrap");
        bootstrap(&mut fetch, format!("--make-tarball={}", packed.display()));
        self.run("downloading a Debian to build in", &mut fetch)?;
        self.progress.tell(&format!("unpacking a Debian {} to build in", self.suite));
        let mut unpack = self.apart();
        unpack.arg("debootstrap");
        bootstrap(&mut unpack, format!("--unpack-tarball={}", packed.display()));
        self.run("unpacking a Debian to build in", &mut unpack)?;
        let write = |file: &str, text: String, mode: u32| {
            let path = base.join(file);
            fs::write(&path, text).and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)))
        };
        let suites = [
            (MIRROR, self.suite.clone()),
            (MIRROR, format!("{}-updates", self.suite)),
            (SECURITY, format!("{}-security", self.suite)),
        ];
        let lines = suites.iter().flat_map(|(mirror, suite)| {
            ["deb", "deb-src"].map(|kind| format!("{kind} [signed-by={KEYRING}] {mirror} {suite} main\n"))
        });
        write("etc/apt/sources.list", lines.collect(), 0o644)
            // Nothing that is installed there starts a service.
            .and_then(|()| write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n".to_owned(), 0o755))
            .and_then(|()| write("ready", String::new(), 0o644))
            .and_then(|()| fs::remove_file(&packed))
            .map_err(|e| refused(format!("{}: {e}", base.display()), "see that there is room"))?;
        Ok(base)
    }

    /// Returns this machine's apt-get, which works on another root directory and installs nothing.
    fn apt(&self, root: &Path) -> Command {
        let mut command = Command::new("apt-get");
        command.args(["-q", "-y"]);
        let places = [
            ("Dir::State", "var/lib/apt"),
            ("Dir::State::status", "var/lib/dpkg/status"),
            ("Dir::State::extended_states", "var/lib/apt/extended_states"),
            ("Dir::Cache", "var/cache/apt"),
            ("Dir::Etc::sourcelist", "etc/apt/sources.list"),
        ];
        for (option, path) in places {
            command.arg("-o").arg(format!("{option}={}", root.join(path).display()));
        }
        for option in [
            "Dir::Etc::sourceparts=-",
            "Dir::Etc::preferences=-",
            "Dir::Etc::preferencesparts=-",
            "APT::Keep-Downloaded-Packages=true",
            // apt's own user may not write here.
            "APT::Sandbox::User=root",
        ] {
            command.args(["-o", option]);
        }
        command
    }

    /// Returns what runs a program apart from this machine's processes, mounts and networks.
    fn apart(&self) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--ipc", "--uts", "--kill-child"]);
        match self.network {
            Network::None => {
                command.arg("--net");
            }
            Network::Host => {}
        }
        command
    }

    /// Returns what runs a program in a root directory, as root.
    fn inside(&self, root: &Path) -> Command {
        let mut command = self.apart();
        command.arg(format!("--mount-proc={}", root.join("proc").display())).arg("chroot").arg(root);
        command
    }

    fn run(&self, what: &str, command: &mut Command) -> Result<(), Problem> {
        let failed = |why: String| {
            let remedy =
                format!("{} has all of it; debug files do instead: --debug-old, --debug-new", self.log.display());
            refused(format!("{what} failed: {why}"), &remedy)
        };
        let mut log = File::options().append(true).open(&self.log).map_err(|e| failed(e.to_string()))?;
        writeln!(log, "\n== {what}: {command:?}").map_err(|e| failed(e.to_string()))?;
        let errors = log.try_clone().map_err(|e| failed(e.to_string()))?;
        let status = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .status()
            .map_err(|e| failed(format!("{}: {e}", command.get_program().display())))?;
        if status.success() {
            return Ok(());
        }
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        Err(failed(lines.get(lines.len().saturating_sub(TOLD)..).unwrap_or_default().join("\n")))
    }

    fn remove(&self, dir: &Path) -> Result<(), Problem> {
        let removed = if dir.exists() { fs::remove_dir_all(dir) } else { Ok(()) };
        removed.map_err(|e| refused(format!("{} cannot be removed: {e}", dir.display()), "remove it"))
    }
}

impl Drop for Workshop<'_> {
    fn drop(&mut self) {
        // What was of use was taken out of it.
        let _ = self.remove(&self.place.join("root"));
    }
}

/// Runs a program as a user who is nobody here, and can become nobody else.
const CONFINED: [&str; 10] = [
    "setpriv",
    "--reuid",
    BUILDER,
    "--regid",
    BUILDER,
    "--clear-groups",
    "--no-new-privs",
    "--inh-caps=-all",
    "--bounding-set=-all",
    "--",
];
/// Nothing of this environment reaches it.
const CLEAN: [&str; 5] =
    ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"];
const BUILD: [&str; 1] = ["DEB_BUILD_OPTIONS=nostrip nocheck"];

fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_releases_of_debian_have_a_suite() {
        let debian = "ID=debian\nVERSION_CODENAME=bookworm\n";
        assert_eq!(suite_of(debian), Some("bookworm".to_owned()));
        assert_eq!(suite_of("ID=\"debian\"\nVERSION_CODENAME=\"trixie\"\n"), Some("trixie".to_owned()));
        assert_eq!(suite_of("ID=ubuntu\nVERSION_CODENAME=noble\n"), None);
        assert_eq!(suite_of("ID=debian\nVERSION_CODENAME=../etc\n"), None);
        assert_eq!(suite_of(""), None);
    }
}
