//! Prints calls for people.

use core::fmt;

use super::columns::{Applying, Asks};
use super::model::{Arg, Class, Dir, Extent, Irregular, Row};
use super::names::name;

/// A call with its arguments, as `write(3, 0x7f0012345678, 12)`.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub nr: u32,
    pub args: &'a [u64; 6],
    /// The row of this very request where it is known ([`super::Treatment::row`]).
    pub row: Option<&'a Row>,
}

impl<'a> Call<'a> {
    /// Takes the row of the number; of a call that is many the arguments print less exactly than with the row of the
    /// request.
    #[must_use]
    pub fn new(nr: u32, args: &'a [u64; 6]) -> Call<'a> {
        Call { nr, args, row: super::row(nr) }
    }
}

impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row.map(|row| row.name).or_else(|| name(self.nr)) {
            // The row of a request is named `ioctl/FIONREAD`; the request shows among the arguments.
            Some(name) => f.write_str(name.split('/').next().unwrap_or(name))?,
            None => write!(f, "syscall_{}", self.nr)?,
        }
        f.write_str("(")?;
        // Of a call that is refused, or is not there at all, the arguments are not described.
        match self.row.filter(|row| !row.args.is_empty() || !matches!(row.class, Class::Refuse(_))) {
            Some(row) => {
                let chosen = row.name.split_once('/').map(|(_, request)| request);
                for (i, (arg, value)) in row.args.iter().zip(self.args).enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    match chosen {
                        Some(request) if is_selector(row.nr, i) => f.write_str(request)?,
                        _ => write_arg(f, *arg, *value)?,
                    }
                }
            }
            None => {
                for (i, value) in self.args.iter().enumerate() {
                    write!(f, "{}{value:#x}", if i > 0 { ", " } else { "" })?;
                }
            }
        }
        f.write_str(")")
    }
}

/// Says which call was refused, as exactly as the table can: the request too where a call is many.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    pub nr: u32,
    pub args: &'a [u64; 6],
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const IOCTL: u32 = 16;
        let Some(name) = name(self.nr) else { return write!(f, "system call {}", self.nr) };
        f.write_str(name)?;
        match self.nr {
            IOCTL => {
                let request = self.args[1] & 0xffff_ffff;
                write!(f, "({}, {request:#x}", self.args[0] as i32)?;
                match super::irregular::ioctl_name(request) {
                    Some(name) => write!(f, " {name}")?,
                    None => write_request(f, request)?,
                }
                f.write_str(")")
            }
            72 => write!(f, "({}, command {})", self.args[0] as i32, self.args[1] as u32),
            157 | 158 => write!(f, "(option {})", self.args[0] as u32),
            _ => Ok(()),
        }
    }
}

/// Says what the parts of a request mean, `include/uapi/asm-generic/ioctl.h`; one without a size is an old one, and has none.
fn write_request(f: &mut fmt::Formatter<'_>, request: u64) -> fmt::Result {
    let (size, kind, number) = (request >> 16 & 0x3fff, request >> 8 & 0xff, request & 0xff);
    let moves = match request >> 30 {
        0 => return write!(f, ": kind {kind:#x}, number {number}"),
        1 => "reads",
        2 => "writes",
        _ => "reads and writes",
    };
    write!(f, ": kind {kind:#x}, number {number}, {moves} {size} bytes")
}

/// Tells whether the argument at `i` is the one that chooses the request.
fn is_selector(nr: u32, i: usize) -> bool {
    match nr {
        16 | 71 | 72 | 445 => i == 1,
        66 => i == 2,
        157 | 158 => i == 0,
        _ => false,
    }
}

fn write_arg(f: &mut fmt::Formatter<'_>, arg: Arg, value: u64) -> fmt::Result {
    match arg {
        Arg::Fd if value as u32 as i32 == -100 => f.write_str("AT_FDCWD"),
        Arg::Fd | Arg::Int32 => write!(f, "{}", value as u32 as i32),
        // Small negative numbers are told apart from addresses and sizes.
        Arg::Int if value as i64 >= -4096 => write!(f, "{}", value as i64),
        Arg::Int if value >> 32 == 0 && value as u32 as i32 >= -4096 => write!(f, "{}", value as u32 as i32),
        Arg::Flags => write!(f, "{:#x}", value as u32),
        Arg::Mem(..) | Arg::Addr if value == 0 => f.write_str("NULL"),
        Arg::Int | Arg::LongFlags | Arg::Addr | Arg::Mem(..) => write!(f, "{value:#x}"),
    }
}

/// A raw result, as `12`, `-1 EAGAIN` or `0x7f0000000000`.
#[derive(Clone, Copy, Debug)]
pub struct Ret(pub i64);

impl fmt::Display for Ret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if super::regions::failed(self.0) {
            return match errno_name(-self.0) {
                Some(name) => write!(f, "-1 {name}"),
                None => write!(f, "-1 errno {}", -self.0),
            };
        }
        if self.0 > 1 << 32 || self.0 < 0 { write!(f, "{:#x}", self.0 as u64) } else { write!(f, "{}", self.0) }
    }
}

/// Names of errno 1 to 44 and of those that sockets and signals add, `include/uapi/asm-generic/errno*.h`.
#[must_use]
pub fn errno_name(errno: i64) -> Option<&'static str> {
    const BASE: [&str; 40] = [
        "EPERM",
        "ENOENT",
        "ESRCH",
        "EINTR",
        "EIO",
        "ENXIO",
        "E2BIG",
        "ENOEXEC",
        "EBADF",
        "ECHILD",
        "EAGAIN",
        "ENOMEM",
        "EACCES",
        "EFAULT",
        "ENOTBLK",
        "EBUSY",
        "EEXIST",
        "EXDEV",
        "ENODEV",
        "ENOTDIR",
        "EISDIR",
        "EINVAL",
        "ENFILE",
        "EMFILE",
        "ENOTTY",
        "ETXTBSY",
        "EFBIG",
        "ENOSPC",
        "ESPIPE",
        "EROFS",
        "EMLINK",
        "EPIPE",
        "EDOM",
        "ERANGE",
        "EDEADLK",
        "ENAMETOOLONG",
        "ENOLCK",
        "ENOSYS",
        "ENOTEMPTY",
        "ELOOP",
    ];
    const OTHERS: [(i64, &str); 35] = [
        (61, "ENODATA"),
        (62, "ETIME"),
        (71, "EPROTO"),
        (74, "EBADMSG"),
        (75, "EOVERFLOW"),
        (84, "EILSEQ"),
        (88, "ENOTSOCK"),
        (89, "EDESTADDRREQ"),
        (90, "EMSGSIZE"),
        (91, "EPROTOTYPE"),
        (92, "ENOPROTOOPT"),
        (93, "EPROTONOSUPPORT"),
        (94, "ESOCKTNOSUPPORT"),
        (95, "EOPNOTSUPP"),
        (97, "EAFNOSUPPORT"),
        (98, "EADDRINUSE"),
        (99, "EADDRNOTAVAIL"),
        (100, "ENETDOWN"),
        (101, "ENETUNREACH"),
        (103, "ECONNABORTED"),
        (104, "ECONNRESET"),
        (105, "ENOBUFS"),
        (106, "EISCONN"),
        (107, "ENOTCONN"),
        (108, "ESHUTDOWN"),
        (110, "ETIMEDOUT"),
        (111, "ECONNREFUSED"),
        (113, "EHOSTUNREACH"),
        (114, "EALREADY"),
        (115, "EINPROGRESS"),
        (125, "ECANCELED"),
        (512, "ERESTARTSYS"),
        (513, "ERESTARTNOINTR"),
        (514, "ERESTARTNOHAND"),
        (516, "ERESTART_RESTARTBLOCK"),
    ];
    let base = usize::try_from(errno).ok().and_then(|errno| errno.checked_sub(1)).and_then(|at| BASE.get(at)).copied();
    base.or_else(|| OTHERS.iter().find(|(number, _)| *number == errno).map(|(_, name)| *name))
}

/// One argument as the manual shows it: its kind, and for memory its direction and extent.
impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arg::Int | Arg::Int32 => f.write_str("number"),
            Arg::Flags | Arg::LongFlags => f.write_str("flags"),
            Arg::Fd => f.write_str("descriptor"),
            Arg::Addr => f.write_str("own"),
            Arg::Mem(dir, extent) => write!(f, "{dir} {extent}"),
        }
    }
}

impl fmt::Display for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dir::In => "reads",
            Dir::Out => "writes",
            Dir::InOut => "reads and writes",
            Dir::Always => "always updates",
            Dir::TimeLeft => "when interrupted, writes",
        })
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = |f: &mut fmt::Formatter<'_>, scale: u32| match scale {
            1 => Ok(()),
            scale => write!(f, " × {scale}"),
        };
        match self {
            Extent::Fixed(len) | Extent::IfPositive(len) => write!(f, "{len} bytes"),
            Extent::FromArg { len, scale } => {
                write!(f, "#{}", len + 1)?;
                times(f, *scale)
            }
            Extent::FromRet { cap, scale } => {
                write!(f, "result ≤ #{}", cap + 1)?;
                times(f, *scale)
            }
            Extent::FromPtr { len } => write!(f, "*#{}", len + 1),
            Extent::LengthOf { of } | Extent::LengthTold { of } => write!(f, "length of #{}", of + 1),
            Extent::CStr => f.write_str("string"),
            Extent::IoVec { count } => write!(f, "iovec[#{}]", count + 1),
            Extent::MsgHdr => f.write_str("msghdr"),
            Extent::MMsgHdr { count } => write!(f, "mmsghdr[#{}]", count + 1),
            Extent::PollFds { count } => write!(f, "pollfd[#{}]", count + 1),
            Extent::FdSet { nfds } => write!(f, "fd_set of #{}", nfds + 1),
            Extent::EpollEvent => f.write_str("epoll_event"),
            Extent::SigEvent => f.write_str("sigevent"),
            Extent::Flock => f.write_str("flock"),
            Extent::IfReq | Extent::IfReqIndex => f.write_str("ifreq"),
            Extent::IfConf => f.write_str("ifconf"),
            Extent::EthTool => f.write_str("ifreq, command of ethtool"),
            Extent::MsgBuf { size } => write!(f, "msgbuf of #{}", size + 1),
            Extent::Semaphores { id } => write!(f, "2 bytes for each semaphore of #{}", id + 1),
            Extent::SizeFirst { .. } => f.write_str("as many bytes as its first field says"),
            Extent::ToldSize { cap } => write!(f, "as many bytes as its first field says ≤ #{}", cap + 1),
            Extent::FileHandle => f.write_str("file_handle"),
            Extent::MountId { .. } => f.write_str("mount id"),
            Extent::XattrArgs => f.write_str("xattr_args"),
            Extent::Strings => f.write_str("strings"),
            Extent::CloneArgs => f.write_str("clone_args"),
        }
    }
}

/// What becomes of a call while the new version is applied, as the manual has it; of one that chooses by its arguments the row of
/// the call itself says it.
fn while_applied(row: &Row) -> &'static str {
    let whole = super::row(row.nr).unwrap_or(row);
    let described = !whole.irregular.is_some_and(Irregular::is_many);
    match (whole.irregular, whole.asks) {
        _ if row.class == Class::Local => return "made",
        (_, Asks::Name(_)) => return "as the leader is told",
        (Some(Irregular::Open { .. }), _) => return if row.class == Class::Supply { "to read" } else { "" },
        (Some(Irregular::Mmap | Irregular::Ioctl), _) => return "own files",
        (Some(Irregular::EpollCtl), _) => return "adds and changes",
        (Some(Irregular::Prlimit), _) => return "asked of itself",
        (Some(Irregular::Restart), _) => return "made",
        // Only where the order of threads is recorded is it another row; a lock with inherited priority is refused elsewhere.
        (Some(Irregular::Futex), _) if matches!(row.args.first(), Some(Arg::Mem(..))) => return "",
        _ if described && whole.class == Class::Local => return "made",
        _ => {}
    }
    match if described { whole.applying } else { row.applying } {
        Applying::Made => "made",
        Applying::OnOwn => "own files",
        Applying::OnAny => "own files, and asked of the leader's",
        Applying::Below => "below the working folder, or own ones",
        Applying::Refused => "",
    }
}

/// The table for the manual, in Markdown: what is done with each call that has a row.
#[derive(Clone, Copy, Debug)]
pub struct Manual;

impl fmt::Display for Manual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "| call | arguments | while applied | remark |\n\
             |---|---|---|---|\n",
        )?;
        for (heading, class) in [
            ("supplied", Class::Supply),
            ("compared", Class::Compare),
            ("made by each version", Class::Local),
            ("made by both", Class::Both),
        ] {
            writeln!(f, "| **{heading}** | | | |")?;
            let rows = super::rows().filter(|row| !row.irregular.is_some_and(Irregular::is_many));
            for row in rows.chain(super::irregular::variants()).filter(|row| row.class == class) {
                write!(f, "| `{}` | ", row.name)?;
                for (i, arg) in row.args.iter().enumerate() {
                    write!(f, "{}{arg}", if i > 0 { "; " } else { "" })?;
                }
                writeln!(f, " | {} | {} |", while_applied(row), row.note)?;
            }
        }
        f.write_str("| **refused** | | | |\n")?;
        for row in super::rows().chain(super::irregular::variants()) {
            if let Class::Refuse(reason) = row.class {
                writeln!(f, "| `{}` | | | {reason} |", row.name)?;
            }
        }
        Ok(())
    }
}
