//! The stream of events, as a client of the socket hears it.

use super::*;

/// Reads events until one of this kind; returns them all.
async fn until(talk: &mut Talk, kind: &str) -> Vec<Value> {
    let mut heard = vec![];
    loop {
        let line = talk.hear().await.expect("the stream goes on");
        let event = line["event"]["happened"].clone();
        assert!(event.is_object(), "{line}");
        let is_last = event["kind"] == kind;
        heard.push(event);
        if is_last {
            return heard;
        }
    }
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["kind"].as_str()).collect()
}

#[test]
fn an_update_is_told_from_its_beginning_to_its_end_and_again_to_who_comes_later() {
    let site = Site::new();
    let old = site.leader.pid();
    site.run(Script::Obedient, |_| async {
        let (mut talk, mut listener) = (site.connect().await, site.connect().await);
        listener.send(b"{\"v\":1,\"request\":{\"events\":{\"since\":0,\"follow\":true}}}\n").await;
        assert_eq!(kinds(&until(&mut listener, "daemon-started").await), ["daemon-started"]);
        let attach = json!({"attach": {"pid": old, "options": AttachOptions::default(), "name": "cache"}});
        talk.ask(attach).await;
        talk.ask(update(old, "auto")).await;
        let heard = until(&mut listener, "ended").await;
        let seqs: Vec<u64> = heard.iter().filter_map(|event| event["seq"].as_u64()).collect();
        assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
        let told = kinds(&heard);
        let wanted = ["attached", "asked", "forked", "stage", "promoted", "ended"];
        let mut rest = told.iter();
        assert!(wanted.iter().all(|kind| rest.any(|told| told == kind)), "{told:?}");
        assert!(heard.iter().all(|event| event["target"] == "cache"), "{heard:?}");
        assert_eq!(heard.last().expect("it ended")["verdict"], "confirmed");

        // The same once more for one who has heard the first only.
        let mut late = site.connect().await;
        late.send(b"{\"v\":1,\"request\":{\"events\":{\"since\":1}}}\n").await;
        assert_eq!(until(&mut late, "ended").await, heard);
        assert_eq!(late.hear().await, Some(json!({"v": 1, "ok": {"done": {}}})));
        // Whoever says something wants to hear no more, and the connection is as good as before.
        listener.send(b"{\"v\":1,\"request\":{\"hello\":{}}}\n").await;
        assert_eq!(listener.hear().await, Some(json!({"v": 1, "ok": {"done": {}}})));
        assert!(listener.hear().await.expect("the answer to the other request")["ok"]["hello"].is_object());
        talk.ask(json!({"detach": {"pid": old}})).await;
    });
    // The next daemon goes on with the numbers.
    site.run(Script::Diverges, |_| async {
        let mut talk = site.connect().await;
        talk.ask(update(old, "auto")).await;
        let mut listener = site.connect().await;
        listener.send(b"{\"v\":1,\"request\":{\"events\":{\"since\":0,\"follow\":true}}}\n").await;
        until(&mut listener, "ended").await;
        let heard = until(&mut listener, "ended").await;
        let told = kinds(&heard);
        for kind in ["detached", "daemon-ends", "daemon-started", "diverged", "ended"] {
            assert!(told.contains(&kind), "{kind} in {told:?}");
        }
        let diverged = heard.iter().find(|event| event["kind"] == "diverged").expect("it is there");
        assert_eq!((&diverged["how"], &diverged["doubtful"]), (&json!("call"), &json!(false)));
        assert_eq!(heard.last().expect("it ended")["code"], 10);
    });
}

#[test]
fn a_reader_that_is_too_slow_is_told_what_it_missed_and_holds_nobody_up() {
    let site = &Site::new();
    site.run(Script::Obedient, |daemon| async move {
        let mut slow = site.connect().await;
        slow.send(b"{\"v\":1,\"request\":{\"events\":{\"follow\":true}}}\n").await;
        // It is served before anything happens.
        site.connect().await.ask(json!({"hello": {}})).await;
        let text = "x".repeat(200);
        for _ in 0..20_000 {
            daemon
                .shared
                .events
                .publish(&super::super::events::Subject::default(), What::Trouble { what: text.clone() });
            tokio::task::yield_now().await;
        }
        daemon.shared.events.publish(&super::super::events::Subject::default(), What::DaemonEnds {});
        // Others are served meanwhile.
        assert!(site.connect().await.ask(json!({"status": {}})).await["ok"].is_object());
        let (mut heard, mut missed) = (0, 0);
        loop {
            let line = slow.hear().await.expect("the stream goes on");
            let event = &line["event"]["happened"];
            if let Some(gap) = line["event"]["missed"].as_object() {
                missed += gap["next"].as_u64().expect("a number") - gap["after"].as_u64().expect("a number") - 1;
            } else if event["kind"] == "daemon-ends" {
                break;
            } else {
                heard += 1;
            }
        }
        assert_eq!(heard + missed, 20_000, "{heard} and {missed}");
        assert!(missed > 0);
        assert_eq!(daemon.shared.events.counts().missed, missed);
    });
}

#[test]
fn users_hear_of_their_own_processes_only() {
    const NOBODY: u32 = 65534;
    let site = Site::new();
    let peer = |uid| Peer { uid, gid: uid, pid: None };
    let config = site.dirs().config;
    std::fs::write(&config, format!("[access]\nobserve = [{NOBODY}]\n")).expect("it is ours");
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    site.run(Script::Obedient, |daemon| async move {
        let request = || Request::Events { since: Some(0), follow: false, pid: None };
        assert!(daemon.answer(peer(NOBODY - 1), request()).await.is_err(), "a stranger");
        assert!(daemon.answer(peer(NOBODY), request()).await.is_ok());
        let wanted = |uid, event: &super::super::events::Event| {
            super::super::events::stream::Wanted { since: None, follow: false, pid: None }.is(peer(uid), event)
        };
        let of = |owner| super::super::events::Subject { owner, ..Default::default() };
        for owner in [None, Some(0), Some(NOBODY)] {
            daemon.shared.events.publish(&of(owner), What::Detached {});
        }
        let batch = daemon.shared.events.after(1, 9);
        let seen: Vec<bool> = batch.events.iter().map(|event| wanted(NOBODY, event)).collect();
        assert_eq!(seen, [false, false, true]);
        assert!(batch.events.iter().all(|event| wanted(0, event)));
    });
}

#[test]
fn what_goes_wrong_with_the_daemons_own_files_is_told_once() {
    let site = Site::new();
    site.dirs().create().expect("the directories are created");
    std::fs::write(site.dirs().history(), "no history\n").expect("it is ours");
    site.run(Script::Obedient, |daemon| async move {
        daemon.tell_troubles();
        daemon.tell_troubles();
        let batch = daemon.shared.events.after(0, 99);
        let troubles: Vec<_> = batch.events.iter().filter(|event| event.what.kind() == "trouble").collect();
        assert_eq!(troubles.len(), 1, "{troubles:?}");
        assert!(troubles[0].what.to_string().contains("cannot be understood"), "{troubles:?}");
    });
}
