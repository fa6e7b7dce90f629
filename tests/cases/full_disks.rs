//! A disk that is full under everything that the daemon writes, at each stage of an update: no stage is left without a driver, the
//! service goes on, and what could not be written is told, and written when there is room. (`log_full.rs` has the log's spill file.)

use harness::disk::TinyDisk;
use harness::site::Site as FailingSite;
use harness::stand::{SINGLE, UPDATED, code};

type Site = FailingSite<TinyDisk>;

fn site() -> Site {
    FailingSite::on(|dir| TinyDisk::over(dir, "4m"))
}

/// Sees that the daemon says that its disk is full, makes room, and sees that everything is as it should be.
fn recover(mut site: Site, outcome: &str) {
    // The journal's entry has made room for a few lines of one of the files.
    let troubles = site.troubles();
    assert!(troubles.contains(".jsonl cannot be written: No space left"), "{troubles}");
    let text = site.stand.daemon.expect(&["status"], code::DONE).stdout;
    assert!(text.contains("TROUBLE") && text.contains(".jsonl cannot be written"), "{text}");
    site.wait_written(outcome);
    // It is not busy, and the log says what is missing.
    site.validate();
    site.stand.promote();
    site.stand.confirm();
    let log = site.file("daemon.log");
    assert!(log.contains("lines of this log are lost: No space left"), "{log}");
    assert_eq!(site.journal(), 0, "nothing is left in the journal");
    site.expect_clean();
}

#[test]
fn no_update_is_begun_without_a_journal() {
    let site = site();
    site.disk().fill();
    let refused = site.stand.daemon.expect(&["update", &site.pid(), "--to", "self"], code::REFUSED);
    assert!(refused.stderr.contains("the journal cannot be written: No space left"), "{}", refused.stderr);
    assert_eq!(site.status()["targets"][0]["stage"], SINGLE);
    site.disk().empty();
    let mut site = site;
    site.stand.validate(&[]);
    site.stand.rollback();
    site.expect_clean();
}

#[test]
fn an_update_is_promoted_and_confirmed_on_a_full_disk() {
    let mut site = site();
    site.validate();
    site.disk().fill();
    site.stand.promote();
    site.stand.confirm();
    recover(site, "confirmed");
}

#[test]
fn an_update_is_undone_on_a_full_disk() {
    let mut site = site();
    site.validate();
    site.disk().fill();
    site.stand.rollback();
    recover(site, "rolled-back");
}

#[test]
fn a_disk_that_is_full_after_the_promotion_keeps_nobody_from_the_way_back() {
    let mut site = site();
    site.validate();
    site.stand.promote();
    site.disk().fill();
    assert_eq!(site.status()["targets"][0]["stage"], UPDATED);
    site.stand.rollback();
    recover(site, "rolled-back");
}

#[test]
fn a_disk_that_is_full_after_the_promotion_keeps_nobody_from_confirming() {
    let mut site = site();
    site.validate();
    site.stand.promote();
    site.disk().fill();
    site.stand.confirm();
    recover(site, "confirmed");
}

#[test]
fn a_policy_goes_its_way_on_a_full_disk() {
    let mut site = site();
    let policy = ["--promote", "auto", "--confirm", "auto", "--soak", "1s", "--min-outputs", "100"];
    site.stand.validate(&policy);
    site.disk().fill();
    let status = site.stand.settled();
    let (result, text) = status.result.expect("it has ended");
    assert_eq!(result, code::DONE as u64, "{text}");
    recover(site, "confirmed");
}
