//! How many semaphores a System V set has: no argument of `semctl(GETALL)` says so, but the kernel does.
//!
//! It is asked while the leader is about to use the set. When the follower comes there the set may be gone, so what was
//! learned is remembered. The kernel numbers sets in a long cycle; an id stands for one set.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::Pid;

/// Sets that were asked for. Few programs use these commands at all, on few sets.
static KNOWN: Mutex<BTreeMap<i32, u64>> = Mutex::new(BTreeMap::new());
const AT_MOST: usize = 4096;

/// Returns the number; 0 where there never was such a set, `None` where the process has System V objects of its own
/// (`ipc_namespaces(7)`) or the daemon may not look.
pub(super) fn count(pid: Pid, id: i32) -> Option<u64> {
    let namespace = |whose: &str| std::fs::read_link(format!("/proc/{whose}/ns/ipc")).ok();
    if namespace(&pid.to_string())? != namespace("self")? {
        return None;
    }
    // A thread that panicked has inserted a number or has not.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    match ask(id) {
        Ok(count) => {
            if known.len() >= AT_MOST {
                known.clear();
            }
            known.insert(id, count);
            Some(count)
        }
        Err(libc::EINVAL | libc::EIDRM) => Some(known.get(&id).copied().unwrap_or(0)),
        Err(_) => None,
    }
}

fn ask(id: i32) -> Result<u64, i32> {
    // SAFETY: plain data, for which zeroes are a value.
    let mut set: libc::semid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: the fourth argument of this command is a pointer to a structure that outlives the call.
    if unsafe { libc::semctl(id, 0, libc::IPC_STAT, &raw mut set) } == -1 {
        return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
    }
    Ok(set.sem_nsems as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_that_is_gone_is_remembered() {
        let ours = Pid(std::process::id() as i32);
        // SAFETY: takes integers only.
        let id = unsafe { libc::semget(libc::IPC_PRIVATE, 5, 0o600) };
        assert!(id >= 0);
        assert_eq!(count(ours, id), Some(5));
        // SAFETY: the command takes no fourth argument.
        unsafe { libc::semctl(id, 0, libc::IPC_RMID) };
        assert_eq!(count(ours, id), Some(5));
        assert_eq!(count(ours, -1), Some(0));
    }
}
