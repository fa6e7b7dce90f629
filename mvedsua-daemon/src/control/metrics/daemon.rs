//! The daemon itself: what it costs, and what it has lost.

use std::sync::atomic::Ordering;

use super::family::{Family, Kind, Value, labels};
use crate::control::daemon::Daemon;
use crate::control::process;
use crate::control::status::Status;
use crate::ptrace::procfs;

pub(super) fn families(daemon: &Daemon, status: &Status) -> Vec<Family> {
    let mut build = Family::new("mvedsua_build_info", "The version of the daemon.", Kind::Gauge);
    build.add(labels([("version", &status.daemon.version)]), Value::Count(1));
    let mut targets =
        Family::new("mvedsua_targets", "Processes that are observed, and that are being updated.", Kind::Gauge);
    let is_updated =
        |target: &&crate::control::status::TargetStatus| target.update.as_ref().is_some_and(|update| !update.is_over());
    let observed = status.targets.iter().filter(|target| target.monitor.is_some()).count();
    let updated = status.targets.iter().filter(is_updated).count();
    for (doing, count) in [("observed", observed), ("updated", updated)] {
        targets.add(labels([("doing", doing)]), Value::Count(count as u64));
    }
    let events = &daemon.shared.events;
    let (count, missed) = {
        let counts = events.counts();
        (counts.events, counts.missed)
    };
    let single = |name, help, kind, value| Family::single(name, help, kind, Value::Count(value));
    let mut families = vec![
        build,
        targets,
        single(
            "mvedsua_troubles",
            "What is wrong with what the daemon keeps: damaged files, disks that are full.",
            Kind::Gauge,
            status.daemon.troubles.len() as u64,
        ),
        single("mvedsua_events", "Events that were told.", Kind::Counter, count),
        single("mvedsua_events_missed", "Events that readers were too slow for.", Kind::Counter, missed),
        single(
            "mvedsua_events_unwritten",
            "Events that the file of events lacks, since a disk did not take them in time.",
            Kind::Gauge,
            events.unwritten(),
        ),
    ];
    families.push(webhooks(daemon));
    families.extend(costs());
    families
}

fn webhooks(daemon: &Daemon) -> Family {
    let mut family =
        Family::new("mvedsua_webhook_events", "Events that webhooks were told, by what came of it.", Kind::Counter);
    for webhook in &daemon.webhooks {
        let counts = &webhook.counts;
        let all = [("delivered", &counts.delivered), ("retried", &counts.retried), ("lost", &counts.lost)];
        for (what, count) in all {
            let labels = labels([("webhook", &webhook.name), ("came", what)]);
            family.add(labels, Value::Count(count.load(Ordering::Relaxed)));
        }
    }
    family
}

/// What the daemon costs, under the names that all programs have for it.
fn costs() -> Vec<Family> {
    let mut families = vec![];
    let mut add = |name, help, kind, value: Option<f64>| {
        if let Some(value) = value {
            families.push(Family::single(name, help, kind, Value::Number(value)));
        }
    };
    let pid = std::process::id().cast_signed();
    let cpu = process::processor_time(pid).map(|time| time.as_secs_f64());
    add("process_cpu_seconds", "Total user and system CPU time spent in seconds.", Kind::Counter, cpu);
    let memory = own("/proc/self/statm").and_then(|statm| {
        let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
        Some((pages * u64::try_from(page).ok()?) as f64)
    });
    add("process_resident_memory_bytes", "Resident memory size in bytes.", Kind::Gauge, memory);
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|dir| dir.count() as f64);
    add("process_open_fds", "Number of open file descriptors.", Kind::Gauge, open);
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.map(|most| most as f64);
    add("process_max_fds", "Maximum number of open file descriptors.", Kind::Gauge, most);
    let threads = std::fs::read_dir("/proc/self/task").ok().map(|dir| dir.count() as f64);
    add("process_threads", "Number of threads.", Kind::Gauge, threads);
    families
}

fn own(path: &str) -> Option<String> {
    procfs::text(path).ok()
}
