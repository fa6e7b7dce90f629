//! The manual's list of system calls is the table's.

use std::path::Path;

use mvedsua_common::syscalls::format::Manual;

const HEAD: &str = "# System calls

What happens to each system call of Linux 6.18 while two versions of a program run. A call of a later kernel, or an `ioctl`,
`fcntl`, `prctl` or other request that is not listed here, ends the update by name, and never the service.

- *supplied*: it takes something from the world. The leader makes it; the follower gets its result and its memory.
- *compared*: it changes something that others can see. The leader makes it; the follower must make the same one.
- *made by each version*: it concerns the version's own memory, locks and attributes; it is not compared.
- *made by both*: threads are born and end in both, in pairs.
- *refused*: it ends the update, with this reason.

Arguments: a *number*, *flags* and a *descriptor* must be equal in both versions, and so must what the kernel *reads*;
*own* is not compared. `#2` is the second argument, `*#2` what it points to. A call in several lines is told apart by its
request or flags, which stand after the slash.

*While applied* is what a new version may do itself while it is applied in place (mvedsua-sdk), before it follows the leader: what is
*made* each version makes at any time or may make then, *own files* are those that it has opened itself since. What has no word there
ends the update.

Some listed calls are refused with certain arguments: `mmap` of a file shared and writable, or of memory shared with future
children; `clone` of a process that shares memory or descriptors; `futex` with priority inheritance; socket options whose
value holds a pointer; limits and capabilities of a process named by its id; more than 63 messages in one `sendmmsg` or
`recvmmsg`; more than 65,535 descriptors in one `poll`; `semctl` of all values of a set in another
IPC namespace.

Under `mvedsuad run` children are paired too: `execve` and `execveat` replace the program in both versions, memory may be shared
with future children, and `rseq` does not exist. Where threads run one by one, which is the default, the results of `futex` and
`sched_yield` are the leader's.

Made by `UPDATE=1 cargo test -p harness --test manual` from
`mvedsua-common/src/syscalls`.

";

#[test]
fn the_list_of_system_calls_is_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/system-calls.md");
    let text = format!("{HEAD}{Manual}");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "docs/system-calls.md is out of date: UPDATE=1 cargo test -p harness --test manual");
}
