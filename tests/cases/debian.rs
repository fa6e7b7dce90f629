//! Debian's Redis and HAProxy, as they are installed, go from the archive's older version to their security update; others are
//! refused theirs.
//!
//! The older Redis, 7.0.15-1~deb12u7, crashes when a client restores certain damaged values; the newer one refuses them.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use harness::daemon::Daemon;
use harness::debian::{self, Pair};
use harness::fleet::{haproxy_of, nginx_of};
use harness::load::http::HttpClient;
use harness::load::resp::{RedisClient, RespClient};
use harness::load::{Load, Persistence, Plan};
use harness::process;
use harness::restore::{DAMAGED, bytes_of, expect_same_answers, mutations};
use harness::server::{Server, free_port, redis_of, strings, under};
use harness::snapshot::listens;
use harness::stand::{SINGLE, STEP_LIMIT, Stand, UPDATED, VALIDATING, code};
use harness::systemd::Systemd;
use harness::wait::wait_for;
use tempfile::TempDir;

/// How many keys Redis has; `KEYS` says another number.
fn keys() -> u64 {
    std::env::var("KEYS").map_or(100_000, |count| count.parse().expect("KEYS is a number"))
}

const CLIENTS: usize = 50;

/// Both versions, where a package manager would put them one after the other.
struct Redis {
    dir: TempDir,
    old: PathBuf,
    new: PathBuf,
}

impl Redis {
    /// Fetches them; `None` where the archive has only one.
    fn fetch() -> Option<Redis> {
        let dir = tempfile::Builder::new().prefix("mvedsua-debian-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let pair = Pair::fetch("redis-tools", dir.path()).unwrap()?;
        println!("{} to {}", pair.old_version, pair.new_version);
        let program = |root: &Path| root.join("usr/bin/redis-check-rdb");
        let installed = dir.path().join("redis-server");
        fs::copy(program(&pair.old), &installed).unwrap();
        Some(Redis { new: program(&pair.new), old: installed, dir })
    }

    /// Puts the new version in the place of the old one, as a package manager does.
    fn install(&self) {
        let beside = self.dir.path().join("redis-server.new");
        fs::copy(&self.new, &beside).unwrap();
        fs::rename(beside, &self.old).unwrap();
    }
}

/// The older version under systemd.
struct Service {
    systemd: Systemd,
    address: SocketAddr,
    pid: i32,
}

const UNIT: &str = "redis.service";

impl Service {
    fn start(redis: &Redis) -> Service {
        let systemd = Systemd::start().unwrap();
        let port = free_port().unwrap();
        let dir = systemd.dir().join("data");
        fs::create_dir(&dir).unwrap();
        let (program, at) = (redis.old.display(), dir.display());
        let unit = format!(
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nLimitCORE=0\nRestart=always\n\
             ExecStart={program} --port {port} --bind 127.0.0.1 --dir {at} --save \"\" --supervised systemd \
             --enable-debug-command local\n"
        );
        systemd.install(UNIT, &unit).unwrap();
        systemd.expect(&["start", UNIT]);
        let pid = systemd.main_pid(UNIT);
        wait_for("Redis to listen", STEP_LIMIT, || listens(pid, port).then_some(()));
        Service { systemd, address: SocketAddr::from(([127, 0, 0, 1], port)), pid }
    }

    fn client(&self) -> RespClient {
        RespClient::connect(self.address, STEP_LIMIT).unwrap()
    }

    /// What Redis says to a damaged value, or that it says nothing any more.
    fn restore(&self, value: &str) -> Result<String, String> {
        let bytes = bytes_of(value);
        let words: [&[u8]; 5] = [b"RESTORE", b"damaged", b"0", &bytes, b"REPLACE"];
        let refused = b"-ERR Bad data format\r\n";
        self.client().expect(&words, refused).map(|()| "refused".to_owned()).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn expect_never_restarted(&self) {
        assert_eq!(self.systemd.main_pid(UNIT), self.pid, "systemd: {}", self.systemd.log());
        assert_eq!(self.systemd.property(UNIT, "NRestarts"), "0");
        assert!(process::alive(self.pid));
    }

    /// Asks for what is installed, and waits until it is validated.
    #[track_caller]
    fn validate(&self, daemon: &Daemon) {
        let pid = self.pid.to_string();
        daemon.expect(&["update", &pid, "--to", "installed", "--accept", "inferred"], code::DONE);
        daemon.wait_stage(self.pid, VALIDATING, STEP_LIMIT);
        wait_for(&format!("compared outputs; daemon: {}", daemon.output()), STEP_LIMIT, || {
            let status = daemon.status(self.pid).ok().flatten()?;
            assert_eq!(status.stage, VALIDATING, "{:#}", status.raw);
            (status.compared_outputs >= 500).then_some(())
        });
    }
}

fn load(service: &Service) -> Load<RedisClient> {
    let plan = Plan::busy(service.address, CLIENTS);
    Load::start(plan, |index| RedisClient::new(&format!("client{index}")).with_populated(keys(), 100))
}

#[test]
fn redis_goes_to_its_security_update_under_systemd() {
    let Some(redis) = Redis::fetch() else { return };
    let service = Service::start(&redis);
    let mut client = service.client();
    client.command(&["DEBUG", "POPULATE", &keys().to_string(), "key", "100"]).unwrap();
    let digest = client.command(&["DEBUG", "DIGEST"]).unwrap();
    let daemon = Daemon::start().unwrap();
    let clients = load(&service);
    clients.wait_requests(500, STEP_LIMIT);
    redis.install();
    service.validate(&daemon);
    let pid = service.pid.to_string();
    daemon.expect(&["promote", &pid], code::DONE);
    daemon.wait_stage(service.pid, UPDATED, STEP_LIMIT);
    clients.wait_requests(500, STEP_LIMIT);
    daemon.expect(&["confirm", &pid], code::DONE);
    daemon.wait_stage(service.pid, SINGLE, STEP_LIMIT);
    clients.wait_requests(500, STEP_LIMIT);
    let (summary, dialogues) = clients.stop_with_dialogues();
    println!(
        "{} keys, {CLIENTS} clients: {} requests in {:.0} s, {} failed; the longest took {:.3} s, 99 of 100 less than {:.3} s",
        keys(),
        summary.requests,
        summary.seconds,
        summary.failed,
        summary.longest_us as f64 / 1e6,
        summary.p99_us as f64 / 1e6
    );
    summary.expect_clean();
    for dialogue in dialogues {
        dialogue.verify_and_delete(&mut client).unwrap();
    }
    assert_eq!(client.command(&["DEBUG", "DIGEST"]).unwrap(), digest, "what was there before is there");
    for value in DAMAGED {
        assert_eq!(service.restore(value), Ok("refused".to_owned()));
    }
    service.expect_never_restarted();
    // It runs what is installed.
    daemon.expect(&["update", &pid, "--to", "installed", "--accept", "inferred"], 23);
}

/// With two versions running it is the old one that crashes.
#[test]
fn the_security_update_takes_over_from_the_version_that_crashes() {
    let Some(redis) = Redis::fetch() else { return };
    let service = Service::start(&redis);
    service.client().command(&["DEBUG", "POPULATE", &keys().to_string(), "key", "100"]).unwrap();
    let daemon = Daemon::start().unwrap();
    let clients = load(&service);
    clients.wait_requests(500, STEP_LIMIT);
    let pid = service.pid.to_string();
    let to = redis.new.display().to_string();
    daemon.expect(&["update", &pid, "--to", &to, "--accept", "inferred"], code::DONE);
    daemon.wait_stage(service.pid, VALIDATING, STEP_LIMIT);
    clients.wait_requests(100, STEP_LIMIT);
    let [_, ends_it] = DAMAGED;
    assert_eq!(service.restore(ends_it), Ok("refused".to_owned()), "daemon: {}", daemon.output());
    daemon.wait_stage(service.pid, SINGLE, STEP_LIMIT);
    clients.wait_requests(500, STEP_LIMIT);
    let summary = clients.stop();
    summary.expect_clean();
    assert_eq!(service.restore(ends_it), Ok("refused".to_owned()));
    service.expect_never_restarted();
}

/// HAProxy with two threads; its `main`, in which only the text of the version differs, never returns. The newer version says at
/// once that a line with the size of a chunk is too long, for which the older one waits until the time for the request is over.
#[test]
fn haproxy_goes_to_its_security_update() {
    let dir = tempfile::Builder::new().prefix("mvedsua-debian-").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let Some(pair) = Pair::fetch("haproxy", dir.path()).unwrap() else { return };
    let program = |root: &Path| root.join("usr/sbin/haproxy");
    let lines = "  option http-buffer-request\n  timeout http-request 2s\n";
    let mut stand = Stand::new(haproxy_of(&program(&pair.old), 2, lines, None).unwrap());
    let address = stand.server.address;
    let post = || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(STEP_LIMIT)).unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;").unwrap();
        // It may have answered, and closed the connection, before all of the line is there.
        let _ = stream.write_all(&[b'x'; 20_000]);
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        String::from_utf8_lossy(&status).into_owned()
    };
    let clients = Load::start(Plan::busy(address, 20), |_| HttpClient::new(Persistence::Open));
    clients.wait_requests(200, STEP_LIMIT);
    assert_eq!(post(), "HTTP/1.1 408");
    let (pid, to) = (stand.serving.to_string(), program(&pair.new).display().to_string());
    stand.daemon.expect(&["update", &pid, "--to", &to, "--accept", "inferred"], code::DONE);
    stand.daemon.wait_stage(stand.serving, VALIDATING, STEP_LIMIT);
    stand.wait_compared(200);
    stand.promote();
    clients.wait_requests(200, STEP_LIMIT);
    stand.confirm();
    clients.wait_requests(200, STEP_LIMIT);
    assert_eq!(post(), "HTTP/1.1 400");
    stand.expect_clean(clients);
}

/// Goes to a version of a file, and confirms it.
#[track_caller]
fn go_to(stand: &mut Stand, to: &Path) {
    let (pid, to) = (stand.serving.to_string(), to.display().to_string());
    stand.daemon.expect(&["update", &pid, "--to", &to, "--accept", "inferred"], code::DONE);
    stand.daemon.wait_stage(stand.serving, VALIDATING, STEP_LIMIT);
    stand.wait_compared(200);
    stand.promote();
    stand.confirm();
    stand.expect_alone();
}

/// There and back again and again: what was loaded once is used again. `cargo xtask conformance rounds` does it for longer.
#[test]
fn redis_goes_there_and_back_and_nothing_piles_up() {
    let Some(redis) = Redis::fetch() else { return };
    let mut stand = Stand::new(redis_of(&redis.old).unwrap());
    let clients =
        Load::start(Plan::busy(stand.server.address, 20), |index| RedisClient::new(&format!("client{index}")));
    clients.wait_requests(200, STEP_LIMIT);
    let mut loaded = vec![];
    for _ in 0..3 {
        go_to(&mut stand, &redis.new);
        go_to(&mut stand, &redis.old);
        let symbols = stand.daemon.expect(&["symbols", &stand.serving.to_string()], code::DONE).stdout;
        loaded.push((symbols, process::anonymous_code(stand.serving)));
    }
    assert!(loaded[0].1 > 0 && !loaded[0].0.is_empty(), "{loaded:?}");
    assert!(loaded.iter().all(|now| *now == loaded[0]), "{loaded:?}");
    stand.expect_clean(clients);
}

/// To each of many damaged values the updated process says what one says that was started as the newer version.
#[test]
fn redis_answers_damaged_values_as_its_security_update_does() {
    let Some(redis) = Redis::fetch() else { return };
    let mut stand = Stand::new(redis_of(&redis.old).unwrap());
    let clients =
        Load::start(Plan::busy(stand.server.address, 20), |index| RedisClient::new(&format!("client{index}")));
    clients.wait_requests(200, STEP_LIMIT);
    go_to(&mut stand, &redis.new);
    redis.install();
    let fresh = redis_of(&redis.old).unwrap();
    let values: Vec<Vec<u8>> = DAMAGED.map(bytes_of).into_iter().chain(mutations(1, 600)).collect();
    expect_same_answers(stand.server.address, fresh.address, &values, STEP_LIMIT).unwrap();
    stand.expect_clean(clients);
}

/// Starts a PostgreSQL of a folder, as nobody: it does not run as root.
fn postgres_of(program: &Path) -> Result<Server> {
    const NOBODY: u32 = 65_534;
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned);
    let mut start = nobody.to_vec();
    start[0] = process::find_program("setpriv")?.display().to_string();
    let initdb = program.with_file_name("initdb");
    under(&start, || {
        debian::start(program, None, |port, dir| {
            let data = dir.join("data");
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
            fs::create_dir(&data)?;
            chown(&data, Some(NOBODY), Some(NOBODY))?;
            let mut make = Command::new(&nobody[0]);
            make.args(&nobody[1..]).arg(&initdb).args(["--no-sync", "--auth=trust", "--pgdata"]).arg(&data);
            let made = make.current_dir("/").stdin(Stdio::null()).output().context("running initdb")?;
            ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
            let (data, port) = (data.display().to_string(), port.to_string());
            Ok(strings(&["-D", &data, "-k", &data, "-p", &port, "-h", "127.0.0.1", "-F"]))
        })
    })
}

/// Programs and libraries whose next version asks for more than new functions: each runs, and is told so before anything of it is
/// touched. What is right of a pair that the archive does not have any more is what the comparison of the files says.
#[test]
fn what_takes_a_restart_is_refused_with_the_reason() {
    type Start = fn(&Path, Option<&Path>) -> Server;
    let python: Start = |_, libraries| {
        let args = |port: u16, _: &Path| Ok(strings(&["-m", "http.server", &port.to_string(), "--bind", "127.0.0.1"]));
        debian::start(Path::new("/usr/bin/python3"), libraries, args).unwrap()
    };
    let redis: Start = |_, libraries| {
        let args =
            |port: u16, _: &Path| Ok(strings(&["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]));
        debian::start(Path::new("/usr/bin/redis-server"), libraries, args).unwrap()
    };
    let mosquitto: Start =
        |program, _| debian::start(program, None, |port, _| Ok(strings(&["-p", &port.to_string()]))).unwrap();
    let nginx: Start = |program, _| nginx_of(program).unwrap();
    let postgres: Start = |program, _| postgres_of(program).unwrap();
    const RESTART: &str = "Restart the service instead";
    let pairs = [
        // It is refused any update, since its processes share memory that they write; that comes first.
        ("postgresql-15", "usr/lib/postgresql/15/bin/postgres", postgres, "/dev/zero (deleted) is shared with process"),
        ("mosquitto", "usr/sbin/mosquitto", mosquitto, RESTART),
        ("nginx", "usr/sbin/nginx", nginx, RESTART),
        ("libssl3", "usr/lib/x86_64-linux-gnu/libssl.so.3", redis, RESTART),
        ("libexpat1", "lib/x86_64-linux-gnu/libexpat.so.1", python, RESTART),
    ];
    let dir = tempfile::Builder::new().prefix("mvedsua-debian-").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (package, file, start, words) in pairs {
        let Some(pair) = Pair::fetch(package, dir.path()).unwrap() else { continue };
        let (old, new) = (pair.old.join(file), fs::canonicalize(pair.new.join(file)).unwrap());
        let libraries = old.parent().filter(|_| file.contains(".so."));
        let stand = Stand::new(start(&old, libraries));
        let text = |path: &Path| path.display().to_string();
        let compared = stand.daemon.run(&["compare", &text(&old), &text(&new), "--json"]).unwrap();
        if compared.code == code::DONE {
            harness::left_out(package, &format!("{} can be updated to {}", pair.old_version, pair.new_version));
            continue;
        }
        assert_eq!(compared.code, code::REFUSED, "{package}: {}", compared.stderr);
        let pid = stand.serving.to_string();
        let begun = Instant::now();
        let args = ["update", &pid, "--to", &text(&new), "--accept", "inferred"];
        let told = stand.daemon.expect(&args, code::REFUSED).stderr;
        let took = begun.elapsed().as_secs_f64();
        println!("{package} {} to {} in {took:.1} s: {told}", pair.old_version, pair.new_version);
        let reasons = compared.json().unwrap()["reasons"].as_array().unwrap().len();
        assert!(reasons > 0 && told.contains(words), "{package}: {told}");
        stand.expect_restored();
    }
}
