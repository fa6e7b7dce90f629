//! Parsing, and real processes that have what is looked for.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::*;

/// A Python program that sets something up, says so, and ends with its standard input.
struct Guest {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Guest {
    fn start(setup: &str) -> Guest {
        let program =
            format!("import os, sys, ctypes, mmap, fcntl\n{setup}\nprint('ready', flush=True)\nsys.stdin.read()\n");
        let mut child = Command::new("python3")
            .args(["-c", &program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is installed");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("it is a pipe");
        BufReader::new(out).read_line(&mut line).expect("the guest speaks");
        assert_eq!(line.trim(), "ready", "the guest could not set up {setup}");
        Guest { stdin: child.stdin.take(), child }
    }

    fn inspect(&self) -> Preflight {
        inspect(self.child.id().cast_signed()).expect("the guest runs")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.stdin.take() {
            let _ = stdin.flush();
        }
        let _ = self.child.wait();
    }
}

fn severity_of(preflight: &Preflight, name: &str) -> Option<Severity> {
    preflight.findings.iter().find(|finding| finding.name == name).map(|finding| finding.severity)
}

#[test]
fn an_ordinary_process_is_fine() {
    let found = Guest::start("").inspect();
    assert_eq!(found.refusals(), Vec::<String>::new());
    assert_eq!(found.threads, 1);
    assert!(found.descriptors >= 3);
}

#[test]
fn what_is_alike_is_told_once() {
    let threads =
        (1..=40).map(|tid| refuse("seccomp", format!("thread {tid} is under seccomp (mode 2)"), "run it without"));
    let other = refuse("io_uring", "descriptor 7 is an io_uring", "run it without");
    let found = grouped(threads.chain([other.clone()]).collect());
    assert_eq!(found[0].reason, "thread 1 is under seccomp (mode 2) (and 39 more like it)");
    assert_eq!((found[0].count, &found[1]), (40, &other));
}

#[test]
fn a_seccomp_filter_is_refused() {
    let found = Guest::start(
        "libc = ctypes.CDLL(None)\n\
         allow = (ctypes.c_uint64 * 1)(0x7fff000000000006)\n\
         prog = (ctypes.c_uint64 * 2)(1, ctypes.addressof(allow))\n\
         assert libc.prctl(38, 1, 0, 0, 0) == 0\n\
         assert libc.prctl(22, 2, ctypes.byref(prog), 0, 0) == 0",
    )
    .inspect();
    assert_eq!(severity_of(&found, "seccomp"), Some(Severity::Refuse), "{found:?}");
}

#[test]
fn an_io_uring_is_refused() {
    let found = Guest::start("p = (ctypes.c_char * 120)()\nassert ctypes.CDLL(None).syscall(425, 4, p) >= 0").inspect();
    assert_eq!(severity_of(&found, "io_uring"), Some(Severity::Refuse), "{found:?}");
}

#[test]
fn memory_that_is_shared_with_a_child_is_refused_and_the_child_is_named() {
    let found = Guest::start(
        "m = mmap.mmap(-1, 4096)\n\
         r, w = os.pipe()\n\
         if os.fork() == 0:\n    os.close(w)\n    os.read(r, 1)\n    os._exit(0)\n\
         os.close(r)",
    )
    .inspect();
    assert_eq!(severity_of(&found, "shared-memory"), Some(Severity::Refuse), "{found:?}");
    assert_eq!(severity_of(&found, "children"), Some(Severity::Warn), "{found:?}");
}

#[test]
fn shared_memory_of_its_own_and_a_shared_file_are_told() {
    let alone = Guest::start("m = mmap.mmap(-1, 4096)").inspect();
    assert_eq!(severity_of(&alone, "shared-memory"), Some(Severity::Warn), "{alone:?}");
    let file = Guest::start(
        "import tempfile\nf = tempfile.TemporaryFile()\nf.truncate(4096)\nm = mmap.mmap(f.fileno(), 4096)",
    )
    .inspect();
    assert_eq!(severity_of(&file, "shared-file"), Some(Severity::Warn), "{file:?}");
}

#[test]
fn a_process_that_stays_stopped_is_refused() {
    let guest = Guest::start("");
    let send = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(guest.child.id().cast_signed()), signal);
    send(nix::sys::signal::Signal::SIGSTOP).expect("it runs");
    // It may be looked at before it has stopped.
    let deadline = Instant::now() + Duration::from_secs(10);
    let found = loop {
        let found = guest.inspect();
        if severity_of(&found, "stopped").is_some() || Instant::now() > deadline {
            break found;
        }
    };
    send(nix::sys::signal::Signal::SIGCONT).expect("it is there");
    assert_eq!(severity_of(&found, "stopped"), Some(Severity::Refuse), "{found:?}");
}

#[test]
fn a_traced_process_is_refused_and_its_tracer_named() {
    let guest = Guest::start("");
    let pid = guest.child.id().cast_signed();
    // This thread traces it; it is let go when the guest ends.
    nix::sys::ptrace::seize(nix::unistd::Pid::from_raw(pid), nix::sys::ptrace::Options::empty())
        .expect("root may trace");
    let found = guest.inspect();
    nix::sys::ptrace::interrupt(nix::unistd::Pid::from_raw(pid)).expect("it is traced");
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).expect("it stops");
    nix::sys::ptrace::detach(nix::unistd::Pid::from_raw(pid), None).expect("it is stopped");
    let traced = found.findings.iter().find(|finding| finding.name == "traced").expect("it is seen");
    assert!(traced.reason.contains(&std::process::id().to_string()) || traced.reason.contains('('), "{traced:?}");
}

#[test]
fn a_process_that_is_gone_is_said_to_be() {
    let guest = Guest::start("");
    let pid = guest.child.id().cast_signed();
    drop(guest);
    assert!(matches!(inspect(pid), Err(InspectError::Gone { .. })));
}

#[test]
fn a_zombie_and_a_kernel_thread_are_refused() {
    let mut child = Command::new("true").stdin(Stdio::null()).spawn().expect("true is installed");
    let pid = child.id().cast_signed();
    let ended = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !ended() {
        assert!(std::time::Instant::now() < deadline, "waited for `true` to end");
        std::thread::yield_now();
    }
    let found = inspect(pid).expect("a zombie can be looked at");
    child.wait().expect("it is ours");
    assert_eq!(severity_of(&found, "zombie"), Some(Severity::Refuse));
    let kthreadd = inspect(2).expect("the kernel's threads can be looked at");
    assert_eq!(severity_of(&kthreadd, "kernel-thread"), Some(Severity::Refuse), "{kthreadd:?}");
}

#[test]
fn the_status_is_read() {
    let text = "Name:\tx\nState:\tS (sleeping)\nTracerPid:\t12\nSeccomp:\t2\nx86_Thread_features:\tshstk wrss\n";
    let status = Status::parse(text);
    let expected = Status { state: 'S', tracer: 12, seccomp: 2, shadow_stack: true, kernel_thread: false };
    assert_eq!(status, expected);
    let names: Vec<String> = of_thread(7, &status).into_iter().map(|finding| finding.name).collect();
    assert_eq!(names, ["traced", "seccomp", "shadow-stack"]);
}

#[test]
fn programs_for_other_machines_are_refused() {
    let mut head = [0; 20];
    head[..5].copy_from_slice(b"\x7fELF\x02");
    head[18] = 62;
    assert_eq!(check_elf(&head), None);
    head[18] = 183;
    assert_eq!(check_elf(&head).map(|finding| finding.name), Some("architecture".to_owned()));
    head[4] = 1;
    assert_eq!(check_elf(&head).map(|finding| finding.name), Some("32-bit".to_owned()));
    assert_eq!(check_elf(&[0; 20]).map(|finding| finding.name), Some("executable".to_owned()));
}
