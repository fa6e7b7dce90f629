//! The command line, through the real binary: exit codes, errors that say what to do, and a real server. Needs root.

mod package;
mod support;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use self::support::{NOBODY, Place, Server, redis_ping, said, wait_for};

#[test]
fn usage_errors_exit_with_2_and_say_what_is_wrong() {
    let place = Place::new();
    for args in [&["frobnicate"][..], &["attach", "zero"], &["update", "1"], &["attach", "1", "--port", "1"], &[]] {
        place.expect(args, 2);
    }
    let said = place.expect(&["update", "1", "--to", "self", "--soak", "2h", "--timeout", "1h"], 2);
    assert!(said.err.contains("--timeout"), "{}", said.err);
    assert!(!place.dir.path().join("run").exists(), "nothing was started for that");
}

#[test]
fn without_a_daemon_every_client_says_so_and_what_to_do() {
    let place = Place::new();
    let server = Server::sleep();
    let pid = server.pid();
    let verbs: [&[&str]; 9] = [
        &["status"],
        &["detach", &pid],
        &["mode", "exact", &pid],
        &["stats", &pid],
        &["promote", &pid],
        &["confirm", &pid],
        &["rollback", &pid],
        &["history"],
        &["events", "--follow"],
    ];
    for args in verbs {
        let said = place.expect(args, 30);
        assert!(said.err.contains("control.sock") && said.err.contains("mvedsuad attach"), "{}", said.err);
        let with_json = [args, &["--json"]].concat();
        assert_eq!(place.expect(&with_json, 30).json()["error"]["code"], 30);
    }
}

#[test]
fn attach_starts_the_daemon_once_and_finds_the_process() {
    let place = Place::new();
    let server = Server::redis(place.dir.path());
    let pid = server.pid();
    place.expect(&["attach", "--port", &server.port.to_string(), "--mode", "exact"], 0);
    let daemon = place.daemon().expect("it runs");
    // It has left the session and the directory of whoever started it.
    let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(daemon))).expect("it runs");
    assert_eq!(session.as_raw(), daemon);
    let again = place.expect(&["attach", &pid], 20);
    assert!(again.err.contains("already observed"), "{}", again.err);
    assert_eq!(place.daemon(), Some(daemon), "no second daemon");
    let second = place.expect(&["daemon"], 20);
    assert!(second.err.contains("running already"), "{}", second.err);

    redis_ping(server.port);
    let stats = wait_for("the calls of a command", || {
        let stats = place.expect(&["stats", &pid, "--json"], 0).json();
        let calls = stats["processes"][0]["calls"].as_array().cloned().unwrap_or_default();
        calls.iter().any(|call| call["name"] == "write" && call["count"].as_u64() > Some(0)).then_some(stats)
    });
    assert_eq!(stats["mode"], "exact");
    let table = place.expect(&["stats"], 0);
    assert!(table.out.contains("write") && table.out.lines().all(|line| line.chars().count() <= 100), "{}", table.out);
    let export = place.dir.path().join("calls.hlog");
    place.expect(&["stats", "--export", &export.display().to_string()], 0);
    assert!(fs::read_to_string(&export).expect("it was written").contains("process-pid.call"), "an interval log");
    place.expect(&["mode", "sampled"], 0);
    let status = place.expect(&["status", &pid, "--json"], 0).json();
    assert_eq!(status["targets"][0]["monitor"]["options"]["mode"], "sampled");
    let top = place.expect(&["top"], 0);
    assert!(top.out.contains("redis-server") && top.out.contains("sampled"), "no terminal, so once: {}", top.out);
    assert_eq!(place.expect(&["top", "--json", &pid], 0).json()["pid"].to_string(), pid);
    let quiet = place.expect(&["detach", &pid, "--quiet"], 0);
    assert_eq!((quiet.out.as_str(), quiet.err.as_str()), ("", ""));
    place.expect(&["detach", &pid], 2);
    place.expect(&["status", &pid], 22);
}

#[test]
fn of_two_that_attach_at_once_one_starts_the_daemon_and_both_are_served() {
    let place = Place::new();
    let servers = [Server::sleep(), Server::sleep(), Server::sleep()];
    std::thread::scope(|scope| {
        for server in &servers {
            let place = &place;
            scope.spawn(move || place.expect(&["attach", &server.pid()], 0));
        }
    });
    let status = place.expect(&["status", "--json"], 0).json();
    assert_eq!(status["targets"].as_array().map(Vec::len), Some(3), "{status}");
}

#[test]
fn a_process_that_is_gone_or_not_there_exits_with_22() {
    let place = Place::new();
    let server = Server::sleep();
    let pid = server.pid();
    place.expect(&["attach", &pid], 0);
    drop(server);
    place.expect(&["update", &pid, "--to", "self"], 22);
    place.expect(&["attach", &pid], 22);
    place.expect(&["attach", "--exe", "/no/such/program"], 22);
    place.expect(&["doctor", "--target", &pid], 22);
}

#[test]
fn requests_without_an_update_are_usage_errors() {
    let place = Place::new();
    let server = Server::sleep();
    let pid = server.pid();
    place.expect(&["attach", &pid], 0);
    for verb in ["promote", "confirm", "rollback"] {
        let said = place.expect(&[verb, &pid], 2);
        assert!(said.err.contains("no update of it is under way"), "{}", said.err);
        place.expect(&[verb], 2);
    }
    place.expect(&["report", &pid], 2);
    assert!(place.expect(&["history"], 0).out.contains("no update has ended"));
}

#[test]
fn a_rehearsal_of_redis_is_validated_promoted_and_confirmed() {
    let place = Place::new();
    let server = Server::redis(place.dir.path());
    let pid = server.pid();
    assert_eq!(place.daemon(), None, "`update` starts it too");
    let waiting = std::thread::scope(|scope| {
        let update = scope.spawn(|| {
            let args = ["--soak", "100ms", "--min-calls", "20", "--min-outputs", "5", "--timeout", "1m", "--wait"];
            place.run(&[&["update", &pid, "--to", "self"][..], &args].concat())
        });
        while !update.is_finished() {
            redis_ping(server.port);
        }
        update.join().expect("it does not panic")
    });
    assert_eq!(waiting.code, 0, "{}{}{}", waiting.out, waiting.err, place.log());
    assert!(waiting.out.contains("validated"), "{}", waiting.out);
    let busy = place.expect(&["update", &pid, "--to", "self"], 20);
    assert!(busy.err.contains("under way") && busy.err.contains("rollback"), "{}", busy.err);
    place.expect(&["promote"], 0);
    let status = place.expect(&["status", &pid, "--json"], 0).json();
    assert_eq!(status["targets"][0]["stage"], "updated-leader");
    redis_ping(server.port);
    place.expect(&["confirm"], 0);
    redis_ping(server.port);
    let history = place.expect(&["history", "--json"], 0).json();
    assert_eq!((&history[0]["code"], &history[0]["pid"].to_string()), (&Value::from(0), &pid));
    place.expect(&["report", &pid], 0);
    let new = status["targets"][0]["pid"].as_i64().expect("a pid") as i32;
    let new = nix::unistd::Pid::from_raw(new);
    nix::sys::signal::kill(new, nix::sys::signal::Signal::SIGKILL).expect("the new version runs");
}

#[test]
fn too_little_traffic_is_inconclusive_and_a_rollback_is_told_apart() {
    let place = Place::new();
    let server = Server::redis(place.dir.path());
    let pid = server.pid();
    place.expect(&["attach", &pid], 0);
    let args = ["update", &pid, "--to", "self", "--soak", "100ms", "--min-outputs", "1000000"];
    let said = place.expect(&[&args[..], &["--promote", "auto", "--timeout", "1s", "--wait"]].concat(), 12);
    assert!(said.out.contains("before there was a verdict"), "{}", said.out);
    place.expect(&args, 0);
    wait_for("validating", || {
        let status = place.expect(&["status", &pid, "--json"], 0).json();
        (status["targets"][0]["stage"] == "outdated-leader/validating").then_some(())
    });
    let said = place.expect(&["promote", &pid], 12);
    assert!(said.err.contains("--force"), "{}", said.err);
    place.expect(&["rollback", &pid, "--reason", "second thoughts"], 0);
    let history = place.expect(&["history", "--json"], 0).json();
    assert_eq!(history[0]["code"], 10);
    assert!(history[0]["outcome"].to_string().contains("second thoughts"), "{history}");
    redis_ping(server.port);
}

#[test]
fn other_users_are_kept_out_until_they_are_let_in() {
    let place = Place::new();
    let server = Server::sleep();
    // The binary may lie where others cannot go.
    let copy = place.dir.path().join("mvedsuad");
    fs::copy(env!("CARGO_BIN_EXE_mvedsuad"), &copy).expect("there is room");
    let as_nobody = |args: &[&str]| {
        let mut command = Command::new(&copy);
        let dir = place.dir.path();
        command.args(args).env("MVEDSUA_RUNTIME_DIR", dir.join("run")).env("MVEDSUA_STATE_DIR", dir.join("state"));
        said(command.current_dir("/").stdin(Stdio::null()).uid(NOBODY).gid(NOBODY))
    };
    place.expect(&["attach", &server.pid()], 0);
    let out = as_nobody(&["status"]);
    assert_eq!(out.code, 30, "{}", out.err);
    assert!(out.err.contains("run it as root"), "{}", out.err);
    let daemon = nix::unistd::Pid::from_raw(place.daemon().expect("it runs"));
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGTERM).expect("it runs");
    wait_for("the end of the daemon", || place.daemon().is_none().then_some(()));

    let config = place.dir.path().join("mvedsuad.toml");
    fs::write(&config, "[access]\nobserve = [\"nobody\"]\n").expect("it is ours");
    place.expect(&["attach", &server.pid()], 0);
    let out = as_nobody(&["status", "--json"]);
    assert_eq!(out.code, 0, "{}", out.err);
    assert_eq!(out.json()["targets"], Value::Array(vec![]), "root's processes are not shown");
    let out = as_nobody(&["stats", &server.pid()]);
    assert_eq!(out.code, 20, "{}", out.err);
    assert!(out.err.contains("own"), "{}", out.err);
}

#[test]
fn doctor_tries_the_machine_and_looks_at_a_process() {
    let place = Place::new();
    let server = Server::sleep();
    let said = place.expect(&["doctor", "--target", &server.pid()], 0);
    for name in ["BTF", "ring buffer", "PTRACE_SYSEMU", "PTRACE_GET_SYSCALL_INFO", "pidfd_getfd", "process_vm_readv"] {
        assert!(said.out.contains(name), "{name}: {}", said.out);
    }
    assert!(said.out.lines().all(|line| line.chars().count() <= 100), "{}", said.out);
    let json = place.expect(&["doctor", "--target", &server.pid(), "--json"], 0).json();
    assert!(json["machine"].as_array().is_some_and(|checks| checks.len() > 8));
    assert_eq!(json["target"]["threads"], 1);
}

#[test]
fn help_manual_and_completions_come_from_the_same_source() {
    let place = Place::new();
    let help = place.expect(&["--help"], 0).out;
    for code in ["0", "2", "10", "11", "12", "13", "20", "21", "22", "23", "30", "40"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{code}  "))), "{code}: {help}");
    }
    let dir = place.dir.path().join("man");
    let name = dir.display().to_string();
    place.expect(&["generate", "man", &name], 0);
    let page = fs::read_to_string(dir.join("mvedsuad-update.1")).expect("each verb has a page");
    assert!(dir.join("mvedsuad-package-check.1").exists(), "and so has each verb of a verb");
    assert!(page.contains("EXIT STATUS") && page.contains("min\\-outputs"), "{page}");
    assert!(fs::read_to_string(dir.join("mvedsuad.1")).expect("there is a page").contains(".TP\n40\n"));
    place.expect(&["generate", "completions", &name], 0);
    assert!(fs::read_to_string(dir.join("mvedsuad.bash")).expect("for bash").contains("rollback"));
    assert!(dir.join("_mvedsuad").exists(), "for zsh");
}
