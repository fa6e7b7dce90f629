//! Nothing is left in the kernel when the last target is detached. In a program of its own, since other tests load
//! programs too. Needs root.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mvedsua_daemon::monitor::{AttachOptions, Mode, Monitor};

/// Returns the ids of the programs and maps that this process holds, and the links it has attached.
fn held() -> (BTreeSet<u32>, BTreeSet<u32>, usize) {
    let (mut programs, mut maps, mut links) = (BTreeSet::new(), BTreeSet::new(), 0);
    for entry in std::fs::read_dir("/proc/self/fdinfo").expect("/proc").flatten() {
        let Ok(info) = std::fs::read_to_string(entry.path()) else { continue };
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u32>().ok());
        if field("link_id:").is_some() {
            links += 1;
        } else {
            programs.extend(field("prog_id:"));
        }
        maps.extend(field("map_id:"));
    }
    (programs, maps, links)
}

fn loaded_programs() -> BTreeSet<u32> {
    aya::programs::loaded_programs().flatten().map(|program| program.id()).collect()
}

fn loaded_maps() -> BTreeSet<u32> {
    aya::maps::loaded_maps().flatten().map(|map| map.id()).collect()
}

fn wait_for(what: &str, check: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !check() {
        assert!(Instant::now() < deadline, "waited 30 s for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn detaching_leaves_nothing_behind() {
    let mut sleeper = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("every system has sleep");
    let pid = sleeper.id().cast_signed();
    wait_for("it to sleep", || {
        std::fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|call| call.starts_with("230 "))
    });
    let monitor = Monitor::start().expect("the monitor starts");
    assert_eq!(held(), (BTreeSet::new(), BTreeSet::new(), 0), "nothing is loaded before the first attach");

    for mode in [Mode::Exact, Mode::Sampled] {
        let before = status(pid);
        monitor.attach(pid, AttachOptions { mode, ..AttachOptions::default() }).expect("attach");
        let (programs, maps, links) = held();
        assert!(programs.len() >= 5 && maps.len() >= 8, "{programs:?} {maps:?}");
        assert!(links >= 3, "{links} links");
        assert!(programs.is_subset(&loaded_programs()));
        assert!(status(pid) == before, "attaching changes nothing in the target");
        monitor.detach(pid).expect("detach");
        assert_eq!(held(), (BTreeSet::new(), BTreeSet::new(), 0));
        // The kernel frees them after a grace period.
        wait_for("the kernel to free our programs and maps", || {
            programs.is_disjoint(&loaded_programs()) && maps.is_disjoint(&loaded_maps())
        });
    }
    sleeper.kill().expect("it runs");
    sleeper.wait().expect("it is our child");
}

/// What `/proc` says of a process, without what changes by itself or is shared by the user's processes.
fn status(pid: i32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
    let stable = status
        .lines()
        .filter(|line| !line.contains("ctxt_switches") && !line.starts_with("SigQ"))
        .collect::<Vec<_>>()
        .join("\n");
    stable + &maps
}
