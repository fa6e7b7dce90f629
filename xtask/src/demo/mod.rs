//! `cargo xtask demo`: Debian's Redis goes from the archive's older version to its security update under load, then a store
//! goes to another version, and everything that is claimed is checked.

mod store;
mod story;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::daemon::{Daemon, Status};
use harness::debian::Pair;
use harness::load::resp::{RedisClient, RespClient};
use harness::load::{Dialogue, Load, Plan};
use harness::process::{self, Program};
use harness::server::{self, Server};
use harness::stand::{SINGLE, UPDATED, VALIDATING, code};
use harness::wait::try_wait_for;
use tempfile::TempDir;

pub(crate) use self::story::count;
use self::story::{Story, bytes, duration};
use crate::{build, setup};

/// Keys that the server holds before anybody talks to it, and the size of each value.
const KEYS: u64 = 1_000_000;
const VALUE: usize = 180;
/// Connections whose every reply is checked, and those of `redis-benchmark` beside them.
const CHECKING: usize = 20;
const BENCHMARK: usize = 30;
/// A damaged value of the type "zipmap": 7.0.15-1~deb12u7 reads beyond its end.
const DAMAGED: &[u8] = &[
    0x09, 0x10, 0x02, 0xfe, 0x01, 0x00, 0x00, 0x00, 0xff, 0x01, 0x00, 0x76, 0x01, 0x67, 0x01, 0x00, 0x77, 0xff, 0x0a,
    0x00, 0xc9, 0xb8, 0xe0, 0x9a, 0x8b, 0xda, 0xfb, 0xfe,
];
/// How long any single step may take.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long the two versions are compared before the new one is promoted, seconds
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Which build of the daemon to show
    #[arg(long, value_enum, default_value_t = build::Profile::Release)]
    profile: build::Profile,
}

/// Sets up, builds, and tells the story; fails when anything that it claims is not so.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "the demo traces a process and loads eBPF programs: run it as root");
    setup::run(&setup::Args::default())?;
    let binary = build::run(&build::Args { profile: args.profile })?;
    let mut story = Story::begin();
    let told =
        tell(&mut story, &binary, Duration::from_secs(args.seconds)).and_then(|()| store::tell(&mut story, &binary));
    story.end(told)
}

fn tell(story: &mut Story, binary: &Path, compare: Duration) -> Result<()> {
    story.chapter("A stock Redis that was started without us");
    let versions = TempDir::with_prefix("mvedsua-demo-")?;
    std::fs::set_permissions(versions.path(), std::fs::Permissions::from_mode(0o755))?;
    let pair = Pair::fetch("redis-tools", versions.path())?;
    let (server, to) = match &pair {
        Some(pair) => {
            story.say(&format!("Debian's {} from the archive, and its update {}", pair.old_version, pair.new_version));
            // Both names mean one file.
            let program = |root: &Path| root.join("usr/bin/redis-check-rdb");
            let installed = versions.path().join("redis-server");
            std::fs::copy(program(&pair.old), &installed)?;
            (server::redis_of(&installed)?, program(&pair.new).display().to_string())
        }
        None => {
            story.say("the archive offers one version of Redis alone: it is updated to itself");
            (server::redis(&[])?, "self".to_owned())
        }
    };
    let mut direct = RespClient::connect(server.address, LIMIT)?;
    direct.command(&["DEBUG", "POPULATE", &KEYS.to_string(), "key", &VALUE.to_string()])?;
    let version = info(&mut direct, "server", "redis_version")?;
    let memory = info(&mut direct, "memory", "used_memory")?.parse()?;
    let own_fork = redis_own_fork(&mut direct)?;
    let digest = direct.command(&["DEBUG", "DIGEST"])?;
    let born = Born::of(&server)?;
    story.say(&format!("redis-server {version}, {born}, on {}", server.address));
    story.say(&format!("{} keys, {}; its own fork takes {}", count(KEYS), bytes(memory), duration(own_fork)));
    story.say(&format!("DEBUG DIGEST {digest}"));

    story.chapter("Clients at work, every reply of ours is checked");
    let load = Load::start(Plan::busy(server.address, CHECKING), |index| {
        RedisClient::new(&format!("client{index}")).with_populated(KEYS, VALUE)
    });
    let benchmark = start_benchmark(&server)?;
    wait_for_requests(&load, 5_000)?;
    story.say(&format!("{CHECKING} checking clients, and redis-benchmark with {BENCHMARK} connections beside them"));
    rate(story, &load, "nobody watches");

    story.chapter("Attach: what does it do?");
    let daemon = Daemon::prepare(binary)?;
    let pid = server.pid().to_string();
    command(story, &daemon, &["attach", &pid, "--mode", "exact"])?;
    rate(story, &load, "observed by eBPF");
    command(story, &daemon, &["stats", &pid])?;

    story.chapter("Update: fork it, load the new code into the fork, feed the fork, compare the two");
    if pair.is_some() {
        story.say(
            "nothing but the two stripped files is known: what follows from them is taken for enough (`inferred`)",
        );
    }
    let args = ["update", &pid, "--to", &to, "--accept", "inferred", "--promote", "manual"];
    command(story, &daemon, &args)?;
    let validating = follow(story, &daemon, server.pid(), VALIDATING)?;
    let end = Instant::now() + compare;
    while Instant::now() < end {
        rate(story, &load, "two versions");
        let status = daemon.status(server.pid())?.context("the daemon forgot the process")?;
        ensure!(status.stage == VALIDATING, "the update went back to {}: {:#}", status.stage, status.raw);
        let compared = format!("{} calls, {} outputs", count(status.compared_calls), count(status.compared_outputs));
        story.say(&format!("compared {compared}; the follower is {} records behind", count(status.backlog)));
    }
    let fork_pause = Duration::from_micros(validating.fork_pause_us.unwrap_or(0));

    story.chapter("Promote: the process stays, the fork's memory moves into it");
    load.mark();
    command(story, &daemon, &["promote", &pid])?;
    let promoted = follow(story, &daemon, server.pid(), UPDATED)?;
    wait_for_requests(&load, CHECKING as u64)?;
    let around = load.mark();
    let pause = Duration::from_micros(promoted.promotion_pause_us.unwrap_or(0));
    rate(story, &load, "the new version leads, the old one follows");
    command(story, &daemon, &["confirm", &pid])?;
    follow(story, &daemon, server.pid(), SINGLE)?;
    rate(story, &load, "the new version alone");
    command(story, &daemon, &["status"])?;

    story.chapter("What became of it");
    let benchmark_ran = benchmark.is_running();
    drop(benchmark);
    let (summary, clients) = load.stop_with_dialogues();
    direct.command(&["SELECT", "1"])?;
    direct.command(&["FLUSHDB"])?;
    direct.command(&["SELECT", "0"])?;
    let models = clients.iter().try_for_each(|client| client.verify_and_delete(&mut direct));
    let digest_after = direct.command(&["DEBUG", "DIGEST"])?;
    born.check_same(story, &server);
    check_alone(story, &server);
    story.check("no request failed or was answered wrongly", summary.failed == 0, || match summary.failures.first() {
        Some(failure) => format!("{} did, the first: {failure}", summary.failed),
        None => format!("{} requests, {} connections", count(summary.requests), summary.connects),
    });
    story.check("redis-benchmark kept its connections", benchmark_ran, || format!("{BENCHMARK} connections"));
    story.check("every client's data is what it wrote", models.is_ok(), || match &models {
        Ok(()) => format!("{} clients read all their keys", clients.len()),
        Err(error) => format!("{error:#}"),
    });
    story.check("DEBUG DIGEST is the same", digest == digest_after, || digest_after.clone());
    if pair.is_some() {
        let refused = direct.expect(&[b"RESTORE", b"damaged", b"0", DAMAGED, b"REPLACE"], b"-ERR Bad data format\r\n");
        story.check("a value that ends the old version is refused", refused.is_ok(), || match &refused {
            Ok(()) => "ERR Bad data format".to_owned(),
            Err(error) => format!("{error:#}"),
        });
    }
    story.note("longest request", &duration(Duration::from_micros(summary.longest_us)));
    story.note("  around the promotion", &duration(around));
    story.note("pause at the fork", &format!("{} (Redis's own: {})", duration(fork_pause), duration(own_fork)));
    story.note("pause at the promotion", &duration(pause));
    Ok(())
}

/// Which process serves: its number, and when it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Born {
    pid: i32,
    started: u64,
}

impl Born {
    /// Looks for the process that listens.
    fn of(server: &Server) -> Result<Born> {
        let pid = server.serving_pid().context("nobody listens")?;
        let stat = process::stat(pid).with_context(|| format!("process {pid} is gone"))?;
        Ok(Born { pid, started: stat.started })
    }

    fn check_same(self, story: &mut Story, server: &Server) {
        let now = Born::of(server);
        story.check("the same process serves", now.as_ref().is_ok_and(|now| *now == self), || match &now {
            Ok(now) if *now == self => format!("{now}, as before"),
            Ok(now) => format!("{self} served, {now} serves"),
            Err(error) => format!("{error:#}"),
        });
    }
}

impl std::fmt::Display for Born {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pid {} (started at tick {})", self.pid, self.started)
    }
}

/// Checks that nothing but the server itself is left of an update.
fn check_alone(story: &mut Story, server: &Server) {
    let others = || {
        let members = server.program.members().into_iter().map(|stat| stat.pid);
        members.filter(|pid| *pid != server.pid()).collect::<Vec<_>>()
    };
    let alone = try_wait_for(LIMIT, || others().is_empty().then_some(())).is_some();
    story.check("no process of the update is left", alone, || {
        if alone { format!("pid {} is alone", server.pid()) } else { format!("{:?} are there", others()) }
    });
}

/// Returns a field of `INFO`.
fn info(direct: &mut RespClient, section: &str, field: &str) -> Result<String> {
    let text = direct.command(&["INFO", section])?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned));
    value.with_context(|| format!("INFO {section} has no {field}"))
}

/// Lets Redis fork itself for a dump, and returns how long it says that took.
fn redis_own_fork(direct: &mut RespClient) -> Result<Duration> {
    direct.command(&["BGSAVE"])?;
    let end = Instant::now() + LIMIT;
    while info(direct, "persistence", "rdb_bgsave_in_progress")? != "0" {
        ensure!(Instant::now() < end, "BGSAVE did not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Duration::from_micros(info(direct, "stats", "latest_fork_usec")?.parse()?))
}

/// Starts `redis-benchmark` in a database of its own, for ever.
fn start_benchmark(server: &Server) -> Result<Program> {
    let args = format!(
        "-h 127.0.0.1 -p {} -c {BENCHMARK} -t get,set -l -q --dbnum 1 -r 100000 -n 1000000",
        server.address.port()
    );
    let args: Vec<String> = args.split(' ').map(str::to_owned).collect();
    let program = process::find_program("redis-benchmark")?;
    Program::start(&program, &args, server.dir(), &server.dir().join("benchmark"))
}

fn wait_for_requests<D: Dialogue>(load: &Load<D>, more: u64) -> Result<()> {
    let goal = load.requests() + more;
    let reached = try_wait_for(LIMIT, || (load.requests() >= goal || load.failed() > 0).then_some(()));
    reached.with_context(|| format!("{more} requests were not answered within {LIMIT:?}"))
}

/// Looks at the clients for a second and tells how they fare.
fn rate<D: Dialogue>(story: &Story, load: &Load<D>, when: &str) {
    let (before, since) = (load.requests(), Instant::now());
    load.mark();
    std::thread::sleep(Duration::from_secs(1));
    let per_second = (load.requests() - before) as f64 / since.elapsed().as_secs_f64();
    let longest = duration(load.mark());
    story.say(&format!(
        "{} checked requests/s, longest {longest}, {} wrong ({when})",
        count(per_second as u64),
        load.failed()
    ));
}

/// Runs a command as the operator would and shows it with its output.
fn command(story: &Story, daemon: &Daemon, args: &[&str]) -> Result<()> {
    command_ends(story, daemon, args, code::DONE)
}

/// The same for a command that is to end with this exit code.
fn command_ends(story: &Story, daemon: &Daemon, args: &[&str], expected: i32) -> Result<()> {
    story.prompt(&format!("mvedsuad {}", args.join(" ")));
    let output = daemon.run(args)?;
    story.output(&output.stdout);
    if expected != code::DONE && output.code == expected {
        story.say(&format!("exit code {expected}"));
    }
    if output.code != expected {
        story.output(&output.stderr);
        bail!("`mvedsuad {}` ended with exit code {}", args.join(" "), output.code);
    }
    Ok(())
}

/// Tells each stage as it comes, until the one that is waited for.
fn follow(story: &Story, daemon: &Daemon, pid: i32, stage: &str) -> Result<Status> {
    let mut last = String::new();
    let mut seen = None;
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        if let Some(status) = daemon.status(pid)? {
            if status.stage != last {
                story.say(&format!("stage {}: {}", status.stage, status.next));
                last.clone_from(&status.stage);
            }
            if status.stage == stage {
                return Ok(status);
            }
            ensure!(last != "rolling-back", "the update is undone: {:#}", status.raw);
            seen = Some(status);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("stage {stage} was not reached within {LIMIT:?}; last: {seen:#?}")
}
