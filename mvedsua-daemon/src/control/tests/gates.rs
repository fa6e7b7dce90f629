//! Gates and webhooks, through the daemon.

use hmac::Mac as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

fn configure(site: &Site, text: &str) {
    std::fs::write(site.dirs().config, text).expect("it is ours");
    std::fs::set_permissions(site.dirs().config, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
}

/// A gate that says what a file says.
fn judge(site: &Site, before: &str, on_failure: &str) -> PathBuf {
    let file = site.dir.path().join("says");
    std::fs::set_permissions(site.dir.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    configure(
        site,
        &format!(
            "[[gate]]\nname = \"judge\"\nbefore = [\"{before}\"]\nagain-after = \"1s\"\non-failure = \"{on_failure}\"\n\
             command = [\"/bin/cat\", \"{}\"]\n",
            file.display()
        ),
    );
    file
}

#[test]
fn an_update_waits_for_the_gate_and_status_says_for_which() {
    let site = &Site::new();
    let file = &judge(site, "promotion", "deny");
    let old = site.leader.pid();
    std::fs::write(file, "wait: it is noon\n").expect("it is ours");
    site.run(Script::Obedient, |_| async move {
        let mut talk = site.connect().await;
        talk.ask(update(old, "auto")).await;
        let wanted = "`judge` says to wait: it is noon";
        let target = talk.wait(old, |target| target["update"]["gate"] == wanted).await;
        assert_eq!(target["stage"], "outdated-leader/validating", "{target}");
        assert!(target["next"].as_str().is_some_and(|next| next.contains(wanted)), "{target}");
        assert_eq!(target["update"]["terms"]["gates"][0]["name"], "judge", "{target}");
        std::fs::write(file, "allow\n").expect("it is ours");
        let target = talk.wait(old, |target| !target["update"]["result"].is_null()).await;
        assert_eq!(target["update"]["result"]["code"], 0, "{target}");
        talk.send(b"{\"v\":1,\"request\":{\"events\":{\"since\":0}}}\n").await;
        let mut answers = vec![];
        while let Some(line) = talk.hear().await.filter(|line| line["ok"].is_null()) {
            if line["event"]["happened"]["kind"] == "gate" {
                answers.push(line["event"]["happened"]["answer"].clone());
            }
        }
        assert_eq!(answers.first(), Some(&json!("wait")));
        assert_eq!(answers.last(), Some(&json!("allow")));
    });
}

#[test]
fn what_a_gate_denies_is_rolled_back_with_that_reason_as_verdict() {
    for (before, promotes) in [("promotion", false), ("confirmation", true)] {
        let site = &Site::new();
        let file = judge(site, before, "deny");
        std::fs::write(file, "deny: 3 % errors\n").expect("it is ours");
        let old = site.leader.pid();
        site.run(Script::Obedient, |daemon| async move {
            let mut talk = site.connect().await;
            talk.ask(update(old, "auto")).await;
            let target = talk.wait(old, |target| !target["update"]["result"].is_null()).await;
            let result = &target["update"]["result"];
            assert_eq!(result["code"], 15, "{target}");
            let text = result["text"].as_str().expect("a text");
            assert!(text.contains("`judge` denies it: 3 % errors"), "{text}");
            assert_eq!(target["versions"][0]["which"], "old", "the old version serves: {target}");
            let promoted = daemon
                .shared
                .events
                .counts()
                .targets
                .values()
                .map(|of| of.promotions.classes.iter().sum::<u64>())
                .sum::<u64>();
            assert_eq!(promoted > 0, promotes, "{before}");
        });
    }
}

#[test]
fn a_promotion_by_hand_hears_what_the_gate_says() {
    let site = &Site::new();
    let file = judge(site, "promotion", "deny");
    std::fs::write(file, "deny\n").expect("it is ours");
    let old = site.leader.pid();
    site.run(Script::Obedient, |_| async move {
        let mut talk = site.connect().await;
        talk.ask(update(old, "manual")).await;
        talk.wait(old, |target| target["update"]["counters"]["compared_calls"] == 500).await;
        let answer = talk.ask(json!({"promote": {"pid": old, "evidence": "required"}})).await;
        assert_eq!(answer["error"]["code"], 15, "{answer}");
    });
}

#[test]
fn a_gate_that_cannot_be_asked_allows_nothing() {
    for (on_failure, code) in [("deny", 15), ("wait", 15)] {
        let site = &Site::new();
        // What it should say is not there.
        judge(site, "promotion", on_failure);
        let old = site.leader.pid();
        site.run(Script::Obedient, |_| async move {
            let mut talk = site.connect().await;
            let wishes =
                json!({"promote": "auto", "soak_ms": 20, "timeout_ms": 3000, "log_memory": 1 << 20, "log_disk": 0});
            talk.ask(json!({"update": {"pid": old, "ask": {"to": "self", "wishes": wishes}}})).await;
            let target = talk.wait(old, |target| !target["update"]["result"].is_null()).await;
            let result = &target["update"]["result"];
            assert_eq!(result["code"], code, "{on_failure}: {target}");
            let text = result["text"].as_str().expect("a text");
            assert!(text.contains("`judge` did not answer: /bin/cat: exit code 1"), "{text}");
            assert_eq!(text.contains("time ran out"), on_failure == "wait", "{text}");
        });
    }
}

#[test]
fn only_root_has_a_command_run() {
    const NOBODY: u32 = 65534;
    let site = &Site::new();
    configure(site, &format!("[access]\nupdate = [{NOBODY}]\n"));
    let mut command = Program::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "1000"]);
    let theirs = Sleeper::adopt(command.stdin(Stdio::null()).stdout(Stdio::null()));
    let deadline = std::time::Instant::now() + LIMIT;
    while crate::control::process::uids_of(theirs.pid()).is_ok_and(|uids| uids != [NOBODY; 4]) {
        assert!(std::time::Instant::now() < deadline, "waited {LIMIT:?} for setpriv");
        std::thread::yield_now();
    }
    let peer = Peer { uid: NOBODY, gid: NOBODY, pid: None };
    site.run(Script::Obedient, |daemon| async move {
        let ask = |gate: Value| {
            let request = json!({"update": {"pid": theirs.pid(), "ask": {"to": "self", "wishes": {"gate": gate}}}});
            serde_json::from_value::<Request>(request).expect("it is a request")
        };
        let refused = daemon.answer(peer, ask(json!({"name": "x", "command": ["/bin/true"]}))).await;
        let refused = refused.expect_err("a command would run as another user");
        assert!(refused.why.contains("is a command") && refused.code == super::super::Code::Refused, "{refused}");
        let refused = daemon.answer(peer, ask(json!({"name": "x", "url": "http://192.0.2.1/"}))).await;
        assert!(refused.expect_err("it is elsewhere").why.contains("neither this machine"));
    });
}

/// Takes requests, and answers each with the next of these statuses; the last one goes on.
fn receiver(listener: std::net::TcpListener, statuses: &'static [u16]) -> UnboundedReceiver<String> {
    let listener = TcpListener::from_std(listener).expect("it is one");
    let (tell, told) = unbounded_channel();
    tokio::spawn(async move {
        for index in 0.. {
            let (mut stream, _) = listener.accept().await.expect("somebody tells");
            let mut request = vec![];
            let mut buffer = [0; 4096];
            // The head says how long the body is; a request of a webhook is short.
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                request.extend_from_slice(&buffer[..read]);
                let text = String::from_utf8_lossy(&request);
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                if Some(body.len()) == length {
                    break;
                }
            }
            let status = statuses.get(index).or(statuses.last()).expect("there is one");
            let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = tell.send(String::from_utf8_lossy(&request).into_owned());
        }
    });
    told
}

#[test]
fn a_webhook_is_told_signed_events_and_what_it_does_not_take_is_counted() {
    let site = &Site::new();
    let old = site.leader.pid();
    let secret = site.dir.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef").expect("it is ours");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("it is ours");
    let port = listener.local_addr().expect("it is bound").port();
    configure(
        site,
        &format!(
            "[[webhook]]\nname = \"chat\"\nurl = \"http://127.0.0.1:{port}/hook\"\nsecret-file = \"{}\"\n\
             events = [\"asked\", \"ended\"]\n",
            secret.display()
        ),
    );
    site.run(Script::Obedient, |daemon| async move {
        // It is down when it is told first, then it takes one, then it wants no more.
        let mut told = receiver(listener, &[503, 204, 410]);
        let mut talk = site.connect().await;
        talk.ask(update(old, "auto")).await;
        let mut requests = vec![];
        for _ in 0..3 {
            requests.push(told.recv().await.expect("it is told"));
        }
        assert!(requests.iter().all(|request| request.starts_with("POST /hook HTTP/1.1")), "{requests:?}");
        let bodies: Vec<Value> = requests
            .iter()
            .map(|request| serde_json::from_str(request.split_once("\r\n\r\n").expect("a body").1).expect("JSON"))
            .collect();
        assert_eq!(bodies[0], bodies[1], "it is told again");
        assert_eq!((&bodies[1]["kind"], &bodies[2]["kind"]), (&json!("asked"), &json!("ended")));
        for request in &requests {
            let header = |name: &str| {
                request.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).expect(name).trim().to_owned()
            };
            let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(b"0123456789abcdef").expect("any length");
            mac.update(format!("{}.", header("x-mvedsua-timestamp")).as_bytes());
            mac.update(request.split_once("\r\n\r\n").expect("a body").1.as_bytes());
            let expected: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(header("x-mvedsua-signature"), format!("sha256={expected}"));
        }
        let counts = &daemon.webhooks[0].counts;
        let read = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
        while read(&counts.lost) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!((read(&counts.delivered), read(&counts.retried), read(&counts.lost)), (1, 1, 1));
    });
}
