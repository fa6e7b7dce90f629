//! Faults of the daemon's own code: whatever panics, no service is left in a stage that nobody drives.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use super::*;

/// A log that panics where an update comes to a stage, a certain number of times. This is what a logging library does that
/// cannot write, and it reaches every place that logs.
struct Trap {
    stage: &'static str,
    left: Arc<AtomicU32>,
}

/// Finds the stage that an update goes to.
#[derive(Default)]
struct GoesTo(String);

impl Visit for GoesTo {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "to" {
            self.0 = format!("{value:?}");
        }
    }
}

impl<S: Subscriber> Layer<S> for Trap {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut goes_to = GoesTo::default();
        event.record(&mut goes_to);
        let take = |left: u32| left.checked_sub(1);
        if goes_to.0 == self.stage && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
            panic!("the disk under the log is full");
        }
    }
}

/// What is the case when everything is over.
struct End {
    target: Value,
    past: Value,
    journal: Vec<JournalEntry>,
}

/// Runs an update that is promoted and confirmed by its policy; the daemon's own task panics on the way into `stage`.
fn end_of(stage: &'static str, times: u32) -> End {
    let site = Site::new();
    let old = site.leader.pid();
    let left = Arc::new(AtomicU32::new(times));
    let subscriber = tracing_subscriber::registry().with(Trap { stage, left: Arc::clone(&left) });
    let _guard = tracing::subscriber::set_default(subscriber);
    let found = Mutex::new(None);
    site.run(Script::Obedient, |_| async {
        let mut talk = site.connect().await;
        assert!(talk.ask(update(old, "auto")).await["ok"].is_object());
        let target = talk.wait(old, |target| !target["update"]["result"].is_null()).await;
        let past = talk.ask(json!({"history": {"pid": old, "limit": 1}})).await;
        // It is not busy for ever.
        assert!(talk.ask(update(old, "manual")).await["ok"].is_object());
        *found.lock().expect("no panic") = Some((target, past["ok"]["history"][0].clone()));
    });
    assert_eq!(left.load(Ordering::SeqCst), 0, "{stage}: it did not panic as often as it should");
    let (target, past) = found.into_inner().expect("no panic").expect("the test has run");
    let (journal, _) = Journal::new(site.dirs().journal()).read().expect("the journal is there");
    End { target, past, journal }
}

#[test]
fn a_panic_on_the_way_into_any_stage_undoes_the_update() {
    let stages = ["outdated-leader/updating", "outdated-leader/catching-up", "outdated-leader/validating", "promoting"];
    for stage in stages.into_iter().chain(["updated-leader"]) {
        let End { target, past, journal } = end_of(stage, 1);
        assert_eq!(target["stage"], "single-leader", "{stage}: {target}");
        assert_eq!(target["update"]["result"]["code"], 12, "{stage}: {target}");
        let text = past["outcome"].to_string();
        assert!(text.contains("rolled-back") && text.contains("the disk under the log is full"), "{stage}: {past}");
        assert_eq!(journal, [], "{stage}");
    }
}

#[test]
fn a_panic_at_the_end_of_an_update_does_not_keep_it_from_being_told() {
    let End { target, past, journal } = end_of("single-leader", 1);
    assert_eq!(target["update"]["result"]["code"], 0, "{target}");
    assert!(past["outcome"]["confirmed"].is_object(), "{past}");
    assert_eq!(journal, []);
}

#[test]
fn a_task_that_panics_again_and_again_is_given_up_and_the_service_is_not() {
    // On the way back it panics, too: each time that it begins one.
    let site = Site::new();
    let old = site.leader.pid();
    let subscriber = tracing_subscriber::registry()
        .with(Trap { stage: "promoting", left: Arc::new(AtomicU32::new(1)) })
        .with(Trap { stage: "rolling-back", left: Arc::new(AtomicU32::new(100)) });
    let _guard = tracing::subscriber::set_default(subscriber);
    site.run(Script::Obedient, |_| async {
        let mut talk = site.connect().await;
        assert!(talk.ask(update(old, "auto")).await["ok"].is_object());
        let target = talk.wait(old, |target| !target["update"]["result"].is_null()).await;
        assert_eq!((&target["stage"], &target["pid"]), (&json!("single-leader"), &json!(old)), "{target}");
        assert_eq!(target["update"]["result"]["code"], 12, "{target}");
        let past = talk.ask(json!({"history": {"pid": old, "limit": 1}})).await;
        assert!(past["ok"]["history"][0]["outcome"]["rolled-back"].is_object(), "{past}");
        let again = talk.ask(json!({"rollback": {"pid": old, "reason": "once more"}})).await;
        assert_eq!(again["error"]["code"], 2, "{again}");
        assert!(again["error"]["why"].as_str().is_some_and(|why| why.contains("rolled back")), "{again}");
    });
    assert_eq!(Journal::new(site.dirs().journal()).read().expect("the journal is there").0, []);
}

#[test]
fn an_engine_that_panics_leaves_no_update_behind() {
    let site = Site::new();
    let old = site.leader.pid();
    site.run(Script::Falls, |_| async {
        let mut talk = site.connect().await;
        talk.ask(update(old, "manual")).await;
        let target = talk.wait(old, |target| !target["update"]["result"].is_null()).await;
        assert_eq!((&target["stage"], &target["update"]["result"]["code"]), (&json!("single-leader"), &json!(12)));
        let text = target["update"]["result"]["text"].to_string();
        assert!(text.contains("the session could not be started") && text.contains("the script says so"), "{text}");
    });
}
