//! What the rows resolve to, on a memory with holes.

use std::collections::BTreeMap;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

use super::format::{Call, Ret};
use super::regions::{self, After, Check, Memory, Region};
use super::*;

/// Memory as pages of 4,096 bytes; what is not in it is not mapped.
#[derive(Default)]
struct Fake {
    pages: BTreeMap<u64, [u8; 4096]>,
    semaphores: Option<u64>,
}

impl Fake {
    fn put(&mut self, addr: u64, bytes: &[u8]) -> u64 {
        for (at, byte) in (addr..).zip(bytes) {
            self.pages.entry(at / 4096).or_insert([0; 4096])[(at % 4096) as usize] = *byte;
        }
        addr
    }

    fn put_words(&mut self, addr: u64, words: &[u64]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.put(addr, &bytes)
    }
}

impl Memory for Fake {
    fn read(&self, addr: u64, buf: &mut [u8]) -> usize {
        for (done, byte) in buf.iter_mut().enumerate() {
            let at = addr.wrapping_add(done as u64);
            let Some(page) = self.pages.get(&(at / 4096)) else { return done };
            *byte = page[(at % 4096) as usize];
        }
        buf.len()
    }

    fn semaphores(&self, _id: u64) -> Option<u64> {
        self.semaphores
    }
}

/// The last address before a hole.
const EDGE: u64 = 0x10_0000;

fn six(args: &[u64]) -> [u64; 6] {
    let mut six = [0; 6];
    six[..args.len()].copy_from_slice(args);
    six
}

fn row_of(nr: u32, args: &[u64; 6], mem: &Fake) -> &'static Row {
    treatment(nr, args, mem).row().expect("a supported call")
}

type Flat = (u8, u16, u64, u64);

fn flat(regions: &[Region]) -> Vec<Flat> {
    regions.iter().map(|region| (region.arg, region.part, region.addr, region.len)).collect()
}

fn inputs(nr: u32, args: &[u64], mem: &Fake) -> Vec<Flat> {
    let (args, mut found) = (six(args), Vec::new());
    regions::inputs(row_of(nr, &args, mem), &args, mem, &mut |region| found.push(region));
    flat(&found)
}

/// What the recorder finds: notes from `before`, lengths from `after`.
fn written(nr: u32, args: &[u64], ret: i64, before: &Fake, after: &Fake) -> Vec<Flat> {
    let (args, mut found) = (six(args), Vec::new());
    let row = row_of(nr, &args, before);
    let notes = regions::notes(row, &args, before);
    regions::outputs(row, &args, ret, After::Executed(&notes), after, &mut |region| found.push(region));
    flat(&found)
}

/// What the replayer finds, whose memory stays as it was.
fn rooms(nr: u32, args: &[u64], ret: i64, mem: &Fake) -> Vec<Flat> {
    let (args, mut found) = (six(args), Vec::new());
    regions::outputs(row_of(nr, &args, mem), &args, ret, After::Emulated, mem, &mut |region| found.push(region));
    flat(&found)
}

const READ: u32 = 0;
const WRITE: u32 = 1;
const POLL: u32 = 7;
const READV: u32 = 19;
const SELECT: u32 = 23;
const NANOSLEEP: u32 = 35;
const RECVFROM: u32 = 45;
const SENDMSG: u32 = 46;
const RECVMSG: u32 = 47;
const GETSOCKNAME: u32 = 51;
const CLONE: u32 = 56;
const WAIT4: u32 = 61;
const FCNTL: u32 = 72;
const EPOLL_WAIT: u32 = 232;
const EPOLL_CTL: u32 = 233;
const OPENAT: u32 = 257;
const RECVMMSG: u32 = 299;
const CLONE3: u32 = 435;

#[test]
fn a_read_wrote_as_much_as_it_says_and_never_more_than_there_is_room() {
    let mem = Fake::default();
    assert_eq!(written(READ, &[3, 0x5000, 100], 40, &mem, &mem), [(1, 0, 0x5000, 40)]);
    assert_eq!(written(READ, &[3, 0x5000, 100], 0, &mem, &mem), []);
    assert_eq!(written(READ, &[3, 0x5000, 100], -11, &mem, &mem), []);
    assert_eq!(written(READ, &[3, 0x5000, 100], -512, &mem, &mem), [], "an internal restart code is a failure");
    // MSG_TRUNC: the datagram was longer.
    assert_eq!(written(RECVFROM, &[3, 0x5000, 10, 0x20], 2000, &mem, &mem), [(1, 0, 0x5000, 10)]);
    assert_eq!(rooms(READ, &[3, 0x5000, 100], 40, &mem), [(1, 0, 0x5000, 40)]);
}

#[test]
fn a_write_is_asked_to_read_it_all() {
    let mem = Fake::default();
    assert_eq!(inputs(WRITE, &[3, 0x5000, 12], &mem), [(1, 0, 0x5000, 12)]);
    assert_eq!(inputs(WRITE, &[3, 0x5000, 0], &mem), []);
    assert_eq!(inputs(WRITE, &[3, 0, 12], &mem), []);
    assert_eq!(inputs(WRITE, &[3, 0x5000, u64::MAX], &mem), [(1, 0, 0x5000, 0x7fff_f000)]);
}

#[test]
fn a_path_ends_at_its_nul_or_at_the_end_of_the_memory() {
    let mut mem = Fake::default();
    mem.put(EDGE - 9, b"/etc/foo\0");
    assert_eq!(inputs(OPENAT, &[0, EDGE - 9], &mem), [(1, 0, EDGE - 9, 9)]);
    mem.put(EDGE - 3, b"abc");
    assert_eq!(inputs(OPENAT, &[0, EDGE - 3], &mem), [(1, 0, EDGE - 3, 3)]);
    assert_eq!(inputs(OPENAT, &[0, EDGE], &mem), []);
    mem.put(0x20_0000, &vec![b'x'; 9000]);
    assert_eq!(inputs(OPENAT, &[0, 0x20_0010], &mem), [(1, 0, 0x20_0010, 4096)], "no path is longer than PATH_MAX");
    // Across a page boundary, longer than one step.
    mem.put(0x30_0f80, &[b"y".repeat(700), vec![0]].concat());
    assert_eq!(inputs(OPENAT, &[0, 0x30_0f80], &mem), [(1, 0, 0x30_0f80, 701)]);
}

#[test]
fn a_name_is_cut_at_the_room_that_there_was() {
    let (mut before, mut after) = (Fake::default(), Fake::default());
    before.put(EDGE - 4, &8u32.to_le_bytes());
    after.put(EDGE - 4, &38u32.to_le_bytes());
    let args = [3, 0x5000, EDGE - 4];
    assert_eq!(written(GETSOCKNAME, &args, 0, &before, &after), [(1, 0, 0x5000, 8), (2, 0, EDGE - 4, 4)]);
    assert_eq!(rooms(GETSOCKNAME, &args, 0, &before), [(1, 0, 0x5000, 8), (2, 0, EDGE - 4, 4)]);
    before.put(EDGE - 4, &110u32.to_le_bytes());
    assert_eq!(written(GETSOCKNAME, &args, 0, &before, &after)[0], (1, 0, 0x5000, 38));
    assert_eq!(
        written(GETSOCKNAME, &args, -9, &before, &after),
        [(2, 0, EDGE - 4, 4)],
        "what stands there is the same"
    );
    // Without a buffer the length is not touched.
    assert_eq!(written(RECVFROM, &[3, 0x5000, 10, 0, 0, EDGE - 4], 5, &before, &after), [(1, 0, 0x5000, 5)]);
}

#[test]
fn iovecs_are_filled_one_after_the_other() {
    let mut mem = Fake::default();
    // The fourth entry lies behind the end of the memory.
    mem.put_words(EDGE - 48, &[0x5000, 10, 0, 0, 0x6000, 20]);
    assert_eq!(written(READV, &[3, EDGE - 48, 3], 25, &mem, &mem), [(1, 0, 0x5000, 10), (1, 2, 0x6000, 15)]);
    assert_eq!(written(READV, &[3, EDGE - 48, 3], 10, &mem, &mem), [(1, 0, 0x5000, 10)]);
    assert_eq!(written(READV, &[3, EDGE - 48, 4], 300, &mem, &mem), [(1, 0, 0x5000, 10), (1, 2, 0x6000, 20)]);
    assert_eq!(written(READV, &[3, EDGE - 48, 5000], 25, &mem, &mem), [], "more than IOV_MAX are none");
    // More entries than are read at once.
    let many: Vec<u64> = (0..100).flat_map(|i| [0x10_0000 + i * 16, 1]).collect();
    mem.put_words(0x20_0f00, &many);
    let found = written(READV, &[3, 0x20_0f00, 100], 77, &mem, &mem);
    assert_eq!(found.len(), 77);
    assert_eq!(found[76], (1, 76, 0x10_0000 + 76 * 16, 1));
}

/// A `struct msghdr` at `addr` with two iovecs at `addr + 0x100`.
fn msghdr(mem: &mut Fake, addr: u64, (name, namelen): (u64, u64), (control, controllen): (u64, u64)) {
    mem.put_words(addr, &[name, namelen, addr + 0x100, 2, control, controllen, 0]);
    mem.put_words(addr + 0x100, &[addr + 0x200, 4, addr + 0x300, 100]);
}

#[test]
fn a_message_has_a_header_a_name_control_data_and_buffers() {
    let mut mem = Fake::default();
    msghdr(&mut mem, 0x5000, (0x9000, 16), (0xa000, 24));
    let sent = [(1, 0, 0x9000, 16), (1, 1, 0xa000, 24), (1, 5, 0x5200, 4), (1, 6, 0x5300, 100)];
    assert_eq!(inputs(SENDMSG, &[3, 0x5000], &mem), sent);
    assert_eq!(written(SENDMSG, &[3, 0x5000], 104, &mem, &mem), []);
    assert_eq!(inputs(RECVMSG, &[3, 0x5000], &mem), []);

    let mut after = Fake::default();
    msghdr(&mut after, 0x5000, (0x9000, 38), (0xa000, 20));
    let header = |name: u64, control: u64| {
        vec![(1, 0, 0x9000, name), (1, 1, 0xa000, control), (1, 2, 0x5008, 4), (1, 3, 0x5028, 8), (1, 4, 0x5030, 4)]
    };
    let got = written(RECVMSG, &[3, 0x5000], 10, &mem, &after);
    assert_eq!(got, [header(16, 20), vec![(1, 5, 0x5200, 4), (1, 6, 0x5300, 6)]].concat());
    // The follower has the same parts, with its own room.
    let room = rooms(RECVMSG, &[3, 0x5000], 10, &mem);
    assert_eq!(room, [header(16, 24), vec![(1, 5, 0x5200, 4), (1, 6, 0x5300, 6)]].concat());
    assert_eq!(written(RECVMSG, &[3, 0x5000], -11, &mem, &after), []);
    // A header that is not all mapped.
    assert_eq!(inputs(SENDMSG, &[3, EDGE - 8], &mem), []);
}

#[test]
fn messages_count_their_parts_on() {
    let (mut before, mut after) = (Fake::default(), Fake::default());
    for (mem, namelen, lens) in [(&mut before, 8, [0, 0]), (&mut after, 30, [5, 4])] {
        for i in 0..2u64 {
            let at = 0x5000 + i * 64;
            let iov = 0x6000 + i * 0x100;
            mem.put_words(at, &[0x9000 + i, namelen, iov, 2, 0, 0, 0, lens[i as usize]]);
            mem.put_words(iov, &[0x7000 + i * 0x100, 4, 0x7080 + i * 0x100, 100]);
        }
    }
    let got = written(RECVMMSG, &[3, 0x5000, 2, 0, 0], 2, &before, &after);
    let first = [(1, 0, 0x5038, 4), (1, 1, 0x9000, 8), (1, 3, 0x5008, 4), (1, 4, 0x5028, 8), (1, 5, 0x5030, 4)];
    assert_eq!(got[..5], first);
    assert_eq!(got[5..7], [(1, 6, 0x7000, 4), (1, 7, 0x7080, 1)]);
    assert_eq!(got[7], (1, 8, 0x5078, 4));
    assert_eq!(got.last(), Some(&(1, 14, 0x7100, 4)));
    // Each part of the leader's has its place in the follower, and no less room.
    let room = rooms(RECVMMSG, &[3, 0x5000, 2, 0, 0], 2, &before);
    for (arg, part, addr, len) in got {
        let place = room.iter().find(|region| (region.0, region.1) == (arg, part)).unwrap();
        assert!(place.2 == addr && place.3 >= len, "part {part}");
    }
    assert!(matches!(treatment(RECVMMSG, &six(&[3, 0x5000, 64]), &before), Treatment::Refuse(_)));
}

#[test]
fn waiting_writes_sets_and_what_is_left() {
    let mem = Fake::default();
    let args = [65, 0x5000, 0, 0x6000, 0x7000];
    let sets = [(1, 0, 0x5000, 16), (3, 0, 0x6000, 16)];
    assert_eq!(inputs(SELECT, &args, &mem), [sets[0], sets[1], (4, 0, 0x7000, 16)]);
    assert_eq!(written(SELECT, &args, 0, &mem, &mem), [sets[0], sets[1], (4, 0, 0x7000, 16)]);
    assert_eq!(written(SELECT, &args, -514, &mem, &mem), [(4, 0, 0x7000, 16)]);
    assert_eq!(written(NANOSLEEP, &[0x5000, 0x6000], 0, &mem, &mem), []);
    for interrupted in [-4, -512, -513, -514, -516] {
        assert_eq!(written(NANOSLEEP, &[0x5000, 0x6000], interrupted, &mem, &mem), [(1, 0, 0x6000, 16)]);
    }
    assert_eq!(written(NANOSLEEP, &[0x5000, 0x6000], -22, &mem, &mem), []);
    let polled = [(0, 0, 0x5000, 6), (0, 1, 0x5008, 6)];
    assert_eq!(inputs(POLL, &[0x5000, 2, 10], &mem), polled);
    assert_eq!(written(POLL, &[0x5000, 2, 10], 0, &mem, &mem), [(0, 0, 0x5000, 16)]);
    assert_eq!(written(EPOLL_WAIT, &[3, 0x5000, 10, 0], 2, &mem, &mem), [(1, 0, 0x5000, 24)]);
    assert_eq!(written(WAIT4, &[0, 0x5000, 1, 0], 0, &mem, &mem), [], "WNOHANG and nobody");
    assert_eq!(written(WAIT4, &[0, 0x5000, 1, 0], 77, &mem, &mem), [(1, 0, 0x5000, 4)]);
}

#[test]
fn what_the_kernel_only_hands_back_is_opaque() {
    let mem = Fake::default();
    let args = six(&[4, 1, 9, 0x5000]);
    let mut found = Vec::new();
    regions::inputs(row_of(EPOLL_CTL, &args, &mem), &args, &mem, &mut |region| found.push(region));
    assert_eq!(flat(&found), [(3, 0, 0x5000, 4), (3, 1, 0x5004, 8)]);
    assert_eq!([found[0].check, found[1].check], [Check::Compared, Check::Opaque]);
    assert_eq!(inputs(EPOLL_CTL, &[4, 2, 9, 0x5000], &mem), [], "EPOLL_CTL_DEL does not look");
}

#[test]
fn a_call_that_is_many_has_a_row_for_each() {
    let mem = Fake::default();
    let row = |nr, args: &[u64]| row_of(nr, &six(args), &mem);
    assert_eq!(row(FCNTL, &[3, 6, 0x5000]).name, "fcntl/F_SETLK");
    assert_eq!(inputs(FCNTL, &[3, 6, 0x5000], &mem), [(2, 0, 0x5000, 4), (2, 1, 0x5008, 16)]);
    assert_eq!(row(FCNTL, &[3, 0, 50]).outcome, Outcome::Fd);
    assert_eq!(row(16, &[3, 0xffff_ffff_0000_5421, 0x5000]).name, "ioctl/FIONBIO");
    assert!(matches!(treatment(16, &six(&[3, 0x1234, 0]), &mem), Treatment::Refuse(_)));
    assert_eq!(row(OPENAT, &[0, 0x5000, 0o2]).class, Class::Supply);
    assert_eq!(row(OPENAT, &[0, 0x5000, 0o102]).class, Class::Compare);
    assert_eq!(row(203, &[0, 8, 0x5000]).class, Class::Local);
    assert_eq!(row(203, &[77, 8, 0x5000]).class, Class::Compare);
}

#[test]
fn threads_processes_and_what_is_neither() {
    let mut mem = Fake::default();
    let clone = |flags: u64| treatment(CLONE, &six(&[flags, 0, 0x5000]), &Fake::default());
    assert!(matches!(clone(0x3d0f00), Treatment::ThreadClone(_)));
    assert!(matches!(clone(17), Treatment::GhostFork(_)));
    assert!(matches!(clone(0x4100 | 17), Treatment::GhostFork(_)), "vfork");
    assert!(matches!(clone(0x100 | 17), Treatment::Refuse(_)));
    assert!(matches!(clone(0x400 | 17), Treatment::Refuse(_)));
    assert_eq!(written(CLONE, &[17, 0, 0x5000], 99, &mem, &mem), []);
    assert_eq!(written(CLONE, &[0x10_0000 | 17, 0, 0x5000], 99, &mem, &mem), [(2, 0, 0x5000, 4)]);
    mem.put_words(0x6000, &[0x10_1000 | 17, 0x8000, 0, 0x7000, 17, 0, 0, 0]);
    let args = [0x6000, 64];
    assert!(matches!(treatment(CLONE3, &six(&args), &mem), Treatment::GhostFork(_)));
    assert_eq!(inputs(CLONE3, &args, &mem), [(0, 0, 0x6000, 8), (0, 1, 0x6020, 8)]);
    assert_eq!(written(CLONE3, &args, 99, &mem, &mem), [(0, 2, 0x7000, 4), (0, 3, 0x8000, 4)]);
    mem.put_words(0x6000, &[0x3d_0f00]);
    assert!(matches!(treatment(CLONE3, &six(&args), &mem), Treatment::ThreadClone(_)));
}

#[test]
fn memory_is_local_unless_others_see_it() {
    let mem = Fake::default();
    let mmap = |prot: u64, flags: u64| treatment(9, &six(&[0, 4096, prot, flags, 3, 0]), &mem);
    assert!(matches!(mmap(3, 0x22), Treatment::Row(row) if row.class == Class::Local));
    assert!(matches!(mmap(3, 0x2), Treatment::MmapFile(_)));
    assert!(matches!(mmap(1, 0x1), Treatment::MmapFile(_)));
    assert!(matches!(mmap(3, 0x1), Treatment::Refuse(_)));
    assert!(matches!(mmap(3, 0x21), Treatment::Refuse(_)));
}

#[test]
fn every_number_has_its_name() {
    assert_eq!(name(0), Some("read"));
    assert_eq!(name(334), Some("rseq"));
    assert_eq!(name(336), Some("uprobe"));
    assert_eq!(name(337), None);
    assert_eq!(name(424), Some("pidfd_send_signal"));
    assert_eq!(name(469), Some("file_setattr"));
    assert_eq!(name(470), None);
    for nr in 0..600 {
        if let Some(known) = name(nr) {
            assert_eq!(by_name(known), Some(nr), "{known}");
        }
    }
    assert!(matches!(treatment(470, &[0; 6], &Fake::default()), Treatment::Refuse(_)), "a call of a later kernel");
    assert!(matches!(treatment(0x4000_0000, &[0; 6], &Fake::default()), Treatment::Refuse(_)), "x32");
}

/// The list of the kernel that the table is for, kept here so that nothing is left out.
const LINUX: &str = include_str!("linux-6.18.txt");

#[test]
fn every_call_of_linux_has_a_row_and_every_row_is_one() {
    let line = |line: &'static str| {
        let (number, name) = line.split_once(' ').expect("number and name");
        (number.parse().expect("a number"), name)
    };
    let listed: Vec<(u32, &str)> = LINUX.lines().filter(|line| !line.starts_with('#')).map(line).collect();
    let mut rows: Vec<(u32, &str)> = rows().map(|row| (row.nr, row.name)).collect();
    rows.sort_unstable();
    assert_eq!(rows, listed);
    assert_eq!((rows.len(), rows.last()), (383, Some(&(469, "file_setattr"))));
}

#[test]
fn the_headers_of_this_machine_know_no_other_call() {
    let path = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h";
    let header = std::fs::read_to_string(path).expect("the kernel's headers (linux-libc-dev)");
    let mut known = 0;
    for line in header.lines() {
        let Some((name, number)) = line.strip_prefix("#define __NR_").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let number = number.trim().parse().expect("a number");
        assert_eq!(row(number).map(|row| row.name), Some(name), "{number} of {path}");
        known += 1;
    }
    assert!(known > 350, "{path} lists {known} calls only");
}

#[test]
fn every_refusal_has_a_reason() {
    for row in rows().chain(irregular::variants()) {
        if let Class::Refuse(reason) = row.class {
            assert!(reason.split(' ').count() > 3, "{}: {reason}", row.name);
        }
    }
}

#[test]
fn messages_and_semaphores_are_as_long_as_they_say() {
    const MSGSND: u32 = 69;
    const MSGRCV: u32 = 70;
    const SEMCTL: u32 = 66;
    const GETALL: u64 = 13;
    let mem = Fake::default();
    assert_eq!(inputs(MSGSND, &[1, 0x5000, 20], &mem), [(1, 0, 0x5000, 28)]);
    assert_eq!(written(MSGRCV, &[1, 0x5000, 20], 9, &mem, &mem), [(1, 0, 0x5000, 17)]);
    assert_eq!(written(MSGRCV, &[1, 0x5000, 20], -7, &mem, &mem), []);
    assert!(matches!(treatment(SEMCTL, &six(&[7, 0, GETALL, 0x5000]), &mem), Treatment::Refuse(_)));
    let mem = Fake { semaphores: Some(3), ..Fake::default() };
    assert_eq!(written(SEMCTL, &[7, 0, GETALL, 0x5000], 0, &mem, &mem), [(3, 0, 0x5000, 6)]);
}

#[test]
fn a_handle_that_is_too_small_is_told_its_size() {
    const NAME_TO_HANDLE_AT: u32 = 303;
    const OPEN_BY_HANDLE_AT: u32 = 304;
    let (mut before, mut after) = (Fake::default(), Fake::default());
    before.put(0x5000, &[0; 8]);
    after.put(0x5000, &12u64.to_le_bytes());
    let args = [0, 0x4000, 0x5000, 0x6000, 0];
    assert_eq!(inputs(NAME_TO_HANDLE_AT, &args, &before), [(2, 0, 0x5000, 4)]);
    let told = [(2, 0, 0x5000, 8), (3, 0, 0x6000, 4)];
    assert_eq!(written(NAME_TO_HANDLE_AT, &args, -75, &before, &after), told);
    assert_eq!(written(NAME_TO_HANDLE_AT, &args, -2, &before, &before), []);
    assert_eq!(written(NAME_TO_HANDLE_AT, &args, 0, &after, &after)[0], (2, 0, 0x5000, 20));
    assert_eq!(inputs(OPEN_BY_HANDLE_AT, &[3, 0x5000, 0], &after), [(1, 0, 0x5000, 20)]);
}

#[test]
fn structures_that_say_their_own_size() {
    const SCHED_SETATTR: u32 = 314;
    const STATMOUNT: u32 = 457;
    const SETXATTRAT: u32 = 463;
    const GETXATTRAT: u32 = 464;
    let mut mem = Fake::default();
    mem.put(0x5000, &56u32.to_le_bytes());
    mem.put(0x6000, &0u32.to_le_bytes());
    assert_eq!(inputs(SCHED_SETATTR, &[1, 0x5000, 0], &mem), [(1, 0, 0x5000, 56)]);
    assert_eq!(inputs(SCHED_SETATTR, &[1, 0x6000, 0], &mem), [(1, 0, 0x6000, 48)]);
    assert_eq!(written(STATMOUNT, &[0x6000, 0x5000, 100, 0], 0, &mem, &mem), [(1, 0, 0x5000, 56)]);
    assert_eq!(rooms(STATMOUNT, &[0x6000, 0x5000, 100, 0], 0, &mem), [(1, 0, 0x5000, 100)]);
    mem.put_words(0x7000, &[0x8000, 4]);
    let args = [0, 0x4000, 0, 0x4100, 0x7000, 16];
    assert_eq!(inputs(SETXATTRAT, &args, &mem), [(4, 0, 0x7008, 8), (4, 1, 0x8000, 4)]);
    assert_eq!(inputs(GETXATTRAT, &args, &mem), [(4, 0, 0x7008, 8)]);
    assert_eq!(written(GETXATTRAT, &args, 3, &mem, &mem), [(4, 1, 0x8000, 3)]);
}

#[test]
fn buffers_before_a_bad_address_may_have_been_filled() {
    let mut mem = Fake::default();
    mem.put(EDGE - 20, &[0; 20]);
    mem.put_words(0x5000, &[EDGE - 20, 10, EDGE - 5, 10, EDGE - 20, 1]);
    assert_eq!(written(READV, &[3, 0x5000, 3], -14, &mem, &mem), [(1, 0, EDGE - 20, 10)]);
    assert_eq!(written(READ, &[3, EDGE - 20, 100], -14, &mem, &mem), []);
}

#[test]
fn a_length_is_told_even_where_the_call_fails() {
    const GETSOCKOPT: u32 = 55;
    let mem = Fake::default();
    let args = [3, 1, 31, 0x5000, 0x6000];
    assert_eq!(written(GETSOCKOPT, &args, -34, &mem, &mem), [(4, 0, 0x6000, 4)]);
}

#[test]
fn calls_print_as_people_write_them() {
    let args = six(&[3, 0x7f00_1234_5678, 12]);
    assert_eq!(Call::new(WRITE, &args).to_string(), "write(3, 0x7f0012345678, 12)");
    let args = six(&[0xffff_ff9c, 0, 0o100, 0o644]);
    assert_eq!(Call::new(OPENAT, &args).to_string(), "openat(AT_FDCWD, NULL, 0x40, 420)");
    let args = six(&[5, 6, 0x5000]);
    let row = treatment(FCNTL, &args, &Fake::default()).row();
    assert_eq!(Call { nr: FCNTL, args: &args, row }.to_string(), "fcntl(5, F_SETLK, 0x5000)");
    assert_eq!(Call::new(250, &[1, 2, 3, 4, 5, 6]).to_string(), "keyctl(0x1, 0x2, 0x3, 0x4, 0x5, 0x6)");
    assert_eq!(Ret(-11).to_string(), "-1 EAGAIN");
    assert_eq!(Ret(-514).to_string(), "-1 ERESTARTNOHAND");
    assert_eq!(Ret(12).to_string(), "12");
    assert_eq!(Ret(0x7f00_0000_0000).to_string(), "0x7f0000000000");
}

#[test]
fn a_refused_request_is_told_with_its_parts() {
    let told = |args: [u64; 6]| format::Refused { nr: 16, args: &args }.to_string();
    assert_eq!(told([5, 0x8982, 0, 0, 0, 0]), "ioctl(5, 0x8982 SIOCGIFVLAN)");
    assert_eq!(told([5, 0x4004_4b01, 0, 0, 0, 0]), "ioctl(5, 0x40044b01: kind 0x4b, number 1, reads 4 bytes)");
    assert_eq!(told([5, 0x4b2f, 0, 0, 0, 0]), "ioctl(5, 0x4b2f: kind 0x4b, number 47)");
    assert_eq!(format::Refused { nr: 511, args: &[0; 6] }.to_string(), "system call 511");
}
