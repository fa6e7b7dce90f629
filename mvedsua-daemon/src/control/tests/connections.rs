//! Clients that do nothing, too much, or half of something: nobody else waits for them.

use std::io::Read as _;
use std::os::unix::net::UnixStream as Blocking;

use super::*;

const NOBODY: u32 = 65534;

/// Lets other users reach the socket.
fn open_to_others(site: &Site) {
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    open(site.dir.path(), 0o755);
    let config = site.dirs().config;
    std::fs::write(&config, "[access]\nobserve = [1]\n").expect("it is ours");
    open(&config, 0o644);
}

/// Connects again and again as a user who may do nothing; the kernel knows a connection by the user of the thread.
fn connect_as_nobody(socket: &Path, count: usize) -> Vec<Blocking> {
    let socket = socket.to_owned();
    let stranger = std::thread::spawn(move || {
        let uid = rustix::process::Uid::from_raw(NOBODY);
        rustix::thread::set_thread_res_uid(uid, uid, uid).expect("the test runs as root");
        (0..count).map(|_| Blocking::connect(&socket).expect("it listens")).collect()
    });
    stranger.join().expect("it does not panic")
}

#[test]
fn a_thousand_idle_connections_of_another_user_keep_root_from_nothing() {
    let site = Site::new();
    let old = site.leader.pid();
    open_to_others(&site);
    site.run(Script::Obedient, |_| async {
        let socket = site.dirs().socket();
        let idle = tokio::task::spawn_blocking(move || connect_as_nobody(&socket, 1000));
        let mut idle = idle.await.expect("it does not panic");
        let mut talk = site.connect().await;
        assert!(talk.ask(update(old, "manual")).await["ok"].is_object());
        talk.wait(old, |target| target["stage"] == "outdated-leader/validating").await;
        let undone = talk.ask(json!({"rollback": {"pid": old, "reason": "enough"}})).await;
        assert!(undone["ok"].is_object(), "{undone}");
        // Those for whom there was no place were told so, and sent away; the first is listened to.
        let last = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            idle[999].read_to_string(&mut text).expect("it is closed");
            (text, idle)
        });
        let (text, mut idle) = last.await.expect("it does not panic");
        assert!(text.contains("user 65534 has 8 connections already"), "{text}");
        let mut first = Talk(BufReader::new({
            let first = idle.swap_remove(0);
            first.set_nonblocking(true).expect("it is open");
            UnixStream::from_std(first).expect("it is open")
        }));
        let refused = first.ask(json!({"status": {}})).await;
        assert_eq!(refused["error"]["code"], 20, "{refused}");
    });
}

#[test]
fn silence_cut_connections_and_endless_lines_end_by_themselves() {
    let site = Site::new();
    site.run(Script::Obedient, |_| async {
        // One that says nothing is sent away, whatever the others do.
        let mut silent = site.connect().await;
        let mut half = site.connect().await;
        half.send(b"{\"v\":1,").await;
        drop(site.connect().await);
        // 100 MB without a newline: the answer comes all the same.
        let mut endless = UnixStream::connect(site.dirs().socket()).await.expect("it listens");
        let chunk = vec![b'x'; 1 << 20];
        let mut written = 0;
        while written < 100 << 20 && endless.write_all(&chunk).await.is_ok() {
            written += chunk.len();
        }
        assert!(written > 1 << 20, "{written}");
        let mut endless = Talk(BufReader::new(endless));
        let answer = endless.hear().await.expect("an answer");
        assert!(answer["error"]["why"].as_str().is_some_and(|why| why.contains("longer than")), "{answer}");
        // One that asks and never reads holds nobody up.
        let mut deaf = site.connect().await;
        for _ in 0..100 {
            deaf.send(b"{\"v\":1,\"request\":{\"status\":{}}}\n").await;
        }
        assert!(site.connect().await.ask(json!({"hello": {}})).await["ok"].is_object());
        let cut = half.hear().await.expect("an answer");
        assert!(cut["error"]["why"].as_str().is_some_and(|why| why.contains("and no newline")), "{cut}");
        assert_eq!(silent.hear().await, None, "it was silent for too long");
    });
}
