//! Every guest goes through an update to itself: forked, rehearsed round by round, promoted and confirmed, or rolled back
//! before and after the promotion. In each stage it plays rounds, and each of its calls is compared.

use std::os::unix::fs::FileExt;

use harness::guests::Guest;
use harness::guests::rehearsal::{Rehearsal, STEP_LIMIT};
use harness::process::alive;
use harness::snapshot::Snapshot;
use mvedsua_daemon::update::{AtStops, SessionEvent};

/// Guests whose threads compute until another writes to their memory: what a thread does when depends on that moment, which no
/// order of calls tells.
const TIMED_BY_MEMORY: [&str; 1] = ["faults"];

/// A guest with a session.
struct Pair {
    // Dropped first, so that no tracer is left when the guest is ended.
    session: Option<Rehearsal>,
    guest: Guest,
    /// How its threads run while they are recorded, and where they stop.
    how: [&'static str; 2],
    round: u32,
    _spill: tempfile::TempDir,
}

impl Pair {
    fn start(name: &str, stops: &'static str) -> Pair {
        Pair::start_with(name, [if TIMED_BY_MEMORY.contains(&name) { "free" } else { "one-by-one" }, stops])
    }

    fn start_with(name: &str, how: [&'static str; 2]) -> Pair {
        let guest = Guest::start(name).unwrap();
        let spill = tempfile::tempdir().unwrap();
        let mut pair = Pair { session: None, guest, how, round: 0, _spill: spill };
        pair.rounds(2, "by itself");
        pair.fork();
        pair
    }

    fn fork(&mut self) {
        let program = env!("CARGO_BIN_EXE_rehearse");
        let session = Rehearsal::start_with(program, self.guest.pid(), self._spill.path(), self.how);
        self.session = Some(session.unwrap());
        self.wait("the fork", |event| matches!(event, SessionEvent::Forked { .. }));
        self.wait("the follower to catch up", |event| matches!(event, SessionEvent::CaughtUp));
    }

    fn roll_back(&mut self) {
        let old = self.guest.pid();
        self.session().ask("rollback").unwrap();
        self.wait("the rollback", |event| matches!(event, SessionEvent::RolledBack { leader } if *leader == old));
    }

    fn session(&mut self) -> &mut Rehearsal {
        self.session.as_mut().unwrap()
    }

    fn wait(&mut self, what: &str, wanted: impl Fn(&SessionEvent) -> bool) -> SessionEvent {
        self.session().wait(what, wanted).unwrap()
    }

    /// Plays rounds; the stage is for the message.
    fn rounds(&mut self, count: u32, stage: &str) {
        for _ in 0..count {
            self.round += 1;
            let answer = self.guest.round(self.round, "");
            if let Err(error) = answer {
                panic!(
                    "{stage}, round {}: {error:#}; session: {:#?}",
                    self.round,
                    self.session.as_mut().map(|s| &s.seen)
                );
            }
        }
    }

    /// Plays rounds until the follower has lived through them.
    fn compared_rounds(&mut self, stage: &str) {
        let before = self.session().counters.compared_outputs;
        self.rounds(3, stage);
        let what = format!("the follower to answer ({stage})");
        self.session().wait_counters(&what, |now| now.backlog == 0 && now.compared_outputs >= before + 3).unwrap();
    }

    /// Promotes; on a busy machine the pause that is allowed may be too short for the first attempts.
    fn promote(&mut self) -> i32 {
        let mut reasons = Vec::new();
        while reasons.len() < 20 {
            self.session().ask("promote").unwrap();
            match self.session().event("the promotion", STEP_LIMIT).unwrap() {
                SessionEvent::Promoted { leader, .. } => return leader,
                SessionEvent::PromotionAbandoned { reason } if reason.contains("within") => reasons.push(reason),
                other => {
                    let next = self.session().event("what ended it", STEP_LIMIT);
                    panic!("{other:?}, then {next:#?}")
                }
            }
        }
        panic!("abandoned again and again: {reasons:?}");
    }

    fn end(mut self) {
        self.session.take().unwrap().finish().unwrap();
        self.rounds(2, "by itself again");
        self.guest.finish().unwrap();
    }
}

fn promoted(name: &str) {
    let mut pair = Pair::start(name, "each-call");
    let old = pair.guest.pid();
    pair.compared_rounds("validating");
    let new = pair.promote();
    assert_eq!(new, old, "the same process serves");
    pair.compared_rounds("updated");
    pair.session().ask("confirm").unwrap();
    pair.wait("the confirmation", |event| matches!(event, SessionEvent::Confirmed { .. }));
    assert!(alive(old), "the process stays");
    pair.end();
}

#[test]
fn a_thread_that_is_alone_is_recorded_without_stops() {
    let mut pair = Pair::start("descriptors", "eager");
    pair.compared_rounds("validating");
    let counters = pair.session().counters;
    assert!(counters.without_stops > counters.recorded / 2, "{counters:?}");
    pair.roll_back();
    pair.end();
    let mut pair = Pair::start("descriptors", "each-call");
    pair.compared_rounds("validating");
    assert_eq!(pair.session().counters.without_stops, 0);
    pair.roll_back();
    pair.end();
}

#[test]
fn a_follower_is_answered_without_stops() {
    let mut pair = Pair::start("descriptors", "eager-follower");
    pair.compared_rounds("validating");
    let counters = pair.session().counters;
    assert!(counters.answered.without_stops > 0 && counters.answered.at_stops.is_none(), "{counters:?}");
    pair.promote();
    pair.compared_rounds("updated");
    pair.session().ask("confirm").unwrap();
    pair.wait("the confirmation", |event| matches!(event, SessionEvent::Confirmed { .. }));
    assert_eq!(changed_code(pair.guest.pid()), Vec::<String>::new(), "no call site stays rewritten");
    pair.end();
    let mut pair = Pair::start("descriptors", "each-call");
    pair.compared_rounds("validating");
    let counters = pair.session().counters;
    assert_eq!((counters.answered.without_stops, counters.answered.at_stops), (0, Some(AtStops::Asked)));
    pair.roll_back();
    pair.end();
}

/// Returns where the code of a process is not what is in the file that it is mapped from.
fn changed_code(pid: i32) -> Vec<String> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut changed = Vec::new();
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [range, "r-xp", offset, _, _, path] = fields[..] else { continue };
        let Ok(file) = std::fs::read(path) else { continue };
        let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = range.split_once('-').map(|(start, end)| (hex(start), hex(end))).unwrap();
        let mut there = vec![0; (end - start) as usize];
        memory.read_exact_at(&mut there, start).unwrap();
        let here = file.get(hex(offset) as usize..).unwrap_or_default();
        let differs = there.iter().zip(here).position(|(one, other)| one != other);
        changed.extend(differs.map(|at| format!("{path} at {at:#x}")));
    }
    changed
}

#[test]
fn threads_that_run_freely_are_followed_too() {
    for name in ["threads", "contended", "crowd", "waiting"] {
        let mut pair = Pair::start_with(name, ["free", "eager"]);
        pair.compared_rounds("validating");
        pair.promote();
        pair.compared_rounds("updated");
        pair.session().ask("confirm").unwrap();
        pair.wait("the confirmation", |event| matches!(event, SessionEvent::Confirmed { .. }));
        pair.end();
    }
}

fn rolled_back(name: &str) {
    let mut pair = Pair::start(name, "eager-follower");
    pair.compared_rounds("validating");
    pair.roll_back();
    pair.session.take().unwrap().finish().unwrap();
    // Once more, with nothing to do in between: then nothing may be different.
    let before = Snapshot::of(pair.guest.pid());
    pair.fork();
    pair.roll_back();
    assert_eq!(before.differences(&Snapshot::of(pair.guest.pid())), Vec::<String>::new());
    pair.end();
}

fn rolled_back_after_promotion(name: &str) {
    let mut pair = Pair::start(name, "eager");
    pair.compared_rounds("validating");
    pair.promote();
    pair.compared_rounds("updated");
    pair.roll_back();
    pair.end();
}

/// The tests of each guest; one that is not named here fails `every_guest_is_rehearsed`.
macro_rules! rehearsals {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(mod $name {
            #[test]
            fn promoted() {
                super::promoted(stringify!($name));
            }

            #[test]
            fn rolled_back() {
                super::rolled_back(stringify!($name));
            }

            #[test]
            fn rolled_back_after_promotion() {
                super::rolled_back_after_promotion(stringify!($name));
            }
        })*
    };
}

rehearsals! {
    areas
    cancelled
    contended
    counting
    crowd
    descriptors
    faults
    forks
    handlers
    identity
    itself
    inheriting
    interrupts
    ipc
    kept
    locks
    machine
    many
    mappings
    memory
    moved
    offspring
    owners
    passing
    paths
    process
    requests
    retired
    selecting
    signals
    sockets
    stopped
    terminals
    threads
    ticks
    timers
    unblocked
    vdso
    waiting
    xattrs
}

/// Guests that have tests of their own.
const APART: [&str; 3] = ["boundto", "hostile", "refused"];

/// Plays one round with a word of its own.
fn round_with(pair: &mut Pair, word: &str) {
    pair.round += 1;
    pair.guest.round(pair.round, word).unwrap();
}

/// Starts a guest with a round of its own, and an update of it.
fn prepared(name: &str, word: &str) -> Pair {
    let mut guest = Guest::start(name).unwrap();
    guest.round(1, word).unwrap();
    let spill = tempfile::tempdir().unwrap();
    let mut pair = Pair { session: None, guest, how: ["one-by-one", "eager"], round: 1, _spill: spill };
    pair.rounds(2, "by itself");
    pair.fork();
    pair
}

fn confirm(pair: &mut Pair) {
    pair.session().ask("confirm").unwrap();
    pair.wait("the confirmation", |event| matches!(event, SessionEvent::Confirmed { .. }));
    pair.session.take().unwrap().finish().unwrap();
}

/// A program that is bound to the kernel by what belongs to its process has it still, whichever version serves.
fn bound_and_updated(word: &str) {
    let mut pair = prepared("boundto", word);
    pair.compared_rounds("validating");
    pair.promote();
    pair.compared_rounds("updated");
    pair.roll_back();
    pair.session.take().unwrap().finish().unwrap();
    pair.rounds(2, "rolled back");
    pair.fork();
    pair.compared_rounds("validating again");
    pair.promote();
    pair.compared_rounds("updated again");
    confirm(&mut pair);
    pair.rounds(2, "by itself again");
    if word == "terminal" {
        round_with(&mut pair, "leave");
    }
    pair.guest.finish().unwrap();
}

#[test]
fn who_leads_a_session_with_a_terminal_is_updated() {
    bound_and_updated("terminal");
}

#[test]
fn who_waits_to_be_told_of_a_message_is_updated() {
    bound_and_updated("notify");
}

#[test]
fn who_maps_a_file_shared_and_writable_is_updated() {
    bound_and_updated("share");
}

/// What the kernel reads in a mutex with inherited priority is the number of its owner.
#[test]
fn mutexes_that_others_wait_for_with_inherited_priority_are_kept() {
    // The second ends what the first began.
    let mut pair = prepared("owners", "inherit");
    pair.compared_rounds("validating");
    pair.promote();
    round_with(&mut pair, "inherit");
    pair.compared_rounds("updated");
    round_with(&mut pair, "inherit");
    pair.roll_back();
    round_with(&mut pair, "inherit");
    pair.end();
}

/// The kernel tells the next owner, if it finds the number of the dead thread in the mutex.
#[test]
fn the_death_of_a_mutex_s_owner_is_told_in_each_stage() {
    let mut pair = prepared("owners", "die");
    round_with(&mut pair, "die");
    pair.compared_rounds("validating");
    pair.promote();
    round_with(&mut pair, "die");
    pair.compared_rounds("updated");
    pair.roll_back();
    round_with(&mut pair, "die");
    pair.end();
}

/// One promotion after another: half of them confirmed, and the others taken back.
fn promoted_again_and_again(name: &str) {
    let mut pair = Pair::start(name, "eager");
    for promotion in 1..=20 {
        pair.rounds(1, "validating");
        pair.promote();
        pair.rounds(1, "updated");
        if promotion % 2 == 0 {
            confirm(&mut pair);
        } else {
            pair.roll_back();
            pair.session.take().unwrap().finish().unwrap();
        }
        pair.rounds(1, "by itself");
        pair.fork();
    }
    pair.roll_back();
    pair.end();
}

#[test]
fn numbers_are_kept_over_twenty_promotions() {
    promoted_again_and_again("kept");
}

#[test]
fn mutexes_are_kept_over_twenty_promotions() {
    promoted_again_and_again("owners");
}

#[test]
fn threads_are_cancelled_over_twenty_promotions() {
    promoted_again_and_again("cancelled");
}

#[test]
fn every_guest_is_rehearsed() {
    for source in harness::guests::sources().unwrap() {
        assert!(NAMES.contains(&&*source.name) || APART.contains(&&*source.name), "{} is not rehearsed", source.name);
    }
}
