use bytes::Bytes;
use mvedsua_common::syscalls::{Arg, Class, Dir, Extent, Irregular, Outcome, Row};
use proptest::prelude::*;

use super::{Actual, DivergenceKind, Evidence, Input, MatchedCall, Trail, describe, entry};
use crate::record::{CallEntry, LeaderAddr, Nanos, Piece, PieceDir, Seq, Slot};

const fn row(class: Class, args: &'static [Arg], irregular: Option<Irregular>) -> Row {
    Row { irregular, ..Row::new(1, "call", class, args, Outcome::Int) }
}

const WRITE: Row =
    row(Class::Compare, &[Arg::Fd, Arg::Mem(Dir::In, Extent::FromArg { len: 2, scale: 1 }), Arg::Int], None);
const WRITEV: Row = row(Class::Compare, &[Arg::Fd, Arg::Mem(Dir::In, Extent::IoVec { count: 2 }), Arg::Int], None);
const READ: Row =
    row(Class::Supply, &[Arg::Fd, Arg::Mem(Dir::Out, Extent::FromRet { cap: 2, scale: 1 }), Arg::Int], None);
const EPOLL_CTL: Row = row(
    Class::Compare,
    &[Arg::Fd, Arg::Int, Arg::Fd, Arg::Mem(Dir::In, Extent::EpollEvent)],
    Some(Irregular::EpollCtl),
);
const POLL: Row = row(
    Class::Supply,
    &[Arg::Mem(Dir::InOut, Extent::PollFds { count: 1 }), Arg::Int, Arg::Int],
    Some(Irregular::Poll),
);
const SELECT: Row = row(Class::Supply, &[Arg::Int, Arg::Mem(Dir::InOut, Extent::FdSet { nfds: 0 })], None);

fn expected(args: &[u64], inputs: &[(u8, u16, &[u8])]) -> CallEntry {
    let inputs = inputs.iter().map(|(arg, part, bytes)| Piece {
        arg: *arg,
        part: *part,
        dir: PieceDir::In,
        addr: LeaderAddr(0x7000),
        bytes: Bytes::copy_from_slice(bytes),
    });
    CallEntry { nr: 1, args: six(args), inputs: inputs.collect(), at: Nanos(0) }
}

fn six(args: &[u64]) -> [u64; 6] {
    let mut six = [0; 6];
    six[..args.len()].copy_from_slice(args);
    six
}

fn compare(row: &Row, left: &CallEntry, args: &[u64], inputs: &[(u8, u16, &[u8])]) -> Result<Evidence, DivergenceKind> {
    let inputs: Vec<Input<'_>> =
        inputs.iter().map(|(arg, part, bytes)| Input { arg: *arg, part: *part, bytes }).collect();
    entry(row, left, &Actual { nr: 1, args: six(args), inputs: &inputs })
}

#[test]
fn equal_outputs_are_evidence() {
    let left = expected(&[5, 0x1000, 5], &[(1, 0, b"hello")]);
    let evidence = compare(&WRITE, &left, &[5, 0x2000, 5], &[(1, 0, b"hello")]).unwrap();
    assert_eq!(evidence, Evidence { calls: 1, outputs: 1, bytes: 5 });
}

#[test]
fn the_first_byte_that_differs_is_named_before_the_length() {
    let left = expected(&[5, 0x1000, 5], &[(1, 0, b"hello")]);
    let kind = compare(&WRITE, &left, &[5, 0x2000, 4], &[(1, 0, b"helm")]).unwrap_err();
    assert_eq!(kind, DivergenceKind::Payload { arg: 1, offset: 3, expected_len: 5, actual_len: 4 });
}

#[test]
fn another_call_another_descriptor_and_another_flag_differ() {
    let left = expected(&[5, 0x1000, 5], &[(1, 0, b"hello")]);
    let other = Actual { nr: 2, args: left.args, inputs: &[] };
    assert_eq!(entry(&WRITE, &left, &other), Err(DivergenceKind::Call));
    assert_eq!(
        compare(&WRITE, &left, &[6, 0x2000, 5], &[(1, 0, b"hello")]),
        Err(DivergenceKind::Argument { arg: 0, expected: 5, actual: 6 })
    );
}

#[test]
fn the_upper_half_of_an_int_means_nothing_but_that_of_a_size_does() {
    let left = expected(&[u64::from(u32::MAX), 0x1000, u64::from(u32::MAX)], &[]);
    compare(&READ, &left, &[u64::MAX, 0x2000, u64::MAX], &[]).unwrap();
    let left = expected(&[5, 0x1000, 0x1_0000_0001], &[]);
    assert_eq!(
        compare(&READ, &left, &[5, 0x2000, 1], &[]),
        Err(DivergenceKind::Argument { arg: 2, expected: 0x1_0000_0001, actual: 1 })
    );
}

#[test]
fn null_is_not_another_address() {
    let left = expected(&[5, 0x1000, 16], &[]);
    compare(&READ, &left, &[5, 0x2000, 16], &[]).unwrap();
    assert_eq!(
        compare(&READ, &left, &[5, 0, 16], &[]),
        Err(DivergenceKind::Argument { arg: 1, expected: 0x1000, actual: 0 })
    );
}

#[test]
fn epoll_data_belongs_to_each_version_and_the_events_do_not() {
    let left = expected(&[4, 1, 9, 0x1000], &[(3, 0, &[1, 0, 0, 0]), (3, 1, &[0xaa; 8])]);
    compare(&EPOLL_CTL, &left, &[4, 1, 9, 0x2000], &[(3, 0, &[1, 0, 0, 0]), (3, 1, &[0xbb; 8])]).unwrap();
    let other: &[(u8, u16, &[u8])] = &[(3, 0, &[5, 0, 0, 0]), (3, 1, &[0xaa; 8])];
    let kind = compare(&EPOLL_CTL, &left, &[4, 1, 9, 0x2000], other).unwrap_err();
    assert_eq!(kind, DivergenceKind::Payload { arg: 3, offset: 0, expected_len: 4, actual_len: 4 });
}

#[test]
fn every_descriptor_of_a_poll_is_looked_at() {
    let fd = |fd: i32, events: u16| [&fd.to_le_bytes()[..], &events.to_le_bytes()].concat();
    let left = expected(&[0x1000, 2, 10], &[(0, 0, &fd(3, 1)), (0, 1, &fd(4, 1))]);
    compare(&POLL, &left, &[0x2000, 2, 10], &[(0, 0, &fd(3, 1)), (0, 1, &fd(4, 1))]).unwrap();
    compare(&POLL, &left, &[0x2000, 2, 10], &[(0, 0, &fd(3, 1)), (0, 1, &fd(4, 4))]).unwrap_err();
}

#[test]
fn select_looks_at_the_first_nfds_bits() {
    let left = expected(&[10, 0x1000], &[(1, 0, &[0x01, 0x02, 0x03, 0x04])]);
    compare(&SELECT, &left, &[10, 0x2000], &[(1, 0, &[0x01, 0xfe, 0xff, 0xff])]).unwrap();
    compare(&SELECT, &left, &[10, 0x2000], &[(1, 0, &[0x01, 0x03, 0x03, 0x04])]).unwrap_err();
}

#[test]
fn a_divergence_shows_the_place_and_what_came_before() {
    let mut trail = Trail::default();
    for number in 0..20 {
        trail.push(MatchedCall { seq: Seq(number), slot: Slot(1), nr: 0, args: [0; 6], ret: 0 });
    }
    let long = [vec![b'x'; 1000], b"leader".to_vec(), vec![b'y'; 1000]].concat();
    let other = [vec![b'x'; 1000], b"follower".to_vec(), vec![b'y'; 1000]].concat();
    let left = expected(&[5, 0x1000, 2006], &[(1, 0, &long)]);
    let inputs = [Input { arg: 1, part: 0, bytes: &other }];
    let actual = Actual { nr: 1, args: six(&[5, 0x2000, 2008]), inputs: &inputs };
    let kind = entry(&WRITE, &left, &actual).unwrap_err();
    let divergence = describe(kind, Slot(1), None, Some((&WRITE, &left)), Some((&WRITE, &actual)), &trail);
    assert_eq!(divergence.last_matched.len(), 16);
    assert_eq!(divergence.last_matched[0].seq, Seq(4));
    assert_eq!(divergence.window_start(1), 1000 - 32);
    let shown = |view: &Option<super::CallView>| view.clone().unwrap().inputs[0].1.clone();
    assert!(shown(&divergence.expected)[32..].starts_with(b"leader"));
    assert!(shown(&divergence.actual)[32..].starts_with(b"follower"));

    let mut again = divergence.clone();
    again.seq = Some(Seq(77));
    again.kind = DivergenceKind::Payload { arg: 1, offset: 3, expected_len: 9, actual_len: 9 };
    assert_eq!(divergence.fingerprint(), again.fingerprint());
    again.kind = DivergenceKind::Payload { arg: 2, offset: 3, expected_len: 9, actual_len: 9 };
    assert_ne!(divergence.fingerprint(), again.fingerprint());
}

/// Cuts `bytes` at the given places.
fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<(u8, u16, &'a [u8])> {
    let mut at: Vec<usize> = places.iter().map(|p| p.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
    at.sort_unstable();
    (0_u16..).zip(at.windows(2)).map(|(part, ends)| (1, part, &bytes[ends[0]..ends[1]])).collect()
}

proptest! {
    /// However two versions cut the same string into buffers, it is the same output; and a changed byte is found where it is.
    #[test]
    fn iovecs_are_compared_as_one_string(
        bytes in prop::collection::vec(any::<u8>(), 1..200),
        left in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        right in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        place in any::<prop::sample::Index>(),
    ) {
        let (left, right) = (cut(&bytes, &left), cut(&bytes, &right));
        let leader = expected(&[5, 0x1000, left.len() as u64], &left);
        let evidence = compare(&WRITEV, &leader, &[5, 0x2000, right.len() as u64], &right);
        prop_assert_eq!(evidence, Ok(Evidence { calls: 1, outputs: 1, bytes: bytes.len() as u64 }));

        let place = place.index(bytes.len());
        let mut changed = bytes.clone();
        changed[place] ^= 0x40;
        let kind = compare(&WRITEV, &leader, &[5, 0x2000, 1], &[(1, 0, &changed)]).unwrap_err();
        let length = bytes.len() as u64;
        let same = DivergenceKind::Payload { arg: 1, offset: place as u64, expected_len: length, actual_len: length };
        prop_assert_eq!(kind, same);
    }
}

#[test]
fn what_stands_behind_the_path_of_a_socket_means_nothing() {
    static CONNECT: Row = Row {
        nr: 42,
        args: &[Arg::Fd, Arg::Mem(Dir::In, Extent::FromArg { len: 2, scale: 1 }), Arg::Int],
        ..row(Class::Compare, &[], None)
    };
    let path = |tail: &[u8]| [b"\x01\0/run/s\0", tail].concat();
    let left = CallEntry { nr: 42, ..expected(&[3, 0x1000, 12], &[(1, 0, &path(b"ab"))]) };
    let compared = |bytes: &[u8]| {
        let inputs = [Input { arg: 1, part: 0, bytes }];
        entry(&CONNECT, &left, &Actual { nr: 42, args: six(&[3, 0x2000, 12]), inputs: &inputs }).is_ok()
    };
    assert!(compared(&path(b"xy")));
    assert!(!compared(b"\x01\0/run/t\0ab"));
}

#[test]
fn the_padding_of_an_internet_address_means_nothing() {
    static CONNECT: Row = Row {
        nr: 42,
        args: &[Arg::Fd, Arg::Mem(Dir::In, Extent::FromArg { len: 2, scale: 1 }), Arg::Int32],
        ..row(Class::Compare, &[], None)
    };
    let same = |one: &[u8], other: &[u8]| {
        let left = CallEntry { nr: 42, ..expected(&[3, 0x1000, 16], &[(1, 0, one)]) };
        let inputs = [Input { arg: 1, part: 0, bytes: other }];
        entry(&CONNECT, &left, &Actual { nr: 42, args: six(&[3, 0x2000, 16]), inputs: &inputs }).is_ok()
    };
    assert!(same(b"\x02\0\x1fa\x7f\0\0\x01padding1", b"\x02\0\x1fa\x7f\0\0\x01padding2"));
    assert!(!same(b"\x02\0\x1fa\x7f\0\0\x01padding1", b"\x02\0\x1fb\x7f\0\0\x01padding1"));
    assert!(same(b"\0\0whatever is left", b"\0\0of what was here"));
    assert!(!same(b"\x0a\0\x1faflow1234567890", b"\x0a\0\x1faflow1234567891"));
}

#[test]
fn of_numbers_and_flags_of_32_bits_the_upper_half_means_nothing() {
    static CALL: Row = row(Class::Supply, &[Arg::Int32, Arg::Flags, Arg::Int, Arg::LongFlags], None);
    const UPPER: u64 = 0x7ffc_0000_0000;
    let left = expected(&[UPPER | 1, UPPER | 2, 3, 4], &[]);
    assert!(compare(&CALL, &left, &[1, 2, 3, 4], &[]).is_ok());
    for args in [[2, 2, 3, 4], [1, 3, 3, 4], [1, 2, UPPER | 3, 4], [1, 2, 3, UPPER | 4]] {
        assert!(compare(&CALL, &left, &args, &[]).is_err(), "{args:x?}");
    }
}
