//! Nothing that a follower does has an effect outside of it.
//!
//! The guest `hostile` is told, by a word in the follower's memory alone, to turn on its surroundings there; the leader goes
//! on as before and looks after each attack whether anything has happened. What needs a system call ends the update; what
//! needs none (writing into memory that was shared) does not even do that, and is not seen either.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use harness::guests::Guest;
use harness::guests::rehearsal::Rehearsal;
use harness::process::{alive, session};
use mvedsua_daemon::update::{FailureKind, SessionEvent};

/// A guest in a session, marked in the follower.
struct Stage {
    session: Rehearsal,
    guest: Guest,
    follower: i32,
    _spill: tempfile::TempDir,
}

fn stage() -> Stage {
    let mut guest = Guest::start("hostile").unwrap();
    guest.round(1, "check").unwrap();
    let marker = guest.preface.iter().find_map(|line| line.strip_prefix("marker ")).expect("the marker's address");
    let marker = u64::from_str_radix(marker, 16).unwrap();
    let spill = tempfile::tempdir().unwrap();
    let mut session = Rehearsal::start(env!("CARGO_BIN_EXE_rehearse"), guest.pid(), spill.path()).unwrap();
    let forked = session.wait("the fork", |event| matches!(event, SessionEvent::Forked { .. })).unwrap();
    let SessionEvent::Forked { follower, .. } = forked else { panic!("{forked:?}") };
    session.wait("the follower to catch up", |event| matches!(event, SessionEvent::CaughtUp)).unwrap();
    let memory = OpenOptions::new().write(true).open(format!("/proc/{follower}/mem")).unwrap();
    memory.write_all_at(&1u64.to_le_bytes(), marker).unwrap();
    Stage { session, guest, follower, _spill: spill }
}

/// Waits for the end of the update and proves that nothing but the update has ended.
fn unharmed(mut stage: Stage) {
    let leader = stage.guest.pid();
    stage.session.wait("the rollback", |event| matches!(event, SessionEvent::RolledBack { .. })).unwrap();
    stage.session.finish().unwrap();
    assert!(alive(leader) && !alive(stage.follower));
    let left = session(leader);
    assert_eq!(left.len(), 1, "only the guest is left of its session: {left:?}");
    let mut files: Vec<_> = fs::read_dir(stage.guest.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["keep", "shared"]);
    assert_eq!(fs::read(stage.guest.dir().join("keep")).unwrap(), b"kept");
    assert_eq!(fs::read(stage.guest.dir().join("shared")).unwrap()[..4], [0; 4]);
    stage.guest.round(3, "check").unwrap();
    stage.guest.finish().unwrap();
}

/// An attack that needs a system call, or does harm to the follower itself.
fn ends_the_update(attack: &str) {
    let mut stage = stage();
    // The leader's answer: it has looked, and found nothing.
    stage.guest.round(2, attack).unwrap();
    let failed = loop {
        match stage.session.event("the update to fail", harness::guests::rehearsal::STEP_LIMIT).unwrap() {
            SessionEvent::Failed(kind) => break kind,
            SessionEvent::CaughtUp => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(failed, FailureKind::Diverged(_)), "{failed:?}");
    unharmed(stage);
}

/// An attack that nobody can see: it makes no call.
fn stays_inside(attack: &str) {
    let mut stage = stage();
    let before = stage.session.counters.compared_outputs;
    stage.guest.round(2, attack).unwrap();
    let lived = |now: &mvedsua_daemon::update::Counters| now.backlog == 0 && now.compared_outputs > before;
    stage.session.wait_counters("the follower to have attacked", lived).unwrap();
    stage.guest.round(3, "check").unwrap();
    stage.session.ask("rollback").unwrap();
    unharmed(stage);
}

macro_rules! attacks {
    ($judge:ident: $($test:ident $word:literal)*) => {
        $(#[test]
        fn $test() {
            $judge($word);
        })*
    };
}

attacks! { ends_the_update:
    writing_a_file "write-file"
    creating_a_file "create-file"
    emptying_a_file "truncate"
    sending "send"
    writing_a_pipe "write-pipe"
    shutting_down_a_connection "shutdown"
    closing_a_connection "close"
    closing_everything "close-range"
    killing_the_leader "kill"
    killing_the_group "kill-group"
    stopping_the_leader "stop"
    unlinking "unlink"
    renaming "rename"
    forking "fork"
    forking_with_shared_memory "vfork"
    starting_a_thread "thread"
    executing "exec"
    mapping_shared_memory "map-shared"
    writing_other_memory "other-memory"
    writing_memory_through_proc "proc-memory"
    making_a_ring "ring"
    being_traced "trace"
    a_call_of_the_32_bit_kind "old-call"
    a_call_of_the_x32_kind "x32-call"
    leaving "exit"
    crashing "crash"
    trapping "trap"
    spinning "spin"
    limiting_the_leader "limits"
}

attacks! { stays_inside:
    writing_a_shared_file_mapping "shared-file"
    writing_shared_memory "shared-memory"
    unmapping "unmap"
}
