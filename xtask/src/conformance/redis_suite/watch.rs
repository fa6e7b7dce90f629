//! Updates each Redis that runs in a session, again and again, until there is nothing left in it.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::daemon::{Daemon, Output};
use harness::process::{self, Stat};
use harness::stand::{SINGLE, code};
use serde::Serialize;

use super::super::cycle::{self, Course};
use super::UNIT_LIMIT;

/// Updates at the same time.
const AT_ONCE: usize = 2;
/// How long an update may wait for something to compare.
const PATIENCE: &str = "5s";
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// How long a server has run when it is updated for the first time: until it listens.
const FIRST_AFTER: Duration = Duration::from_millis(100);
/// How often the session is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How far the updates of a server go, in turn. Most go all the way.
const COURSES: [Course; 5] = [Course::There, Course::There, Course::Rehearsed, Course::There, Course::ThereAndBack];

/// What became of the servers of a session.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Watched {
    pub(super) servers: u32,
    /// Updates that were promoted and confirmed.
    pub(super) updated: u32,
    /// Updates that were rolled back because that was asked for, before their promotion or after it.
    pub(super) went_back: u32,
    /// Updates whose server ended before they did.
    pub(super) ended: u32,
    /// Updates during which too little was asked of the server.
    pub(super) idle: u32,
    /// Updates that were undone, by what the daemon says.
    pub(super) undone: BTreeMap<String, u32>,
}

impl Watched {
    pub(super) fn add(&mut self, other: Watched) {
        self.servers += other.servers;
        self.updated += other.updated;
        self.went_back += other.went_back;
        self.ended += other.ended;
        self.idle += other.idle;
        for (cause, count) in other.undone {
            *self.undone.entry(cause).or_default() += count;
        }
    }
}

pub(super) struct Watch<'a> {
    pub(super) daemon: &'a Daemon,
    pub(super) session: i32,
    pub(super) every: Duration,
}

enum Ended {
    Updated,
    WentBack,
    Gone,
    Idle,
    Undone(String),
}

/// The updates of a server.
struct Served {
    /// When the next is due; `None` while one is under way.
    due: Option<Instant>,
    updates: usize,
}

impl Watch<'_> {
    /// Updates until the session has ended.
    pub(super) fn run(&self) -> Result<Watched> {
        let mut watched = Watched::default();
        let mut known: BTreeMap<i32, Served> = BTreeMap::new();
        let begun = Instant::now();
        let own = std::process::id() as i32;
        std::thread::scope(|scope| {
            let (sender, endings) = mpsc::channel::<(i32, Result<Ended>)>();
            let mut under_way = 0;
            loop {
                while let Ok((pid, ended)) = endings.try_recv() {
                    under_way -= 1;
                    let ended = ended.with_context(|| format!("updating process {pid}"))?;
                    if let Some(server) = known.get_mut(&pid) {
                        server.due = Some(Instant::now() + self.every);
                    }
                    match ended {
                        Ended::Updated => watched.updated += 1,
                        Ended::WentBack => watched.went_back += 1,
                        Ended::Gone => watched.ended += 1,
                        Ended::Idle => watched.idle += 1,
                        Ended::Undone(words) => *watched.undone.entry(cycle::cause(&words)).or_default() += 1,
                    }
                }
                let everybody = process::all();
                // A server's child that lives longer than the server is ours. Some tests wait until it is gone.
                let ours = |stat: &&Stat| stat.session == self.session && stat.parent == own && stat.state == 'Z';
                for stat in everybody.iter().filter(ours) {
                    process::reap(stat.pid);
                }
                let lives = |stat: &Stat| stat.session == self.session && !matches!(stat.state, 'Z' | 'X');
                let members: Vec<Stat> = everybody.into_iter().filter(lives).collect();
                if !process::alive(self.session) && under_way == 0 {
                    return Ok(());
                }
                ensure!(begun.elapsed() < UNIT_LIMIT, "the suite did not end within {UNIT_LIMIT:?}");
                let now = Instant::now();
                for pid in servers(&members) {
                    let server = known.entry(pid).or_insert_with(|| {
                        watched.servers += 1;
                        Served { due: Some(now + FIRST_AFTER), updates: 0 }
                    });
                    if under_way < AT_ONCE && server.due.is_some_and(|due| now >= due) {
                        let course = COURSES[server.updates % COURSES.len()];
                        server.due = None;
                        server.updates += 1;
                        under_way += 1;
                        let sender = sender.clone();
                        scope.spawn(move || {
                            // The receiver is gone only where something else has failed.
                            let _ = sender.send((pid, self.update(pid, course)));
                        });
                    }
                }
                std::thread::sleep(LOOK_EVERY);
            }
        })?;
        Ok(watched)
    }

    fn update(&self, pid: i32, course: Course) -> Result<Ended> {
        let text = pid.to_string();
        let asked = ["update", &text, "--to", "self", "--promote", "manual", "--confirm", "manual", "--soak", "50ms"];
        let evidence = ["--min-calls", "10", "--min-outputs", "3", "--timeout", PATIENCE, "--wait"];
        let validated = self.daemon.run_for(&[&asked[..], &evidence[..]].concat(), COMMAND_LIMIT)?;
        match validated.code {
            code::DONE => {}
            code::TIMED_OUT | code::INCONCLUSIVE => return Ok(Ended::Idle),
            _ => return Ok(undone(pid, &validated)),
        }
        if course == Course::Rehearsed {
            return self.go_back(pid);
        }
        let promoted = self.daemon.run_for(&["promote", &text], COMMAND_LIMIT)?;
        if promoted.code != code::DONE {
            return self.give_up(pid, &promoted);
        }
        if course == Course::ThereAndBack {
            return self.go_back(pid);
        }
        let confirmed = self.daemon.run_for(&["confirm", &text], COMMAND_LIMIT)?;
        if confirmed.code != code::DONE {
            return self.give_up(pid, &confirmed);
        }
        Ok(Ended::Updated)
    }

    /// Undoes an update, as was wished.
    fn go_back(&self, pid: i32) -> Result<Ended> {
        let output = self.daemon.run_for(&["rollback", &pid.to_string()], COMMAND_LIMIT)?;
        Ok(match self.daemon.status(pid)? {
            Some(status) if status.stage == SINGLE && process::alive(pid) && output.code == code::DONE => {
                Ended::WentBack
            }
            _ => undone(pid, &output),
        })
    }

    /// After a promotion or a confirmation that failed. The daemon may be about to try the update again, and the next one here
    /// would be refused.
    fn give_up(&self, pid: i32, output: &Output) -> Result<Ended> {
        let _ = self.daemon.run_for(&["rollback", &pid.to_string()], COMMAND_LIMIT)?;
        let result = self.daemon.status(pid)?.and_then(|status| status.result);
        Ok(match (undone(pid, output), result) {
            (Ended::Undone(words), Some((_, text))) => Ended::Undone(format!("{words}; {text}")),
            (ended, _) => ended,
        })
    }
}

/// What an update is that did not go as far as it should, by what the client said last.
fn undone(pid: i32, output: &Output) -> Ended {
    if output.code == code::TARGET_GONE || !process::alive(pid) {
        Ended::Gone
    } else {
        Ended::Undone(cycle::words(output))
    }
}

/// Returns the servers that the tests of a session have started, but those that a test has stopped; not the children that they
/// fork.
fn servers(members: &[Stat]) -> Vec<i32> {
    let by_a_test =
        |stat: &&Stat| members.iter().any(|other| other.pid == stat.parent && other.name.starts_with("tclsh"));
    let servers = members.iter().filter(|stat| stat.name == "redis-server" && stat.state != 'T');
    servers.filter(by_a_test).map(|stat| stat.pid).collect()
}
