//! Any program that follows itself ends as it did; any other one is found out. Nobody hangs.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::follower::{Order, Outcome, follow, follow_to};
use super::leader::{record, record_until};
use super::program::{Meeting, Op, Program};
use crate::record::Event;
use crate::record::interleaving::Interleaving;

/// How many programs are tried, each with several interleavings of its stops.
const PROGRAMS: u64 = 1_500;
const FOLLOWERS: usize = 2;

fn meeting(interleaving: Interleaving) -> Meeting {
    match interleaving {
        Interleaving::OneByOne => Meeting::Anywhere,
        Interleaving::Free => Meeting::InCalls,
    }
}

/// Records programs, changes each for the follower, and asks `expected` about what came of it. The change says whether it
/// could be made.
fn try_all(
    interleaving: Interleaving,
    change: impl Fn(&mut Program, &mut StdRng) -> bool,
    expected: impl Fn(&Outcome) -> bool,
) {
    try_all_that_meet(meeting(interleaving), interleaving, change, expected);
}

/// The same of programs whose threads meet so.
fn try_all_that_meet(
    meeting: Meeting,
    interleaving: Interleaving,
    change: impl Fn(&mut Program, &mut StdRng) -> bool,
    expected: impl Fn(&Outcome) -> bool,
) {
    let mut tried = 0;
    for seed in 0..PROGRAMS {
        let mut rng = StdRng::seed_from_u64(seed);
        let program = Program::random(&mut rng, meeting);
        let records = record(&program, interleaving, &mut rng);
        for _ in 0..FOLLOWERS {
            let mut other = program.clone();
            if !change(&mut other, &mut rng) {
                continue;
            }
            let outcome = follow(&other, records.clone(), interleaving, &mut rng);
            assert!(
                expected(&outcome),
                "seed {seed}, {interleaving:?}: {outcome:?}\n{program:?}\n{other:?}\n{records:#?}"
            );
            tried += 1;
        }
    }
    assert!(tried > PROGRAMS, "only {tried} followers were tried");
}

fn is_same(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Same(_))
}

fn is_same_in_order(outcome: &Outcome) -> bool {
    *outcome == Outcome::Same(Order::Known)
}

fn is_found_out(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Differs(_))
}

/// Returns a place in a program where there is such a step.
fn place(program: &Program, rng: &mut StdRng, is_one: impl Fn(Op) -> bool) -> Option<(usize, usize)> {
    let places: Vec<(usize, usize)> = (program.threads.iter().enumerate())
        .flat_map(|(thread, ops)| (0..ops.len()).map(move |at| (thread, at)))
        .filter(|(thread, at)| is_one(program.threads[*thread][*at]))
        .collect();
    (!places.is_empty()).then(|| places[rng.random_range(0..places.len())])
}

fn touches_the_world(op: Op) -> bool {
    matches!(op, Op::Read { .. } | Op::Write { .. })
}

#[test]
fn a_program_follows_itself_whatever_the_order_of_its_stops() {
    try_all(Interleaving::OneByOne, |_, _| true, is_same_in_order);
    try_all(Interleaving::Free, |_, _| true, is_same);
}

#[test]
fn another_argument_is_found() {
    let change = |program: &mut Program, rng: &mut StdRng| {
        let Some((thread, at)) = place(program, rng, touches_the_world) else { return false };
        match &mut program.threads[thread][at] {
            Op::Read { fd, len } | Op::Write { fd, len } if rng.random_bool(0.5) => (*fd, *len) = (*fd + 10, *len),
            Op::Read { len, .. } | Op::Write { len, .. } => *len += 1,
            other => panic!("{other:?}"),
        }
        true
    };
    try_all(Interleaving::OneByOne, change, is_found_out);
    try_all(Interleaving::Free, change, is_found_out);
}

#[test]
fn a_call_that_is_missing_or_made_once_more_is_found() {
    let missing = |program: &mut Program, rng: &mut StdRng| {
        let Some((thread, at)) = place(program, rng, touches_the_world) else { return false };
        program.threads[thread].remove(at);
        true
    };
    let more = |program: &mut Program, rng: &mut StdRng| {
        let Some((thread, at)) = place(program, rng, touches_the_world) else { return false };
        let op = program.threads[thread][at];
        program.threads[thread].insert(at, op);
        true
    };
    for interleaving in [Interleaving::OneByOne, Interleaving::Free] {
        try_all(interleaving, missing, is_found_out);
        try_all(interleaving, more, is_found_out);
    }
}

#[test]
fn other_bytes_are_found() {
    // What a thread knows changes with what it reads: here it takes another number of steps to know the same.
    let change = |program: &mut Program, rng: &mut StdRng| {
        let Some((thread, at)) = place(program, rng, |op| matches!(op, Op::Day)) else { return false };
        program.threads[thread][at] = Op::Share(9);
        true
    };
    try_all(Interleaving::OneByOne, change, is_found_out);
}

#[test]
fn an_early_end_is_found() {
    let change = |program: &mut Program, rng: &mut StdRng| {
        let Some((thread, at)) = place(program, rng, touches_the_world) else { return false };
        program.threads[thread].truncate(at);
        true
    };
    try_all(Interleaving::OneByOne, change, is_found_out);
    try_all(Interleaving::Free, change, is_found_out);
}

#[test]
fn a_thread_that_is_not_woken_is_found() {
    let change = |program: &mut Program, rng: &mut StdRng| {
        let waited = |op: Op| match op {
            Op::Wake(word) => program.threads.iter().flatten().any(|other| *other == Op::Wait(word)),
            _ => false,
        };
        let Some((thread, at)) = place(program, rng, waited) else { return false };
        program.threads[thread].remove(at);
        true
    };
    let found = |interleaving| {
        let mut tried = 0;
        for seed in 0..PROGRAMS {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut program = Program::random(&mut rng, meeting(interleaving));
            let records = record(&program, interleaving, &mut rng);
            if change(&mut program, &mut rng) {
                let outcome = follow(&program, records, interleaving, &mut rng);
                assert!(is_found_out(&outcome), "seed {seed}: {outcome:?}");
                tried += 1;
            }
        }
        assert!(tried > PROGRAMS / 20, "only {tried} followers were tried");
    };
    found(Interleaving::OneByOne);
    found(Interleaving::Free);
}

#[test]
fn a_log_that_breaks_off_is_found() {
    for interleaving in [Interleaving::OneByOne, Interleaving::Free] {
        for seed in 0..PROGRAMS {
            let mut rng = StdRng::seed_from_u64(seed);
            let program = Program::random(&mut rng, meeting(interleaving));
            let mut records = record(&program, interleaving, &mut rng);
            records.truncate(rng.random_range(0..records.len()));
            let outcome = follow(&program, records, interleaving, &mut rng);
            // All that is missing may be that the last thread has ended.
            assert!(!matches!(outcome, Outcome::Hangs(_)), "seed {seed}, {interleaving:?}: {outcome:?}");
        }
    }
}

#[test]
fn a_record_that_is_lost_is_found_or_means_nothing() {
    for interleaving in [Interleaving::OneByOne, Interleaving::Free] {
        for seed in 0..PROGRAMS {
            let mut rng = StdRng::seed_from_u64(seed);
            let program = Program::random(&mut rng, meeting(interleaving));
            let mut records = record(&program, interleaving, &mut rng);
            let lost = records.remove(rng.random_range(0..records.len()));
            let outcome = follow(&program, records, interleaving, &mut rng);
            assert!(
                !matches!(outcome, Outcome::Hangs(_)),
                "seed {seed}, {interleaving:?}: {outcome:?} without {lost:?}"
            );
            let of_the_world = match &lost.event {
                Event::Call(entry, _) | Event::Enter(entry) => {
                    [libc::SYS_read, libc::SYS_write].contains(&i64::from(entry.nr))
                }
                _ => false,
            };
            assert!(
                !of_the_world || is_found_out(&outcome),
                "seed {seed}, {interleaving:?}: {outcome:?} without {lost:?}"
            );
        }
    }
}

/// Holds leaders anywhere, and asks `expected` what came of followers that `change` has made something else of.
fn hold_all(change: impl Fn(&mut Program, &mut StdRng) -> bool, expected: impl Fn(&Outcome) -> bool) {
    for interleaving in [Interleaving::OneByOne, Interleaving::Free] {
        for seed in 0..PROGRAMS {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut program = Program::random(&mut rng, Meeting::InCalls);
            let most = rng.random_range(0..60);
            let (records, held) = record_until(&program, interleaving, &mut rng, most);
            if held.is_empty() || !change(&mut program, &mut rng) {
                continue;
            }
            let outcome = follow_to(&program, records.clone(), held.clone(), interleaving, &mut rng);
            assert!(
                expected(&outcome),
                "seed {seed}, {interleaving:?}: {outcome:?}\n{program:?}\n{records:#?}\n{held:?}"
            );
        }
    }
}

#[test]
fn a_follower_comes_to_where_its_leader_is_held() {
    hold_all(|_, _| true, |outcome| *outcome == Outcome::Ready);
}

#[test]
fn a_follower_that_asks_for_the_time_more_often_comes_there_as_well() {
    hold_all(|program, rng| more(program, rng, &[Op::Clock, Op::Map]), |outcome| *outcome == Outcome::Ready);
}

/// Inserts steps of these kinds into a program.
fn more(program: &mut Program, rng: &mut StdRng, kinds: &[Op]) -> bool {
    for _ in 0..3 {
        // The leader's first questions are those that others are answered by.
        let Some((thread, at)) = place(program, rng, |op| op != Op::Clock && op != Op::Day) else { return false };
        program.threads[thread].insert(at, kinds[rng.random_range(0..kinds.len())]);
    }
    true
}

/// Takes a step of one of these kinds out of a program.
fn less(program: &mut Program, rng: &mut StdRng, kinds: &[Op]) -> bool {
    let found = place(program, rng, |op| kinds.contains(&op)).filter(|place| *place != (0, 0));
    found.map(|(thread, at)| program.threads[thread].remove(at)).is_some()
}

#[test]
fn a_version_may_ask_for_the_time_more_often_or_less() {
    const KINDS: [Op; 2] = [Op::Clock, Op::Map];
    for interleaving in [Interleaving::OneByOne, Interleaving::Free] {
        try_all(interleaving, |program, rng| more(program, rng, &KINDS), is_same);
        try_all(interleaving, |program, rng| less(program, rng, &KINDS), is_same);
    }
}

#[test]
fn a_version_may_let_others_go_first_more_often_or_less() {
    // Where its threads meet in memory alone the two may do something else then.
    for interleaving in [Interleaving::OneByOne, Interleaving::Free] {
        let change = |program: &mut Program, rng: &mut StdRng| more(program, rng, &[Op::Yield]);
        try_all_that_meet(Meeting::InCalls, interleaving, change, is_same);
        let change = |program: &mut Program, rng: &mut StdRng| less(program, rng, &[Op::Yield]);
        try_all_that_meet(Meeting::InCalls, interleaving, change, is_same);
    }
}
