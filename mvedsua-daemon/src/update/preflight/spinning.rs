//! Whether threads wait for each other in loops, without a call: two versions of such a program are slow.

use std::fs;
use std::time::{Duration, Instant};

use super::{Finding, warn};
use crate::ptrace::procfs;

/// How long the threads are watched between two looks, and how often they are looked at, at most: on a busy machine a thread that
/// wants to compute all the time hardly gets to it.
const STEP: Duration = Duration::from_millis(150);
const STEPS: u32 = 8;
/// How many ticks of the kernel's clock (10 ms) a thread must have been seen computing.
const TICKS: u64 = 3;
/// The share of the time in which it must have had a processor, or waited for one, per cent.
const RUNNABLE: u64 = 85;

/// What a thread has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Work {
    tid: i32,
    /// Ticks in user space, and in the kernel.
    user: u64,
    kernel: u64,
    /// How often it waited for something.
    waits: u64,
    /// How long it had a processor or waited for one, nanoseconds.
    runnable: u64,
}

/// Watches the threads of a process for a moment. Of threads that compute all the time and never enter the kernel, two or more
/// look like threads that wait for each other; or they compute, which is not told apart.
#[must_use]
pub fn spinning(pid: i32) -> Option<Finding> {
    let (before, begun) = (threads(pid)?, Instant::now());
    if before.len() < 2 {
        return None;
    }
    let found = (0..STEPS).find_map(|_| {
        std::thread::sleep(STEP);
        let (after, elapsed) = (threads(pid)?, begun.elapsed());
        let pairs = after.iter().filter_map(|now| Some((before.iter().find(|then| then.tid == now.tid)?, now)));
        let may_spin: Vec<_> = pairs.filter(|(then, now)| may_spin(then, now, elapsed)).collect();
        if may_spin.len() < 2 {
            return Some(vec![]);
        }
        let seen = may_spin.iter().filter(|(then, now)| now.user.saturating_sub(then.user) >= TICKS);
        let seen: Vec<String> = seen.map(|(_, now)| now.tid.to_string()).collect();
        (seen.len() > 1).then_some(seen)
    })?;
    (found.len() > 1).then(|| {
        let reason = format!(
            "{} threads compute without a pause and without a call (thread {}); if they wait for each other in loops, the service \
             is slow while two versions run",
            found.len(),
            found.join(", ")
        );
        warn("spinning", reason, "rehearse when there is less to do; `--max-slowdown` ends what costs too much")
    })
}

/// Says whether a thread wanted to compute all the time and did not enter the kernel, as far as that was seen.
fn may_spin(then: &Work, now: &Work, elapsed: Duration) -> bool {
    let elapsed = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
    let runnable = now.runnable.saturating_sub(then.runnable);
    now.kernel == then.kernel && now.waits == then.waits && runnable >= elapsed / 100 * RUNNABLE
}

fn threads(pid: i32) -> Option<Vec<Work>> {
    let names = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let tids = names.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    // One that has ended meanwhile is left out.
    Some(tids.filter_map(|tid| work(pid, tid)).collect())
}

fn work(pid: i32, tid: i32) -> Option<Work> {
    let stat = procfs::text(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    let status = procfs::text(format!("/proc/{pid}/task/{tid}/status")).ok()?;
    let schedule = procfs::text(format!("/proc/{pid}/task/{tid}/schedstat")).ok()?;
    parse(tid, &stat, &status, &schedule)
}

/// Reads `proc_pid_stat(5)`, `proc_pid_status(5)`, and the kernel's `sched-stats.rst`.
fn parse(tid: i32, stat: &str, status: &str, schedule: &str) -> Option<Work> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at - 3)?.parse().ok();
    let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    let runnable = schedule.split_whitespace().take(2).map_while(|time| time.parse::<u64>().ok()).sum();
    Some(Work { tid, user: number(14)?, kernel: number(15)?, waits: waits.trim().parse().ok()?, runnable })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn threads_that_wait_in_loops_are_told_and_others_are_not() {
        let pid = std::process::id().cast_signed();
        let stop = Arc::new(AtomicBool::new(false));
        let spinners: Vec<_> = (0..2)
            .map(|_| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || while !stop.load(Ordering::Relaxed) {})
            })
            .collect();
        let begun = Instant::now();
        let found = loop {
            // On a busy machine they may hardly run for a moment.
            match spinning(pid) {
                Some(found) => break found,
                None => assert!(begun.elapsed() < Duration::from_secs(60), "two threads that spin are not found"),
            }
        };
        stop.store(true, Ordering::Relaxed);
        spinners.into_iter().for_each(|spinner| spinner.join().expect("it ends"));
        assert_eq!(found.name, "spinning");
        assert!(found.reason.contains("threads compute without a pause"), "{}", found.reason);
    }

    #[test]
    fn a_thread_that_enters_the_kernel_does_not_spin() {
        let then = Work { tid: 1, user: 10, kernel: 5, waits: 7, runnable: 0 };
        let elapsed = Duration::from_millis(150);
        let now = Work { user: 14, runnable: 140_000_000, ..then };
        assert!(may_spin(&then, &now, elapsed));
        assert!(!may_spin(&then, &Work { runnable: 100_000_000, ..now }, elapsed), "it was not always about to");
        assert!(!may_spin(&then, &Work { kernel: 6, ..now }, elapsed));
        assert!(!may_spin(&then, &Work { waits: 8, ..now }, elapsed));
    }

    #[test]
    fn a_name_with_a_bracket_is_no_field() {
        let stat = "12 (io) thd) R 1 2 3 4 5 6 7 8 9 10 111 22 0 0 20 0";
        let status = "Name:\tio) thd\nvoluntary_ctxt_switches:\t77\nnonvoluntary_ctxt_switches:\t8\n";
        let work = Work { tid: 12, user: 111, kernel: 22, waits: 77, runnable: 5000 };
        assert_eq!(parse(12, stat, status, "2000 3000 9\n"), Some(work));
        assert_eq!(parse(12, stat, "Name:\tx\n", "2000 3000 9\n"), None);
    }
}
