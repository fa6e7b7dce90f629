//! Filters of coreutils, as they come with the machine, go through an update to themselves while text flows through them:
//! what comes out is what comes out of one that nobody touched.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::JoinHandle;

use harness::guests::rehearsal::{Rehearsal, STEP_LIMIT};
use harness::process::{self, session};
use harness::wait::wait_for;
use mvedsua_daemon::update::SessionEvent;

/// A filter that runs; what it prints is collected.
struct Filter {
    child: Child,
    stdin: Option<ChildStdin>,
    output: JoinHandle<Vec<u8>>,
}

impl Filter {
    fn start(command: &[&str], dir: &Path) -> Filter {
        process::become_subreaper();
        let mut child = Command::new("setsid")
            .args(command)
            .current_dir(dir)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let mut stdout = child.stdout.take().unwrap();
        let output = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).unwrap();
            bytes
        });
        Filter { child, stdin, output }
    }

    fn feed(&mut self, text: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(text).unwrap();
    }

    /// Closes the input and returns the output, when all of the filter's session has ended.
    fn finish(mut self) -> Vec<u8> {
        let pid = self.child.id() as i32;
        self.stdin = None;
        wait_for("the filter to end", STEP_LIMIT, || {
            let _ = self.child.try_wait();
            session(pid).is_empty().then_some(())
        });
        self.output.join().unwrap()
    }
}

/// Text with repeated and with unsorted lines.
fn text(part: u64) -> Vec<u8> {
    let line = |i: u64| format!("{:05} line {} of\tpart {part}\n", (i * 7919 + part * 31) % 1000, i / 2);
    (0..400).flat_map(|i| line(i).into_bytes()).collect()
}

fn passes(command: &[&str]) {
    let (plain, moved, spill) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut filter = Filter::start(command, plain.path());
    (0..4).for_each(|part| filter.feed(&text(part)));
    let expected = filter.finish();

    let mut filter = Filter::start(command, moved.path());
    filter.feed(&text(0));
    let pid = filter.child.id() as i32;
    let name = Path::new(command[0]).file_name().unwrap().to_str().unwrap();
    wait_for("the filter to run", STEP_LIMIT, || (process::stat(pid)?.name == name).then_some(()));
    // It reads nothing more until it waits for more.
    wait_for("the filter to wait", STEP_LIMIT, || (process::stat(pid)?.state == 'S').then_some(()));
    let mut session = Rehearsal::start(env!("CARGO_BIN_EXE_rehearse"), pid, spill.path()).unwrap();
    session.wait("the follower to catch up", |event| matches!(event, SessionEvent::CaughtUp)).unwrap();
    filter.feed(&text(1));
    session.wait_counters("the follower to read", |now| now.replayed > 0 && now.backlog == 0).unwrap();
    session.ask("promote").unwrap();
    session.wait("the promotion", |event| matches!(event, SessionEvent::Promoted { .. })).unwrap();
    filter.feed(&text(2));
    session.wait_counters("the old version to read", |now| now.backlog == 0).unwrap();
    session.ask("confirm").unwrap();
    session.wait("the confirmation", |event| matches!(event, SessionEvent::Confirmed { .. })).unwrap();
    session.finish().unwrap();
    filter.feed(&text(3));
    let output = filter.finish();
    assert_eq!(String::from_utf8_lossy(&output), String::from_utf8_lossy(&expected));
    for entry in std::fs::read_dir(plain.path()).unwrap() {
        let name = entry.unwrap().file_name();
        let [a, b] = [&plain, &moved].map(|dir| std::fs::read(dir.path().join(&name)).unwrap());
        assert!(a == b, "{name:?} differs");
    }
}

macro_rules! filters {
    ($($test:ident: $($word:literal)+)*) => {
        $(#[test]
        fn $test() {
            passes(&[$($word),+]);
        })*
    };
}

filters! {
    base64: "base64"
    cat: "cat"
    cksum: "cksum"
    comm: "comm" "-" "/etc/passwd"
    csplit: "csplit" "-" "50" "{3}"
    cut: "cut" "-c1-8"
    dd: "dd" "bs=100" "status=none"
    expand: "expand"
    fold: "fold" "-w" "10"
    head: "head" "-n" "1500"
    md5sum: "md5sum"
    nl: "nl"
    od: "od" "-c"
    paste: "paste" "-" "-"
    sha256sum: "sha256sum"
    sort: "sort"
    sort_in_threads: "sort" "--parallel=2" "-S" "1M"
    split: "split" "-l" "100"
    tac: "tac"
    tail: "tail" "-n" "20"
    tee: "tee" "copy"
    tr: "tr" "a-z" "A-Z"
    uniq: "uniq" "-c"
    wc: "wc"
}
