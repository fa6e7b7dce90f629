//! Metrics and updates over HTTP, and clients that mean no good.

use std::collections::BTreeMap;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::*;
use crate::control::http as site_http;
use crate::monitor::totals::{CLASSES, CallTotals, ProcessTotals};
use crate::monitor::{Lost, ProcessState};

/// What the fake monitor counts of a process: it has read seven times, and a child that nobody knows has written.
pub(super) fn totals(pid: i32) -> Totals {
    let mut classes = [0; CLASSES + 1];
    classes[2] = 7;
    let errors = BTreeMap::from([("EAGAIN".to_owned(), 3)]);
    let read = CallTotals { count: 7, errors, classes, sum_ns: 9000 };
    let write = CallTotals { count: 1, ..CallTotals::default() };
    let process = |pid, state, call: &str, counted| ProcessTotals {
        pid,
        state,
        calls: BTreeMap::from([(call.to_owned(), counted)]),
    };
    Totals {
        pid,
        mode: Mode::Exact,
        elapsed_ns: 5_000_000_000,
        observed_ns: 5_000_000_000,
        processes: vec![
            process(pid, ProcessState::Running, "read", read),
            process(0, ProcessState::Exited, "write", write),
        ],
        slow_seen: 2,
        slow_dropped: 0,
        lost: Lost::default(),
    }
}

/// Runs a test against a daemon that serves HTTP on a port of its own.
fn run<F: Future<Output = ()>>(site: &Site, script: Script, config: &str, test: impl FnOnce(u16, Arc<Daemon>) -> F) {
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let text = format!("[http]\nlisten = \"127.0.0.1:{port}\"\n{config}");
    std::fs::write(site.dirs().config, text).expect("it is ours");
    std::fs::set_permissions(site.dirs().config, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    site.run(script, |daemon| async move {
        let listener = site_http::bind(&daemon).expect("it is bound").expect("the configuration says so");
        let serving = tokio::spawn(site_http::serve(Arc::clone(&daemon), listener));
        test(port, daemon).await;
        serving.abort();
    });
}

/// Says something to the port; returns what is answered until the connection ends.
async fn say(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    // It may answer and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = vec![];
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(port: u16, path: &str) -> (u16, String) {
    let answer = say(port, format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n").as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("there is a head");
    (head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"), body.to_owned())
}

/// Scrapes until each of the lines is there: what was scraped a moment ago is passed on for a while.
async fn metrics(port: u16, lines: &[&str]) -> String {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let (status, body) = get(port, "/metrics").await;
        assert_eq!(status, 200, "{body}");
        let missing = lines.iter().find(|line| !body.lines().any(|told| told == **line));
        let Some(missing) = missing else { return body };
        assert!(tokio::time::Instant::now() < deadline, "waited {LIMIT:?} for {missing} in {body}");
    }
}

#[test]
fn an_update_is_measured_while_it_is_under_way_and_counted_afterwards() {
    let site = &Site::new();
    let old = site.leader.pid();
    run(site, Script::Obedient, "", |port, _| async move {
        let mut talk = site.connect().await;
        talk.ask(json!({"attach": {"pid": old, "options": AttachOptions::default(), "name": "cache"}})).await;
        let lines = [
            r#"mvedsua_calls_total{target="cache",role="leader",call="read"} 7"#,
            r#"mvedsua_calls_total{target="cache",role="child",call="write"} 1"#,
            r#"mvedsua_call_errors_total{target="cache",role="leader",call="read",error="EAGAIN"} 3"#,
            r#"mvedsua_observed_seconds_total{target="cache"} 5.0"#,
            r#"mvedsua_targets{doing="observed"} 1.0"#,
            r#"mvedsua_calls_left_out 0.0"#,
        ];
        let told = metrics(port, &lines).await;
        assert!(!told.contains("mvedsua_update_stage{"), "{told}");
        talk.ask(update(old, "manual")).await;
        talk.wait(old, |target| target["update"]["counters"]["compared_calls"] == 500).await;
        let lines = [
            r#"mvedsua_update_stage{target="cache",stage="outdated-leader/validating"} 1.0"#,
            r#"mvedsua_update_stage{target="cache",stage="promoting"} 0.0"#,
            r#"mvedsua_update_compared_total{target="cache",what="calls"} 500"#,
            r#"mvedsua_update_pause_seconds_count{target="cache",for="fork"} 1"#,
            r#"mvedsua_updates_started_total{target="cache"} 1"#,
        ];
        metrics(port, &lines).await;
        let (_, listed) = get(port, "/v1/updates/1").await;
        let listed: Value = serde_json::from_str(&listed).expect("it is JSON");
        assert_eq!((&listed["phase"], &listed["target"]), (&json!("running"), &json!("cache")), "{listed}");
        talk.ask(json!({"rollback": {"pid": old, "reason": "enough"}})).await;
        talk.ask(json!({"detach": {"pid": old}})).await;
        let ended = r#"mvedsua_updates_ended_total{target="cache",verdict="rolled-back",code="10"} 1"#;
        let told = metrics(port, &[ended, r#"mvedsua_targets{doing="observed"} 0.0"#]).await;
        for ended in ["mvedsua_update_stage{", "mvedsua_calls_total{", "mvedsua_observed_seconds_total{"] {
            assert!(!told.contains(ended), "{ended} has ended: {told}");
        }
        assert!(!told.contains(&format!("\"{old}\"")), "no label is a process number: {told}");
        let (_, listed) = get(port, "/v1/updates").await;
        let listed: Value = serde_json::from_str(&listed).expect("it is JSON");
        assert_eq!(listed["updates"][0]["phase"], "failed", "{listed}");
    });
}

#[test]
fn there_is_a_limit_to_the_series_and_what_is_left_out_is_counted() {
    let site = &Site::new();
    let old = site.leader.pid();
    run(site, Script::Obedient, "max-series = 60\n", |port, _| async move {
        let mut talk = site.connect().await;
        talk.ask(json!({"attach": {"pid": old, "options": AttachOptions::default(), "name": "cache"}})).await;
        let told = metrics(port, &["mvedsua_calls_left_out 1.0"]).await;
        assert!(told.contains("call=\"read\"") && !told.contains("call=\"write\""), "the busier one is told: {told}");
    });
}

#[test]
fn a_bad_client_harms_nobody() {
    let site = &Site::new();
    run(site, Script::Obedient, "", |port, _| async move {
        assert!(
            say(port, b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
                .await
                .contains(" 405 ")
        );
        let rebound = b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n";
        assert!(say(port, rebound).await.contains(" 421 "));
        assert_eq!(get(port, "/v1/updates/7").await.0, 404);
        assert_eq!(get(port, "/v1/updates/../../etc/passwd").await.0, 404);
        assert!(!say(port, b"\xff\xfe\x00nonsense\r\n\r\n").await.contains(" 200 "));
        let long = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; 100_000]].concat();
        assert!(!say(port, &long).await.contains(" 200 "), "its head is too long");
        // As many idle ones as there are places, and some more: those are sent away, the control socket is untouched.
        let mut idle = vec![];
        for _ in 0..40 {
            idle.push(TcpStream::connect(("127.0.0.1", port)).await.expect("it listens"));
        }
        assert!(site.connect().await.ask(json!({"status": {}})).await["ok"].is_object());
        let mut closed = 0;
        for stream in &mut idle {
            let mut byte = [0];
            // Those that have no place are closed at once, the others when they have been silent for too long.
            closed += usize::from(stream.read(&mut byte).await.is_ok_and(|read| read == 0));
        }
        assert_eq!(closed, 40);
        metrics(port, &["mvedsua_http_refused_total 8"]).await;
    });
}

#[test]
fn a_unix_socket_serves_too() {
    let site = &Site::new();
    let path = site.dir.path().join("http.sock");
    let text = format!("[http]\nlisten = \"unix:{}\"\nsocket-mode = 0o640\n", path.display());
    std::fs::write(site.dirs().config, text).expect("it is ours");
    std::fs::set_permissions(site.dirs().config, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    site.run(Script::Obedient, |daemon| async move {
        let listener = site_http::bind(&daemon).expect("it is bound").expect("the configuration says so");
        let serving = tokio::spawn(site_http::serve(daemon, listener));
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let mut stream = UnixStream::connect(&path).await.expect("it listens");
        let request = b"GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text\r\n\r\n";
        stream.write_all(request).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        assert!(answer.contains("openmetrics-text; version=1.0.0") && answer.ends_with("# EOF\n"), "{answer}");
        serving.abort();
    });
}
