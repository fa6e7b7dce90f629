//! Processes that die while two versions run: the follower, the leader, the daemon.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use harness::load::memcached::MemcachedClient;
use harness::load::resp::{RedisClient, RespClient};
use harness::load::{Dialogue, Load, Plan};
use harness::process;
use harness::server;
use harness::stand::{CATCHING_UP, SINGLE, STEP_LIMIT, Stand, UPDATED, UPDATING, VALIDATING, code};
use harness::wait::{try_wait_for, wait_for};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn redis_under_load(connections: usize) -> (Stand, Load<RedisClient>) {
    // Without Redis's own handler, which would report the crash and end the process by itself.
    let stand = Stand::new(server::redis(&["--crash-log-enabled", "no"]).unwrap());
    let load =
        Load::start(Plan::busy(stand.server.address, connections), |index| RedisClient::new(&format!("c{index}")));
    (stand, load)
}

#[test]
fn a_follower_that_is_killed_ends_the_update() {
    let (mut stand, load) = redis_under_load(10);
    let status = stand.validate(&[]);
    stand.wait_compared(100);
    process::signal(status.follower.expect("there is a follower"), Signal::SIGKILL);
    let status = stand.settled();
    assert_eq!(stand.serving, stand.server.pid());
    assert!(!status.result.expect("the update has ended").1.is_empty());
    stand.expect_restored();
    load.wait_requests(200, STEP_LIMIT);
    stand.cycle(100);
    stand.expect_clean(load);
}

/// A memory cgroup that is removed with its last process.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn with(pid: i32) -> MemoryGroup {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let controller = |line: &&str| {
            let fields: Vec<&str> = line.split(' ').collect();
            fields[2] == "cgroup" && fields[3].split(',').any(|option| option == "memory")
        };
        let v1 = mounts.lines().find(controller).map(|line| line.split(' ').nth(1).unwrap());
        let group = PathBuf::from(v1.unwrap_or("/sys/fs/cgroup")).join(format!("mvedsua-test-{pid}"));
        fs::create_dir(&group).expect("a memory cgroup can be made");
        fs::write(group.join("cgroup.procs"), pid.to_string()).unwrap();
        MemoryGroup(group)
    }

    /// Allows `more` bytes beyond what is used now.
    fn limit(&self, more: u64) {
        let read = |file: &str| fs::read_to_string(self.0.join(file)).ok();
        let (usage, limit) = match read("memory.usage_in_bytes") {
            Some(usage) => (usage, "memory.limit_in_bytes"),
            None => (read("memory.current").expect("the group counts memory"), "memory.max"),
        };
        let usage: u64 = usage.trim().parse().unwrap();
        fs::write(self.0.join(limit), (usage + more).to_string()).unwrap();
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let removed = try_wait_for(STEP_LIMIT, || fs::remove_dir(&self.0).ok());
        if removed.is_none() && !std::thread::panicking() {
            panic!("{} cannot be removed", self.0.display());
        }
    }
}

#[test]
fn a_follower_that_outgrows_its_memory_limit_ends_the_update() {
    let server = server::redis(&["--crash-log-enabled", "no"]).unwrap();
    // Dropped after the stand, which ends the server.
    let group = MemoryGroup::with(server.pid());
    let mut stand = Stand::new(server);
    let load = Load::start(Plan::busy(stand.server.address, 10), |index| RedisClient::new(&format!("c{index}")));
    let mut direct = RespClient::connect(stand.server.address, STEP_LIMIT).unwrap();
    direct.command(&["DEBUG", "POPULATE", "100000", "key", "500"]).unwrap();
    let status = stand.validate(&[]);
    stand.wait_compared(100);
    let follower = status.follower.expect("there is a follower");
    let score = fs::read_to_string(format!("/proc/{follower}/oom_score_adj")).unwrap();
    assert_eq!(score.trim(), "1000", "the follower is the first to be killed");
    group.limit(24 << 20);
    // Every page that both share is copied now, until the update is given up.
    for number in 0..100_000 {
        direct.command(&["SETRANGE", &format!("key:{number}"), "400", "x"]).unwrap();
        if number % 500 == 0 && !process::alive(follower) {
            break;
        }
    }
    wait_for("the follower to be killed", STEP_LIMIT, || (!process::alive(follower)).then_some(()));
    let status = stand.settled();
    assert_eq!(stand.serving, stand.server.pid());
    let (ended_with, reason) = status.result.expect("the update has ended");
    assert_eq!(ended_with, u64::from(code::TIMED_OUT.cast_unsigned()), "{reason}");
    assert!(reason.contains("its memory cgroup") && reason.contains("is nearly full"), "{reason}");
    stand.expect_restored();
    stand.expect_clean(load);
    drop(stand);
    drop(group);
}

/// Sends the leader alone a fatal signal; the follower takes over and no connection is lost.
fn leader_crashes<D: Dialogue>(stand: Stand, load: Load<D>, signal: Signal) {
    leader_crashes_by(stand, load, |pid| process::signal(pid, signal));
}

fn leader_crashes_by<D: Dialogue>(mut stand: Stand, load: Load<D>, crash: impl FnOnce(i32)) {
    stand.validate(&[]);
    stand.wait_compared(100);
    crash(stand.serving);
    let status = stand.taken_over();
    let (code, text) = status.result.expect("the update has ended");
    assert!(code == 0 && text.contains("crashed"), "{code}: {text}");
    load.wait_requests(500, STEP_LIMIT);
    stand.expect_alone();
    stand.expect_clean(load);
}

#[test]
fn redis_crashes_and_its_follower_takes_over() {
    let (stand, load) = redis_under_load(20);
    leader_crashes(stand, load, Signal::SIGSEGV);
}

#[test]
fn redis_crashes_in_a_thread_that_waits_and_its_follower_takes_over() {
    let (stand, load) = redis_under_load(20);
    leader_crashes_by(stand, load, |pid| {
        let waiting = process::thread_states(pid).into_iter().map(|(tid, _)| tid).find(|tid| *tid != pid);
        process::signal_thread(pid, waiting.expect("Redis has background threads"), Signal::SIGSEGV);
    });
}

#[test]
fn redis_aborts_and_its_follower_takes_over() {
    let (stand, load) = redis_under_load(20);
    leader_crashes(stand, load, Signal::SIGABRT);
}

#[test]
fn memcached_crashes_and_its_follower_takes_over() {
    let stand = Stand::new(server::memcached().unwrap());
    let load = Load::start(Plan::busy(stand.server.address, 20), |index| MemcachedClient::new(&format!("c{index}")));
    leader_crashes(stand, load, Signal::SIGSEGV);
}

/// The leader is killed from outside. Its threads end one after another, while those of the follower still make calls: that is
/// no difference.
#[test]
fn a_target_that_is_killed_has_ended_and_did_not_part() {
    for _ in 0..5 {
        let stand = Stand::new(server::memcached().unwrap());
        let load =
            Load::start(Plan::busy(stand.server.address, 20), |index| MemcachedClient::new(&format!("c{index}")));
        stand.validate(&[]);
        stand.wait_compared(100);
        process::signal(stand.serving, Signal::SIGKILL);
        let session = stand.server.pid();
        wait_for("both versions to end", STEP_LIMIT, || {
            process::reap(session);
            process::session(session).is_empty().then_some(())
        });
        let past = wait_for("the end of the update to be told", STEP_LIMIT, || {
            let past = stand.daemon.run(&["history", "--json"]).and_then(|output| output.json()).ok()?;
            past.get(0).cloned()
        });
        assert_eq!((&past["code"], &past["failures"]), (&code::TARGET_GONE.into(), &serde_json::json!([])), "{past:#}");
        drop(load);
    }
}

/// The target is killed while its threads are stopped one after the other, given what the engine needs, and forked. Whoever waits
/// for it has to hear of its end: all its threads are traced by then, and each is to be waited for by its tracer first.
#[test]
fn a_target_that_is_killed_when_an_update_has_just_begun_ends() {
    for ms in 0..30 {
        let stand = Stand::new(server::redis(&[]).unwrap());
        stand.update(&[]);
        std::thread::sleep(Duration::from_millis(ms));
        let session = stand.server.pid();
        process::signal(session, Signal::SIGKILL);
        wait_for(&format!("both versions to end (killed after {ms} ms)"), STEP_LIMIT, || {
            process::reap(session);
            process::session(session).is_empty().then_some(())
        });
        let past = wait_for("the update's end in the history", STEP_LIMIT, || {
            let past = stand.daemon.expect(&["history", "--json"], code::DONE).json().unwrap();
            past.get(0).cloned()
        });
        assert_eq!(past["code"], code::TARGET_GONE, "killed after {ms} ms: {past:#}");
    }
}

/// The target is told to exit by itself when an update is in the given stage: nothing is left of either version.
#[test]
fn a_target_that_exits_takes_its_follower_along_in_every_stage() {
    for stage in [UPDATING, CATCHING_UP, VALIDATING, UPDATED] {
        let mut stand = Stand::new(server::redis(&[]).unwrap());
        let mut direct = RespClient::connect(stand.server.address, STEP_LIMIT).unwrap();
        direct.command(&["DEBUG", "POPULATE", "200000", "key", "100"]).unwrap();
        stand.update(&[]);
        let limit = if stage == VALIDATING || stage == UPDATED { STEP_LIMIT } else { Duration::from_millis(50) };
        let in_stage = |name: &str| {
            let reached = || stand.daemon.status(stand.server.pid()).ok().flatten().filter(|s| s.stage == name);
            try_wait_for(limit, reached)
        };
        // The early stages are over in a moment: there "as soon as possible" must do.
        in_stage(if stage == UPDATED { VALIDATING } else { stage });
        if stage == UPDATED {
            for _ in 0..200 {
                direct.command(&["PING"]).unwrap();
            }
            stand.wait_compared(100);
            stand.promote();
        }
        // Redis ends itself; there is no reply.
        let _ = direct.command(&["SHUTDOWN", "NOSAVE"]);
        let session = stand.server.pid();
        wait_for(&format!("both versions to end ({stage})"), STEP_LIMIT, || {
            process::reap(session);
            process::session(session).is_empty().then_some(())
        });
        stand.daemon.expect_no_leftovers();
        wait_for(&format!("the daemon to notice ({stage})"), STEP_LIMIT, || {
            let known = stand.daemon.status(session).ok()?;
            known.is_none_or(|status| status.stage == "ended" || status.stage == SINGLE).then_some(())
        });
    }
}

/// Returns whether the daemon's journal says that an update is in this stage.
fn journal_says(stand: &Stand, stage: &str) -> bool {
    let entries = fs::read_dir(stand.daemon.state_dir().join("journal")).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_to_string(entry.path()).ok()).any(|text| text.contains(stage))
}

/// The same in the two stages that last a moment: the target is told to exit when the exchange of the versions, or the
/// undoing of the update, has just begun, and a little later.
#[test]
fn a_target_that_exits_while_roles_change_takes_its_follower_along() {
    for (verb, stage, later) in [
        ("promote", "promoting", 0),
        ("promote", "promoting", 5),
        ("promote", "promoting", 20),
        ("rollback", "rolling-back", 0),
        ("rollback", "rolling-back", 5),
    ] {
        let stand = Stand::new(server::redis(&[]).unwrap());
        let mut direct = RespClient::connect(stand.server.address, STEP_LIMIT).unwrap();
        stand.validate(&[]);
        for _ in 0..200 {
            direct.command(&["PING"]).unwrap();
        }
        stand.wait_compared(100);
        let serving = stand.serving.to_string();
        std::thread::scope(|scope| {
            // The target may be gone before it is done; what it says does not matter.
            let asked = scope.spawn(|| stand.daemon.run(&[verb, &serving]));
            try_wait_for(STEP_LIMIT, || (journal_says(&stand, stage) || asked.is_finished()).then_some(()));
            // Not a wait for anything: another instant of the stage each time.
            std::thread::sleep(Duration::from_millis(later));
            // Redis ends itself; there is no reply.
            let _ = direct.command(&["SHUTDOWN", "NOSAVE"]);
            asked.join().unwrap().unwrap();
        });
        let session = stand.server.pid();
        wait_for(&format!("both versions to end ({stage})"), STEP_LIMIT, || {
            process::reap(session);
            process::session(session).is_empty().then_some(())
        });
        stand.daemon.expect_no_leftovers();
    }
}

/// How many kills there are; `MVEDSUA_KILLS` asks for more.
fn kills() -> Option<u32> {
    std::env::var("MVEDSUA_KILLS").ok()?.parse().ok()
}

/// Kills the daemon; each third time its follower, if there is one, dies with it.
fn kill_daemon(stand: &Stand, victim: i32, kill: u32) {
    let follower = (kill % 3 == 2).then(|| follower_of(stand)).flatten();
    process::signal(victim, Signal::SIGKILL);
    if let Some(follower) = follower {
        process::signal(follower, Signal::SIGKILL);
    }
}

/// The process beside the leader that is a version, not asked of the daemon, which might answer too late.
fn follower_of(stand: &Stand) -> Option<i32> {
    let members = process::session(stand.server.program.pid());
    members.iter().map(|stat| stat.pid).find(|pid| *pid != stand.serving)
}

/// The daemon dies by SIGKILL in the middle of promotions: one version serves on, whichever it is, and no connection is lost.
#[test]
fn a_daemon_killed_inside_promotions_harms_nobody() {
    let wanted = kills().map_or(5, |kills| kills * 3 / 10);
    let (mut stand, load) = redis_under_load(10);
    let mut random = StdRng::seed_from_u64(11);
    let mut inside = 0;
    for attempt in 0.. {
        assert!(attempt < 8 * wanted, "{inside} of {attempt} kills fell into a promotion");
        stand.validate(&[]);
        stand.wait_compared(100);
        let serving = stand.serving.to_string();
        let victim = stand.daemon.pid().expect("the daemon runs");
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| stand.daemon.run(&["promote", "--force", &serving]));
            try_wait_for(STEP_LIMIT, || (journal_says(&stand, "promoting") || asked.is_finished()).then_some(()));
            // Not a wait for anything: the random instant is what is tested.
            std::thread::sleep(Duration::from_micros(random.random_range(0..30_000)));
            kill_daemon(&stand, victim, attempt);
            // Its daemon is gone.
            let _ = asked.join().unwrap();
        });
        stand.daemon.kill();
        inside += u32::from(journal_says(&stand, "promoting"));
        stand.daemon.start_again().unwrap();
        let session = stand.server.program.pid();
        stand.serving = wait_for("one process to be left", STEP_LIMIT, || {
            for member in process::all().iter().filter(|stat| stat.session == session && stat.state == 'Z') {
                process::reap(member.pid);
            }
            let members = process::session(session);
            (members.len() == 1).then(|| members[0].pid)
        });
        stand.expect_alone();
        load.wait_requests(20, STEP_LIMIT);
        assert_eq!(load.failed(), 0, "after attempt {attempt}: {:?}", load.stop().failures);
        if inside == wanted {
            println!("{inside} of {} kills fell into a promotion", attempt + 1);
            break;
        }
    }
    stand.cycle(100);
    stand.expect_clean(load);
}

/// The daemon, with or without its follower, dies by SIGKILL at random instants of whole cycles. The service goes on, a new daemon cleans up, and at the
/// end an update works.
#[test]
fn a_daemon_killed_at_a_hundred_random_instants_harms_nobody() {
    let kills = kills().unwrap_or(100);
    let (mut stand, load) = redis_under_load(10);
    load.wait_requests(200, STEP_LIMIT);
    let mut cycles: Vec<Duration> = (0..3)
        .map(|_| {
            let began = Instant::now();
            stand.cycle(100);
            began.elapsed()
        })
        .collect();
    cycles.sort();
    let cycle = cycles[1];
    let mut random = StdRng::seed_from_u64(7);
    let mut stages = std::collections::BTreeMap::new();
    for kill in 0..kills {
        let delay = cycle.mul_f64(random.random_range(0.0..1.1));
        let serving = stand.serving.to_string();
        let (stage, victim) = (std::sync::Mutex::new(String::new()), stand.daemon.pid().expect("the daemon runs"));
        std::thread::scope(|scope| {
            let operator = scope.spawn(|| {
                // An operator in a hurry; everything may fail from some point on.
                let step = |args: &[&str]| stand.daemon.run(args).is_ok_and(|output| output.code == 0);
                let reach = |name: &str| {
                    let poll = || match stand.daemon.status(stand.serving) {
                        Ok(Some(status)) => {
                            stage.lock().unwrap().clone_from(&status.stage);
                            (status.stage == name && (name != VALIDATING || status.compared_outputs > 0))
                                .then_some(true)
                        }
                        Ok(None) | Err(_) => Some(false),
                    };
                    try_wait_for(STEP_LIMIT, poll).unwrap_or(false)
                };
                let _ = step(&["update", &serving, "--to", "self"])
                    && reach(VALIDATING)
                    && step(&["promote", "--force", &serving])
                    && reach(UPDATED)
                    && step(&["confirm", &serving]);
            });
            // Not a wait for anything: the random instant is what is tested.
            std::thread::sleep(delay);
            kill_daemon(&stand, victim, kill);
            operator.join().unwrap();
        });
        stand.daemon.kill();
        let stage = stage.into_inner().unwrap();
        let longest = load.mark();
        if longest > Duration::from_secs(1) {
            println!("kill {kill} in stage {stage:?}: a request took {longest:?}");
        }
        *stages.entry(stage).or_insert(0) += 1;
        assert_eq!(load.failed(), 0, "after kill {kill}: {:?}", load.stop().failures);
        stand.daemon.start_again().unwrap();
        let session = stand.server.program.pid();
        let alone = try_wait_for(STEP_LIMIT, || {
            for member in process::all().iter().filter(|stat| stat.session == session && stat.state == 'Z') {
                process::reap(member.pid);
            }
            let members = process::session(session);
            (members.len() == 1).then(|| members[0].pid)
        });
        stand.serving = alone.unwrap_or_else(|| {
            panic!(
                "after kill {kill} one process is left: {:#?}\ndaemon: {}",
                process::session(session),
                stand.daemon.output()
            )
        });
        stand.expect_alone();
        load.wait_requests(20, STEP_LIMIT);
        assert_eq!(load.failed(), 0, "after kill {kill}: {:?}", load.stop().failures);
    }
    println!("{kills} kills in cycles of {cycle:?}; last stage seen: {stages:?}");
    stand.cycle(100);
    stand.expect_clean(load);
}
