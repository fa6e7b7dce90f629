//! The memory that belongs to a call: one function each for what the kernel reads and for what it writes.
//!
//! Recorder and replayer both resolve regions here, so a piece of memory that one captured has the same name, argument and
//! part, in the other. Parts are numbered by position and not by what happens to be there, so a null pointer or an empty
//! buffer leaves a hole in the numbering and does not shift it:
//!
//! | extent | parts |
//! |---|---|
//! | one buffer | 0 |
//! | iovecs | the index of the iovec |
//! | `msghdr` | 0 name, 1 control data, 2 `msg_namelen`, 3 `msg_controllen`, 4 `msg_flags`, 5 + index of the iovec |
//! | `mmsghdr[]` | for each message its `msg_len`, then the parts of its `msghdr`, counted on from message to message |
//! | `pollfd[]` | read: the index of the entry; written: 0, the whole array |
//! | `epoll_event` | 0 events, 1 data (opaque) |
//! | `sigevent` | 0 signal and kind, 1 value (opaque) |
//! | `flock` | read: 0 type and whence, 1 start and length; written: 0, the whole |
//! | `ifconf` | 0 length, 1 buffer |
//! | `ifreq` for ethtool | 0 name, 1 the structure behind it; of that its command is read |
//! | strings | the index of the string |
//! | `clone_args` | 0 flags, 1 exit signal, 2 parent tid, 3 pidfd |
//! | `xattr_args` | 0 size and flags, 1 value |
//!
//! A region says where the kernel was asked to look, not what is mapped: reading it may give fewer bytes.

use super::model::{Arg, Dir, Extent, Row};

/// The memory of one version.
pub trait Memory {
    /// Reads from `addr` into `buf` and returns how many bytes could be read from the start: fewer than asked for at an
    /// unmapped page, 0 when nothing is mapped there.
    fn read(&self, addr: u64, buf: &mut [u8]) -> usize;

    /// Returns how many semaphores the System V set of this id has, which no argument says: 0 where there is no such set,
    /// `None` where the set of this program cannot be asked for it.
    fn semaphores(&self, _id: u64) -> Option<u64> {
        None
    }
}

/// Says whether the two versions' contents of a region that the kernel reads must be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    Compared,
    /// It belongs to its version (a pointer that the kernel gives back): kept, not compared.
    Opaque,
}

/// A range of memory that belongs to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// Index of the argument that it hangs on.
    pub arg: u8,
    /// Which of the argument's regions it is.
    pub part: u16,
    pub addr: u64,
    /// Bytes, never 0.
    pub len: u64,
    pub check: Check,
}

/// What must be remembered from the entry of a call to know what it wrote: how much room there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notes {
    rooms: [u32; ROOMS],
}

const ROOMS: usize = super::irregular::MAX_MESSAGES as usize;

impl Default for Notes {
    fn default() -> Self {
        Notes { rooms: [0; ROOMS] }
    }
}

/// Says in which state the memory is that [`outputs`] reads lengths from.
#[derive(Clone, Copy, Debug)]
pub enum After<'a> {
    /// The call was performed: lengths in memory are what the kernel left, rooms are in the notes.
    Executed(&'a Notes),
    /// It was not: lengths in memory are still rooms. The regions are then as long as there is room, and what the leader
    /// captured for them is as long or shorter; if it is longer, this version has less room than the leader.
    Emulated,
}

/// `MAX_RW_COUNT`: no call moves more bytes than this.
const MAX_RW: u64 = 0x7fff_f000;
const PATH_MAX: u64 = 4096;
/// `MAX_ARG_STRLEN`: the longest argument of a program.
const ARG_MAX: u64 = 32 * 4096;
const IOV_MAX: u64 = 1024;
const PAGE: u64 = 4096;
const XATTR_SIZE_MAX: u64 = 65536;
/// `sizeof(struct sockaddr_storage)`: the kernel cuts a longer `msg_namelen`.
const NAME_MAX: u32 = 128;
/// `INT_MAX`: the kernel refuses more control data than that.
const CONTROL_MAX: u64 = 0x7fff_ffff;
const AT_HANDLE_MNT_ID_UNIQUE: u64 = 1;

/// Sizes and places in structures of `include/uapi/linux`.
mod layout {
    pub(super) const MSGHDR: u64 = 56;
    pub(super) const MSG_NAMELEN: u64 = 8;
    pub(super) const MSG_IOV: usize = 16;
    pub(super) const MSG_IOVLEN: usize = 24;
    pub(super) const MSG_CONTROL: usize = 32;
    pub(super) const MSG_CONTROLLEN: u64 = 40;
    pub(super) const MSG_FLAGS: u64 = 48;
    pub(super) const MMSGHDR: u64 = 64;
    pub(super) const MSG_LEN: u64 = 56;
    pub(super) const POLLFD: u64 = 8;
    pub(super) const POLLFD_ASKED: u64 = 6;
    pub(super) const IFREQ: u64 = 40;
    pub(super) const IFREQ_NAME: u64 = 16;
    pub(super) const IFCONF_BUF: u64 = 8;
    pub(super) const FLOCK: u64 = 32;
    pub(super) const MSGBUF_TYPE: u64 = 8;
}

const EINTR: i64 = -4;
const EOVERFLOW: i64 = -75;
const EFAULT: i64 = -14;
const EPOLL_CTL_DEL: u64 = 2;

/// Tells whether a raw result is an error: an errno or one of the kernel's internal restart codes (512 to 516).
#[must_use]
pub const fn failed(ret: i64) -> bool {
    ret < 0 && ret >= -4095
}

/// Tells whether a raw result says that a signal ended the call.
#[must_use]
pub const fn interrupted(ret: i64) -> bool {
    ret == EINTR || matches!(ret, -514..=-512 | -516)
}

/// Reads a little-endian integer of eight bytes, or nothing where it is not mapped.
pub(super) fn read_u64<M: Memory + ?Sized>(mem: &M, addr: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    (addr != 0 && mem.read(addr, &mut bytes) == 8).then(|| u64::from_le_bytes(bytes))
}

fn read_u32<M: Memory + ?Sized>(mem: &M, addr: u64) -> Option<u32> {
    let mut bytes = [0; 4];
    (addr != 0 && mem.read(addr, &mut bytes) == 4).then(|| u32::from_le_bytes(bytes))
}

/// Hands on the regions of one argument; empty ones and null pointers are dropped here.
struct Emit<'a, S> {
    arg: u8,
    sink: &'a mut S,
}

impl<S: FnMut(Region)> Emit<'_, S> {
    fn put(&mut self, part: u16, addr: u64, len: u64) {
        self.put_checked(part, addr, len, Check::Compared);
    }

    fn put_checked(&mut self, part: u16, addr: u64, len: u64, check: Check) {
        if addr != 0 && len != 0 {
            (self.sink)(Region { arg: self.arg, part, addr, len, check });
        }
    }
}

/// Walks an array of iovecs; `budget` is how many bytes there are in all, and the parts start at `first`. Returns how many
/// parts the array takes.
fn iovecs<M: Memory + ?Sized, S: FnMut(Region)>(
    mem: &M,
    (addr, count): (u64, u64),
    mut budget: u64,
    first: u16,
    emit: &mut Emit<'_, S>,
) -> u16 {
    const AT_ONCE: u64 = 32;
    if count > IOV_MAX {
        return 0;
    }
    let mut buf = [0u8; 16 * AT_ONCE as usize];
    let mut done = 0;
    while done < count {
        let some = (count - done).min(AT_ONCE);
        let got = mem.read(addr.wrapping_add(done * 16), &mut buf[..some as usize * 16]) / 16;
        for i in 0..got {
            let base = u64_at(&buf, i * 16);
            let len = u64_at(&buf, i * 16 + 8).min(budget);
            emit.put(first + (done as usize + i) as u16, base, len);
            budget -= len;
        }
        if (got as u64) < some {
            break;
        }
        done += some;
    }
    count as u16
}

/// Walks an array of iovecs up to the first buffer that is not there. The kernel may have filled those before it although the
/// call failed in the end.
fn before_fault<M: Memory + ?Sized, S: FnMut(Region)>(mem: &M, addr: u64, count: u64, emit: &mut Emit<'_, S>) {
    for i in 0..if count > IOV_MAX { 0 } else { count } {
        let entry = addr.wrapping_add(i * 16);
        let (Some(base), Some(len)) = (read_u64(mem, entry), read_u64(mem, entry.wrapping_add(8))) else { return };
        let last = base.wrapping_add(len).wrapping_sub(1);
        if len > MAX_RW || len > 0 && mem.read(last, &mut [0]) == 0 {
            return;
        }
        emit.put(i as u16, base, len);
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

/// Returns the length of a string with its NUL, or as much of it as is mapped, but no more than `most`.
fn c_string<M: Memory + ?Sized>(mem: &M, addr: u64, most: u64) -> u64 {
    let mut buf = [0u8; 256];
    let mut len = 0;
    while len < most {
        // Aligned steps, so that a short read is the end of the mapping and not of the step.
        let at = addr.wrapping_add(len);
        let step = (256 - (at % 256)) as usize;
        let got = mem.read(at, &mut buf[..step]);
        if let Some(nul) = buf[..got].iter().position(|byte| *byte == 0) {
            return (len + nul as u64 + 1).min(most);
        }
        len += got as u64;
        if got < step {
            return len.min(most);
        }
    }
    most
}

/// Walks a list of strings that a null pointer ends.
fn strings<M: Memory + ?Sized, S: FnMut(Region)>(mem: &M, addr: u64, emit: &mut Emit<'_, S>) {
    for part in 0..u16::MAX {
        match read_u64(mem, addr.wrapping_add(u64::from(part) * 8)) {
            None | Some(0) => return,
            Some(string) => emit.put(part, string, c_string(mem, string, ARG_MAX)),
        }
    }
}

/// The fields of a `struct msghdr`.
struct MsgHdr {
    addr: u64,
    name: u64,
    namelen: u32,
    iov: (u64, u64),
    control: u64,
    controllen: u64,
}

impl MsgHdr {
    fn read<M: Memory + ?Sized>(mem: &M, addr: u64) -> Option<MsgHdr> {
        let mut bytes = [0u8; layout::MSGHDR as usize];
        (addr != 0 && mem.read(addr, &mut bytes) == bytes.len()).then(|| MsgHdr {
            addr,
            name: u64_at(&bytes, 0),
            namelen: u32_at(&bytes, layout::MSG_NAMELEN as usize),
            iov: (u64_at(&bytes, layout::MSG_IOV), u64_at(&bytes, layout::MSG_IOVLEN)),
            control: u64_at(&bytes, layout::MSG_CONTROL),
            controllen: u64_at(&bytes, layout::MSG_CONTROLLEN as usize),
        })
    }

    /// Parts that the message takes: five of the header and one for each iovec.
    fn parts(&self) -> u16 {
        5 + if self.iov.1 > IOV_MAX { 0 } else { self.iov.1 as u16 }
    }

    /// What a sender reads.
    fn sent<M: Memory + ?Sized, S: FnMut(Region)>(&self, mem: &M, first: u16, emit: &mut Emit<'_, S>) {
        emit.put(first, self.name, u64::from(self.namelen.min(NAME_MAX)));
        if self.controllen <= CONTROL_MAX {
            emit.put(first + 1, self.control, self.controllen);
        }
        iovecs(mem, self.iov, MAX_RW, first + 5, emit);
    }

    /// What a receiver finds written: `room` for the name, `bytes` of payload.
    fn received<M: Memory + ?Sized, S: FnMut(Region)>(
        &self,
        mem: &M,
        room: u32,
        bytes: u64,
        first: u16,
        emit: &mut Emit<'_, S>,
    ) {
        emit.put(first, self.name, u64::from(self.namelen.min(room)));
        emit.put(first + 1, self.control, self.controllen);
        if self.name != 0 {
            emit.put(first + 2, self.addr.wrapping_add(layout::MSG_NAMELEN), 4);
        }
        emit.put(first + 3, self.addr.wrapping_add(layout::MSG_CONTROLLEN), 8);
        emit.put(first + 4, self.addr.wrapping_add(layout::MSG_FLAGS), 4);
        iovecs(mem, self.iov, bytes, first + 5, emit);
    }
}

/// The arguments as the kernel takes them: of a number of 32 bits the upper half of the register means nothing.
fn narrowed(row: &Row, args: &[u64; 6]) -> [u64; 6] {
    let mut narrowed = *args;
    for (value, arg) in narrowed.iter_mut().zip(row.args) {
        if let Arg::Int32 | Arg::Flags | Arg::Fd = arg {
            *value &= 0xffff_ffff;
        }
    }
    narrowed
}

/// Resolves the regions that the kernel reads for a call with these arguments.
pub fn inputs<M, S>(row: &Row, args: &[u64; 6], mem: &M, sink: &mut S)
where
    M: Memory + ?Sized,
    S: FnMut(Region),
{
    let args = &narrowed(row, args);
    for (index, arg) in row.args.iter().enumerate() {
        let Arg::Mem(dir, extent) = *arg else { continue };
        let addr = args[index];
        if dir.is_read() && addr != 0 {
            input((dir, extent), args, addr, mem, &mut Emit { arg: index as u8, sink });
        }
    }
}

fn input<M, S>((dir, extent): (Dir, Extent), args: &[u64; 6], addr: u64, mem: &M, emit: &mut Emit<'_, S>)
where
    M: Memory + ?Sized,
    S: FnMut(Region),
{
    match extent {
        Extent::Fixed(len) => emit.put(0, addr, u64::from(len)),
        Extent::FromArg { len, scale } => {
            emit.put(0, addr, args[len as usize].saturating_mul(u64::from(scale)).min(MAX_RW));
        }
        Extent::LengthOf { of } if args[of as usize] != 0 => emit.put(0, addr, 4),
        Extent::LengthTold { .. } => emit.put(0, addr, 4),
        Extent::CStr => emit.put(0, addr, c_string(mem, addr, PATH_MAX)),
        Extent::IoVec { count } => {
            iovecs(mem, (addr, args[count as usize]), MAX_RW, 0, emit);
        }
        Extent::MsgHdr => {
            if let Some(header) = MsgHdr::read(mem, addr) {
                header.sent(mem, 0, emit);
            }
        }
        Extent::MMsgHdr { count } => messages(mem, addr, args[count as usize], |_, header, first| {
            header.sent(mem, first + 1, emit);
        }),
        Extent::PollFds { count } => {
            // The entry's last field, `revents`, is only written.
            for i in 0..(args[count as usize] & 0xffff) {
                emit.put(i as u16, addr.wrapping_add(i * layout::POLLFD), layout::POLLFD_ASKED);
            }
        }
        Extent::FdSet { nfds } => emit.put(0, addr, set_bytes(args[nfds as usize])),
        Extent::EpollEvent if args[1] as u32 as u64 != EPOLL_CTL_DEL => {
            emit.put(0, addr, 4);
            emit.put_checked(1, addr.wrapping_add(4), 8, Check::Opaque);
        }
        Extent::SigEvent => {
            emit.put(0, addr.wrapping_add(8), 8);
            emit.put_checked(1, addr, 8, Check::Opaque);
        }
        Extent::Flock => {
            emit.put(0, addr, 4);
            emit.put(1, addr.wrapping_add(8), 16);
        }
        Extent::IfReq => emit.put(0, addr, layout::IFREQ_NAME),
        Extent::IfReqIndex => emit.put(0, addr.wrapping_add(layout::IFREQ_NAME), 4),
        Extent::IfConf => emit.put(0, addr, 4),
        Extent::EthTool => {
            emit.put(0, addr, layout::IFREQ_NAME);
            if let Some((place, _)) = eth_tool(mem, addr) {
                emit.put(1, place, 4);
            }
        }
        Extent::Strings => strings(mem, addr, emit),
        Extent::CloneArgs => {
            emit.put(0, addr, 8);
            emit.put(1, addr.wrapping_add(32), 8);
        }
        Extent::MsgBuf { size } => emit.put(0, addr, args[size as usize].min(MAX_RW) + layout::MSGBUF_TYPE),
        Extent::Semaphores { id } => emit.put(0, addr, semaphores(mem, args[id as usize])),
        Extent::SizeFirst { least } => {
            let size = read_u32(mem, addr).unwrap_or(0);
            emit.put(0, addr, u64::from(if size == 0 { least } else { size }).min(PAGE));
        }
        // Where a handle is made, only its room is read.
        Extent::FileHandle if dir != Dir::In => emit.put(0, addr, 4),
        Extent::FileHandle => emit.put(0, addr, handle_len(mem, addr)),
        Extent::XattrArgs => {
            emit.put(0, addr.wrapping_add(8), 8);
            if dir == Dir::In
                && let (Some(value), Some(size)) = (read_u64(mem, addr), read_u32(mem, addr.wrapping_add(8)))
            {
                emit.put(1, value, u64::from(size).min(XATTR_SIZE_MAX));
            }
        }
        // Never read, or (the guards above) not read this time.
        Extent::IfPositive(_)
        | Extent::FromRet { .. }
        | Extent::FromPtr { .. }
        | Extent::ToldSize { .. }
        | Extent::MountId { .. }
        | Extent::LengthOf { .. }
        | Extent::EpollEvent => {}
    }
}

/// Returns where the structure is that a `struct ifreq` for `SIOCETHTOOL` points to, and its size; `None` for commands whose
/// memory is not described here, `include/uapi/linux/ethtool.h`. One that cannot be read has no bytes: the call fails.
pub(super) fn eth_tool<M: Memory + ?Sized>(mem: &M, addr: u64) -> Option<(u64, u64)> {
    const LINK_SETTINGS: u64 = 48;
    const MASK_WORDS: u64 = 15;
    let Some(place) = read_u64(mem, addr.wrapping_add(layout::IFREQ_NAME)) else { return Some((0, 0)) };
    let Some(command) = read_u32(mem, place) else { return Some((place, 0)) };
    let len = match command {
        // GSET, GDRVINFO, GWOL, GMSGLVL, GLINK, GCOALESCE, GRINGPARAM, GPAUSEPARAM
        0x1 | 0x41 => 44,
        0x3 => 196,
        0x5 => 20,
        0x7 | 0xa => 8,
        0xe => 92,
        0x10 | 0x3c => 36,
        0x12 => 16,
        // One number: GRXCSUM, GTXCSUM, GSG, GTSO, GUFO, GGSO, GFLAGS, GPFLAGS, GGRO; above GET_TS_INFO and GCHANNELS
        0x14 | 0x16 | 0x18 | 0x1e | 0x21 | 0x23 | 0x25 | 0x27 | 0x2b => 8,
        // GLINKSETTINGS, with three masks of as many words as it says: a number below 0 where the kernel has others
        0x4c => {
            let mut words = [0];
            let got = mem.read(place.wrapping_add(MASK_WORDS), &mut words);
            let words = if got == 1 { u64::try_from(words[0] as i8).unwrap_or(0) } else { 0 };
            LINK_SETTINGS + 3 * 4 * words
        }
        _ => return None,
    };
    Some((place, len))
}

/// Bytes of a `struct file_handle` with what it holds, `MAX_HANDLE_SZ` at most.
fn handle_len<M: Memory + ?Sized>(mem: &M, addr: u64) -> u64 {
    8 + u64::from(read_u32(mem, addr).unwrap_or(0)).min(128)
}

/// Bytes of the values of a set's semaphores.
fn semaphores<M: Memory + ?Sized>(mem: &M, id: u64) -> u64 {
    mem.semaphores(id).unwrap_or(0).min(MAX_RW) * 2
}

/// Bytes of a set for `select`: whole words, never more than the kernel's bound on descriptors allows.
fn set_bytes(nfds: u64) -> u64 {
    let nfds = nfds as u32;
    if nfds > 1 << 30 { 0 } else { u64::from(nfds).div_ceil(64) * 8 }
}

/// Walks an array of `struct mmsghdr`: index, header, and the part with which the message begins.
fn messages<M: Memory + ?Sized>(mem: &M, addr: u64, count: u64, mut each: impl FnMut(usize, &MsgHdr, u16)) {
    let mut first = 0u16;
    for i in 0..count.min(ROOMS as u64) {
        let Some(header) = MsgHdr::read(mem, addr.wrapping_add(i * layout::MMSGHDR)) else { return };
        each(i as usize, &header, first);
        first += 1 + header.parts();
    }
}

/// Keeps what [`outputs`] will need to know of the state before the call. To be called at the entry.
#[must_use]
pub fn notes<M: Memory + ?Sized>(row: &Row, args: &[u64; 6], mem: &M) -> Notes {
    let mut notes = Notes::default();
    let args = &narrowed(row, args);
    let mut used = 0;
    for (index, arg) in row.args.iter().enumerate() {
        let Arg::Mem(Dir::Out | Dir::InOut, extent) = *arg else { continue };
        let addr = args[index];
        match extent {
            Extent::FromPtr { len } => {
                notes.rooms[used] = read_u32(mem, args[len as usize]).unwrap_or(0);
                used += 1;
            }
            Extent::IfConf => {
                notes.rooms[used] = read_u32(mem, addr).unwrap_or(0);
                used += 1;
            }
            Extent::MsgHdr => {
                notes.rooms[used] = MsgHdr::read(mem, addr).map_or(0, |header| header.namelen);
                used += 1;
            }
            // The only array that a call has, so it may take every place.
            Extent::MMsgHdr { count } => messages(mem, addr, args[count as usize], |i, header, _| {
                notes.rooms[i] = header.namelen;
            }),
            _ => {}
        }
    }
    notes
}

/// Resolves the regions that the kernel wrote in a call with these arguments that returned `ret`, the raw result.
///
/// A failed call wrote nothing, but for timeouts and the time that was left (see [`Dir`]), and the buffers of an iovec before one
/// at a bad address.
pub fn outputs<M, S>(row: &Row, args: &[u64; 6], ret: i64, after: After<'_>, mem: &M, sink: &mut S)
where
    M: Memory + ?Sized,
    S: FnMut(Region),
{
    let args = &narrowed(row, args);
    let mut used = 0;
    for (index, arg) in row.args.iter().enumerate() {
        let Arg::Mem(dir, extent) = *arg else { continue };
        let wrote = match dir {
            Dir::In => continue,
            Dir::Out | Dir::InOut => !failed(ret) || ret == EFAULT && matches!(extent, Extent::IoVec { .. }),
            Dir::Always => true,
            Dir::TimeLeft => interrupted(ret),
        };
        let room = match after {
            After::Executed(notes) => notes.rooms.get(used).copied().unwrap_or(0),
            After::Emulated => u32::MAX,
        };
        if matches!(extent, Extent::FromPtr { .. } | Extent::IfConf | Extent::MsgHdr) {
            used += 1;
        }
        if wrote && args[index] != 0 {
            let call = Done { args, raw: ret, ret: ret.max(0) as u64, after, room };
            output(extent, dir, &call, args[index], mem, &mut Emit { arg: index as u8, sink });
        }
    }
}

/// A call that returned.
struct Done<'a> {
    args: &'a [u64; 6],
    raw: i64,
    /// The result, 0 where it is an error.
    ret: u64,
    after: After<'a>,
    /// Room of the argument at hand, where it has one.
    room: u32,
}

fn output<M, S>(extent: Extent, dir: Dir, call: &Done<'_>, addr: u64, mem: &M, emit: &mut Emit<'_, S>)
where
    M: Memory + ?Sized,
    S: FnMut(Region),
{
    let args = call.args;
    match extent {
        Extent::Fixed(len) => emit.put(0, addr, u64::from(len)),
        Extent::IfPositive(len) if call.ret > 0 => emit.put(0, addr, u64::from(len)),
        Extent::FromArg { len, scale } => {
            emit.put(0, addr, args[len as usize].saturating_mul(u64::from(scale)).min(MAX_RW));
        }
        Extent::FromRet { cap, scale } => {
            emit.put(0, addr, call.ret.min(args[cap as usize]).saturating_mul(u64::from(scale)));
        }
        Extent::FromPtr { len } => {
            let full = read_u32(mem, args[len as usize]).unwrap_or(0);
            emit.put(0, addr, u64::from(full.min(call.room)));
        }
        Extent::LengthOf { of } if args[of as usize] != 0 => emit.put(0, addr, 4),
        Extent::LengthTold { .. } => emit.put(0, addr, 4),
        Extent::IoVec { count } if call.raw == EFAULT => before_fault(mem, addr, args[count as usize], emit),
        Extent::IoVec { count } => {
            iovecs(mem, (addr, args[count as usize]), call.ret, 0, emit);
        }
        Extent::MsgHdr => {
            if let Some(header) = MsgHdr::read(mem, addr) {
                header.received(mem, call.room, call.ret, 0, emit);
            }
        }
        Extent::MMsgHdr { .. } => sent_or_received(dir, call, addr, mem, emit),
        Extent::PollFds { count } => emit.put(0, addr, (args[count as usize] & 0xffff) * layout::POLLFD),
        Extent::FdSet { nfds } => emit.put(0, addr, set_bytes(args[nfds as usize])),
        Extent::Flock => emit.put(0, addr, layout::FLOCK),
        Extent::IfReq | Extent::IfReqIndex => emit.put(0, addr, layout::IFREQ),
        Extent::EthTool => {
            if let Some((place, len)) = eth_tool(mem, addr) {
                emit.put(1, place, len);
            }
        }
        Extent::IfConf => {
            let full = read_u32(mem, addr).unwrap_or(0);
            emit.put(0, addr, 4);
            if let Some(buf) = read_u64(mem, addr.wrapping_add(layout::IFCONF_BUF)) {
                emit.put(1, buf, u64::from(full.min(call.room)));
            }
        }
        Extent::CloneArgs => clone_args(addr, mem, emit),
        Extent::MsgBuf { size } => emit.put(0, addr, call.ret.min(args[size as usize]) + layout::MSGBUF_TYPE),
        Extent::Semaphores { id } => emit.put(0, addr, semaphores(mem, args[id as usize])),
        Extent::ToldSize { cap } => {
            let room = args[cap as usize].min(PAGE * 16);
            emit.put(
                0,
                addr,
                match call.after {
                    After::Executed(_) => u64::from(read_u32(mem, addr).unwrap_or(0)).min(room),
                    After::Emulated => room,
                },
            );
        }
        Extent::FileHandle if call.raw == EOVERFLOW => emit.put(0, addr, 8),
        Extent::FileHandle if !failed(call.raw) => emit.put(0, addr, handle_len(mem, addr)),
        Extent::MountId { flags } if !failed(call.raw) || call.raw == EOVERFLOW => {
            emit.put(0, addr, if args[flags as usize] & AT_HANDLE_MNT_ID_UNIQUE != 0 { 8 } else { 4 });
        }
        Extent::XattrArgs => {
            if let (Some(value), Some(size)) = (read_u64(mem, addr), read_u32(mem, addr.wrapping_add(8))) {
                emit.put(1, value, call.ret.min(u64::from(size)));
            }
        }
        // Never written, or (the guards above) not written this time.
        Extent::IfPositive(_)
        | Extent::LengthOf { .. }
        | Extent::CStr
        | Extent::Strings
        | Extent::EpollEvent
        | Extent::SigEvent
        | Extent::SizeFirst { .. }
        | Extent::FileHandle
        | Extent::MountId { .. } => {}
    }
}

/// What `sendmmsg` and `recvmmsg` wrote: a length for each message, and for the latter what was received.
fn sent_or_received<M, S>(dir: Dir, call: &Done<'_>, addr: u64, mem: &M, emit: &mut Emit<'_, S>)
where
    M: Memory + ?Sized,
    S: FnMut(Region),
{
    messages(mem, addr, call.ret, |i, header, first| {
        let len_addr = header.addr.wrapping_add(layout::MSG_LEN);
        emit.put(first, len_addr, 4);
        if dir == Dir::Out {
            let (room, bytes) = match call.after {
                After::Executed(notes) => (notes.rooms[i], u64::from(read_u32(mem, len_addr).unwrap_or(0))),
                After::Emulated => (u32::MAX, MAX_RW),
            };
            header.received(mem, room, bytes, first + 1, emit);
        }
    });
}

fn clone_args<M: Memory + ?Sized, S: FnMut(Region)>(addr: u64, mem: &M, emit: &mut Emit<'_, S>) {
    const CLONE_PIDFD: u64 = 0x1000;
    const CLONE_PARENT_SETTID: u64 = 0x10_0000;
    let mut bytes = [0u8; 32];
    if mem.read(addr, &mut bytes) < bytes.len() {
        return;
    }
    let flags = u64_at(&bytes, 0);
    if flags & CLONE_PARENT_SETTID != 0 {
        emit.put(2, u64_at(&bytes, 24), 4);
    }
    if flags & CLONE_PIDFD != 0 {
        emit.put(3, u64_at(&bytes, 8), 4);
    }
}
