//! The daemon as a monitoring system sees it: a real Prometheus scrapes it while a server is updated, and every query that is
//! shipped is run.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::daemon::Daemon;
use harness::load::resp::RedisClient;
use harness::load::{Load, Plan};
use harness::prometheus::{Prometheus, get};
use harness::server::{self, free_port};
use harness::stand::{STEP_LIMIT, Stand};
use harness::wait::wait_for;
use serde_json::Value;

fn shipped(name: &str) -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist").join(name)).unwrap()
}

#[track_caller]
fn promtool(args: &[&str], input: &str) {
    let mut child = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`cargo xtask setup` installs promtool");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {args:?}: {said}\n{input}");
}

/// Returns every query of the dashboard, with its variables filled in.
fn queries_of_the_dashboard() -> Vec<(String, String)> {
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(shipped("grafana/mvedsuad.json")).unwrap()).unwrap();
    let mut queries = vec![];
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap().replace("$target", ".*").replace("$__rate_interval", "1m");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

/// Returns the value of a line of what is scraped.
fn value(told: &str, series: &str) -> Option<f64> {
    told.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[test]
fn prometheus_scrapes_while_redis_is_updated() {
    let alerts = shipped("prometheus/alerts.yml");
    promtool(&["check", "rules", &alerts.display().to_string()], "");
    let port = free_port().unwrap();
    let daemon = Daemon::configured(&format!("[http]\nlisten = \"127.0.0.1:{port}\"\n")).unwrap();
    let mut stand = Stand::beside(daemon, server::redis(&[]).unwrap());
    let clients = Load::start(Plan::busy(stand.server.address, 10), |index| RedisClient::new(&format!("c{index}")));
    let pid = stand.serving.to_string();
    stand.daemon.expect(&["attach", &pid, "--mode", "exact", "--name", "cache"], 0);
    let prometheus = Prometheus::start(port, Some(&alerts)).unwrap();
    prometheus.wait_series(r#"rate(mvedsua_calls_total{target="cache",role="leader",call="read"}[30s]) > 0"#);

    stand.validate(&[]);
    stand.wait_compared(200);
    prometheus.wait_series(r#"mvedsua_update_stage{target="cache",stage="outdated-leader/validating"} == 1"#);
    prometheus.wait_series(r#"mvedsua_update_compared_total{target="cache",what="outputs"} > 100"#);
    let (status, told) = get(port, "/metrics").unwrap();
    assert_eq!(status, 200);
    promtool(&["check", "metrics"], &told);
    assert!(!told.contains(&format!("\"{pid}\"")), "no label is a process number: {told}");
    // What the leader has called is what the monitor has counted.
    let calls = r#"mvedsua_calls_total{target="cache",role="leader",call="read"}"#;
    let counted = r#"mvedsua_call_duration_seconds_count{target="cache",role="leader",call="read"}"#;
    assert!(value(&told, calls).unwrap() >= value(&told, counted).unwrap(), "{told}");

    // Every query is run while there is something to see. Nothing of these has happened.
    let quiet = ["Verdicts", "Retries, differences, failures", "Answers of gates", "Errors a second"];
    for (panel, query) in queries_of_the_dashboard() {
        if quiet.contains(&panel.as_str()) {
            prometheus.query(&query).unwrap_or_else(|error| panic!("{panel}: {error:#}"));
        } else {
            prometheus.wait_series(&query);
        }
    }

    stand.promote();
    prometheus.wait_series(r#"mvedsua_update_stage{target="cache",stage="updated-leader"} == 1"#);
    stand.rollback();
    prometheus.wait_series(r#"mvedsua_updates_ended_total{target="cache",verdict="rolled-back",code="10"} == 1"#);
    // The series of the update have ended with it, those of the calls go on.
    wait_for("the end of the update's series", STEP_LIMIT, || {
        let (_, told) = get(port, "/metrics").unwrap();
        let over = !told.contains("mvedsua_update_stage{") && !told.contains("role=\"follower\"");
        (over && told.contains(calls)).then_some(())
    });
    let pauses = r#"sum(mvedsua_update_pause_seconds_count{target="cache"}) == 2"#;
    prometheus.wait_series(pauses);
    // Prometheus has evaluated every alert without an error, and the one for what has happened fires.
    wait_for("the alert of the rollback", STEP_LIMIT, || {
        let rules = prometheus.page("/api/v1/rules").unwrap();
        let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap().clone();
        assert_eq!(rules.len(), 15);
        for rule in &rules {
            assert!(rule["health"] == "ok" || rule["health"] == "unknown", "{rule:#}");
        }
        let fires = |rule: &Value| rule["name"] == "MvedsuaUpdateRolledBack" && rule["state"] == "firing";
        (rules.iter().any(fires) && rules.iter().all(|rule| rule["health"] == "ok")).then_some(())
    });
    stand.daemon.expect(&["detach", &pid], 0);
    let told = wait_for("the end of the target's series", Duration::from_secs(10), || {
        let (_, told) = get(port, "/metrics").unwrap();
        (!told.contains("mvedsua_calls_total{")).then_some(told)
    });
    promtool(&["check", "metrics"], &told);
    stand.expect_clean(clients);
}

/// What is told can be gone on with, also where the daemon was killed in between.
#[test]
fn events_go_on_over_the_death_of_the_daemon() {
    let mut stand = Stand::new(server::redis(&[]).unwrap());
    let clients = Load::start(Plan::busy(stand.server.address, 5), |index| RedisClient::new(&format!("c{index}")));
    stand.validate(&[]);
    let events = |stand: &Stand, since: &str| -> Vec<Value> {
        let said = stand.daemon.expect(&["events", "--json", "--since", since], 0).stdout;
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let first = events(&stand, "0");
    let seqs: Vec<u64> = first.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    let kinds = |events: &[Value]| -> Vec<String> {
        events.iter().filter_map(|event| event["kind"].as_str().map(str::to_owned)).collect()
    };
    assert!(kinds(&first).starts_with(&["daemon-started".to_owned(), "asked".to_owned()]), "{first:?}");
    stand.daemon.kill();
    stand.daemon.start_again().unwrap();
    let last = seqs.last().unwrap().to_string();
    let later = events(&stand, &last);
    let told = kinds(&later);
    assert!(told.contains(&"daemon-started".to_owned()) && told.contains(&"ended".to_owned()), "{later:?}");
    let seqs: Vec<u64> = later.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert!(
        seqs.first().is_some_and(|first| last.parse::<u64>().unwrap() < *first),
        "no number is used twice: {seqs:?}"
    );
    let text = stand.daemon.expect(&["events"], 0).stdout;
    assert!(text.lines().any(|line| line.contains("rolled back")), "{text}");
    stand.expect_clean(clients);
}

/// The script that is shipped lets Prometheus judge: what its query denies is rolled back, and the leader notices nothing.
#[test]
fn prometheus_judges_a_promotion() {
    const DENIED: i32 = 15;
    let port = free_port().unwrap();
    let prometheus = Prometheus::start(port, None).unwrap();
    let dir = tempfile::Builder::new().prefix("mvedsua-gate-").tempdir().unwrap();
    // The gate runs as nobody.
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (script, query) = (dir.path().join("gate"), dir.path().join("query"));
    fs::copy(shipped("examples/gate-prometheus"), &script).unwrap();
    let command =
        format!("exec {} http://127.0.0.1:{} \"$(cat {})\"", script.display(), prometheus.port, query.display());
    let config = format!(
        "[http]\nlisten = \"127.0.0.1:{port}\"\n[[gate]]\nname = \"errors\"\nagain-after = \"1s\"\n\
         command = [\"/bin/sh\", \"-c\", '''{command}''']\n"
    );
    let daemon = Daemon::configured(&config).unwrap();
    let mut stand = Stand::beside(daemon, server::redis(&[]).unwrap());
    let clients = Load::start(Plan::busy(stand.server.address, 5), |index| RedisClient::new(&format!("c{index}")));
    let pid = stand.serving.to_string();
    stand.daemon.expect(&["attach", &pid, "--mode", "exact", "--name", "cache"], 0);
    prometheus.wait_series(r#"rate(mvedsua_calls_total{target="cache",call="write"}[30s]) > 0"#);

    // More than no call a second is too much for this one.
    let rate = r#"sum(rate(mvedsua_calls_total{target="@target@",call="write"}[30s]))"#;
    fs::write(&query, format!("{rate} < bool 0")).unwrap();
    stand.validate(&[]);
    stand.wait_compared(100);
    let denied = stand.daemon.expect(&["promote", &pid], DENIED).stderr;
    assert!(denied.contains("`errors` denies it: sum(rate(") && denied.contains("< bool 0 is 0"), "{denied}");
    stand.settled();
    stand.expect_restored();
    prometheus.wait_series(r#"mvedsua_update_gate_answers_total{target="cache",gate="errors",answer="deny"} == 1"#);
    prometheus.wait_series(r#"mvedsua_updates_ended_total{target="cache",code="15"} == 1"#);

    // Of what nobody measures nothing is known.
    fs::write(&query, "no_such_metric < bool 1").unwrap();
    let args = ["--promote", "auto", "--confirm", "auto", "--soak", "1s", "--timeout", "300s"];
    stand.validate(&args);
    wait_for("the gate to be told of in the status", STEP_LIMIT, || {
        let status = stand.daemon.status(stand.serving).unwrap().unwrap();
        (status.next.contains("no data for no_such_metric")).then_some(())
    });
    fs::write(&query, format!("{rate} >= bool 0")).unwrap();
    let status = stand.settled();
    assert_eq!(status.result.as_ref().map(|(code, _)| *code), Some(0), "{:#}", status.raw);
    let (_, listed) = get(port, "/v1/updates").unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let phases: Vec<&str> = listed["updates"].as_array().unwrap().iter().filter_map(|u| u["phase"].as_str()).collect();
    assert_eq!(phases, ["successful", "failed"], "{listed:#}");
    stand.expect_clean(clients);
}
