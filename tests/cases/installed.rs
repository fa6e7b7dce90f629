//! The daemon as the package installs it: with the units of `dist/systemd`, started by its socket, with the rights that its
//! unit leaves it and no others.
//!
//! The manager is a user's, see [`Systemd`]; what that changes in a unit is the paths.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use harness::daemon::{Daemon, binary};
use harness::load::lines::{LineClient, ask};
use harness::load::{Load, Plan};
use harness::process;
use harness::prometheus::get;
use harness::server::{Server, free_port, under};
use harness::stand::{SINGLE, STEP_LIMIT, UPDATED, VALIDATING, code};
use harness::stock::{Addresses, Versions};
use harness::systemd::Systemd;
use harness::wait::wait_for;
use nix::sys::signal::Signal;

const SERVICE: &str = "mvedsuad.service";
const SOCKET: &str = "mvedsuad.socket";
/// Outputs that must be compared before a promotion.
const COMPARED: u64 = 100;

/// A file that the package installs.
fn shipped(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist").join(name)).unwrap()
}

/// Replaces what must be there.
#[track_caller]
fn replaced(text: &str, what: &str, with: &str) -> String {
    assert!(text.contains(what), "{what} is not in {text}");
    text.replace(what, with)
}

/// The client's folders, and a manager with the units for them, of which the socket is started. The manager is dropped before
/// the folders.
fn installed(watchdog: &str) -> (Systemd, Daemon) {
    installed_as(binary(), watchdog)
}

/// The same, with the daemon's file at a place of its own.
fn installed_as(program: &Path, watchdog: &str) -> (Systemd, Daemon) {
    let daemon = Daemon::prepare(binary()).unwrap();
    let systemd = Systemd::start().unwrap();
    let (run, state) = (daemon.runtime_dir().display().to_string(), daemon.state_dir().display().to_string());
    let config = daemon.config().display().to_string();
    let places = format!("--runtime-dir {run} --state-dir {state} --config {config}");
    let command = format!("{} {places} daemon --log-format json", program.display());
    let service = replaced(&shipped("systemd/mvedsuad.service"), "/usr/bin/mvedsuad daemon", &command);
    let service = replaced(&service, "WatchdogSec=60\n", &format!("WatchdogSec={watchdog}\n"));
    let service = replaced(&service, "[Service]\n", &format!("[Service]\nStandardError=append:{state}/daemon.log\n"));
    systemd.install(SERVICE, &service).unwrap();
    systemd.install(SOCKET, &replaced(&shipped("systemd/mvedsuad.socket"), "/run/mvedsua", &run)).unwrap();
    systemd.expect(&["start", SOCKET]);
    (systemd, daemon)
}

/// Starts a server as a user who owns nothing.
fn as_nobody(start: impl FnOnce() -> Server) -> Server {
    let command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut command = command.map(str::to_owned).to_vec();
    command[0] = process::find_program("setpriv").unwrap().display().to_string();
    under(&command, start)
}

/// Returns a field of `/proc/PID/status`.
fn status_of(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim_start_matches(':').trim().to_owned()
}

/// Brings a service to a version and back, and once more to it, for good.
fn updated(daemon: &Daemon, server: &Server, to: &Path) {
    let pid = server.serving_pid().unwrap();
    let number = pid.to_string();
    let validate = || {
        let to = to.display().to_string();
        daemon.expect(&["update", &number, "--to", &to, "--accept", "inferred"], code::DONE);
        daemon.wait_stage(pid, VALIDATING, STEP_LIMIT);
        wait_for(&format!("{COMPARED} compared outputs; daemon: {}", daemon.output()), STEP_LIMIT, || {
            daemon.status(pid).ok().flatten().filter(|status| status.compared_outputs >= COMPARED)
        });
        daemon.expect(&["promote", &number], code::DONE);
        daemon.wait_stage(pid, UPDATED, STEP_LIMIT);
    };
    validate();
    daemon.expect(&["rollback", &number], code::DONE);
    daemon.wait_stage(pid, SINGLE, STEP_LIMIT);
    validate();
    daemon.expect(&["confirm", &number], code::DONE);
    daemon.wait_stage(pid, SINGLE, STEP_LIMIT);
    assert_eq!(server.serving_pid(), Some(pid));
}

#[test]
fn the_rights_that_the_unit_leaves_are_enough_for_an_update() {
    let versions = Versions::new(Addresses::Anywhere).unwrap();
    let old = versions.service("1", &[]).unwrap();
    let new = versions.service("2", &["-DGREETING", "-DAREA"]).unwrap();
    let servers =
        [versions.start(&old).unwrap(), as_nobody(|| versions.start(&old).expect("it starts as another user"))];
    assert!(status_of(servers[1].pid(), "Uid").starts_with("65534"));
    let (systemd, daemon) = installed("60");
    assert_eq!(systemd.main_pid(SERVICE), 0, "nothing asks for the daemon yet");
    let mode = fs::metadata(daemon.runtime_dir().join("control.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody but root may ask for it");

    // The first request starts it.
    daemon.expect(&["status"], code::DONE);
    assert_eq!(systemd.property(SERVICE, "ActiveState"), "active");
    let pid = systemd.main_pid(SERVICE);
    assert!(pid > 0);
    let rights = u64::from_str_radix(&status_of(pid, "CapEff"), 16).unwrap();
    let (admin, trace) = (1 << 21, 1 << 19);
    assert_eq!(rights & (admin | trace), trace, "the unit leaves it some of root's rights: {rights:x}");
    assert_eq!(status_of(pid, "NoNewPrivs"), "1");

    for server in &servers {
        let number = server.pid().to_string();
        let clients = Load::start(Plan::busy(server.address, 4), |_| LineClient::default());
        daemon.expect(&["attach", &number, "--mode", "exact"], code::DONE);
        wait_for("observed calls", STEP_LIMIT, || {
            let calls = daemon.expect(&["stats", &number], code::DONE).stdout;
            calls.contains(" write ").then_some(())
        });
        updated(&daemon, server, &new);
        clients.stop().expect_clean();
        assert!(ask(server.address, "hello", STEP_LIMIT).unwrap().contains("version 2"));
        daemon.expect(&["detach", &number], code::DONE);
    }
    assert_eq!((systemd.main_pid(SERVICE), systemd.property(SERVICE, "NRestarts").as_str()), (pid, "0"));

    // It ends, the socket stays, and starts the next one.
    systemd.expect(&["stop", SERVICE]);
    assert_eq!(systemd.main_pid(SERVICE), 0);
    daemon.expect(&["history"], code::DONE);
    let next = systemd.main_pid(SERVICE);
    assert!(next > 0 && next != pid);
    daemon.expect_no_leftovers();
    // Each line of its log is an object with the update's number where there is one.
    let log = fs::read_to_string(daemon.state_dir().join("daemon.log")).unwrap();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    assert!(lines.iter().any(|line| line["update"].as_u64().is_some() && line["message"] == "stage"), "{log}");
}

#[test]
fn the_rights_that_the_unit_leaves_are_enough_to_be_watched_and_to_ask_gates() {
    const DENIED: i32 = 15;
    let versions = Versions::new(Addresses::Anywhere).unwrap();
    let server = versions.start(&versions.service("1", &[]).unwrap()).unwrap();
    let (pid, number) = (server.pid(), server.pid().to_string());
    let (systemd, daemon) = installed("60");
    let port = free_port().unwrap();
    let command = r#"["/bin/sh", "-c", 'echo "deny: $(id -un)"']"#;
    let config = format!("[http]\nlisten = \"127.0.0.1:{port}\"\n[[gate]]\nname = \"who\"\ncommand = {command}\n");
    fs::write(daemon.config(), config).unwrap();
    let clients = Load::start(Plan::busy(server.address, 4), |_| LineClient::default());
    daemon.expect(&["update", &number, "--to", "self"], code::DONE);
    daemon.wait_stage(pid, VALIDATING, STEP_LIMIT);
    wait_for("compared outputs", STEP_LIMIT, || {
        daemon.status(pid).ok().flatten().filter(|status| status.compared_outputs >= COMPARED)
    });
    let denied = daemon.expect(&["promote", &number], DENIED).stderr;
    assert!(denied.contains("`who` denies it: nobody"), "{denied}");
    daemon.wait_stage(pid, SINGLE, STEP_LIMIT);
    let (status, told) = get(port, "/metrics").unwrap();
    assert!(status == 200 && told.contains("gate=\"who\",answer=\"deny\"} 1"), "{status} {told}");
    clients.stop().expect_clean();
    assert!(systemd.main_pid(SERVICE) > 0);
}

#[test]
fn a_daemon_that_stands_still_is_started_anew_and_the_service_goes_on() {
    let versions = Versions::new(Addresses::Anywhere).unwrap();
    let server = versions.start(&versions.service("1", &[]).unwrap()).unwrap();
    let (systemd, daemon) = installed("5");
    let (pid, number) = (server.pid(), server.pid().to_string());
    let clients = Load::start(Plan::busy(server.address, 4), |_| LineClient::default());
    daemon.expect(&["update", &number, "--to", "self"], code::DONE);
    daemon.wait_stage(pid, VALIDATING, STEP_LIMIT);
    let first = systemd.main_pid(SERVICE);
    process::signal(first, Signal::SIGSTOP);
    wait_for("another daemon", STEP_LIMIT, || Some(systemd.main_pid(SERVICE)).filter(|pid| ![0, first].contains(pid)));
    let requests = clients.requests();
    wait_for("answers", STEP_LIMIT, || (clients.requests() > requests + 100).then_some(()));
    clients.stop().expect_clean();
    assert_eq!(server.serving_pid(), Some(pid));
    let past = daemon.expect(&["history", "--json"], code::DONE).stdout;
    assert!(past.contains("rolled"), "{past}");
}

/// Runs one of the package's scripts as dpkg does, with this machine's manager replaced by the one of the test.
fn maintain(systemd: &Systemd, daemon: &Daemon, script: &str, args: &[&str]) -> String {
    let tools = systemd.dir().join("tools");
    fs::create_dir_all(&tools).unwrap();
    let run = systemd.dir().join("run");
    let manager =
        format!("exec env -u DBUS_SESSION_BUS_ADDRESS XDG_RUNTIME_DIR={} /usr/bin/systemctl --user", run.display());
    let tool = |name: &str, text: &str| {
        let path = tools.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    tool("systemctl", &format!("[ \"$1\" = --system ] && shift\n{manager} \"$@\""));
    tool("deb-systemd-invoke", &format!("{manager} \"$@\""));
    tool("deb-systemd-helper", "exit 0");
    tool("systemd-tmpfiles", "exit 0");
    let text = shipped(&format!("debian/scripts/{script}"));
    let text = text.replace("/run/systemd/system", &run.display().to_string());
    let text = text.replace("/var/lib/mvedsua", &daemon.state_dir().display().to_string());
    let text = text.replace("/run/mvedsua", &daemon.runtime_dir().display().to_string());
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    let output = command.args(["-c", &text, script]).args(args).env("PATH", path).output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script}: {}{}", said(&output.stdout), said(&output.stderr));
    said(&output.stdout)
}

#[test]
fn an_upgrade_of_the_package_leaves_an_update_of_a_service_as_it_is() {
    let versions = Versions::new(Addresses::Anywhere).unwrap();
    let server = versions.start(&versions.service("1", &[]).unwrap()).unwrap();
    let (pid, number) = (server.pid(), server.pid().to_string());
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("mvedsuad");
    fs::copy(binary(), &program).unwrap();
    let (systemd, daemon) = installed_as(&program, "60");
    let clients = Load::start(Plan::busy(server.address, 4), |_| LineClient::default());
    daemon.expect(&["update", &number, "--to", "self"], code::DONE);
    daemon.wait_stage(pid, VALIDATING, STEP_LIMIT);
    let first = systemd.main_pid(SERVICE);

    // As dpkg does it: the old package's script, the new file in the place of the old one, the new package's script.
    let upgrade = || {
        maintain(&systemd, &daemon, "prerm", &["upgrade", "2.0"]);
        let new = place.path().join("mvedsuad.dpkg-new");
        fs::copy(binary(), &new).unwrap();
        fs::rename(&new, &program).unwrap();
        maintain(&systemd, &daemon, "postrm", &["upgrade", "2.0"]);
        maintain(&systemd, &daemon, "postinst", &["configure", "1.0"])
    };
    let told = upgrade();
    assert!(told.contains("an update of a service is under way"), "{told}");
    assert_eq!(systemd.main_pid(SERVICE), first, "its daemon goes on");
    assert!(fs::read_link(format!("/proc/{first}/exe")).unwrap().to_string_lossy().ends_with(" (deleted)"));
    daemon.wait_stage(pid, VALIDATING, STEP_LIMIT);
    wait_for("compared outputs", STEP_LIMIT, || {
        daemon.status(pid).ok().flatten().filter(|status| status.compared_outputs >= COMPARED)
    });
    daemon.expect(&["promote", &number], code::DONE);
    daemon.wait_stage(pid, UPDATED, STEP_LIMIT);
    // Another upgrade, between promotion and confirmation.
    assert!(upgrade().contains("an update of a service is under way"));
    daemon.expect(&["confirm", &number], code::DONE);
    daemon.wait_stage(pid, SINGLE, STEP_LIMIT);
    assert_eq!((systemd.main_pid(SERVICE), server.serving_pid()), (first, Some(pid)));
    clients.stop().expect_clean();

    // Nothing is under way: the new daemon runs after the next one.
    wait_for("the journal to be empty", STEP_LIMIT, || {
        (fs::read_dir(daemon.state_dir().join("journal")).unwrap().count() == 0).then_some(())
    });
    assert_eq!(upgrade(), "");
    let next = systemd.main_pid(SERVICE);
    assert!(next > 0 && next != first);
    assert_eq!(fs::read_link(format!("/proc/{next}/exe")).unwrap(), program);
    daemon.expect(&["status"], code::DONE);
    let past = daemon.expect(&["history", "--json"], code::DONE).stdout;
    assert!(past.contains("\"code\":0") && past.contains("updated: process"), "{past}");
}
