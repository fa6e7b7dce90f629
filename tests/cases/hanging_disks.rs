//! A disk that hangs under everything that the daemon writes, at each stage of an update: the update goes on, the service is not
//! touched, what hangs is told, and what was not written is written when the disk answers again.

use std::time::{Duration, Instant};

use harness::disk::FreezableDisk;
use harness::site::Site as FailingSite;
use harness::stand::{SINGLE, STEP_LIMIT, UPDATED, code};
use harness::wait::wait_for;

type Site = FailingSite<FreezableDisk>;

fn site() -> Site {
    FailingSite::on(FreezableDisk::over)
}

/// Sees that the daemon says that its disk hangs, lets it go on, and sees that everything is as it should be.
fn recover(site: Site, outcome: &str) {
    wait_for("the daemon to tell that its disk hangs", STEP_LIMIT, || {
        site.troubles().contains("the disk has not answered for").then_some(())
    });
    // Nothing is begun that a crash would leave behind.
    let refused = site.stand.daemon.expect(&["update", &site.pid(), "--to", "self"], code::REFUSED);
    assert!(refused.stderr.contains("the disk has not answered in time"), "{}", refused.stderr);
    assert_eq!(site.status()["targets"][0]["stage"], SINGLE);
    site.wait_written(outcome);
    site.expect_sound();
}

#[test]
fn no_update_is_begun_while_the_journal_hangs_and_nobody_else_waits() {
    let mut site = site();
    site.disk().freeze();
    let pid = site.pid();
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(|| site.stand.daemon.expect(&["update", &pid, "--to", "self"], code::REFUSED));
        let begun = Instant::now();
        let mut answers = 0;
        while !asked.is_finished() {
            assert!(site.status().is_object());
            answers += 1;
        }
        assert!(begun.elapsed() < Duration::from_secs(30) && answers > 3, "{answers} in {:?}", begun.elapsed());
        asked.join().unwrap()
    });
    assert!(
        asked.stderr.contains("the journal cannot be written: the disk has not answered in time"),
        "{}",
        asked.stderr
    );
    assert!(asked.stderr.contains("nothing was touched"), "{}", asked.stderr);
    site.disk().thaw();
    site.stand.validate(&[]);
    site.stand.rollback();
    wait_for("nothing to be left in the journal", STEP_LIMIT, || (site.journal() == 0).then_some(()));
    site.expect_clean();
}

#[test]
fn an_update_is_promoted_and_confirmed_on_a_disk_that_hangs() {
    let mut site = site();
    site.validate();
    site.disk().freeze();
    site.stand.promote();
    site.stand.confirm();
    recover(site, "confirmed");
}

#[test]
fn an_update_is_undone_on_a_disk_that_hangs() {
    let mut site = site();
    site.validate();
    site.disk().freeze();
    site.stand.rollback();
    recover(site, "rolled-back");
}

#[test]
fn a_disk_that_hangs_after_the_promotion_keeps_nobody_from_the_way_back() {
    let mut site = site();
    site.validate();
    site.stand.promote();
    site.disk().freeze();
    site.stand.rollback();
    recover(site, "rolled-back");
}

#[test]
fn a_policy_goes_its_way_on_a_disk_that_hangs() {
    let mut site = site();
    let policy = ["--promote", "auto", "--confirm", "auto", "--soak", "1s", "--min-outputs", "100"];
    site.stand.validate(&policy);
    site.disk().freeze();
    let status = site.stand.settled();
    let (result, text) = status.result.expect("it has ended");
    assert_eq!(result, code::DONE as u64, "{text}");
    recover(site, "confirmed");
}

/// The log has spilled when the disk hangs: the update ends and says so, and the service never waits, whatever the policy is.
#[test]
fn a_log_that_has_spilled_to_a_disk_that_hangs_ends_the_update_and_holds_nobody() {
    for on_full in ["rollback", "block"] {
        let mut site = site();
        site.stand.validate(&["--log-memory", "20K", "--log-disk", "16M", "--on-full", on_full, "--retries", "0"]);
        site.stand.wait_compared(1000);
        site.disk().freeze();
        let status = site.stand.settled();
        let (result, text) = status.result.expect("it has ended");
        assert_eq!(result, code::TIMED_OUT as u64, "{text}");
        let why = site.stand.daemon.expect(&["report", &site.pid()], code::DONE).stdout;
        let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_told = ["wait for a disk that has not answered", "wait for the disk, which"];
        assert!(is_told.iter().any(|told| why.contains("the log is full") && why.contains(told)), "{why}");
        assert_eq!(site.stand.serving, site.stand.server.pid());
        // It is still frozen, and the service answers.
        site.load().wait_requests(500, STEP_LIMIT);
        recover(site, "rolled-back");
    }
}

/// The same after the promotion, when the old version follows: the new one keeps the service.
#[test]
fn a_log_that_has_spilled_after_the_promotion_ends_the_way_back_and_holds_nobody() {
    const NO_WAY_BACK: u64 = 14;
    let mut site = site();
    site.stand.validate(&["--log-memory", "20K", "--log-disk", "16M", "--retries", "0"]);
    site.stand.wait_compared(1000);
    site.stand.promote();
    assert_eq!(site.status()["targets"][0]["stage"], UPDATED);
    site.disk().freeze();
    let status = site.stand.settled();
    let (result, text) = status.result.expect("it has ended");
    assert_eq!(result, NO_WAY_BACK, "{text}");
    site.load().wait_requests(500, STEP_LIMIT);
    recover(site, "kept");
}
