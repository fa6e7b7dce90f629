//! Files by path: opening, asking, changing.

use super::columns::{Alone, Applying, Fds, Made, Wait};
use super::model::Arg::{Fd, Flags, Int, Int32, Mem};
use super::model::Dir::{Always, In, InOut};
use super::model::Extent::{FileHandle, FromArg, MountId, XattrArgs};
use super::model::Outcome::{Fd as NewFd, Int as Num, Size};
use super::model::{Dir, Irregular, Row};
use super::words::{PATH, check, compare, fills, reads, reads_arg, supply, writes};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    supply(2, "open", &[PATH, Flags, Int32], NewFd).but(Irregular::Open { flags: 1 }).waits(Wait::Others).numbers(Fds::Makes(Made::File)).alone(Alone::Opens),
    supply(4, "stat", &[PATH, writes(144)], Num).alone(Alone::Question).applying(Applying::Made),
    supply(6, "lstat", &[PATH, writes(144)], Num).alone(Alone::Question).applying(Applying::Made),
    supply(21, "access", &[PATH, Int32], Num).alone(Alone::Question).applying(Applying::Made),
    compare(76, "truncate", &[PATH, Int], Num),
    supply(79, "getcwd", &[fills(1), Int], Size).note("the result counts the NUL").applying(Applying::Made),
    compare(80, "chdir", &[PATH], Num).note("not performed in the follower: promotion carries the folder over"),
    compare(82, "rename", &[PATH, PATH], Num),
    compare(83, "mkdir", &[PATH, Int32], Num),
    compare(84, "rmdir", &[PATH], Num),
    compare(85, "creat", &[PATH, Int32], NewFd).waits(Wait::Others).numbers(Fds::Makes(Made::File)).alone(Alone::Opens),
    compare(86, "link", &[PATH, PATH], Num),
    compare(87, "unlink", &[PATH], Num).alone(Alone::Output),
    compare(88, "symlink", &[PATH, PATH], Num),
    supply(89, "readlink", &[PATH, fills(2), Int32], Size).alone(Alone::Question).applying(Applying::Made),
    compare(90, "chmod", &[PATH, Int32], Num),
    compare(92, "chown", &[PATH, Int32, Int32], Num),
    compare(94, "lchown", &[PATH, Int32, Int32], Num),
    compare(132, "utime", &[PATH, reads(16)], Num),
    compare(133, "mknod", &[PATH, Int32, Int32], Num),
    supply(137, "statfs", &[PATH, writes(120)], Num).applying(Applying::Made),
    compare(161, "chroot", &[PATH], Num).note("not performed in the follower: promotion carries the root over"),
    compare(188, "setxattr", &[PATH, PATH, reads_arg(3), Int, Flags], Num),
    compare(189, "lsetxattr", &[PATH, PATH, reads_arg(3), Int, Flags], Num),
    supply(191, "getxattr", &[PATH, PATH, fills(3), Int], Size).note("a size of 0 asks for the length and writes nothing"),
    supply(192, "lgetxattr", &[PATH, PATH, fills(3), Int], Size),
    supply(194, "listxattr", &[PATH, fills(2), Int], Size),
    supply(195, "llistxattr", &[PATH, fills(2), Int], Size),
    compare(197, "removexattr", &[PATH, PATH], Num),
    compare(198, "lremovexattr", &[PATH, PATH], Num),
    compare(235, "utimes", &[PATH, reads(32)], Num),
    compare(254, "inotify_add_watch", &[Fd, PATH, Flags], Num),
    supply(257, "openat", &[Fd, PATH, Flags, Int32], NewFd).but(Irregular::Open { flags: 2 }).waits(Wait::Others).numbers(Fds::Makes(Made::File)).alone(Alone::Opens),
    compare(258, "mkdirat", &[Fd, PATH, Int32], Num),
    compare(259, "mknodat", &[Fd, PATH, Int32, Int32], Num),
    compare(260, "fchownat", &[Fd, PATH, Int32, Int32, Flags], Num),
    compare(261, "futimesat", &[Fd, PATH, reads(32)], Num),
    supply(262, "newfstatat", &[Fd, PATH, writes(144), Flags], Num).alone(Alone::Question).applying(Applying::Below),
    compare(263, "unlinkat", &[Fd, PATH, Flags], Num),
    compare(264, "renameat", &[Fd, PATH, Fd, PATH], Num),
    compare(265, "linkat", &[Fd, PATH, Fd, PATH, Flags], Num),
    compare(266, "symlinkat", &[PATH, Fd, PATH], Num),
    supply(267, "readlinkat", &[Fd, PATH, fills(3), Int32], Size).alone(Alone::Question).applying(Applying::Below),
    compare(268, "fchmodat", &[Fd, PATH, Int32], Num),
    supply(269, "faccessat", &[Fd, PATH, Int32], Num).alone(Alone::Question).applying(Applying::Below),
    compare(280, "utimensat", &[Fd, PATH, reads(32), Flags], Num).note("a null path stands for the descriptor itself"),
    supply(303, "name_to_handle_at", &[Fd, PATH, Mem(Always, FileHandle), Mem(Always, MountId { flags: 4 }), Flags], Num),
    compare(304, "open_by_handle_at", &[Fd, Mem(In, FileHandle), Flags], NewFd).note("taken as if it emptied the file"),
    compare(316, "renameat2", &[Fd, PATH, Fd, PATH, Flags], Num),
    supply(332, "statx", &[Fd, PATH, Flags, Flags, writes(256)], Num).alone(Alone::Question).applying(Applying::Below),
    compare(437, "openat2", &[Fd, PATH, reads_arg(3), Int], NewFd).note("its flags are in memory; taken as if it created").waits(Wait::Others).numbers(Fds::Makes(Made::File)),
    supply(439, "faccessat2", &[Fd, PATH, Int32, Flags], Num).alone(Alone::Question).applying(Applying::Below),
    compare(452, "fchmodat2", &[Fd, PATH, Int32, Flags], Num),
    compare(463, "setxattrat", &[Fd, PATH, Flags, PATH, Mem(In, XattrArgs), Int], Num),
    supply(464, "getxattrat", &[Fd, PATH, Flags, PATH, Mem(InOut, XattrArgs), Int], Size),
    supply(465, "listxattrat", &[Fd, PATH, Flags, fills(4), Int], Size),
    compare(466, "removexattrat", &[Fd, PATH, Flags, PATH], Num),
    supply(468, "file_getattr", &[Fd, PATH, Mem(Dir::Out, FromArg { len: 3, scale: 1 }), Int, Flags], Num),
    compare(469, "file_setattr", &[Fd, PATH, reads_arg(3), Int, Flags], Num),
];

const _: () = check(ROWS);
