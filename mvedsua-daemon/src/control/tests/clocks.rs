//! The machine's clock is set while an update is under way: nothing is sooner, later or longer for it.

use super::*;
use crate::control::clock::ahead;

const HOURS_MS: i64 = 6 * 3_600_000;

/// Sets the clock, and puts it right again in the end.
struct Set;

impl Set {
    fn to(ahead_ms: i64) -> Set {
        ahead::set_ms(ahead_ms);
        Set
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        ahead::set_ms(0);
    }
}

/// An update goes its whole way over two jumps, and what is kept of it is as it would be without them.
#[test]
fn a_clock_that_jumps_by_hours_changes_nothing_of_an_update() {
    for (validated, promoted) in [(HOURS_MS, -HOURS_MS), (-HOURS_MS, HOURS_MS)] {
        let site = Site::new();
        let old = site.leader.pid();
        site.run(Script::Obedient, |_| async {
            let _set = Set::to(0);
            let mut talk = site.connect().await;
            assert!(talk.ask(update(old, "manual")).await["ok"].is_object());
            talk.wait(old, |target| target["update"]["counters"]["compared_calls"] == 500).await;
            ahead::set_ms(validated);
            let answer = talk.ask(json!({"promote": {"pid": old, "evidence": "required"}})).await;
            assert!(answer["ok"].is_object(), "{answer}");
            ahead::set_ms(promoted);
            let confirmed = talk.ask(json!({"confirm": {"pid": old}})).await;
            assert!(confirmed["ok"].is_object(), "{confirmed}");
            let past = talk.ask(json!({"history": {"pid": old, "limit": 1}})).await;
            let past = &past["ok"]["history"][0];
            assert_eq!(past["code"], 0, "{past}");
            let is_short = |ms: &Value| ms.as_u64().is_some_and(|ms| u128::from(ms) < LIMIT.as_millis());
            assert!(is_short(&past["took_ms"]), "{past}");
            let stages = past["stages"].as_array().expect("a list");
            assert!(stages.iter().all(|stage| is_short(&stage["after_ms"])), "{past}");
        });
    }
}

/// A soak of ten minutes is not over because the clock says so.
#[test]
fn a_clock_that_is_set_forward_ends_no_soak() {
    let site = Site::new();
    let old = site.leader.pid();
    site.run(Script::Obedient, |_| async {
        let _set = Set::to(0);
        let mut talk = site.connect().await;
        let wishes = json!({"promote": "auto", "soak_ms": 600_000, "log_memory": 1 << 20, "log_disk": 0});
        let asked = talk.ask(json!({"update": {"pid": old, "ask": {"to": "self", "wishes": wishes}}})).await;
        assert!(asked["ok"].is_object(), "{asked}");
        talk.wait(old, |target| target["update"]["counters"]["compared_calls"] == 500).await;
        ahead::set_ms(HOURS_MS);
        for _ in 0..20 {
            let target = talk.wait(old, |_| true).await;
            assert_eq!(target["stage"], "outdated-leader/validating", "{target}");
        }
        let undone = talk.ask(json!({"rollback": {"pid": old, "reason": "enough"}})).await;
        assert!(undone["ok"].is_object(), "{undone}");
    });
}
