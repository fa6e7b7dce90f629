//! How the kernel schedules each thread: policy and priority, nice value, input and output, processors.
//!
//! What a thread asks for itself each version has done; what was set from outside, or in the name of a thread id, only the
//! leader has. So it is copied from twin to twin. Nothing of it decides whether the new version serves, so a refusal (a daemon
//! without the right) is told and passed over.

use crate::ptrace::Tid;

/// `struct sched_attr` of Linux 6.18, `include/uapi/linux/sched/types.h`.
const ATTRIBUTES: usize = 56;
/// `IOPRIO_WHO_PROCESS`
const THREAD: i32 = 1;

/// Reads the attributes of a thread.
fn attributes(tid: Tid) -> Option<[u8; ATTRIBUTES]> {
    let mut attributes = [0u8; ATTRIBUTES];
    // SAFETY: the buffer is as long as it is said to be.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, tid.0, attributes.as_mut_ptr(), ATTRIBUTES, 0) };
    (got == 0).then_some(attributes)
}

fn processors(tid: Tid) -> Option<Vec<u8>> {
    let mut set = vec![0u8; 1024];
    // SAFETY: the buffer is as long as it is said to be.
    let got = unsafe { libc::syscall(libc::SYS_sched_getaffinity, tid.0, set.len(), set.as_mut_ptr()) };
    set.truncate(usize::try_from(got).ok()?);
    Some(set)
}

fn input_output(tid: Tid) -> Option<i64> {
    // SAFETY: takes integers only.
    let class = unsafe { libc::syscall(libc::SYS_ioprio_get, THREAD, tid.0) };
    (class >= 0).then_some(class)
}

/// Gives a thread what its twin has.
pub(crate) fn copy(from: Tid, to: Tid) {
    let mut refused = Vec::new();
    if let Some(wanted) = attributes(from).filter(|wanted| attributes(to).as_ref() != Some(wanted)) {
        // SAFETY: the kernel only reads the structure, whose first field is its size.
        if unsafe { libc::syscall(libc::SYS_sched_setattr, to.0, wanted.as_ptr(), 0) } != 0 {
            refused.push("policy and priority");
        }
    }
    if let Some(wanted) = processors(from).filter(|wanted| processors(to).as_ref() != Some(wanted)) {
        // SAFETY: the kernel only reads as many bytes as it is told.
        if unsafe { libc::syscall(libc::SYS_sched_setaffinity, to.0, wanted.len(), wanted.as_ptr()) } != 0 {
            refused.push("processors");
        }
    }
    if let Some(wanted) = input_output(from).filter(|wanted| input_output(to) != Some(*wanted)) {
        // SAFETY: takes integers only.
        if unsafe { libc::syscall(libc::SYS_ioprio_set, THREAD, to.0, wanted) } != 0 {
            refused.push("input and output");
        }
    }
    if !refused.is_empty() {
        let error = std::io::Error::last_os_error();
        tracing::warn!(%from, %to, ?refused, %error, "a thread's scheduling could not be copied to its twin");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_what_another_has() {
        let nice = |tid: Tid| attributes(tid).map(|a| i32::from_ne_bytes([a[16], a[17], a[18], a[19]]));
        let (ready, wait) = std::sync::mpsc::channel();
        let (done, end) = std::sync::mpsc::channel::<()>();
        // SAFETY: gettid has no arguments and cannot fail.
        let own = || Tid(unsafe { libc::gettid() });
        let other = std::thread::spawn(move || {
            // SAFETY: takes integers only.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 7) };
            ready.send(own()).expect("a listener");
            let _ = end.recv();
        });
        let from = wait.recv().expect("a thread");
        let here = std::thread::spawn(move || {
            copy(from, own());
            nice(own())
        });
        assert_eq!(here.join().expect("a thread"), Some(7));
        drop(done);
        other.join().expect("a thread");
    }
}
