//! Servers under a supervisor, which is how most of them run: whatever an update does, the supervisor sees the process that it
//! started, and everything that it can do to a service it can do as if there had been no update.
//!
//! [`through_all_stages`] is the update; the rest of the file is what is looked at in each stage and afterwards. Each service
//! goes through the same without an update as well, so that what fails here is the update's fault.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use harness::daemon::Daemon;
use harness::fleet::{SALT, mariadb_args};
use harness::load::dns::{DnsClient, hosts};
use harness::load::http::HttpClient;
use harness::load::lines::{LineClient, ask};
use harness::load::memcached::MemcachedClient;
use harness::load::mysql::MysqlClient;
use harness::load::resp::RedisClient;
use harness::load::{Clients, Dialogue, Load, Persistence, Plan, Transport};
use harness::process::{self, Program, find_program};
use harness::server::{free_port, write_web_files};
use harness::snapshot::listens;
use harness::stand::{SINGLE, STEP_LIMIT, UPDATED, VALIDATING, code};
use harness::systemd::Systemd;
use harness::wait::wait_for;
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// Outputs that must be compared before a promotion.
const COMPARED: u64 = 100;
/// Requests that must be answered in each stage.
const REQUESTS: u64 = 100;

// The update.

/// Updates a process to itself, promotes, rolls back, updates once more, promotes and confirms. After each step `look` is
/// called with the name of the stage.
fn through_all_stages(daemon: &Daemon, pid: i32, options: &[&str], look: &mut dyn FnMut(&str)) {
    look("before");
    validate(daemon, pid, options);
    look("validating");
    promote(daemon, pid);
    look("promoted");
    roll_back(daemon, pid);
    look("rolled back");
    validate(daemon, pid, options);
    promote(daemon, pid);
    look("promoted again");
    confirm(daemon, pid);
    look("confirmed");
}

/// The short way, for what is tried with an updated service.
fn updated(daemon: &Daemon, pid: i32, options: &[&str]) {
    validate(daemon, pid, options);
    promote(daemon, pid);
    confirm(daemon, pid);
}

fn validate(daemon: &Daemon, pid: i32, options: &[&str]) {
    let number = pid.to_string();
    daemon.expect(&[&["update", &number, "--to", "self", "--max-slowdown", "off"], options].concat(), code::DONE);
    daemon.wait_stage(pid, VALIDATING, STEP_LIMIT);
    wait_for(&format!("{COMPARED} compared outputs; daemon: {}", daemon.output()), STEP_LIMIT, || {
        let status = daemon.status(pid).ok().flatten()?;
        assert_eq!(status.stage, VALIDATING, "{:#}", status.raw);
        (status.compared_outputs >= COMPARED).then_some(())
    });
}

fn promote(daemon: &Daemon, pid: i32) {
    daemon.expect(&["promote", &pid.to_string()], code::DONE);
    let status = daemon.wait_stage(pid, UPDATED, STEP_LIMIT);
    assert_eq!(status.leader, pid, "the process that was updated serves");
}

fn roll_back(daemon: &Daemon, pid: i32) {
    daemon.expect(&["rollback", &pid.to_string()], code::DONE);
    let status = daemon.wait_stage(pid, SINGLE, STEP_LIMIT);
    assert_eq!(status.leader, pid, "the process that was updated serves");
}

fn confirm(daemon: &Daemon, pid: i32) {
    daemon.expect(&["confirm", &pid.to_string()], code::DONE);
    let status = daemon.wait_stage(pid, SINGLE, STEP_LIMIT);
    assert_eq!(status.leader, pid, "the process that was updated serves");
}

// Clients.

type Group = Vec<Box<dyn Clients>>;

/// Clients that stay, each with a name of its own: what it stores may outlive it. They leave the supervisor some time.
fn group<D: Dialogue>(address: SocketAddr, count: usize, client: impl Fn(String) -> D) -> Group {
    static GROUPS: AtomicU32 = AtomicU32::new(0);
    let group = GROUPS.fetch_add(1, SeqCst);
    let plan = Plan { pause_one_in: 2, pause: Duration::from_millis(20), ..Plan::busy(address, count) };
    vec![Box::new(Load::start(plan, |index| client(format!("g{group}c{index}"))))]
}

/// Waits until the clients have got some more right answers.
#[track_caller]
fn served(clients: &Group, stage: &str) {
    let requests = || clients.iter().map(|load| load.requests()).sum::<u64>();
    let failed = || clients.iter().map(|load| load.failed()).sum::<u64>();
    // Some clients take their time.
    let all = || clients.iter().all(|load| load.requests() > 0);
    let goal = requests() + REQUESTS;
    wait_for(&format!("{REQUESTS} requests ({stage})"), STEP_LIMIT, || {
        (requests() >= goal && all() || failed() > 0).then_some(())
    });
}

/// Ends the clients after some more right answers, and panics unless every answer was right.
#[track_caller]
fn clean(clients: Group, stage: &str) {
    served(&clients, stage);
    clients.into_iter().for_each(|load| load.stop().expect_clean());
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[track_caller]
fn listening(port: u16) {
    wait_for(&format!("a server at port {port}"), STEP_LIMIT, || TcpStream::connect(local(port)).ok());
}

fn script(path: &Path, text: &str) -> String {
    fs::write(path, format!("#!/bin/sh\n{text}")).unwrap();
    let path = path.display().to_string();
    assert!(Command::new("chmod").args(["+x", &path]).status().unwrap().success());
    path
}

fn program(name: &str) -> String {
    find_program(name).unwrap().display().to_string()
}

/// Runs a line of the shell in a folder and panics unless it succeeds.
#[track_caller]
fn shell(dir: &Path, line: &str) -> String {
    let output = Command::new("sh").args(["-ec", line]).current_dir(dir).stdin(Stdio::null()).output().unwrap();
    let told = String::from_utf8_lossy(&[output.stdout.clone(), output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{line}: {told}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

// Services of systemd.

/// A server as a unit. The functions get its folder, which is its own, and its port.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    /// The lines of `[Service]`.
    unit: fn(&Path, u16) -> String,
    clients: fn(SocketAddr) -> Group,
    /// Rules without which two runs of the same version differ.
    rules: Option<&'static str>,
    /// What an administrator may do at any time, through the file with the server's number.
    administer: fn(&Path, u16),
}

/// Tells systemd all the time that it is alive, when somebody asks Redis for it.
const REDIS: Kind = Kind {
    name: "redis",
    unit: |dir, port| {
        let redis = program("redis-server");
        let at = dir.display();
        let pings = "while redis-cli -p $1 ping | grep -q PONG; do systemd-notify WATCHDOG=1; sleep 0.2; done\n";
        let pings = script(&dir.join("pings"), pings);
        format!(
            "Type=notify\nNotifyAccess=all\nWatchdogSec=10\nRestart=on-failure\n\
             ExecStart={redis} --port {port} --bind 127.0.0.1 --dir {at} --save \"\" --supervised systemd --pidfile {at}/pid\n\
             ExecStartPost=setsid --fork {pings} {port}\n"
        )
    },
    clients: |address| group(address, 10, |name| RedisClient::new(&name)),
    rules: None,
    administer: |dir, port| {
        shell(dir, &format!("kill -0 $(cat pid); redis-cli -p {port} info server | grep process_id:$(cat pid)"));
    },
};

/// Tells systemd by itself that it is alive, and nobody else may.
const WATCHED: Kind = Kind {
    name: "watched",
    unit: |_, port| {
        let turn = Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers/turn.py").canonicalize().unwrap();
        format!(
            "Type=notify\nNotifyAccess=main\nWatchdogSec=10\nRestart=on-failure\nExecStart={} -u {} {port}\n",
            program("python3"),
            turn.display()
        )
    },
    clients: |address| group(address, 10, |_| LineClient::default()),
    rules: None,
    administer: |_, _| {},
};

const MARIADB: Kind = Kind {
    name: "mariadb",
    unit: |dir, port| {
        let args = mariadb_args(port, dir).unwrap().join(" ");
        format!(
            "Type=notify\nRestart=on-failure\nExecStart={} {args} --pid-file={}/pid\n",
            program("mariadbd"),
            dir.display()
        )
    },
    clients: |address| group(address, 4, |name| MysqlClient::new(&name)),
    rules: Some(SALT),
    // It writes its tables out and opens its logs again.
    administer: |dir, _| drop(shell(dir, "kill -HUP $(cat pid)")),
};

/// One process. It cannot read its settings again (no update is needed for that), but open its logs.
const NGINX: Kind = Kind {
    name: "nginx",
    unit: nginx,
    clients: |address| group(address, 8, |_| HttpClient::new(Persistence::Open)),
    rules: None,
    // As the log's rotation does it.
    administer: |dir, _| {
        shell(dir, "mv access.log access.log.1; kill -USR1 $(cat pid)");
        wait_for("the new log", STEP_LIMIT, || fs::metadata(dir.join("access.log")).ok().filter(|log| log.len() > 0));
    },
};

fn nginx(dir: &Path, port: u16) -> String {
    let nginx = program("nginx");
    let root = write_web_files(dir).unwrap();
    let at = dir.display();
    let config = format!(
        "daemon on;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n  access_log {at}/access.log;\n  keepalive_requests 100000000;\n  default_type text/plain;\n  \
         client_body_temp_path {at}/body;\n  proxy_temp_path {at}/proxy;\n  fastcgi_temp_path {at}/fastcgi;\n  \
         uwsgi_temp_path {at}/uwsgi;\n  scgi_temp_path {at}/scgi;\n  \
         server {{ listen 127.0.0.1:{port}; root {root}; }}\n}}\n"
    );
    fs::write(dir.join("nginx.conf"), config).unwrap();
    let command = format!("{nginx} -e {at}/error.log -c {at}/nginx.conf");
    format!("Type=forking\nPIDFile={at}/pid\nRestart=on-failure\nExecStart={command}\nExecReload={command} -s reopen\n")
}

/// It remembers its own number, forks a process for each question over TCP, and waits for those.
const DNSMASQ: Kind = Kind {
    name: "dnsmasq",
    unit: |dir, port| {
        let at = dir.display();
        let mut config = format!(
            "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nlocal=/test/\nuser=root\n\
             pid-file={at}/pid\naddn-hosts={at}/names\n"
        );
        for (name, address) in hosts() {
            config.push_str(&format!("host-record={name},{}\n", Ipv4Addr::from(address)));
        }
        fs::write(dir.join("dnsmasq.conf"), config).unwrap();
        fs::write(dir.join("names"), "").unwrap();
        format!(
            "Type=forking\nPIDFile={at}/pid\nRestart=on-failure\nExecStart={} -C {at}/dnsmasq.conf\n\
             ExecReload=kill -HUP $MAINPID\n",
            program("dnsmasq")
        )
    },
    clients: |address| {
        let udp = Plan { transport: Transport::Udp, ..Plan::busy(address, 8) };
        let tcp = Plan { visits: Some(1..=3), pause_one_in: 1, ..Plan::busy(address, 2) };
        let over = |plan: Plan, persistence: Persistence| {
            let transport = plan.transport;
            Box::new(Load::start(plan, move |_| DnsClient::new(transport, persistence))) as Box<dyn Clients>
        };
        vec![over(udp, Persistence::Open), over(tcp, Persistence::OneReply)]
    },
    rules: None,
    // A name that it learns when it is told to read the names again.
    administer: |dir, port| {
        static NAMES: AtomicU32 = AtomicU32::new(0);
        let [_, _, high, low] = NAMES.fetch_add(1, SeqCst).to_be_bytes();
        let address = Ipv4Addr::new(10, 9, high, low);
        fs::write(dir.join("names"), format!("{address} new.test\n")).unwrap();
        shell(dir, "kill -HUP $(cat pid)");
        wait_for("the new name", STEP_LIMIT, || (resolve(port, "new.test") == Some(address)).then_some(()));
    },
};

const MEMCACHED: Kind = Kind {
    name: "memcached",
    unit: |dir, port| {
        format!(
            "Type=simple\nRestart=always\nExecStart={} -u root -l 127.0.0.1 -p {port} -U 0 -t 2 -P {}/pid\n",
            program("memcached"),
            dir.display()
        )
    },
    clients: |address| group(address, 10, |name| MemcachedClient::new(&name)),
    rules: None,
    administer: |dir, _| drop(shell(dir, "kill -HUP $(cat pid)")),
};

/// A unit of a systemd, with a port and a folder.
struct Service {
    systemd: Systemd,
    kind: Kind,
    unit: String,
    dir: PathBuf,
    port: u16,
}

impl Service {
    fn start(kind: Kind) -> Service {
        let systemd = Systemd::start().unwrap();
        let dir = systemd.dir().join(kind.name);
        fs::create_dir(&dir).unwrap();
        let port = free_port().unwrap();
        let unit = format!("{}.service", kind.name);
        let lines = (kind.unit)(&dir, port);
        systemd.install(&unit, &format!("[Unit]\nStartLimitIntervalSec=0\n[Service]\nLimitCORE=0\n{lines}")).unwrap();
        let service = Service { systemd, kind, unit, dir, port };
        service.systemd.expect(&["start", &service.unit]);
        listening(port);
        service
    }

    fn pid(&self) -> i32 {
        self.systemd.main_pid(&self.unit)
    }

    fn clients(&self) -> Group {
        (self.kind.clients)(local(self.port))
    }

    /// Options of `update`.
    fn options(&self) -> Vec<String> {
        let Some(rules) = self.kind.rules else { return Vec::new() };
        let file = self.dir.join("rules");
        fs::write(&file, rules).unwrap();
        vec!["--rules".to_owned(), file.display().to_string()]
    }

    /// Panics unless systemd sees the process run, restarted by systemd as often as said, and it serves.
    #[track_caller]
    fn expect_well(&self, pid: i32, restarts: u32, stage: &str) {
        let seen = ["ActiveState", "SubState", "Result", "NRestarts", "MainPID"]
            .map(|property| self.systemd.property(&self.unit, property));
        let wanted = ["active", "running", "success", &restarts.to_string(), &pid.to_string()].map(str::to_owned);
        assert_eq!(seen, wanted, "{}, {stage}; systemd: {}", self.unit, self.systemd.log());
        assert!(listens(pid, self.port), "process {pid} listens ({stage})");
    }

    /// The service is served in this stage, watched, and can be administered.
    #[track_caller]
    fn look(&self, pid: i32, clients: &Group, stage: &str) {
        served(clients, stage);
        self.expect_well(pid, 0, stage);
        (self.kind.administer)(&self.dir, self.port);
        if !matches!(&*self.systemd.property(&self.unit, "WatchdogUSec"), "0" | "infinity") {
            let told = || self.systemd.property(&self.unit, "WatchdogTimestampMonotonic").parse::<u64>().unwrap_or(0);
            let before = told();
            wait_for(&format!("a sign of life ({stage})"), STEP_LIMIT, || (told() > before).then_some(()));
        }
        served(clients, stage);
    }

    /// Panics unless a few clients are served well.
    #[track_caller]
    fn try_out(&self, stage: &str) {
        clean(self.clients(), stage);
    }

    /// Waits until another process than `old` runs, and returns it.
    #[track_caller]
    fn replaced(&self, old: i32, stage: &str) -> i32 {
        let pid = wait_for(&format!("another main process ({stage})"), STEP_LIMIT, || {
            let pid = self.pid();
            let active = self.systemd.property(&self.unit, "ActiveState") == "active";
            (pid != 0 && pid != old && active).then_some(pid)
        });
        listening(self.port);
        assert!(!process::alive(old), "process {old} has ended ({stage})");
        pid
    }

    /// Panics unless the unit has been stopped, and nothing is left of it.
    #[track_caller]
    fn expect_stopped(&self, old: i32, stage: &str) {
        wait_for(&format!("the unit to be stopped ({stage})"), STEP_LIMIT, || {
            (self.systemd.property(&self.unit, "ActiveState") == "inactive").then_some(())
        });
        assert_eq!(self.systemd.property(&self.unit, "Result"), "success", "{stage}; systemd: {}", self.systemd.log());
        assert!(!process::alive(old), "process {old} has ended ({stage})");
        assert_eq!(self.systemd.members(&self.unit), Vec::<i32>::new(), "processes are left ({stage})");
    }
}

/// Everything that systemd does to a service. Without a daemon there is no update; whatever is right then is right.
fn lives_under_systemd(kind: Kind, daemon: Option<&Daemon>) {
    let service = Service::start(kind);
    let options = service.options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let first = service.pid();

    let clients = service.clients();
    match daemon {
        Some(daemon) => through_all_stages(daemon, first, &options, &mut |stage| service.look(first, &clients, stage)),
        None => service.look(first, &clients, "by itself"),
    }
    clean(clients, "at the end");

    if service.systemd.property(&service.unit, "CanReload") == "yes" {
        service.systemd.expect(&["reload", &service.unit]);
        service.try_out("reloaded");
        service.expect_well(first, 0, "reloaded");
    }
    service.systemd.expect(&["restart", &service.unit]);
    let second = service.replaced(first, "restarted");
    service.expect_well(second, 0, "restarted");

    let clients = service.clients();
    if let Some(daemon) = daemon {
        updated(daemon, second, &options);
    }
    clean(clients, "before the crash");
    process::signal(second, Signal::SIGSEGV);
    let third = service.replaced(second, "crashed");
    service.expect_well(third, 1, "crashed");

    let clients = service.clients();
    if let Some(daemon) = daemon {
        // Stopped while the old version still follows.
        validate(daemon, third, &options);
        promote(daemon, third);
    }
    clean(clients, "before the stop");
    service.systemd.expect(&["stop", &service.unit]);
    service.expect_stopped(third, "stopped");
}

fn updated_under_systemd(kind: Kind) {
    let daemon = Daemon::start().unwrap();
    lives_under_systemd(kind, Some(&daemon));
    daemon.expect_no_leftovers();
}

mod under_systemd {
    use super::*;

    /// The proof that the rest of these tests is about updates.
    #[test]
    fn every_service_lives_without_an_update() {
        [REDIS, WATCHED, MARIADB, NGINX, DNSMASQ, MEMCACHED]
            .into_iter()
            .for_each(|kind| lives_under_systemd(kind, None));
    }

    #[test]
    fn redis() {
        updated_under_systemd(REDIS);
    }

    #[test]
    fn a_server_that_tells_that_it_is_alive() {
        updated_under_systemd(WATCHED);
    }

    #[test]
    fn mariadb() {
        updated_under_systemd(MARIADB);
    }

    #[test]
    fn nginx_that_forks() {
        updated_under_systemd(NGINX);
    }

    #[test]
    fn dnsmasq_with_its_children() {
        updated_under_systemd(DNSMASQ);
    }

    #[test]
    fn memcached() {
        updated_under_systemd(MEMCACHED);
    }

    /// A client may end Redis; systemd sees that as what it is.
    #[test]
    fn redis_is_shut_down_in_each_stage() {
        let service = Service::start(REDIS);
        let daemon = Daemon::start().unwrap();
        let shut_down = |pid: i32, stage: &str| {
            service.expect_well(pid, 0, stage);
            // The connection ends without an answer.
            let _ = Command::new("redis-cli").args(["-p", &service.port.to_string(), "shutdown", "nosave"]).output();
            service.expect_stopped(pid, stage);
            service.systemd.expect(&["start", &service.unit]);
            listening(service.port);
            service.pid()
        };
        let with_clients = |step: &dyn Fn()| {
            let clients = service.clients();
            step();
            clean(clients, "before the end");
        };
        let pid = shut_down(service.pid(), "by itself");
        with_clients(&|| validate(&daemon, pid, &[]));
        let pid = shut_down(pid, "validating");
        with_clients(&|| {
            validate(&daemon, pid, &[]);
            promote(&daemon, pid);
        });
        let pid = shut_down(pid, "promoted");
        with_clients(&|| {
            validate(&daemon, pid, &[]);
            promote(&daemon, pid);
            roll_back(&daemon, pid);
        });
        let pid = shut_down(pid, "rolled back");
        with_clients(&|| updated(&daemon, pid, &[]));
        shut_down(pid, "confirmed");
    }
}

/// Asks a name server on this machine for an address.
fn resolve(port: u16, name: &str) -> Option<Ipv4Addr> {
    let mut question = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).ok()?);
        question.extend_from_slice(label.as_bytes());
    }
    // The root, type A, class IN.
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind(("127.0.0.1", 0)).ok()?;
    socket.set_read_timeout(Some(STEP_LIMIT)).ok()?;
    socket.send_to(&question, local(port)).ok()?;
    let mut reply = [0; 512];
    let length = socket.recv(&mut reply).ok()?;
    // A reply with one answer ends with the address.
    let address: [u8; 4] = reply[..length].last_chunk().copied()?;
    (reply[7] == 1).then(|| Ipv4Addr::from(address))
}

// Other supervisors.

/// A supervisor that starts one Memcached.
struct Other {
    /// Ends the supervisor and all that it started.
    _program: Program,
    port: u16,
    _dir: TempDir,
    /// The process that the supervisor sees; 0 while it sees none.
    pid: Box<dyn Fn() -> i32>,
    /// Tells the supervisor something: `restart`, `stop`, or `hup`.
    tell: Box<dyn Fn(&str)>,
}

fn memcached_line(port: u16) -> String {
    format!("{} -u root -l 127.0.0.1 -p {port} -U 0 -t 2", program("memcached"))
}

fn runit() -> Other {
    let dir = tempfile::Builder::new().prefix("mvedsua-runit-").tempdir().unwrap();
    let port = free_port().unwrap();
    let service = dir.path().join("service");
    fs::create_dir(&service).unwrap();
    script(&service.join("run"), &format!("exec {}\n", memcached_line(port)));
    let place = service.display().to_string();
    let runsv = find_program("runsv").unwrap();
    let program = Program::start(&runsv, std::slice::from_ref(&place), dir.path(), &dir.path().join("output")).unwrap();
    let sv = move |word: &str| {
        let output = Command::new("sv").args(["-w", "30", word, &place]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let asked = sv.clone();
    // `run: /…/service: (pid 123) 4s`
    let pid = move || {
        let text = asked("status");
        let number = text.strip_prefix("run: ").and_then(|text| text.split_once("(pid "));
        number.and_then(|(_, text)| text.split_once(')')?.0.parse().ok()).unwrap_or(0)
    };
    Other { _program: program, port, _dir: dir, pid: Box::new(pid), tell: Box::new(move |word| drop(sv(word))) }
}

fn supervisord() -> Other {
    let dir = tempfile::Builder::new().prefix("mvedsua-supervisord-").tempdir().unwrap();
    let port = free_port().unwrap();
    let at = dir.path().display().to_string();
    let config = format!(
        "[unix_http_server]\nfile={at}/socket\n[supervisord]\nlogfile={at}/log\npidfile={at}/pid\nchildlogdir={at}\n\
         [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\
         [program:service]\ncommand={}\nautorestart=true\nstartsecs=0\n",
        memcached_line(port)
    );
    let file = dir.path().join("supervisord.conf");
    fs::write(&file, config).unwrap();
    let file = file.display().to_string();
    let args = ["-n", "-c", &file].map(str::to_owned);
    let supervisor = find_program("supervisord").unwrap();
    let program = Program::start(&supervisor, &args, dir.path(), &dir.path().join("output")).unwrap();
    let socket = dir.path().join("socket");
    let asked = socket.clone();
    let pid = move || {
        let reply = supervisor_call(&asked, "getProcessInfo", &[]);
        let number = reply.split_once("<name>pid</name>").and_then(|(_, text)| text.split_once("<int>"));
        number.and_then(|(_, text)| text.split_once("</int>")?.0.parse().ok()).unwrap_or(0)
    };
    let tell = move |word: &str| match word {
        "hup" => drop(supervisor_call(&socket, "signalProcess", &["HUP"])),
        "stop" => drop(supervisor_call(&socket, "stopProcess", &[])),
        _ => {
            supervisor_call(&socket, "stopProcess", &[]);
            supervisor_call(&socket, "startProcess", &[]);
        }
    };
    Other { _program: program, port, _dir: dir, pid: Box::new(pid), tell: Box::new(tell) }
}

/// Calls a method of supervisord for its service, as `supervisorctl` does, which takes long to start. Nothing is answered as
/// long as supervisord does not listen.
fn supervisor_call(socket: &Path, method: &str, more: &[&str]) -> String {
    let values = [&["service"], more].concat();
    let values = values.iter().map(|value| format!("<param><value><string>{value}</string></value></param>"));
    let body = format!(
        "<methodCall><methodName>supervisor.{method}</methodName><params>{}</params></methodCall>",
        values.collect::<String>()
    );
    let head = format!("POST /RPC2 HTTP/1.0\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut reply = String::new();
    if let Ok(mut stream) = UnixStream::connect(socket) {
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        stream.read_to_string(&mut reply).unwrap();
    }
    assert!(!reply.contains("<fault>"), "{method}: {reply}");
    reply
}

/// The same as with systemd, in short.
fn lives_under(other: Other, daemon: Option<&Daemon>) {
    let another = |old: i32| {
        wait_for("the supervisor to start the server", STEP_LIMIT, || {
            let pid = (other.pid)();
            (pid != 0 && pid != old && listens(pid, other.port)).then_some(pid)
        })
    };
    let clients = || (MEMCACHED.clients)(local(other.port));
    let first = another(0);
    let load = clients();
    let mut look = |stage: &str| {
        (other.tell)("hup");
        served(&load, stage);
        assert_eq!((other.pid)(), first, "{stage}");
    };
    match daemon {
        Some(daemon) => through_all_stages(daemon, first, &[], &mut look),
        None => look("by itself"),
    }
    clean(load, "at the end");
    (other.tell)("restart");
    let second = another(first);
    assert!(!process::alive(first), "the first process has ended");
    let load = clients();
    if let Some(daemon) = daemon {
        updated(daemon, second, &[]);
    }
    clean(load, "before the crash");
    process::signal(second, Signal::SIGSEGV);
    let third = another(second);
    let load = clients();
    if let Some(daemon) = daemon {
        validate(daemon, third, &[]);
        promote(daemon, third);
    }
    clean(load, "before the stop");
    (other.tell)("stop");
    wait_for("the server to be stopped", STEP_LIMIT, || ((other.pid)() == 0).then_some(()));
    assert!(!process::alive(third), "the third process has ended");
}

#[test]
fn other_supervisors_do_their_work_without_an_update() {
    lives_under(runit(), None);
    lives_under(supervisord(), None);
}

#[test]
fn under_runit() {
    let daemon = Daemon::start().unwrap();
    lives_under(runit(), Some(&daemon));
}

#[test]
fn under_supervisord() {
    let daemon = Daemon::start().unwrap();
    lives_under(supervisord(), Some(&daemon));
}

/// A shell starts a server, waits for it, and is told how it ended.
fn awaited_by_a_shell(update: &dyn Fn(&Daemon, i32)) {
    let dir = tempfile::Builder::new().prefix("mvedsua-shell-").tempdir().unwrap();
    let port = free_port().unwrap();
    let turn = Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers/turn.py");
    let line = "\"$@\" & echo $! > started; wait $!; echo $? > ended";
    let mut args = ["-c", line, "sh", &program("python3"), "-u"].map(str::to_owned).to_vec();
    args.extend([turn.display().to_string(), port.to_string()]);
    let sh = find_program("sh").unwrap();
    let shell = Program::start(&sh, &args, dir.path(), &dir.path().join("output")).unwrap();
    let number = |file: &str| -> Option<i32> { fs::read_to_string(dir.path().join(file)).ok()?.trim().parse().ok() };
    let pid = wait_for("the server's number", STEP_LIMIT, || number("started"));
    listening(port);
    let daemon = Daemon::start().unwrap();
    let clients = group(local(port), 5, |_| LineClient::default());
    update(&daemon, pid);
    clean(clients, "updated");
    assert_eq!(number("ended"), None, "the shell waits");
    // It ends with a status of its own, and says nothing more.
    let _ = ask(local(port), "exit", STEP_LIMIT);
    let status = wait_for("what the shell has seen", STEP_LIMIT, || number("ended"));
    assert_eq!(status, 7, "how the server ended");
    process::wait_gone(shell.pid(), STEP_LIMIT);
}

#[test]
fn a_shell_waits_for_its_server() {
    awaited_by_a_shell(&|_, _| {});
}

#[test]
fn a_shell_waits_for_a_server_that_was_updated() {
    awaited_by_a_shell(&|daemon, pid| through_all_stages(daemon, pid, &[], &mut |_| {}));
}

#[test]
fn a_shell_waits_for_a_server_that_was_promoted() {
    awaited_by_a_shell(&|daemon, pid| {
        validate(daemon, pid, &[]);
        promote(daemon, pid);
    });
}

/// A server that is process 1 of a PID namespace, as in a container, with the daemon inside.
fn first_of_a_namespace(update: &dyn Fn(&Daemon, &Group)) {
    let dir = tempfile::Builder::new().prefix("mvedsua-namespace-").tempdir().unwrap();
    let port = free_port().unwrap();
    let at = dir.path().display().to_string();
    let mut args = ["--pid", "--fork", "--mount-proc", "--kill-child"].map(str::to_owned).to_vec();
    args.extend([program("redis-server"), "--port".into(), port.to_string(), "--bind".into(), "127.0.0.1".into()]);
    args.extend(["--save".into(), String::new(), "--dir".into(), at, "--pidfile".into(), "pid".into()]);
    let unshare = find_program("unshare").unwrap();
    let program = Program::start(&unshare, &args, dir.path(), &dir.path().join("output")).unwrap();
    listening(port);
    let outside = wait_for("the server", STEP_LIMIT, || {
        program.members().into_iter().map(|stat| stat.pid).find(|pid| listens(*pid, port))
    });
    assert_eq!(shell(dir.path(), "cat pid").trim(), "1");
    let mvedsuad = harness::daemon::binary().display();
    let within = dir.path().join("mvedsuad");
    script(&within, &format!("exec nsenter --target {outside} --pid --mount {mvedsuad} \"$@\"\n"));
    let mut daemon = Daemon::prepare(&within).unwrap();
    daemon.start_again().unwrap();
    let clients = group(local(port), 10, |name| RedisClient::new(&name));
    update(&daemon, &clients);
    clean(clients, "updated");
    assert!(process::alive(outside) && listens(outside, port), "process 1 is the server");
    // Process 1 ends and with it all of the namespace.
    let _ = Command::new("redis-cli").args(["-p", &port.to_string(), "shutdown", "nosave"]).output();
    process::wait_gone(outside, STEP_LIMIT);
    process::wait_gone(program.pid(), STEP_LIMIT);
}

#[test]
fn process_1_lives_without_an_update() {
    first_of_a_namespace(&|_, _| {});
}

#[test]
fn process_1_of_a_namespace_is_updated() {
    first_of_a_namespace(&|daemon, clients| through_all_stages(daemon, 1, &[], &mut |stage| served(clients, stage)));
}
