//! Rules on a real server: what is meant goes through, in both directions; what is not, does not.
//!
//! The server of these cases can tell that it is the follower, and then answers otherwise.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use harness::kvstore::Store;
use harness::load::lines::{self, LineClient};
use harness::load::store::{Speech, StoreClient};
use harness::load::{Load, Plan};
use harness::server;
use harness::stand::{Stand, UPDATED, VALIDATING, code};
use harness::wait::wait_for;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// One difference is an answer, which depends on the request; the other is a message that only the new version sends.
const RULES: &str = r#"
direction outdated-leader

rule answer
    ask: recvfrom(client c, "betray answer\n"), sendto(c, "loyal\n")
 => ask, sendto(c, "traitor\n")

rule greeting
    nothing => sendto(_, "a message that nobody asked for\n")

direction updated-leader

rule answer-back
    ask: recvfrom(client c, "betray answer\n"), sendto(c, "traitor\n")
 => ask, sendto(c, "loyal\n")

rule greeting-back
    sendto(client, "a message that nobody asked for\n") => nothing
"#;

struct World {
    stand: Stand,
    load: Load<LineClient>,
    dir: tempfile::TempDir,
    /// The server's shared memory; its first byte says who a version is.
    shared: u64,
}

impl World {
    fn new() -> World {
        let stand = Stand::new(server::turn().unwrap());
        let load = Load::start(Plan::busy(stand.server.address, 3), |_| LineClient::default());
        let shared = lines::ask(stand.server.address, "where", LIMIT).unwrap().parse().unwrap();
        World { stand, load, dir: tempfile::tempdir().unwrap(), shared }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Starts an update and tells the leader who it is.
    fn validate(&self, extra: &[&str]) {
        self.stand.validate(&[&["--retries", "0"], extra].concat());
        self.stand.wait_compared(20);
        self.mark(1);
    }

    /// Writes the byte that only the serving version sees.
    fn mark(&self, mark: u8) {
        let memory = fs::OpenOptions::new().write(true).open(format!("/proc/{}/mem", self.stand.serving)).unwrap();
        memory.write_all_at(&[mark], self.shared).unwrap();
    }

    fn ask(&self, line: &str) -> String {
        lines::ask(self.stand.server.address, line, LIMIT).unwrap()
    }

    /// Returns how often each rule has matched.
    fn matched(&self, rule: &str) -> u64 {
        let status = self.stand.daemon.status(self.stand.serving).unwrap().unwrap();
        let rules =
            status.raw.pointer("/targets/0/update/rules").or_else(|| harness::daemon::find(&status.raw, "rules"));
        let rules = rules.and_then(Value::as_array).expect("the status tells of rules");
        let found = rules.iter().find(|one| one["rule"] == rule).expect("the rule is told of");
        found["matched"].as_u64().unwrap()
    }

    /// Waits until the status tells that each of these rules has matched once.
    fn wait_matched(&self, rules: [&str; 2]) {
        wait_for("rules to match once", LIMIT, || {
            let matched = rules.map(|rule| self.matched(rule));
            assert!(matched.iter().all(|count| *count <= 1), "{matched:?}");
            (matched == [1, 1]).then_some(())
        });
    }

    fn report(&self) -> String {
        self.stand.daemon.expect(&["report", &self.stand.serving.to_string()], code::DONE).stdout
    }
}

#[test]
fn what_is_meant_goes_through_in_both_directions() {
    let mut world = World::new();
    let rules = world.file("turn.rules", RULES);
    world.validate(&["--rules", &rules]);
    assert_eq!(world.ask("betray answer"), "loyal", "clients hear the leader");
    assert_eq!(world.ask("betray send"), "loyal");
    let compared = world.stand.wait_compared(60).compared_outputs;
    assert!(compared >= 60);
    world.wait_matched(["answer", "greeting"]);
    world.stand.promote();
    // What is shared is the service's, and the old version has a copy.
    world.mark(0);
    // Now the new version speaks for itself, and the old one still answers as it always did.
    assert_eq!(world.ask("betray answer"), "traitor");
    assert_eq!(world.ask("betray send"), "a message that nobody asked for");
    world.stand.wait_compared(compared + 40);
    world.wait_matched(["answer-back", "greeting-back"]);
    world.stand.confirm();
    let status = world.stand.daemon.status(world.stand.serving).unwrap().unwrap();
    assert_eq!(status.result.map(|(code, _)| code), Some(code::DONE as u64), "{:#}", status.raw);
    world.stand.expect_alone();
    world.stand.expect_clean(world.load);
}

#[test]
fn without_rules_it_does_not_and_the_report_proposes_the_rule() {
    let mut world = World::new();
    world.validate(&[]);
    assert_eq!(world.ask("betray answer"), "loyal");
    let status = world.stand.settled();
    assert_eq!(status.result.map(|(code, _)| code), Some(code::DIVERGED as u64));
    let report = world.report();
    let (_, rule) = report.split_once("\n\nrule ").unwrap_or_else(|| panic!("a rule is proposed: {report}"));
    let rules = world.file("proposed.rules", &format!("rule {rule}"));
    world.stand.daemon.expect(&["rules", "check", &rules], code::DONE);
    world.mark(0);

    world.validate(&["--rules", &rules]);
    assert_eq!(world.ask("betray answer"), "loyal");
    world.stand.wait_compared(60);
    // What nobody has allowed for still ends it.
    assert_eq!(world.ask("betray send"), "loyal");
    let status = world.stand.settled();
    assert_eq!(status.result.map(|(code, _)| code), Some(code::DIVERGED as u64));
    assert!(world.report().contains(": matched "), "what the rule did is told: {}", world.report());
    world.stand.expect_alone();
    world.stand.expect_clean(world.load);
}

#[test]
fn rules_with_an_error_are_refused_before_anything_is_touched() {
    let world = World::new();
    let rules = world.file("bad.rules", "rule a\n    raed(client) => nothing\n");
    let pid = world.stand.serving.to_string();
    let said = world.stand.daemon.expect(&["update", &pid, "--to", "self", "--rules", &rules], code::REFUSED).stderr;
    assert!(said.contains("bad.rules:2:5") && said.contains("did you mean `read`?"), "{said}");
    world.stand.expect_alone();
    world.stand.expect_clean(world.load);
}

#[test]
fn a_recording_is_made_and_rules_are_tried_on_it() {
    let mut world = World::new();
    let recording: PathBuf = world.dir.path().join("turn.rec");
    let path = recording.display().to_string();
    world.stand.validate(&["--record", &path]);
    world.stand.wait_compared(50);
    assert_eq!(world.ask("echo loyal"), "loyal");
    let compared = world.stand.wait_compared(50).compared_outputs;
    world.stand.wait_compared(compared + 100);
    world.stand.rollback();
    world.stand.expect_restored();

    let rules = world.file(
        "turn.rules",
        "rule answer\n sendto(client, \"loyal\\n\") => sendto(client, \"x\")\nrule never read(99) => nothing\n",
    );
    let test = |recording: &str, code| {
        world.stand.daemon.expect(&["rules", "test", &rules, "--recording", recording, "--json"], code)
    };
    let run = test(&path, code::DONE).json().unwrap();
    let matched = |at: usize| run["rules"][at]["matched"].as_u64().unwrap();
    assert_eq!((matched(0), matched(1), run["torn"].as_bool()), (1, 0, Some(false)), "{run:#}");
    assert!(run["records"].as_u64().unwrap() > 100);
    let text = world.stand.daemon.expect(&["rules", "test", &rules, "--recording", &path], code::DONE).stdout;
    assert!(text.contains("rule `never` never matched"), "{text}");

    let torn = world.dir.path().join("torn.rec");
    let bytes = fs::read(&recording).unwrap();
    fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
    let run = test(&torn.display().to_string(), code::INCONCLUSIVE).json().unwrap();
    assert!(run["torn"] == true && run["records"].as_u64().unwrap() > 10, "{run:#}");
    let not_one = world.file("no.rec", "hello");
    world.stand.daemon.expect(&["rules", "test", &rules, "--recording", &not_one], code::REFUSED);
    let pid = world.stand.serving.to_string();
    world.stand.daemon.expect(&["update", &pid, "--to", "self", "--record", &path], code::REFUSED);
    world.stand.expect_clean(world.load);
}

#[test]
fn rules_that_hide_every_output_prove_nothing() {
    let mut world = World::new();
    let rules = world.file("blind.rules", "rule blind  any+? => nothing\n");
    let said = world.stand.daemon.expect(&["rules", "check", &rules], code::DONE).stdout;
    assert!(said.contains("hides every call"), "{said}");
    let rules = world.file("lax.rules", "rule lax  sendto(client c, _) => sendto(c, any)\n");
    let wish = ["--rules", &rules, "--promote", "auto", "--soak", "1s", "--timeout", "4s", "--min-outputs", "100"];
    world.stand.update(&wish);
    let status = world.stand.settled();
    const INCONCLUSIVE: u64 = 12;
    assert_eq!(status.result.map(|(code, _)| code), Some(INCONCLUSIVE), "{:#}", status.raw);
    world.stand.expect_alone();
    world.stand.expect_clean(world.load);
}

/// Version 1 and version 2 of the key-value store, which speak differently: see `tests/servers/kvstore/v1-v2.rules`.
fn typed_store(policy: &str) -> (Store, PathBuf) {
    let store = Store::compile(&[]).unwrap();
    let package = store.typed_package("v2", &format!("min-outputs = 5\nretries = 0\n{policy}")).unwrap();
    (store, package)
}

#[test]
fn the_store_goes_to_typed_values_and_the_old_version_follows() {
    let (store, package) = typed_store("");
    let mut stand = Stand::new(store.start(1000).unwrap());
    let address = stand.server.address;
    let line = |line: &str| lines::ask(address, line, LIMIT).unwrap();
    let (pid, to) = (stand.serving.to_string(), package.display().to_string());
    stand.daemon.expect(&["update", &pid, "--to", &to], code::DONE);
    stand.daemon.wait_stage(stand.serving, VALIDATING, LIMIT);
    // Some of their requests come in two pieces.
    let load = Load::start(Plan::busy(address, 5), |index| StoreClient::new(Speech::Plain, index, 5, 1000));
    let say = [
        ("put ann 1", "OK"),
        ("put string ann 2", "ERROR"),
        ("type ann", "ERROR"),
        ("get ann", "1"),
        ("del ann", "OK"),
    ];
    for (request, answer) in say {
        assert_eq!(line(request), answer, "{request}");
    }
    assert_eq!(line("put bob 7"), "OK");
    let compared = stand.wait_compared(200).compared_outputs;
    stand.wait_compared(compared + 200);
    // Nobody speaks as version 1 wants it while version 2 leads.
    stand.expect_clean(load);
    stand.promote();
    let load = Load::start(Plan::busy(address, 5), |index| {
        // Other keys than those of the load before.
        StoreClient::new(Speech::Common, 100 + index, 1000, 0)
    });
    let say = [
        ("type bob", "string"),
        ("put string bob 8", "OK"),
        ("get bob", "8"),
        ("put bob 9", "ERROR"),
        ("type x", "NOT FOUND"),
    ];
    for (request, answer) in say {
        assert_eq!(line(request), answer, "{request}");
    }
    let compared = stand.wait_compared(1).compared_outputs;
    let status = stand.wait_compared(compared + 100);
    assert_eq!(status.stage, UPDATED, "the old version still follows: {:#}", status.raw);
    // What version 1 cannot store has to wait until it has ended.
    stand.confirm();
    assert_eq!((line("put int bob 10"), line("type bob")), ("OK".to_owned(), "int".to_owned()));
    assert_eq!(line("get bob"), "10");
    stand.expect_alone();
    stand.expect_clean(load);
}

/// What a rule makes of a read may be more than the follower has room for: it reads the rest later, and answers in pieces.
#[test]
fn what_a_rule_makes_longer_than_a_read_is_read_later() {
    let (store, package) = typed_store("");
    let mut stand = Stand::new(store.start(1000).unwrap());
    let address = stand.server.address;
    let mut early = TcpStream::connect(address).unwrap();
    assert_eq!(lines::ask(address, "get key1", LIMIT).unwrap(), "value1");
    let (pid, to) = (stand.serving.to_string(), package.display().to_string());
    stand.daemon.expect(&["update", &pid, "--to", &to], code::DONE);
    stand.daemon.wait_stage(stand.serving, VALIDATING, LIMIT);
    let load = Load::start(Plan::busy(address, 3), |index| StoreClient::new(Speech::Common, index, 3, 1000));
    let mut late = TcpStream::connect(address).unwrap();
    for (name, client) in [("e", &mut early), ("l", &mut late)] {
        client.set_read_timeout(Some(LIMIT)).unwrap();
        let puts: String = (0..1200).map(|at| format!("put {name}{at} v{at}\n")).collect();
        client.write_all(puts.as_bytes()).unwrap();
        let mut answers = vec![0; "OK\n".len() * 1200];
        client.read_exact(&mut answers).unwrap();
        assert_eq!(answers, "OK\n".repeat(1200).as_bytes());
        let long = "x".repeat(30_000);
        client.write_all(format!("put {name} {long}\nget {name}\n").as_bytes()).unwrap();
        let mut answers = vec![0; "OK\n".len() + long.len() + 1];
        client.read_exact(&mut answers).unwrap();
        assert_eq!(answers, format!("OK\n{long}\n").as_bytes());
    }
    let compared = stand.wait_compared(1).compared_outputs;
    let status = stand.wait_compared(compared + 100);
    assert_eq!(status.raw.pointer("/update/plan/attempt").and_then(Value::as_u64), Some(1), "{:#}", status.raw);
    stand.promote();
    for (name, client) in [("e", &mut early), ("l", &mut late)] {
        client.write_all(format!("type {name}1199\nget {name}700\n").as_bytes()).unwrap();
        let mut answers = vec![0; "string\nv700\n".len()];
        client.read_exact(&mut answers).unwrap();
        assert_eq!(answers, b"string\nv700\n", "version 2 has what was put");
    }
    stand.confirm();
    stand.expect_alone();
    stand.expect_clean(load);
}

/// A store that is at version 2, with version 1 following.
fn promoted_store(policy: &str) -> Stand {
    let (store, package) = typed_store(policy);
    let mut stand = Stand::new(store.start(1000).unwrap());
    let (pid, to) = (stand.serving.to_string(), package.display().to_string());
    stand.daemon.expect(&["update", &pid, "--to", &to], code::DONE);
    stand.daemon.wait_stage(stand.serving, VALIDATING, LIMIT);
    let load =
        Load::start(Plan::busy(stand.server.address, 5), |index| StoreClient::new(Speech::Common, index, 5, 1000));
    stand.wait_compared(200);
    stand.promote();
    stand.expect_clean(load);
    stand
}

#[test]
fn what_was_put_while_version_2_led_is_there_in_version_1() {
    let mut stand = promoted_store("");
    let address = stand.server.address;
    let line = |line: &str| lines::ask(address, line, LIMIT).unwrap();
    assert_eq!((line("put string bob 8"), line("type bob")), ("OK".to_owned(), "string".to_owned()));
    stand.rollback();
    assert_eq!((line("get bob"), line("type bob")), ("8".to_owned(), "ERROR".to_owned()));
    stand.expect_alone();
}

/// As in the paper: what cannot be told to version 1 ends it, where the policy says so.
#[test]
fn what_the_old_version_cannot_follow_ends_it_where_the_policy_says_so() {
    let mut stand = promoted_store("on-parting = \"keep\"\n");
    let address = stand.server.address;
    let line = |line: &str| lines::ask(address, line, LIMIT).unwrap();
    let new = stand.serving;
    assert_eq!(line("put int bob 10"), "OK");
    let status = stand.settled();
    assert_eq!(stand.serving, new, "version 2 serves: {:#}", status.raw);
    assert_eq!((line("get bob"), line("type bob")), ("10".to_owned(), "int".to_owned()));
    stand.expect_alone();
}

#[test]
fn without_rules_the_typed_store_parts_at_the_first_put() {
    let store = Store::compile(&[]).unwrap();
    let package = store.package("v2", &[], "retries = 0\n").unwrap();
    let mut stand = Stand::new(store.start(10).unwrap());
    let (pid, to) = (stand.serving.to_string(), package.display().to_string());
    stand.daemon.expect(&["update", &pid, "--to", &to], code::DONE);
    stand.daemon.wait_stage(stand.serving, VALIDATING, LIMIT);
    assert_eq!(lines::ask(stand.server.address, "put ann 1", LIMIT).unwrap(), "OK");
    let status = stand.settled();
    assert_eq!(status.result.map(|(code, _)| code), Some(code::DIVERGED as u64));
    stand.expect_alone();
}
