//! Every call that the table refuses, and one that it does not know, ends the update by name and nothing else: the leader's
//! own call is made as ever.

use harness::guests::rehearsal::{Rehearsal, STEP_LIMIT};
use harness::guests::{Guest, call_of, sources};
use mvedsua_daemon::update::{FailureKind, SessionEvent};

/// Makes one refused call while two versions run, and returns what the operator is told.
fn told_of(guest: &mut Guest, round: u32, word: &str) -> Vec<String> {
    let spill = tempfile::tempdir().unwrap();
    let mut session = Rehearsal::start(env!("CARGO_BIN_EXE_rehearse"), guest.pid(), spill.path()).unwrap();
    session.wait("the follower to catch up", |event| matches!(event, SessionEvent::CaughtUp)).unwrap();
    guest.round(round, word).unwrap();
    let failed = session.event("the refusal", STEP_LIMIT).unwrap();
    let SessionEvent::Failed(FailureKind::Refused(reasons)) = failed else { panic!("{word}: {failed:?}") };
    session.wait("the rollback", |event| matches!(event, SessionEvent::RolledBack { .. })).unwrap();
    session.finish().unwrap();
    reasons
}

#[test]
fn refused_calls_are_named() {
    let source = sources().unwrap().into_iter().find(|source| source.name == "refused").unwrap();
    let mut guest = Guest::start("refused").unwrap();
    let unknown = ["511".to_owned(), "ioctl".to_owned()];
    for (round, row) in (1..).zip(source.rows.iter().chain(&unknown)) {
        let reasons = told_of(&mut guest, round, row);
        assert!(reasons.iter().any(|reason| reason.contains(call_of(row))), "{row}: {reasons:?}");
    }
    guest.finish().unwrap();
}
