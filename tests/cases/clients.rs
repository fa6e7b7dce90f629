//! The clients that judge everything else: they find nothing wrong with real servers that nobody touches, and they do
//! find a wrong byte, a lost connection and silence.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use harness::load::http::HttpClient;
use harness::load::lines::{self, LineClient};
use harness::load::memcached::MemcachedClient;
use harness::load::resp::{RedisClient, RespClient};
use harness::load::{Dialogue, Load, Persistence, Plan, Summary};
use harness::process;
use harness::server::{self, Server};
use harness::snapshot::Snapshot;

const LIMIT: Duration = Duration::from_secs(60);

/// Lets stayers and churners at a server until each has made some thousand requests.
fn drive<D: Dialogue>(server: &Server, requests: u64, client: impl Fn(String) -> D) -> Vec<D> {
    let before = Snapshot::of(server.pid());
    let stay = Load::start(Plan::busy(server.address, 20), |index| client(format!("stay{index}")));
    let churn = Load::start(Plan::churn(server.address, 20), |index| client(format!("churn{index}")));
    stay.wait_requests(requests, LIMIT);
    churn.wait_requests(requests / 10, LIMIT);
    let (summary, mut clients) = stay.stop_with_dialogues();
    summary.expect_clean();
    let (summary, others) = churn.stop_with_dialogues();
    summary.expect_clean();
    assert!(summary.connects > 20, "churners come again: {}", summary.connects);
    clients.extend(others);
    let after = Snapshot::of(server.pid());
    assert_eq!(before.differences_under_load(&after), Vec::<String>::new());
    clients
}

#[test]
fn redis_is_right() {
    let server = server::redis(&[]).unwrap();
    let mut direct = RespClient::connect(server.address, LIMIT).unwrap();
    direct.command(&["DEBUG", "POPULATE", "1000", "key", "100"]).unwrap();
    let digest = direct.command(&["DEBUG", "DIGEST"]).unwrap();
    let clients = drive(&server, 5_000, |name| RedisClient::new(&name).with_populated(1000, 100));
    assert_ne!(direct.command(&["DEBUG", "DIGEST"]).unwrap(), digest);
    for client in clients {
        client.verify_and_delete(&mut direct).unwrap();
    }
    assert_eq!(direct.command(&["DEBUG", "DIGEST"]).unwrap(), digest);
}

#[test]
fn memcached_is_right() {
    let server = server::memcached().unwrap();
    drive(&server, 5_000, |name| MemcachedClient::new(&name));
}

#[test]
fn lighttpd_is_right() {
    let server = server::lighttpd().unwrap();
    drive(&server, 2_000, |_| HttpClient::new(Persistence::Open));
}

#[test]
fn python_is_right() {
    let server = server::python_http().unwrap();
    let load = Load::start(Plan::busy(server.address, 5), |_| HttpClient::new(Persistence::OneReply));
    load.wait_requests(200, LIMIT);
    load.stop().expect_clean();
}

/// Serves one connection with `answer` and returns what one client saw.
fn lie(answer: impl FnOnce(&mut std::net::TcpStream) + Send + 'static) -> Summary {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let liar = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 1 << 17];
        assert!(stream.read(&mut buffer).unwrap() > 0);
        answer(&mut stream);
    });
    let plan = Plan { patience: Duration::from_millis(300), split_one_in: 0, ..Plan::busy(address, 1) };
    let load = Load::start(plan, |_| RedisClient::new("lie"));
    harness::wait::wait_for("the lie to be found", LIMIT, || (load.failed() > 0).then_some(()));
    let summary = load.stop();
    liar.join().unwrap();
    summary
}

#[test]
fn a_wrong_reply_is_found() {
    let summary = lie(|stream| stream.write_all(b"+OKAY\r\n:7\r\n").unwrap());
    assert_eq!(summary.failed, 1);
}

#[test]
fn a_closed_connection_is_found() {
    let summary = lie(|_| {});
    assert!(summary.failures[0].contains("closed"), "{summary:?}");
}

#[test]
fn silence_is_found() {
    let summary = lie(|stream| {
        // Until the client gives up.
        let _ = stream.read(&mut [0; 16]);
    });
    assert!(summary.failures[0].contains("no reply"), "{summary:?}");
}

#[test]
fn a_server_that_is_dropped_is_gone() {
    let server = server::redis(&[]).unwrap();
    let pid = server.pid();
    assert_eq!(server.serving_pid(), Some(pid));
    let dir = server.dir().to_owned();
    drop(server);
    assert!(!process::alive(pid));
    assert!(!dir.exists());
}

#[test]
fn an_idle_server_looks_the_same_twice() {
    let server = server::memcached().unwrap();
    let before = Snapshot::of(server.pid());
    assert!(before.code.keys().any(|line| line.contains("vdso")), "the vDSO is looked at: {:?}", before.code.keys());
    assert_eq!(before.differences(&Snapshot::of(server.pid())), Vec::<String>::new());
}

#[test]
fn turn_is_right_and_betrays_only_as_a_follower() {
    let server = server::turn().unwrap();
    drive(&server, 2_000, |_| LineClient::default());
    let ask = |line: &str| lines::ask(server.address, line, LIMIT).unwrap();
    assert_eq!(ask("betray answer"), "traitor");
    let memory = std::fs::OpenOptions::new().write(true).open(format!("/proc/{}/mem", server.pid())).unwrap();
    memory.write_all_at(&[1], ask("where").parse().unwrap()).unwrap();
    assert_eq!(ask("betray answer"), "loyal");
}
