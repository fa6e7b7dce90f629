//! Updates each Redis that runs in a session, again and again, until there is nothing left in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use harness::daemon::{Daemon, Output};
use harness::process::{self, Stat};
use harness::stand::{SINGLE, code};
use harness::wait::try_wait_for;
use serde::Serialize;

use super::super::cycle::{self, Course};
use super::UNIT_LIMIT;

/// Updates at the same time.
const AT_ONCE: usize = 2;
/// How long an update may wait for something to compare.
const PATIENCE: &str = "5s";
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// How long a promotion is waited for, and how long before it for the end of the server's children: some tests have one that
/// lives long, and a promotion would wait for it.
const PROMOTION_LIMIT: Duration = Duration::from_secs(10);
const CHILDREN_LIMIT: Duration = Duration::from_secs(2);
/// How long a server has run when it is updated for the first time: until it listens.
const FIRST_AFTER: Duration = Duration::from_millis(100);
/// How long a promotion that is under way waits for a child.
const CHILD_LIMIT: Duration = Duration::from_millis(300);
/// How often the session is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The exit code of an update that had too little to compare.
const INCONCLUSIVE: i32 = 12;
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
    /// Where the present number of a server is written, in a file that is called by the first.
    pub(super) serving: &'a Path,
}

enum Ended {
    Updated(i32),
    WentBack,
    Gone,
    Idle,
    Undone(String),
}

/// A server as its tests know it.
struct Known {
    present: i32,
    /// When its next update is due; `None` while one is under way.
    due: Option<Instant>,
    updates: usize,
}

impl Watch<'_> {
    /// Updates until the session has ended.
    pub(super) fn run(&self) -> Result<Watched> {
        let mut watched = Watched::default();
        let mut known: BTreeMap<i32, Known> = BTreeMap::new();
        let begun = Instant::now();
        let own = std::process::id() as i32;
        std::thread::scope(|scope| {
            let (sender, endings) = mpsc::channel::<(i32, Result<Ended>)>();
            let mut under_way = 0;
            loop {
                while let Ok((first, ended)) = endings.try_recv() {
                    under_way -= 1;
                    let ended = ended.with_context(|| format!("updating process {first}"))?;
                    if let Some(server) = known.get_mut(&first) {
                        server.due = Some(Instant::now() + self.every);
                        if let Ended::Updated(leader) = ended {
                            server.present = leader;
                        }
                    }
                    match ended {
                        Ended::Updated(_) => watched.updated += 1,
                        Ended::WentBack => watched.went_back += 1,
                        Ended::Gone => watched.ended += 1,
                        Ended::Idle => watched.idle += 1,
                        Ended::Undone(words) => *watched.undone.entry(cycle::cause(&words)).or_default() += 1,
                    }
                }
                let everybody = process::all();
                // The suite waits until the number of a server that was ended is free. One that took over is a child of ours
                // when its parent has ended.
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
                for server in servers(&members) {
                    known.entry(server).or_insert_with(|| {
                        watched.servers += 1;
                        Known { present: server, due: Some(Instant::now() + FIRST_AFTER), updates: 0 }
                    });
                }
                let now = Instant::now();
                for (first, server) in &mut known {
                    let alive = members.iter().any(|member| member.pid == server.present);
                    let due = server.due.is_some_and(|due| now >= due);
                    if under_way < AT_ONCE && alive && due && !self.is_stopped(*first, server.present) {
                        let course = COURSES[server.updates % COURSES.len()];
                        server.due = None;
                        server.updates += 1;
                        under_way += 1;
                        let (first, present, sender) = (*first, server.present, sender.clone());
                        scope.spawn(move || {
                            // The receiver is gone only where something else has failed.
                            let _ = sender.send((first, self.update(first, present, course)));
                        });
                    }
                }
                std::thread::sleep(LOOK_EVERY);
            }
        })?;
        Ok(watched)
    }

    fn update(&self, first: i32, pid: i32, course: Course) -> Result<Ended> {
        let text = pid.to_string();
        let asked = ["update", &text, "--to", "self", "--promote", "manual", "--confirm", "manual", "--soak", "50ms"];
        let evidence = ["--min-calls", "10", "--min-outputs", "3", "--timeout", PATIENCE, "--wait"];
        let validated = self.daemon.run_for(&[&asked[..], &evidence[..]].concat(), COMMAND_LIMIT)?;
        match validated.code {
            code::DONE => {}
            code::TIMED_OUT | INCONCLUSIVE => return Ok(Ended::Idle),
            _ => return self.not_updated(pid, &cycle::words(&validated)),
        }
        let alone = course != Course::Rehearsed
            && try_wait_for(CHILDREN_LIMIT, || (!has_children(pid)).then_some(())).is_some();
        if !alone || self.is_stopped(first, pid) {
            return self.go_back(pid);
        }
        let changing = self.changing(first)?;
        let Some(promoted) = self.promote(pid)? else { return self.go_back(pid) };
        if promoted.code != code::DONE {
            let _ = self.daemon.run_for(&["rollback", &text], COMMAND_LIMIT)?;
            return self.not_updated(pid, &cycle::words(&promoted));
        }
        let Some(status) = self.daemon.status(pid)? else { return Ok(Ended::Gone) };
        let leader = status.leader;
        if course == Course::ThereAndBack {
            return self.go_back(pid);
        }
        if leader != pid && process::alive(leader) {
            self.note(first, pid, leader)?;
        }
        drop(changing);
        let confirmed = self.daemon.run_for(&["confirm", &text], COMMAND_LIMIT)?;
        if confirmed.code != code::DONE {
            // The daemon may be about to try the update again, and the next one here would be refused.
            let _ = self.daemon.run_for(&["rollback", &text], COMMAND_LIMIT)?;
        }
        let status = self.daemon.status(pid)?;
        match status {
            Some(status) if status.stage == SINGLE && status.leader == leader && leader != pid => {
                Ok(Ended::Updated(leader))
            }
            // The old one may serve again.
            Some(status) if process::alive(status.leader) => {
                self.note(first, leader, status.leader)?;
                Ok(Ended::Undone(status.result.map_or_else(|| cycle::words(&confirmed), |(_, text)| text)))
            }
            _ => Ok(Ended::Gone),
        }
    }

    /// Asks for a promotion; `None` if it is not to be waited for. The tests wait for it too where they look for a server's
    /// process, and some want to end a child of it that lives long, for whose end the promotion would wait.
    fn promote(&self, pid: i32) -> Result<Option<Output>> {
        let text = pid.to_string();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| self.daemon.run_for(&["promote", &text], COMMAND_LIMIT));
            let deadline = Instant::now() + PROMOTION_LIMIT;
            let mut parent_since = None;
            while !asked.is_finished() {
                let since = has_children(pid).then(|| parent_since.unwrap_or_else(Instant::now));
                parent_since = since;
                let too_long = since.is_some_and(|since| since.elapsed() > CHILD_LIMIT);
                if too_long || Instant::now() > deadline {
                    // The command ends with the update.
                    self.daemon.run_for(&["rollback", &text], COMMAND_LIMIT)?;
                    asked.join().map_err(|_| anyhow!("asking for a promotion panicked"))??;
                    return Ok(None);
                }
                std::thread::sleep(LOOK_EVERY);
            }
            Ok(Some(asked.join().map_err(|_| anyhow!("asking for a promotion panicked"))??))
        })
    }

    /// Undoes an update; the process that was there first serves again.
    fn go_back(&self, pid: i32) -> Result<Ended> {
        let output = self.daemon.run_for(&["rollback", &pid.to_string()], COMMAND_LIMIT)?;
        let status = self.daemon.status(pid)?;
        match status {
            Some(status) if status.stage == SINGLE && status.leader == pid && process::alive(pid) => {
                Ok(Ended::WentBack)
            }
            _ => self.not_updated(pid, &cycle::words(&output)),
        }
    }

    /// Tells the suite the present number of a server, which was another until now: for all numbers that it has had, since a
    /// test may have asked the server itself for its number.
    fn note(&self, first: i32, before: i32, present: i32) -> Result<()> {
        let before = before.to_string();
        let mut names = BTreeSet::from([first.to_string(), before.clone()]);
        for entry in fs::read_dir(self.serving)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_number = name.chars().all(|char| char.is_ascii_digit());
            if is_number && fs::read_to_string(entry.path())? == before {
                names.insert(name);
            }
        }
        for name in names {
            let fresh = self.serving.join(format!("{name}.new"));
            fs::write(&fresh, present.to_string())?;
            fs::rename(fresh, self.serving.join(name))?;
        }
        Ok(())
    }

    /// Says whether a test has stopped a server and not let it go on yet: nobody could change versions meanwhile.
    fn is_stopped(&self, first: i32, present: i32) -> bool {
        [first, present].iter().any(|pid| self.serving.join(format!("{pid}.stopped")).exists())
    }

    /// Tells the suite that the present number of a server is about to change, until the result is dropped.
    fn changing(&self, first: i32) -> Result<tempfile::TempPath> {
        let file = self.serving.join(format!("{first}.changing"));
        fs::write(&file, "")?;
        Ok(tempfile::TempPath::try_from_path(file)?)
    }

    fn not_updated(&self, pid: i32, words: &str) -> Result<Ended> {
        Ok(if process::alive(pid) { Ended::Undone(words.to_owned()) } else { Ended::Gone })
    }
}

/// Says whether a server has children of its own; a version that follows is one too, and traced.
fn has_children(pid: i32) -> bool {
    let is_own = |stat: &Stat| {
        let status = fs::read_to_string(format!("/proc/{}/status", stat.pid)).unwrap_or_default();
        stat.parent == pid && status.contains("TracerPid:\t0\n")
    };
    process::all().iter().any(is_own)
}

/// Returns the servers that the tests of a session have started: not the children that these fork for dumps, and not those
/// that took over from them, which are children of nobody in the session.
fn servers(members: &[Stat]) -> Vec<i32> {
    let by_a_test =
        |stat: &&Stat| members.iter().any(|other| other.pid == stat.parent && other.name.starts_with("tclsh"));
    members.iter().filter(|stat| stat.name == "redis-server").filter(by_a_test).map(|stat| stat.pid).collect()
}
