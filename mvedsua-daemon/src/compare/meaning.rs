//! The part of a call's input memory that carries meaning, as one string of bytes.

use std::borrow::Cow;

use mvedsua_common::syscalls::{Arg, Extent, Row};

/// Joins the regions of one argument in the order of their parts and leaves out what the kernel does not look at.
pub(super) fn of<'a>(
    row: &Row,
    arg: u8,
    args: &[u64; 6],
    regions: impl Iterator<Item = (u16, &'a [u8])> + Clone,
) -> Cow<'a, [u8]> {
    if is_address(row, arg) {
        return address(row.nr, join(regions));
    }
    if (row.nr, arg) == (UTIMENSAT, 2) {
        return file_times(join(regions));
    }
    match row.args.get(usize::from(arg)) {
        // The first part is where it goes.
        Some(Arg::Mem(_, Extent::MsgHdr)) => {
            let to = address(row.nr, join(regions.clone().filter(|(part, _)| *part == 0))).into_owned();
            let rest = join(regions.filter(|(part, _)| *part != 0));
            if to.is_empty() { rest } else { Cow::Owned([&to[..], &rest].concat()) }
        }
        // Part 1 is data of the program (a pointer, often); the kernel hands it back unseen.
        Some(Arg::Mem(_, Extent::EpollEvent | Extent::SigEvent)) => join(regions.filter(|(part, _)| *part == 0)),
        // Bits from `nfds` on are not looked at.
        Some(Arg::Mem(_, Extent::FdSet { nfds })) => mask(join(regions), args[usize::from(*nfds)]),
        _ => join(regions),
    }
}

const CONNECT: u32 = 42;
const UTIMENSAT: u32 = 280;

/// The seconds of a time that is left as it is, or that is the present, are not looked at, utimensat(2).
fn file_times(bytes: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    const TIME: usize = 16;
    const UTIME_NOW: u64 = (1 << 30) - 1;
    const UTIME_OMIT: u64 = (1 << 30) - 2;
    let mut bytes = bytes.into_owned();
    for time in bytes.as_chunks_mut::<TIME>().0 {
        let nanoseconds = u64::from_ne_bytes([8, 9, 10, 11, 12, 13, 14, 15].map(|at: usize| time[at]));
        if [UTIME_NOW, UTIME_OMIT].contains(&nanoseconds) {
            time[..8].fill(0);
        }
    }
    Cow::Owned(bytes)
}

/// Says whether an argument is the address of a socket.
fn is_address(row: &Row, arg: u8) -> bool {
    const SENDTO: u32 = 44;
    const BIND: u32 = 49;
    matches!((row.nr, arg), (CONNECT | BIND, 1) | (SENDTO, 4))
}

/// The path of a `sockaddr_un` ends at its NUL, whatever stands behind it, unix(7); names that begin with one are as long as
/// the call says. A `sockaddr_in` is padded, ip(7). Of an address of no family, which takes a connection back (connect(2)), nothing
/// else is looked at.
fn address(nr: u32, bytes: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    const PATH: usize = 2;
    const AF_UNSPEC: [u8; PATH] = 0u16.to_ne_bytes();
    const AF_UNIX: [u8; PATH] = 1u16.to_ne_bytes();
    const AF_INET: [u8; PATH] = 2u16.to_ne_bytes();
    /// Family, port and address.
    const MEANT: usize = 8;
    if nr == CONNECT && bytes.starts_with(&AF_UNSPEC) {
        return cut(bytes, PATH);
    }
    if bytes.starts_with(&AF_INET) {
        let meant = bytes.len().min(MEANT);
        return cut(bytes, meant);
    }
    if !bytes.starts_with(&AF_UNIX) || bytes.get(PATH).is_none_or(|first| *first == 0) {
        return bytes;
    }
    match bytes[PATH..].iter().position(|byte| *byte == 0) {
        Some(end) => cut(bytes, PATH + end + 1),
        None => bytes,
    }
}

/// A single region, the common case, is not copied.
fn join<'a>(regions: impl Iterator<Item = (u16, &'a [u8])> + Clone) -> Cow<'a, [u8]> {
    let mut first = regions.clone();
    match (first.next(), first.next()) {
        (None, _) => Cow::Borrowed(&[]),
        (Some((_, bytes)), None) => Cow::Borrowed(bytes),
        (Some(_), Some(_)) => {
            let mut parts: Vec<_> = regions.collect();
            parts.sort_by_key(|(part, _)| *part);
            Cow::Owned(parts.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect())
        }
    }
}

fn cut(bytes: Cow<'_, [u8]>, length: usize) -> Cow<'_, [u8]> {
    match bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[..length]),
        Cow::Owned(mut bytes) => {
            bytes.truncate(length);
            Cow::Owned(bytes)
        }
    }
}

/// Keeps the first `bits` bits of a little-endian bit set.
fn mask(bytes: Cow<'_, [u8]>, bits: u64) -> Cow<'_, [u8]> {
    let length = usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX).min(bytes.len());
    let mut bytes = cut(bytes, length).into_owned();
    if let Some(last) = bytes.last_mut()
        && bits < length as u64 * 8
    {
        *last &= (1 << (bits % 8)) - 1;
    }
    Cow::Owned(bytes)
}
