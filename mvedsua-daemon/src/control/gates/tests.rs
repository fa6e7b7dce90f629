//! Gates that answer, and gates that do not.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

fn question() -> Question {
    Question {
        v: 1,
        before: Moment::Promotion,
        update: 3,
        target: "cache".to_owned(),
        pid: 7,
        to: "v2".to_owned(),
        package: None,
        attempt: 1,
        compared_calls: 500,
        compared_outputs: 50,
        backlog: 0,
        fork_pause_us: None,
        promotion_pause_us: None,
    }
}

fn gate(judge: Judge) -> Gate {
    Gate { timeout: Duration::from_millis(1500), ..Gate::new("judge", judge) }
}

fn shell(script: &str) -> Gate {
    gate(Judge::Command(["/bin/sh", "-c", script].map(str::to_owned).to_vec()))
}

fn run(gates: &[Gate]) -> (GateAnswer, Vec<Answered>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let config = GatesConfig::default();
    runtime
        .block_on(async { tokio::time::timeout(LIMIT, ask(&config, gates, &question())).await.expect("it is bounded") })
}

fn why(answer: &GateAnswer) -> &str {
    match answer {
        GateAnswer::Allow => "",
        GateAnswer::Deny { why } | GateAnswer::Wait { why, .. } => why,
    }
}

#[test]
fn a_command_says_what_it_says_and_knows_what_it_is_asked() {
    assert_eq!(run(&[shell("echo allow")]).0, GateAnswer::Allow);
    let (answer, told) = run(&[shell("echo allow"), shell("echo 'deny: no'"), shell("echo allow")]);
    assert_eq!(answer, GateAnswer::Deny { why: "`judge` denies it: no".to_owned() });
    assert_eq!(
        told.iter().map(|told| told.answer).collect::<Vec<_>>(),
        ["allow", "deny"],
        "the first that denies decides"
    );
    let after = Duration::from_secs(30);
    assert_eq!(run(&[shell("echo wait")]).0, GateAnswer::Wait { why: "`judge` says to wait".to_owned(), after });
    let (answer, _) = run(&[shell("echo \"deny: $MVEDSUA_BEFORE of $MVEDSUA_TARGET $(cat)\"")]);
    assert!(why(&answer).contains("promotion of cache {\"v\":1,\"before\":\"promotion\""), "{answer:?}");
}

#[test]
fn a_command_has_no_rights_that_it_does_not_need() {
    let script = "echo \"deny: $(id -un) $(id -G | wc -w) $(pwd) $(env | grep -c =) $(grep NoNewPrivs /proc/self/status | tr -d '\\t') \
                  $(ls /proc/self/fd | wc -l) $(ps -o pgid= -p $$ | tr -d ' ') $$\"";
    let (answer, _) = run(&[shell(script)]);
    let words: Vec<&str> = why(&answer).trim_start_matches("`judge` denies it: ").split(' ').collect();
    // PATH, LANG, the five of the question, and what the shell adds; standard input, output and error, and what `ls` opens.
    assert_eq!(&words[..3], ["nobody", "1", "/"], "{words:?}");
    assert!(words[3].parse::<u32>().is_ok_and(|variables| variables <= 11), "{words:?}");
    assert_eq!((words[4], words[5]), ("NoNewPrivs:1", "4"), "{words:?}");
    assert_eq!(words[6], words[7], "a group of its own");
}

#[test]
fn whatever_is_no_answer_allows_nothing() {
    let cases = [
        ("exit 0", "it said \"\""),
        ("echo allowed", "it said \"allowed\""),
        ("echo allow; exit 1", "exit code 1"),
        ("echo oops >&2; exit 3", "exit code 3, oops"),
        ("kill -9 $$", "signal 9"),
        ("sleep 100; echo allow", "did not end within 1s 500ms"),
        ("yes", "more than 65536 bytes"),
    ];
    for (script, expected) in cases {
        let (answer, told) = run(&[shell(script)]);
        assert!(matches!(answer, GateAnswer::Deny { .. }), "{script}: {answer:?}");
        assert!(why(&answer).contains(expected), "{script}: {answer:?}");
        assert_eq!(told[0].answer, "failed");
    }
    let patient = Gate { on_failure: OnFailure::Wait, ..shell("exit 1") };
    assert!(matches!(run(&[patient]).0, GateAnswer::Wait { .. }));
    let (answer, _) = run(&[gate(Judge::Command(vec!["/no/such/judge".to_owned()]))]);
    assert!(why(&answer).contains("/no/such/judge: No such file"), "{answer:?}");
    let elsewhere = gate(Judge::new(Some("http://192.0.2.1/"), None).expect("it is an address"));
    assert!(why(&run(&[elsewhere]).0).contains("neither this machine"));
}

#[test]
fn what_a_command_leaves_behind_ends_with_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).expect("it is ours");
    let file = dir.path().join("pid");
    let pid = |file: &Path| std::fs::read_to_string(file).unwrap_or_default().trim().parse::<i32>().ok();
    // One that it leaves, which holds the pipe open, and one that does not end in time.
    for script in ["sleep 1000 & echo $! > FILE; echo allow", "sleep 1000 & echo $! > FILE; wait"] {
        let _ = std::fs::remove_file(&file);
        run(&[shell(&script.replace("FILE", &file.display().to_string()))]);
        let left = pid(&file).expect("it was written");
        let deadline = std::time::Instant::now() + LIMIT;
        while crate::control::process::ProcessId::of(left).is_ok_and(|process| process.is_alive()) {
            assert!(std::time::Instant::now() < deadline, "process {left} of {script} is left");
            std::thread::yield_now();
        }
    }
}

/// Answers one request on a port of its own with these bytes; `None` is never.
async fn serve(answer: Option<&'static [u8]>) -> (Gate, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("somebody asks");
        let mut asked = vec![0; 16 << 10];
        let read = stream.read(&mut asked).await.expect("it is read");
        match answer {
            Some(answer) => stream.write_all(answer).await.expect("it is heard"),
            None => std::future::pending().await,
        }
        String::from_utf8_lossy(&asked[..read]).into_owned()
    });
    let url = format!("http://127.0.0.1:{port}/judge?x=1");
    (gate(Judge::new(Some(&url), None).expect("it is an address")), served)
}

#[test]
fn an_endpoint_is_asked_and_only_its_plain_word_counts() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = GatesConfig::default();
        let cases: [(Option<&'static [u8]>, &str); 7] = [
            (Some(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nallow"), ""),
            (
                Some(b"HTTP/1.1 200 OK\r\nContent-Length: 35\r\n\r\n{\"answer\":\"deny\",\"reason\":\"errors\"}"),
                "errors",
            ),
            (Some(b"HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nallow"), "status 500"),
            (Some(b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n"), "status 302"),
            (Some(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nallow"), "judge"),
            (Some(b"nonsense\r\n\r\n"), "judge"),
            (None, "no answer within"),
        ];
        for (answer, expected) in cases {
            let (gate, served) = serve(answer).await;
            let (said, _) = ask(&config, &[gate], &question()).await;
            assert_eq!(said == GateAnswer::Allow, expected.is_empty(), "{said:?}");
            assert!(why(&said).contains(expected), "{said:?}");
            if expected.is_empty() {
                let asked = served.await.expect("it does not panic");
                assert!(
                    asked.starts_with("POST /judge?x=1 HTTP/1.1\r\n") && asked.contains("\"target\":\"cache\""),
                    "{asked}"
                );
            } else {
                served.abort();
            }
        }
        let nobody = gate(Judge::new(Some("http://127.0.0.1:1/"), None).expect("it is an address"));
        let (said, _) = ask(&config, &[nobody], &question()).await;
        assert!(why(&said).contains("http://127.0.0.1:1/"), "{said:?}");
    });
}
