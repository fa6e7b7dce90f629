//! What `run --record` has recorded is lived through again by `replay`, without the program and without its world.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use harness::daemon::binary;
use harness::side_by_side::{Finished, Run};

const SCRIPT: &str = "echo a | tr a b; seq 1 100 | sort -rn | head -n 3; x=$(date +%N); (exit 4) || echo $?; \
                      ls /nowhere; echo \"$x\" | wc -c; exit 3";

fn recorded(dir: &Path, options: &[&str], command: &[&str]) -> Finished {
    let run = Run { dir, input: b"" };
    let options: Vec<&str> = ["--record", "recording"].iter().chain(options).copied().collect();
    run.with(&options, command)
}

fn mvedsuad(dir: &Path, args: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = Command::new(binary()).args(args).current_dir(dir).output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    (status.code().unwrap(), text)
}

fn replayed(dir: &Path, command: &[&str]) -> (i32, String) {
    mvedsuad(dir, &[&["replay", "recording", "--"], command].concat())
}

#[test]
fn what_was_recorded_is_lived_through_again() {
    let dir = tempfile::tempdir().unwrap();
    let command = ["sh", "-c", SCRIPT];
    let expected = Run { dir: dir.path(), input: b"" }.natively(&command);
    let finished = recorded(dir.path(), &[], &command);
    assert_eq!((finished.code, &finished.stdout), (3, &expected.stdout), "{}", finished.stderr);
    assert_eq!(finished.stderr, expected.stderr);
    let mode = dir.path().join("recording").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it may hold secrets");

    let (code, said) = replayed(dir.path(), &command);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(" followed: ") && said.contains("the recorded program exited with code 3"), "{said}");
    // As often as one likes.
    assert_eq!(replayed(dir.path(), &command).0, 0);
}

#[test]
fn a_follower_beside_the_recording_sees_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let command = [
        "/usr/bin/python3",
        "-c",
        "import os, threading\nfor i in range(20):\n threading.Thread(target=print, args=(i,)).start()",
    ];
    let finished = recorded(dir.path(), &["--self", "1"], &command);
    assert_eq!((finished.code, finished.outcomes()), (0, vec!["complete"]), "{}", finished.stderr);
    let (code, said) = replayed(dir.path(), &command);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn another_version_parts_from_the_recording() {
    let dir = tempfile::tempdir().unwrap();
    recorded(dir.path(), &[], &["sh", "-c", SCRIPT]);
    let (code, said) = replayed(dir.path(), &["sh", "-c", &SCRIPT.replace("tr a b", "tr a c")]);
    assert_eq!(code, 10, "{said}");
    assert!(said.contains("parted from process"), "{said}");
}

#[test]
fn a_log_that_is_too_small_only_takes_longer() {
    let dir = tempfile::tempdir().unwrap();
    let command = ["sh", "-c", "head -c 30000000 /dev/zero | cat | md5sum"];
    let finished = recorded(dir.path(), &["--log-memory", "256K", "--log-disk", "4M"], &command);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let args = [&["replay", "recording", "--log-memory", "256K", "--log-disk", "4M", "--"], &command[..]].concat();
    let (code, said) = mvedsuad(dir.path(), &args);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn nobody_waits_for_room_that_will_never_be_there() {
    let dir = tempfile::tempdir().unwrap();
    // The C library is mapped in one piece of two megabytes.
    let finished = recorded(dir.path(), &["--self", "1", "--log-memory", "256K", "--log-disk", "0"], &["echo", "on"]);
    assert_eq!((finished.code, &finished.stdout[..]), (0, "on\n"), "{}", finished.stderr);
    assert_eq!(finished.outcomes(), ["failed"]);
    assert!(finished.stderr.contains("the log had no room"), "{}", finished.stderr);
    assert_eq!(replayed(dir.path(), &["echo", "on"]).0, 12);
}

#[test]
fn a_recording_that_is_not_whole_shows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let command = ["sh", "-c", SCRIPT];
    recorded(dir.path(), &[], &command);
    let file = dir.path().join("recording");
    let bytes = std::fs::read(&file).unwrap();
    for part in [2, 3, 7] {
        std::fs::write(&file, &bytes[..bytes.len() * (part - 1) / part]).unwrap();
        let (code, said) = replayed(dir.path(), &command);
        assert_eq!(code, 12, "{said}");
        assert!(said.contains("the recording is not whole: it breaks off at byte"), "{said}");
    }
    std::fs::write(&file, "nothing of the kind").unwrap();
    let (code, said) = replayed(dir.path(), &command);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("this is no recording"), "{said}");
    let (code, said) = mvedsuad(dir.path(), &["replay", "missing", "--", "true"]);
    assert_eq!(code, 2, "{said}");
}

#[test]
fn no_file_is_written_over() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("recording"), "mine").unwrap();
    let finished = recorded(dir.path(), &[], &["touch", "made"]);
    assert_eq!(finished.code, 125, "{}", finished.stderr);
    let said = &finished.stderr;
    assert!(said.contains("the file recording is there already") && !said.contains("doctor"), "{said}");
    assert_eq!(std::fs::read_to_string(dir.path().join("recording")).unwrap(), "mine");
    assert!(!dir.path().join("made").exists(), "nothing was run");
}

#[test]
fn rules_are_tried_on_a_recording_of_many_processes() {
    let dir = tempfile::tempdir().unwrap();
    recorded(dir.path(), &[], &["sh", "-c", "for i in 1 2 3; do (echo line $i; exit 0); done"]);
    std::fs::write(dir.path().join("x.rules"), "rule plain write(1, /^line (?<n>.)/) => write(1, \"{n}\\n\")\n")
        .unwrap();
    let (code, said) = mvedsuad(dir.path(), &["rules", "test", "x.rules", "--recording", "recording"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains('3'), "{said}");
    // The version that the rules are for, without the one that it differs from.
    let args = ["replay", "recording", "--rules", "x.rules", "--", "sh", "-c"];
    let other = "for i in 1 2 3; do (echo $i; exit 0); done";
    let (code, said) = mvedsuad(dir.path(), &[&args[..], &[other]].concat());
    assert_eq!(code, 0, "{said}");
}

#[test]
fn no_bit_of_a_recording_flips_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let command = ["sh", "-c", SCRIPT];
    recorded(dir.path(), &[], &command);
    std::fs::write(dir.path().join("x.rules"), "rule none write(1, /^nobody/) => nothing\n").unwrap();
    let file = dir.path().join("recording");
    let bytes = std::fs::read(&file).unwrap();
    let tested = |dir: &Path| mvedsuad(dir, &["rules", "test", "x.rules", "--recording", "recording"]);
    assert_eq!(tested(dir.path()).0, 0);
    for part in 0..15 {
        let mut damaged = bytes.clone();
        let at = bytes.len() * part / 15 + part;
        damaged[at] ^= 1 << (part % 8);
        std::fs::write(&file, damaged).unwrap();
        for (code, said) in [replayed(dir.path(), &command), tested(dir.path())] {
            // Without its head it is no recording.
            let is_told =
                said.contains("it breaks off at byte") || said.contains("header") || said.contains("no recording");
            assert!([2, 12, 20].contains(&code) && is_told, "byte {at}: {code}: {said}");
        }
    }
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let (code, said) = tested(dir.path());
    assert_eq!(code, 12, "half a file: {said}");
    assert!(said.contains("it breaks off at byte"), "{said}");
}
