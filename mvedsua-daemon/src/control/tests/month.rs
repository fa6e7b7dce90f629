//! A month of updates: nothing that the daemon keeps grows with their number, and no damage on the way stays.
//!
//! A thousand by default; `MVEDSUA_MONTH=10000` has a month of one every four minutes, and takes as many minutes as the default
//! takes tens of seconds.

use super::*;
use crate::control::history::Past;

/// How many updates there are, where nobody says otherwise.
const UPDATES: u64 = 1000;
/// How long one daemon's part of them may take.
const PART: Duration = Duration::from_mins(10);
/// The most that the daemon keeps on its disk: the audit log and the events twice each, and the history.
const MOST_ON_DISK: u64 = 32 << 20;
/// How much more memory the last parts may need than the third.
const MORE_MEMORY: u64 = 32 << 20;

/// What the daemon has on its disk, bytes.
fn on_disk(dir: &Path) -> u64 {
    let size = |entry: std::fs::DirEntry| {
        let meta = entry.metadata().expect("it is there");
        if meta.is_dir() { on_disk(&entry.path()) } else { meta.len() }
    };
    std::fs::read_dir(dir).expect("it is there").flatten().map(size).sum()
}

/// What the test's own process, which is the daemon as well, has in memory.
fn in_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it is there");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("the kernel tells");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib << 10
}

/// Goes through one update after the other; each is undone as soon as it is validated.
async fn updates(talk: &mut Talk, pid: i32, count: u64) {
    for _ in 0..count {
        let asked = talk.ask(update(pid, "manual")).await;
        assert!(asked["ok"].is_object(), "{asked}");
        talk.wait(pid, |target| target["stage"] == "outdated-leader/validating").await;
        let undone = talk.ask(json!({"rollback": {"pid": pid, "reason": "a day is over"}})).await;
        assert!(undone["ok"].is_object(), "{undone}");
    }
}

/// A day on which the history and the audit log cannot be written.
fn take_away(dirs: &Dirs) -> [(PathBuf, PathBuf); 2] {
    [dirs.history(), dirs.audit()].map(|path| {
        let aside = path.with_extension("aside");
        std::fs::rename(&path, &aside).expect("it is there");
        std::fs::create_dir(&path).expect("the place is free");
        (path, aside)
    })
}

fn give_back(files: [(PathBuf, PathBuf); 2]) {
    for (path, aside) in files {
        std::fs::remove_dir(&path).expect("nobody can write there");
        std::fs::rename(aside, path).expect("the place is free");
    }
}

/// Says in which process the updates take place.
const ALONE: &str = "MVEDSUA_MONTH_ALONE";

/// In a process of its own: the memory of this one is that of all tests.
#[test]
fn a_month_of_updates_leaves_nothing_behind() {
    if std::env::var_os(ALONE).is_some() {
        return a_month();
    }
    let (_, module) = module_path!().split_once("::").expect("the crate comes first");
    let this = format!("{module}::a_month_of_updates_leaves_nothing_behind");
    let itself = std::env::current_exe().expect("/proc is there");
    let ran = std::process::Command::new(itself).args(["--exact", &this]).env(ALONE, "1").output().expect("it starts");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&ran.stderr));
}

fn a_month() {
    let site = Site::new();
    let old = site.leader.pid();
    let wanted = std::env::var("MVEDSUA_MONTH").ok().and_then(|count| count.parse::<u64>().ok());
    let each = wanted.unwrap_or(UPDATES) / 10;
    let measured = Mutex::new(vec![]);
    // Each part is the life of one daemon.
    for part in 0..10 {
        site.run_for(PART, Script::Obedient, |_| async {
            let mut talk = site.connect().await;
            updates(&mut talk, old, each / 2).await;
            // Some days nothing can be written.
            let away = (part % 3 == 1).then(|| take_away(&site.dirs()));
            updates(&mut talk, old, each / 4).await;
            if let Some(away) = away {
                let troubles = talk.ask(json!({"status": {}})).await["ok"]["status"]["daemon"]["troubles"].to_string();
                assert!(troubles.contains("history.jsonl cannot be written"), "{troubles}");
                give_back(away);
            }
            updates(&mut talk, old, each / 4).await;
            let past = talk.ask(json!({"history": {"pid": old, "limit": 1}})).await;
            assert_eq!(past["ok"]["history"][0]["update"], json!((part + 1) * each), "the numbers go on");
        });
        measured.lock().expect("no panic").push((on_disk(&site.dirs().state), in_memory()));
    }
    let measured = measured.into_inner().expect("no panic");
    let (_, memory) = measured[2];
    let (last_disk, last_memory) = measured[9];
    assert!(last_disk < MOST_ON_DISK, "the disk holds {measured:?}");
    assert!(last_memory < memory + MORE_MEMORY, "the memory holds {measured:?}");
    assert!(std::fs::read_dir(site.dirs().journal()).expect("it is there").next().is_none());
}

/// What an older daemon has written is read: whatever was added to the formats since their first version may be missing.
#[test]
fn files_of_an_older_daemon_are_read() {
    let site = Site::new();
    let dirs = site.dirs();
    dirs.create().expect("the directories are created");
    let process = ProcessId::of(site.leader.pid()).expect("it runs");
    let entry = json!({
        "v": 1, "update": 41, "stage": "outdated-leader/validating",
        "target": process, "uid": 0, "leader": process, "follower": null, "spill_dir": "/nowhere", "asked_ms": 7,
    });
    std::fs::write(dirs.journal().join("41.json"), entry.to_string()).expect("it is ours");
    let past = json!({
        "update": 40, "pid": 7, "owner": 0, "program": {"exe": "/usr/bin/x", "build_id": null}, "to": "self", "asked_by": 0,
        "asked_ms": 1, "ended_ms": 2, "attempts": 1, "fork_pause_us": 3, "promotion_pause_us": null,
        "counters": {
            "recorded": 1, "replayed": 1, "compared_calls": 1, "compared_outputs": 1, "compared_bytes": 1, "backlog": 0,
            "log_memory": 0, "log_disk": 0, "relaxed": 0,
        },
        "failures": [], "outcome": {"confirmed": {"leader": 7}}, "code": 0,
    });
    let read: Past = serde_json::from_value(past.clone()).expect("it is read");
    assert_eq!(read.update, 40);
    std::fs::write(dirs.history(), format!("{past}\n")).expect("it is ours");
    site.run(Script::Obedient, |_| async {
        let mut talk = site.connect().await;
        let past = talk.ask(json!({"history": {"limit": 9}})).await;
        let updates: Vec<_> =
            past["ok"]["history"].as_array().expect("a list").iter().map(|past| &past["update"]).collect();
        assert_eq!(updates, [&json!(41), &json!(40)], "{past}");
        let status = talk.ask(json!({"status": {}})).await;
        assert!(status["ok"]["status"]["daemon"]["troubles"].is_null(), "{status}");
        let begun = talk.ask(update(site.leader.pid(), "manual")).await;
        assert_eq!(begun["ok"]["started"]["update"], 42, "{begun}");
    });
}

/// An entry of a format that is not known is told, and left for somebody to look at.
#[test]
fn a_journal_of_a_later_daemon_is_told_and_not_touched() {
    let site = Site::new();
    let dirs = site.dirs();
    dirs.create().expect("the directories are created");
    let file = dirs.journal().join("9.json");
    std::fs::write(&file, r#"{"v": 2, "update": 9}"#).expect("it is ours");
    site.run(Script::Obedient, |_| async {
        let mut talk = site.connect().await;
        let status = talk.ask(json!({"status": {}})).await;
        assert!(status["ok"]["status"]["daemon"]["troubles"].to_string().contains("9.json"), "{status}");
    });
    assert!(file.exists());
}
