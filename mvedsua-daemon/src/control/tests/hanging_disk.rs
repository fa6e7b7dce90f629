//! A disk that hangs under what the daemon keeps: neither an update nor a client waits for it.

use std::time::Instant;

use super::*;

/// Puts a pipe that nobody reads in the place of a file: whoever opens it for writing waits.
fn hang(path: &Path) {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("{}: {e}", path.display()),
        Ok(()) | Err(_) => {}
    }
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe can be made");
}

/// Ends the waiting: what is written is read, and the file is an ordinary one from then on.
fn answer(path: &Path) {
    // Whoever waits has opened the pipe when this returns, and finds it read to its end or gone.
    let pipe = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("it is a pipe");
    std::fs::remove_file(path).expect("it is there");
    drop(pipe);
}

/// Each file of lines hangs from before an update on, and the update goes its whole way.
#[test]
fn files_that_hang_keep_no_update_from_its_end() {
    type Of = fn(&Dirs) -> PathBuf;
    let files: [(&str, Of); 3] =
        [("history", |dirs| dirs.history()), ("audit log", |dirs| dirs.audit()), ("events", |dirs| dirs.events())];
    for (name, file) in files {
        let site = Site::new();
        let old = site.leader.pid();
        site.run(Script::Obedient, |_| async {
            let path = file(&site.dirs());
            hang(&path);
            let mut talk = site.connect().await;
            for after in ["promotion", "validation"] {
                assert!(talk.ask(update(old, "manual")).await["ok"].is_object(), "{name}");
                talk.wait(old, |target| target["update"]["counters"]["compared_calls"] == 500).await;
                if after == "promotion" {
                    let promoted = talk.ask(json!({"promote": {"pid": old, "evidence": "required"}})).await;
                    assert!(promoted["ok"].is_object(), "{name}: {promoted}");
                }
                let undone = talk.ask(json!({"rollback": {"pid": old, "reason": "enough"}})).await;
                assert!(undone["ok"].is_object(), "{name}: {undone}");
            }
            let past = talk.ask(json!({"history": {"pid": old, "limit": 9}})).await;
            assert_eq!(past["ok"]["history"].as_array().map(Vec::len), Some(2), "{name}: {past}");
            // It is told as long as it is so.
            let told = |status: &Value| status["ok"]["status"]["daemon"]["troubles"].to_string();
            loop {
                let troubles = told(&talk.ask(json!({"status": {}})).await);
                if troubles.contains("cannot be written: the disk has not answered for") {
                    break;
                }
                tokio::task::yield_now().await;
            }
            answer(&path);
            loop {
                let troubles = told(&talk.ask(json!({"status": {}})).await);
                if !troubles.contains("cannot be written") {
                    break;
                }
                tokio::task::yield_now().await;
            }
        });
    }
}

#[test]
fn a_daemon_ends_in_time_whatever_hangs() {
    let site = Site::new();
    let begun = Instant::now();
    site.run(Script::Obedient, |_| async {
        for path in [site.dirs().history(), site.dirs().audit(), site.dirs().events()] {
            hang(&path);
        }
        let mut talk = site.connect().await;
        assert!(talk.ask(update(site.leader.pid(), "manual")).await["ok"].is_object());
    });
    assert!(begun.elapsed() < LIMIT);
    for path in [site.dirs().history(), site.dirs().audit(), site.dirs().events()] {
        answer(&path);
    }
}
