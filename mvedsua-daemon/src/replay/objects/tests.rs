use bytes::Bytes;

use super::*;
use crate::record::{LeaderAddr, Nanos, PieceDir, Seq};

fn piece(arg: u8, dir: PieceDir, bytes: &[u8]) -> Piece {
    Piece { arg, part: 0, dir, addr: LeaderAddr(0), bytes: Bytes::copy_from_slice(bytes) }
}

fn entry(nr: i64, args: [u64; 6], inputs: Vec<Piece>) -> CallEntry {
    CallEntry { nr: nr as u32, args, inputs, at: Nanos(0) }
}

fn returned(ret: i64, outputs: Vec<Piece>) -> CallReturn {
    CallReturn { ret, outputs, at: Nanos(0) }
}

/// A program whose records are noted one after the other.
#[derive(Default)]
struct Program {
    objects: Objects,
    next: u64,
}

impl Program {
    fn event(&mut self, slot: u32, event: Event) -> Record {
        let record = Record { seq: Seq(self.next), slot: Slot(slot), event };
        self.next += 1;
        self.objects.note(&record, 0);
        record
    }

    fn call(&mut self, nr: i64, args: &[u64], ret: i64) -> Record {
        self.call_with(nr, args, Vec::new(), ret, Vec::new())
    }

    fn call_with(&mut self, nr: i64, args: &[u64], inputs: Vec<Piece>, ret: i64, outputs: Vec<Piece>) -> Record {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        self.event(0, Event::Call(entry(nr, all, inputs), returned(ret, outputs)))
    }

    fn pair(&mut self, nr: i64, arg: u8, one: i32, other: i32) {
        let numbers: Vec<u8> = [one, other].iter().flat_map(|fd| fd.to_ne_bytes()).collect();
        self.call_with(nr, &[], Vec::new(), 0, vec![piece(arg, PieceDir::Out, &numbers)]);
    }

    fn read(&mut self, fd: u64) -> Record {
        self.call(libc::SYS_read, &[fd], 1)
    }

    fn write(&mut self, fd: u64) -> Record {
        self.call(libc::SYS_write, &[fd], 1)
    }

    fn concerned(&self, one: &Record, other: &Record) -> bool {
        let concerned = self.objects.touched(one).concerns(&self.objects.touched(other));
        assert_eq!(concerned, self.objects.touched(other).concerns(&self.objects.touched(one)));
        concerned
    }

    fn read_and_write_concern(&mut self, read: u64, written: u64) -> bool {
        let (write, read) = (self.write(written), self.read(read));
        self.concerned(&write, &read)
    }
}

#[test]
fn both_ends_are_one_object() {
    let mut program = Program::default();
    program.pair(libc::SYS_pipe2, 0, 5, 6);
    program.pair(libc::SYS_socketpair, 3, 7, 8);
    assert!(program.read_and_write_concern(5, 6));
    assert!(program.read_and_write_concern(7, 8));
    assert!(!program.read_and_write_concern(5, 8));
    assert!(!program.read_and_write_concern(20, 21));
    assert!(program.read_and_write_concern(20, 20));
}

#[test]
fn a_duplicate_is_the_same_object() {
    let mut program = Program::default();
    program.pair(libc::SYS_pipe, 0, 5, 6);
    program.call(libc::SYS_dup2, &[6, 1], 1);
    program.call(libc::SYS_fcntl, &[5, libc::F_DUPFD_CLOEXEC as u64, 10], 10);
    assert!(program.read_and_write_concern(10, 1));
    // Of this one nothing is known.
    program.call(libc::SYS_dup, &[30], 31);
    assert!(program.read_and_write_concern(30, 31));
}

#[test]
fn a_duplicate_that_another_thread_is_slow_to_make() {
    let mut program = Program::default();
    program.pair(libc::SYS_pipe, 0, 5, 6);
    program.event(3, Event::Enter(entry(libc::SYS_dup, [6, 0, 0, 0, 0, 0], Vec::new())));
    program.read(20);
    program.event(3, Event::Return(returned(9, Vec::new())));
    assert!(program.read_and_write_concern(5, 9));
}

#[test]
fn a_number_is_not_given_before_it_was_given_up() {
    let mut program = Program::default();
    program.call(libc::SYS_socket, &[2, 1, 0], 12);
    let closed = program.call(libc::SYS_close, &[12], 0);
    let accepted = program.call(libc::SYS_accept4, &[3], 12);
    let elsewhere = program.call(libc::SYS_accept4, &[3], 13);
    assert!(program.concerned(&closed, &accepted));
    assert!(!program.concerned(&closed, &elsewhere));
    program.pair(libc::SYS_pipe2, 0, 14, 15);
    let closed = program.call(libc::SYS_close, &[15], 0);
    let (one, other) = ([15i32, 16], [17i32, 18]);
    let mut pipe = |ends: [i32; 2]| {
        let numbers: Vec<u8> = ends.iter().flat_map(|fd| fd.to_ne_bytes()).collect();
        program.call_with(libc::SYS_pipe, &[], Vec::new(), 0, vec![piece(0, PieceDir::Out, &numbers)])
    };
    let (one, other) = (pipe(one), pipe(other));
    assert!(program.concerned(&closed, &one));
    assert!(!program.concerned(&closed, &other));
    // Opened by a call of which the entry is known already.
    let number = |fd| Objects::touched_by_return(libc::SYS_openat as u32, &returned(fd, Vec::new()));
    assert!(number(15).concerns(&program.objects.touched(&closed)));
    assert!(!number(16).concerns(&program.objects.touched(&closed)));
    // One that came in a message can be any.
    let message = program.call(libc::SYS_recvmsg, &[4], 1);
    assert!(program.concerned(&closed, &message));
}

#[test]
fn a_number_that_is_used_again_is_another_object() {
    let mut program = Program::default();
    program.pair(libc::SYS_pipe, 0, 5, 6);
    let before = program.write(6);
    program.call(libc::SYS_close, &[6], 0);
    program.call(libc::SYS_eventfd2, &[], 6);
    let (after, read) = (program.write(6), program.read(5));
    assert!(program.concerned(&before, &read));
    assert!(!program.concerned(&after, &read));
    // What is long over is forgotten.
    for _ in 0..100 {
        program.next += 1;
        let close = Record {
            seq: Seq(program.next),
            slot: Slot(0),
            event: Event::Call(entry(libc::SYS_close, [6, 0, 0, 0, 0, 0], Vec::new()), returned(0, Vec::new())),
        };
        program.objects.note(&close, program.next);
    }
    assert!(program.objects.by_number[&6].len() <= 2);
}

#[test]
fn whoever_connects_to_himself() {
    let place: Vec<u8> = [&(libc::AF_INET as u16).to_ne_bytes()[..], &8080u16.to_be_bytes(), &[127, 0, 0, 1]].concat();
    let mut program = Program::default();
    program.call(libc::SYS_socket, &[], 4);
    program.call_with(libc::SYS_bind, &[4], vec![piece(1, PieceDir::In, &place)], 0, Vec::new());
    let (one, another) = (program.call(libc::SYS_accept4, &[4], 7), program.call(libc::SYS_accept4, &[4], 8));
    assert!(program.concerned(&one, &another));
    assert!(!program.read_and_write_concern(7, 8));
    program.call(libc::SYS_socket, &[], 9);
    program.call_with(libc::SYS_connect, &[9], vec![piece(1, PieceDir::In, &place)], -115, Vec::new());
    assert!(program.read_and_write_concern(7, 9));
    assert!(program.read_and_write_concern(4, 9));
    assert!(!program.read_and_write_concern(7, 8));
}

#[test]
fn a_set_that_watches_what_the_program_writes() {
    let mut program = Program::default();
    program.call(libc::SYS_epoll_create1, &[], 4);
    program.call(libc::SYS_eventfd2, &[], 5);
    program.call(libc::SYS_socket, &[], 6);
    program.call(libc::SYS_epoll_ctl, &[4, libc::EPOLL_CTL_ADD as u64, 5], 0);
    program.call(libc::SYS_epoll_ctl, &[4, libc::EPOLL_CTL_ADD as u64, 6], 0);
    let (event, answer) = (program.write(5), program.write(6));
    let wait = program.call(libc::SYS_epoll_wait, &[4], 1);
    assert!(program.concerned(&event, &wait));
    assert!(!program.concerned(&answer, &wait));
    program.call(libc::SYS_epoll_ctl, &[4, libc::EPOLL_CTL_DEL as u64, 5], 0);
    let later = program.call(libc::SYS_epoll_wait, &[4], 1);
    assert!(program.concerned(&event, &wait));
    assert!(!program.concerned(&event, &later));
}

#[test]
fn what_poll_finds_ready() {
    let mut program = Program::default();
    program.pair(libc::SYS_pipe, 0, 5, 6);
    let found = [&5i32.to_ne_bytes()[..], &[1, 0, 1, 0], &9i32.to_ne_bytes(), &[1, 0, 0, 0]].concat();
    let poll = program.call_with(libc::SYS_poll, &[0, 2], Vec::new(), 1, vec![piece(0, PieceDir::Out, &found)]);
    let set = (1u64 << 5).to_ne_bytes();
    let select = program.call_with(libc::SYS_select, &[64], Vec::new(), 1, vec![piece(1, PieceDir::Out, &set)]);
    let (written, other) = (program.write(6), program.write(9));
    assert!(program.concerned(&written, &poll) && program.concerned(&written, &select));
    assert!(!program.concerned(&other, &poll) && !program.concerned(&other, &select));
}

#[test]
fn names_are_looked_at_in_any_order_and_changed_in_one() {
    let mut program = Program::default();
    let look = program.call(libc::SYS_stat, &[], 0);
    let look_again = program.call(libc::SYS_access, &[], 0);
    let change = program.call(libc::SYS_rename, &[], 0);
    assert!(!program.concerned(&look, &look_again));
    assert!(program.concerned(&look, &change));
    let name = |bytes: &[u8]| vec![piece(1, PieceDir::In, bytes)];
    program.call_with(libc::SYS_openat, &[u64::MAX], name(b"/tmp/x\0"), 7, Vec::new());
    program.call_with(libc::SYS_openat, &[u64::MAX], name(b"/tmp/x\0"), 8, Vec::new());
    program.call_with(libc::SYS_openat, &[u64::MAX], name(b"/tmp/y\0"), 9, Vec::new());
    assert!(program.read_and_write_concern(7, 8));
    assert!(!program.read_and_write_concern(7, 9));
}

/// What was open before the first record.
#[test]
fn what_a_process_has_open() {
    let (mut pipe, mut pair, mut duplicate) = ([0; 2], [0; 2], 0);
    // SAFETY: the arrays have room for the two numbers that each call writes.
    unsafe {
        assert_eq!(libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC), 0);
        let made = libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr());
        assert_eq!(made, 0);
        duplicate += libc::fcntl(pair[1], libc::F_DUPFD_CLOEXEC, 0);
    }
    let mut program = Program { objects: Objects::of_process(Pid(std::process::id() as i32)), next: 0 };
    assert!(program.read_and_write_concern(pipe[0] as u64, pipe[1] as u64));
    assert!(program.read_and_write_concern(pair[0] as u64, duplicate as u64));
    assert!(!program.read_and_write_concern(pair[0] as u64, pipe[1] as u64));
    for fd in pipe.into_iter().chain(pair).chain([duplicate]) {
        // SAFETY: they are this test's own.
        unsafe { libc::close(fd) };
    }
}
