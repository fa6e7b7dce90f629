//! Damaged files: a daemon starts, undoes what was left, and says what it could not read.

use super::*;

#[test]
fn whatever_is_damaged_a_daemon_starts_and_cleans_up() {
    let site = Site::new();
    let dirs = site.dirs();
    dirs.create().expect("the directories are created");
    let old = site.leader.pid();
    // Two updates that are over, of which one line is damaged.
    site.run(Script::Diverges, |_| async {
        let mut talk = site.connect().await;
        for _ in 0..2 {
            talk.ask(update(old, "auto")).await;
            talk.wait(old, |target| !target["update"]["result"].is_null()).await;
        }
    });
    let mut history = std::fs::read(dirs.history()).expect("it was written");
    history[10] = 0xff;
    std::fs::write(dirs.history(), history).expect("it is ours");
    std::fs::write(dirs.history().with_extension("jsonl.1"), b"\xff\xfe\n").expect("it is ours");
    std::fs::write(dirs.audit(), b"\xff half a line").expect("it is ours");
    // One that an earlier daemon was killed in, and one entry that says nothing.
    let id = |pid| ProcessId::of(pid).expect("it runs");
    let entry = JournalEntry {
        v: FORMAT,
        update: 7,
        stage: Stage::Validating,
        boot: boot_id(),
        target: id(old),
        uid: 0,
        leader: id(old),
        follower: Some(id(site.follower.pid())),
        spill_dir: dirs.spill(),
        asked_ms: 1,
        to: "self".to_owned(),
        package: None,
    };
    Journal::new(dirs.journal()).write(&entry).expect("the directory is there");
    std::fs::write(dirs.journal().join("9.json"), b"{\"v\":1,\xff").expect("it is ours");
    std::fs::create_dir(dirs.journal().join("8.json")).expect("it is ours");

    let engine = site.engine(Script::Obedient);
    let daemon = Daemon::start(&dirs, Arc::clone(&engine) as Arc<dyn Engine>, Arc::new(FakeObserver::default()))
        .expect("it starts");
    assert_eq!(*engine.recovered.lock().expect("no panic"), [entry]);
    assert_eq!(daemon.next_update(), 10, "numbers are never used twice");
    let troubles = daemon.status(None, |_| true).daemon.troubles;
    for what in ["8.json", "9.json", "1 line of", "history.jsonl.damaged", "history.jsonl.1.damaged"] {
        assert!(troubles.iter().any(|trouble| trouble.contains(what)), "{what}: {troubles:#?}");
    }
    let past = daemon.shared.history.find(|_| true, 9);
    assert_eq!(past.iter().map(|past| past.update).collect::<Vec<_>>(), [7, 2], "the sound lines are there");
    let audit = std::fs::read(dirs.audit()).expect("it was written");
    let last = audit.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).expect("there are lines");
    assert_eq!(serde_json::from_slice::<Value>(last).expect("it is whole")["what"], "cleaned up");
}

#[test]
fn a_wrong_configuration_does_not_keep_what_was_left_from_being_undone() {
    let site = Site::new();
    let dirs = site.dirs();
    dirs.create().expect("the directories are created");
    std::fs::write(&dirs.config, b"[access]\nobserve = [\"\xff\"]\n").expect("it is ours");
    let id = ProcessId::of(site.leader.pid()).expect("it runs");
    let entry = JournalEntry {
        v: FORMAT,
        update: 3,
        stage: Stage::Promoting,
        boot: boot_id(),
        target: id,
        uid: 0,
        leader: id,
        follower: None,
        spill_dir: dirs.spill(),
        asked_ms: 1,
        to: "self".to_owned(),
        package: None,
    };
    Journal::new(dirs.journal()).write(&entry).expect("the directory is there");
    let engine = site.engine(Script::Obedient);
    let started = Daemon::start(&dirs, Arc::clone(&engine) as Arc<dyn Engine>, Arc::new(FakeObserver::default()));
    assert!(matches!(started, Err(StartError::Config(_))));
    assert_eq!(*engine.recovered.lock().expect("no panic"), [entry]);
    assert_eq!(Journal::new(dirs.journal()).read().expect("the journal is there").0, []);
}

#[test]
fn an_engine_that_panics_while_it_cleans_up_does_not_keep_the_daemon_from_its_start() {
    let site = Site::new();
    let dirs = site.dirs();
    dirs.create().expect("the directories are created");
    let id = ProcessId::of(site.leader.pid()).expect("it runs");
    let entry = JournalEntry {
        v: FORMAT,
        update: 3,
        stage: Stage::Promoting,
        boot: boot_id(),
        target: id,
        uid: 0,
        leader: id,
        follower: None,
        spill_dir: dirs.spill(),
        asked_ms: 1,
        to: "self".to_owned(),
        package: None,
    };
    Journal::new(dirs.journal()).write(&entry).expect("the directory is there");
    let daemon = site.daemon(Script::Falls);
    let past = daemon.shared.history.find(|_| true, 1);
    assert!(matches!(past[0].outcome, Outcome::Unsure { .. }), "{past:?}");
    assert_eq!(
        Journal::new(dirs.journal()).read().expect("the journal is there").0,
        [entry],
        "the next one looks again"
    );
}
