//! Processes whose files are not on the disk any more are found, with what could be done about each; what is on the disk is not
//! taken for outdated. Needs root.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::daemon::{Daemon, binary};
use harness::wait::wait_for;
use serde_json::Value;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);
const DONE: i32 = 0;
const REFUSED: i32 = 20;
const OUTDATED: i32 = 24;

/// A process that is ended with the test.
struct Running {
    child: Child,
}

impl Running {
    /// Starts a program and waits until it has mapped its own code and a library's.
    fn start(command: &mut Command, program: &str, library: &str) -> Running {
        let running = Running { child: command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap() };
        let proc = PathBuf::from(format!("/proc/{}", running.id()));
        let runs = || fs::read_link(proc.join("exe")).ok()?.ends_with(program).then_some(());
        wait_for("the program to start", LIMIT, runs);
        let mapped = || fs::read_to_string(proc.join("maps")).ok()?.contains(library).then_some(());
        wait_for("its libraries", LIMIT, mapped);
        running
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> String {
        self.id().to_string()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A copy of `sleep` that runs.
struct Sleeper {
    dir: TempDir,
    running: Running,
}

impl Sleeper {
    fn start() -> Sleeper {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sleeper");
        copy(Path::new("/bin/sleep"), &path);
        let running = Running::start(Command::new(&path).arg("1000"), "sleeper", "libc.so");
        Sleeper { dir, running }
    }

    fn pid(&self) -> String {
        self.running.pid()
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("sleeper")
    }

    /// Replaces the file, as dpkg does it: the new one gets the name of the old one.
    fn replace(&self, by: &Path) {
        let new = self.dir.path().join("new");
        copy(by, &new);
        fs::rename(new, self.path()).unwrap();
    }
}

/// Copies a file with its time and its rights. This process must not have a program open for writing while another test forks.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--preserve").args([from, to]).status().unwrap();
    assert!(copied.success());
}

fn daemon() -> Daemon {
    Daemon::prepare(binary()).unwrap()
}

/// The build-id of a file, as the notes in it have it.
fn build_id(path: &str) -> String {
    let output = Command::new("readelf").args(["--notes", path]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).unwrap().to_owned()
}

fn looks(daemon: &Daemon, args: &[&str], code: i32) -> Value {
    daemon.expect(&[&["outdated", "--json"], args].concat(), code).json().unwrap()
}

#[test]
fn a_process_whose_files_are_on_the_disk_is_not_outdated() {
    let (daemon, sleeper) = (daemon(), Sleeper::start());
    let found = looks(&daemon, &[&sleeper.pid()], DONE);
    assert_eq!((&found["outdated"], &found["processes"]), (&Value::from(0), &Value::Array(vec![])));
    // The same build again is no other one.
    sleeper.replace(Path::new("/bin/sleep"));
    looks(&daemon, &[&sleeper.pid()], DONE);
    let said = daemon.expect(&["outdated", &sleeper.pid()], DONE);
    assert_eq!(said.stdout, "no process runs outdated code\n");
}

#[test]
fn a_program_that_was_replaced_is_named_with_both_builds_and_a_verdict() {
    let (daemon, sleeper) = (daemon(), Sleeper::start());
    sleeper.replace(Path::new("/bin/cat"));
    let found = looks(&daemon, &[&sleeper.pid()], OUTDATED);
    assert_eq!((&found["code"], &found["outdated"]), (&OUTDATED.into(), &1.into()));
    let process = &found["processes"][0];
    assert_eq!((&process["pid"], &process["name"]), (&sleeper.running.id().into(), &"sleeper".into()));
    assert_eq!(process["exe"], sleeper.path().to_str().unwrap());
    assert_eq!(process["files"].as_array().map(Vec::len), Some(1), "the libraries are on the disk: {process}");
    let file = &process["files"][0];
    assert_eq!((&file["path"], &file["evidence"]), (&sleeper.path().to_str().unwrap().into(), &"build-id".into()));
    assert_eq!(file["old_build_id"], build_id("/bin/sleep"));
    assert_eq!(file["new_build_id"], build_id("/bin/cat"));
    assert_eq!(file["package"], Value::Null);
    assert_eq!((&file["verdict"]["kind"], &process["verdict"]["kind"]), (&"restart".into(), &"restart".into()));
    assert!(file["verdict"]["why"].as_str().is_some_and(|why| why.len() > 10), "{file}");

    let path = sleeper.path();
    let found = looks(&daemon, &["--no-compare", "--exe", path.to_str().unwrap()], OUTDATED);
    assert_eq!(found["processes"][0]["verdict"]["kind"], "unknown");
    let said = daemon.expect(&["outdated", &sleeper.pid()], OUTDATED);
    assert!(said.stdout.contains("needs a restart") && said.stdout.contains(&build_id("/bin/cat")), "{}", said.stdout);
    assert!(said.stdout.lines().all(|line| line.chars().count() <= 100), "{}", said.stdout);
}

#[test]
fn a_program_that_was_removed_has_no_next_version() {
    let (daemon, sleeper) = (daemon(), Sleeper::start());
    fs::remove_file(sleeper.path()).unwrap();
    let found = looks(&daemon, &[&sleeper.pid()], OUTDATED);
    let file = &found["processes"][0]["files"][0];
    assert_eq!((&file["evidence"], &file["verdict"]["kind"]), (&"gone".into(), &"unknown".into()));
    assert_eq!((&file["old_build_id"], &file["new_build_id"]), (&build_id("/bin/sleep").into(), &Value::Null));
    assert!(file["verdict"]["why"].as_str().unwrap().contains("no file is there any more"), "{file}");
}

#[test]
fn a_file_that_is_no_program_any_more_says_so() {
    let (daemon, sleeper) = (daemon(), Sleeper::start());
    sleeper.replace(Path::new("/etc/passwd"));
    let found = looks(&daemon, &[&sleeper.pid()], OUTDATED);
    let verdict = &found["processes"][0]["files"][0]["verdict"];
    assert!(verdict["why"].as_str().unwrap().contains("no ELF file"), "{verdict}");
}

/// Compiles a program, or a library, that can say a text and never does; builds with other texts differ in nothing else.
fn compile(text: &str, path: &Path, options: &[&str]) {
    const SOURCE: &str = r#"
#include <unistd.h>
__attribute__((noinline)) int say(int to) { return (int)write(to, TEXT, sizeof TEXT) + to; }
int main(void) {
    for (;;) {
        usleep(1000);
        write(1, ".", 1);
        if (getppid() < 0) say(2);
    }
}
"#;
    let source = path.with_extension("c");
    fs::write(&source, SOURCE).unwrap();
    let built = Command::new("cc")
        .args(["-O2", "-Wl,--build-id"])
        .arg(format!("-DTEXT=\"{text}\""))
        .args(options)
        .arg("-o")
        .args([path, &source])
        .status()
        .unwrap();
    assert!(built.success());
    fs::remove_file(source).unwrap();
}

#[test]
fn the_root_of_the_process_counts_and_an_update_in_place_is_offered() {
    let (daemon, root) = (daemon(), tempfile::tempdir().unwrap());
    // What the process has under `/program` is not what this machine has there.
    let at = |name: &str| root.path().join(name);
    for file in ["/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"] {
        let to = at(file.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        copy(Path::new(file), &to);
    }
    compile("old", &at("program"), &[]);
    let mut command = Command::new("unshare");
    let sleeper =
        Running::start(command.args(["--mount", "chroot"]).arg(root.path()).arg("/program"), "program", "libc.so");
    looks(&daemon, &[&sleeper.pid()], DONE);
    compile("new", &at("next"), &[]);
    fs::rename(at("next"), at("program")).unwrap();
    let found = looks(&daemon, &[&sleeper.pid()], OUTDATED);
    let file = &found["processes"][0]["files"][0];
    assert_eq!((&file["path"], &file["evidence"]), (&"/program".into(), &"build-id".into()));
    assert_ne!(file["old_build_id"], file["new_build_id"]);
    assert_eq!((&file["verdict"]["kind"], &file["verdict"]["certainty"]), (&"update".into(), &"inferred".into()));
    assert_eq!((&found["updatable"], &found["processes"][0]["verdict"]["kind"]), (&1.into(), &"update".into()));
}

#[test]
fn a_library_is_found_under_its_next_name_and_compared_once() {
    let (daemon, dir) = (daemon(), tempfile::tempdir().unwrap());
    let at = |name: &str| dir.path().join(name);
    let options = ["-shared", "-fPIC", "-Wl,-soname,libsay.so.1"];
    compile("old", &at("libsay.so.1.0"), &options);
    let link = |to: &str| {
        symlink(to, at("link")).unwrap();
        fs::rename(at("link"), at("libsay.so.1")).unwrap();
    };
    link("libsay.so.1.0");
    let sleepers = [(); 2].map(|()| {
        let mut command = Command::new("/bin/sleep");
        Running::start(command.arg("1000").env("LD_PRELOAD", at("libsay.so.1")), "sleep", "libsay")
    });
    looks(&daemon, &[&sleepers[0].pid()], DONE);
    compile("new", &at("libsay.so.1.1"), &options);
    link("libsay.so.1.1");
    fs::remove_file(at("libsay.so.1.0")).unwrap();
    let found = looks(&daemon, &[], OUTDATED);
    for sleeper in &sleepers {
        let processes = found["processes"].as_array().unwrap();
        let process = processes.iter().find(|process| process["pid"] == sleeper.id()).unwrap();
        assert_eq!(process["files"].as_array().map(Vec::len), Some(1), "{process}");
        let file = &process["files"][0];
        assert_eq!(file["path"], at("libsay.so.1.0").to_str().unwrap());
        assert_eq!(file["new_path"], at("libsay.so.1").to_str().unwrap());
        assert_eq!((&file["evidence"], &file["verdict"]["kind"]), (&"build-id".into(), &"update".into()), "{file}");
    }
    let said = daemon.expect(&["outdated"], OUTDATED);
    assert_eq!(said.stdout.matches("libsay.so.1\n").count(), 1, "{}", said.stdout);
}

#[test]
fn files_without_build_ids_are_told_apart_by_size_and_time() {
    let (daemon, dir) = (daemon(), tempfile::tempdir().unwrap());
    let at = |name: &str| dir.path().join(name);
    let options = ["-Wl,--build-id=none"];
    compile("old", &at("program"), &options);
    let sleeper = Running::start(&mut Command::new(at("program")), "program", "libc.so");
    // A copy that keeps its time is what a package that is installed again leaves.
    copy(&at("program"), &at("next"));
    fs::rename(at("next"), at("program")).unwrap();
    looks(&daemon, &[&sleeper.pid()], DONE);
    compile("another", &at("next"), &options);
    fs::rename(at("next"), at("program")).unwrap();
    let found = looks(&daemon, &[&sleeper.pid()], OUTDATED);
    let file = &found["processes"][0]["files"][0];
    assert_eq!((&file["evidence"], &file["old_build_id"]), (&"other-file".into(), &Value::Null));
    assert!(file["verdict"]["why"].as_str().unwrap().contains("known by a build-id"), "{file}");
}

#[test]
fn what_was_updated_in_place_is_not_outdated_any_more() {
    let (daemon, dir) = (daemon(), tempfile::tempdir().unwrap());
    let at = |name: &str| dir.path().join(name);
    compile("old", &at("program"), &[]);
    let running = Running::start(&mut Command::new(at("program")), "program", "libc.so");
    compile("new", &at("next"), &[]);
    fs::rename(at("next"), at("program")).unwrap();
    let config = at("mvedsuad.toml");
    fs::write(&config, "[outdated]\naccept = \"inferred\"\nsoak = \"100ms\"\n").unwrap();
    let args = ["--config", config.to_str().unwrap(), "outdated", "--update", &running.pid()];
    let said = daemon.expect(&args, DONE);
    assert!(said.stdout.contains("updating process"), "{}", said.stdout);
    looks(&daemon, &[&running.pid()], DONE);
}

#[test]
fn all_processes_are_looked_at_and_the_hook_says_it_in_one_line() {
    let (daemon, sleeper) = (daemon(), Sleeper::start());
    sleeper.replace(Path::new("/bin/cat"));
    let found = looks(&daemon, &[], OUTDATED);
    let processes = found["processes"].as_array().unwrap();
    assert!(processes.iter().any(|process| process["pid"] == sleeper.running.id()), "{found}");

    let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/apt/99mvedsuad");
    let config = Command::new("apt-config")
        .arg("-c")
        .arg(&hook)
        .args(["dump", "--no-empty", "--format", "%v%n", "DPkg::Post-Invoke"])
        .output()
        .unwrap();
    assert!(config.status.success(), "{config:?}");
    let config = String::from_utf8_lossy(&config.stdout).into_owned();
    let script = config.lines().find(|line| line.contains("mvedsuad")).unwrap();
    let run = |path: &str| Command::new("sh").args(["-c", script]).env("PATH", path).output().unwrap();
    let path = format!("{}:/usr/bin:/bin", binary().parent().unwrap().display());
    let start = Instant::now();
    let said = run(&path);
    assert!(start.elapsed() < Duration::from_secs(6) && said.status.success(), "{said:?}");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(text.starts_with("mvedsuad: ") && text.contains("outdated code") && text.lines().count() == 1, "{text:?}");
    let absent = run("/usr/bin:/bin");
    assert!(absent.status.success() && absent.stdout.is_empty(), "{absent:?}");
}

#[test]
fn nothing_is_updated_unless_the_configuration_accepts_it() {
    let (daemon, sleeper) = (daemon(), Sleeper::start());
    sleeper.replace(Path::new("/bin/cat"));
    let config = daemon.state_dir().join("mvedsuad.toml");
    let args = ["--config", config.to_str().unwrap(), "outdated", "--update", &sleeper.pid()];
    let said = daemon.expect(&args, REFUSED);
    assert!(said.stderr.contains("accept = \"inferred\""), "{}", said.stderr);
    fs::write(&config, "[outdated]\naccept = \"inferred\"\nsoak = \"1s\"\n").unwrap();
    // Nothing of this process can be updated, so nothing is tried.
    let said = daemon.expect(&args, DONE);
    assert!(said.stdout.contains("needs a restart") && !said.stdout.contains("updating"), "{}", said.stdout);
    assert_eq!(daemon.pid(), None, "no daemon was started for that");
}
