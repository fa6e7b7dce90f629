//! What a process is called where people and programs look on: by the operator, by its unit, or by its program. Never by its
//! number, so that what is measured of a service goes on under one name when the service is started anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::process::{self, ProcessId};
use crate::ptrace::procfs;

/// The longest name.
const LONGEST: usize = 64;
/// How many names are kept of processes that have ended.
const KEEP: usize = 512;

/// The names of processes that are, or were, observed or updated.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<BTreeMap<i32, Named>>);

#[derive(Debug)]
struct Named {
    process: Option<ProcessId>,
    name: String,
}

impl Named {
    fn is_alive(&self) -> bool {
        self.process.is_some_and(|process| process.is_alive())
    }
}

impl Names {
    /// Returns what a process is called; it keeps the name as long as it lives.
    pub(crate) fn of(&self, pid: i32) -> String {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let process = ProcessId::of(pid).ok();
        if let Some(named) = names.get(&pid)
            // One that has ended is called as it was, until another has its number.
            && (process.is_none() || named.process == process)
        {
            return named.name.clone();
        }
        let base = clean(&unit_of(pid).or_else(|| program_of(pid)).unwrap_or_else(|| "unknown".to_owned()));
        give(&mut names, pid, process, &base)
    }

    /// Calls a process as the operator wishes; returns what it is called then, since no two live ones have one name.
    pub(crate) fn call(&self, pid: i32, name: &str) -> String {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let process = ProcessId::of(pid).ok();
        give(&mut names, pid, process, &clean(name))
    }
}

fn give(names: &mut BTreeMap<i32, Named>, pid: i32, process: Option<ProcessId>, base: &str) -> String {
    names.remove(&pid);
    if names.len() >= KEEP {
        names.retain(|_, named| named.is_alive());
    }
    // A service that is started anew is called as before.
    let is_taken = |name: &str| names.values().any(|named| named.name == name && named.is_alive());
    let name = if is_taken(base) {
        (2..).map(|number| format!("{base}-{number}")).find(|name| !is_taken(name)).unwrap_or_else(|| base.to_owned())
    } else {
        base.to_owned()
    };
    names.insert(pid, Named { process, name: name.clone() });
    name
}

/// Returns the name with what has no place in one replaced.
fn clean(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-@:+".contains(c) { c } else { '_' };
    let name: String = name.chars().take(LONGEST).map(plain).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// Says whether an operator may call a process so.
///
/// # Errors
///
/// Why not.
pub fn check(name: &str) -> Result<String, String> {
    if name.is_empty() || clean(name) != name {
        return Err(format!("a name has 1 to {LONGEST} letters, digits and characters of `._-@:+`"));
    }
    Ok(name.to_owned())
}

/// Returns the systemd service that a process belongs to.
fn unit_of(pid: i32) -> Option<String> {
    service_in(&procfs::text(format!("/proc/{pid}/cgroup")).ok()?)
}

fn service_in(cgroup: &str) -> Option<String> {
    let unified = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
    let path =
        unified.or_else(|| cgroup.lines().find_map(|line| line.split_once(":name=systemd:").map(|(_, path)| path)))?;
    let service = path.rsplit('/').find_map(|part| part.strip_suffix(".service"))?;
    // Those of a user's manager are named by what follows; the manager itself says nothing of a program.
    (!service.is_empty() && !service.starts_with("user@")).then(|| service.to_owned())
}

fn program_of(pid: i32) -> Option<String> {
    let program = process::program_of(pid);
    let path = program.started_as.unwrap_or(program.exe);
    let path = path.strip_suffix(" (deleted)").unwrap_or(&path);
    Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_service_is_called_by_its_unit() {
        let of = service_in;
        assert_eq!(of("0::/system.slice/redis-server.service\n").as_deref(), Some("redis-server"));
        assert_eq!(of("0::/system.slice/docker.service/abc\n").as_deref(), Some("docker"));
        assert_eq!(of("1:name=systemd:/system.slice/cron.service\n").as_deref(), Some("cron"));
        assert_eq!(of("0::/user.slice/user-0.slice/user@0.service/app.slice/x.service\n").as_deref(), Some("x"));
        assert_eq!(of("0::/user.slice/user-0.slice/user@0.service/init.scope\n"), None);
        assert_eq!(of("0::/user.slice/session-3.scope\n"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn no_two_live_processes_have_one_name() {
        let sleep = || Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("it is installed");
        let (mut one, mut two) = (sleep(), sleep());
        let names = Names::default();
        let pid = |child: &std::process::Child| child.id().cast_signed();
        assert_eq!(names.call(pid(&one), "a/b c"), "a_b_c");
        assert_eq!(names.call(pid(&two), "a_b_c"), "a_b_c-2");
        assert_eq!(names.of(pid(&two)), "a_b_c-2");
        let gone = pid(&one);
        one.kill().and_then(|()| one.wait()).expect("it is ours");
        assert_eq!(names.of(gone), "a_b_c", "it is called as it was");
        assert_eq!(names.call(pid(&two), "a_b_c"), "a_b_c", "the other has ended");
        two.kill().and_then(|()| two.wait()).expect("it is ours");
        assert!(check("redis@1.x").is_ok() && check("").is_err() && check("a b").is_err());
    }
}
