//! Several hundred corners of the kernel's calls: each is right by itself, and each is the same with a follower from its start,
//! which lives through all of it, although its addresses are others.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness::corners::{self, Corner};
use harness::side_by_side::{Finished, Run};

/// What no follower can live through, and what the report says about it. The program itself does not notice.
const NOT_FOLLOWED: [(&str, &str); 16] = [
    // Memory that others write changes without a call.
    ("shm_segment", "shmget"),
    ("map_file_shared_writes", "mmap"),
    ("vmsplice_pages", "vmsplice"),
    ("unshare_files", "unshare"),
    ("clone_shares_files_refused", "clone"),
    // These part on purpose, to see how the program fares then.
    ("let_go_traces_itself", "unshare"),
    ("let_go_with_children", "unshare"),
    ("let_go_with_threads", "unshare"),
    ("let_go_waits_on", "unshare"),
    ("let_go_executes", "unshare"),
    ("signal_of_its_own_around_the_drop", "unshare"),
    ("signal_of_the_parent_around_the_drop", "unshare"),
    ("thread_without_files_starts", "clone"),
    ("thread_without_files_among_others", "clone"),
    ("own_counter_traps", "prctl"),
    // A mapped file is a copy in the follower, of what was mapped first.
    ("map_grows", "it makes the mapping of a file larger"),
];

fn by_itself(corner: &Corner) -> Finished {
    let dir = tempfile::tempdir().unwrap();
    let run = Run { dir: dir.path(), input: b"" };
    run.natively(&[corners::program().to_str().unwrap(), &corner.name])
}

fn with_a_follower(corner: &Corner) -> Finished {
    let dir = tempfile::tempdir().unwrap();
    let run = Run { dir: dir.path(), input: b"" };
    run.with(&["--self", "1"], &[corners::program().to_str().unwrap(), &corner.name])
}

/// Says what is wrong with a corner under `run`, if anything is.
fn wrong(corner: &Corner) -> Option<String> {
    let (alone, paired) = (by_itself(corner), with_a_follower(corner));
    let name = &corner.name;
    if (&paired.stdout, paired.code) != (&alone.stdout, alone.code) {
        return Some(format!(
            "{name}: {} {:?} instead of {} {:?}",
            paired.code, paired.stdout, alone.code, alone.stdout
        ));
    }
    let listed = NOT_FOLLOWED.iter().find(|(listed, _)| listed == name);
    let reason = paired.report["followers"][0]["reason"].as_str().unwrap_or_default();
    match (&paired.outcomes()[..], listed) {
        (["complete"], None) => None,
        (["complete"], Some(_)) => Some(format!("{name} is followed, and listed as one that is not")),
        (_, Some((_, why))) if reason.contains(why) => None,
        (outcomes, _) => Some(format!("{name}: {outcomes:?}: {reason}")),
    }
}

/// Tries every corner, two at a time, and returns what is wrong.
fn each(check: impl Fn(&Corner) -> Option<String> + Sync) -> Vec<String> {
    let (corners, next, found) = (corners::list(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    assert!(corners.len() > 300, "there are {} corners only", corners.len());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(corner) = corners.get(next.fetch_add(1, Ordering::Relaxed)) {
                    found.lock().unwrap().extend(check(corner));
                }
            });
        }
    });
    found.into_inner().unwrap()
}

#[test]
fn every_corner_is_right_by_itself() {
    let wrong = each(|corner| {
        let ended = by_itself(corner);
        let right = ended.code == corner.ends && !ended.stdout.contains("FAILED");
        (!right).then(|| format!("{}: {} {}", corner.name, ended.code, ended.stdout))
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_corner_is_followed() {
    let wrong = each(wrong);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_not_followed_is_there() {
    let corners = corners::list();
    for name in NOT_FOLLOWED.map(|(name, _)| name) {
        assert!(corners.iter().any(|corner| corner.name == name), "there is no corner {name}");
    }
}
