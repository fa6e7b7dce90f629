//! Names that a program chooses at random for a temporary file.
//!
//! glibc's `mkstemp` and its kin mix the address of a variable into the name, which is another one in each version. So a call
//! that makes a file or directory which must not be there yet, under a name that differs from the leader's in six letters and
//! digits alone, not only in digits, is taken for equal; the follower finds the leader's name where it keeps its own. The
//! name is the last that it looked at there: such functions write it into the caller's memory and pass that on.

use bytes::Bytes;
use mvedsua_common::syscalls;

use super::Call;
use crate::record::{CallEntry, Piece};

/// How many characters are chosen, mkstemp(3).
const CHOSEN: usize = 6;

/// A name that the leader has chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// Which argument it is.
    pub(crate) arg: u8,
    pub(crate) bytes: Bytes,
}

/// Returns the leader's name where the two versions' calls differ in nothing but a random choice.
pub(crate) fn chosen(call: &Call, expected: &CallEntry) -> Option<Name> {
    let arg = makes_new(call.nr, &call.args)?;
    if expected.nr != call.nr || makes_new(expected.nr, &expected.args) != Some(arg) {
        return None;
    }
    let path = |inputs: &[Piece]| inputs.iter().find(|piece| piece.arg == arg).map(|piece| piece.bytes.clone());
    let (own, leaders) = (path(&call.inputs)?, path(&expected.inputs)?);
    let others = (0..6).filter(|other| *other != usize::from(arg));
    let same =
        others.into_iter().all(|other| call.args[other] as u32 == expected.args[other] as u32 || !counts(call, other));
    (same && own != leaders && differ_in_a_choice(&own, &leaders)).then_some(Name { arg, bytes: leaders })
}

/// Says whether a call asks for random bytes for a name: a choice that would favour some names is made again, which depends on
/// the first one and so on the address.
pub(crate) fn chooses(nr: u32, args: &[u64; 6]) -> bool {
    const GRND_NONBLOCK: u64 = 1;
    i64::from(nr) == libc::SYS_getrandom && args[1] == 8 && args[2] == GRND_NONBLOCK
}

/// Says whether the leader chooses once more than the follower, which makes its file already.
pub(crate) fn leader_chooses(call: &Call, expected: &CallEntry) -> bool {
    chooses(expected.nr, &expected.args) && makes_new(call.nr, &call.args).is_some()
}

/// Says whether the follower chooses once more than the leader, which makes its file already.
pub(crate) fn follower_chooses(call: &Call, expected: &CallEntry) -> bool {
    chooses(call.nr, &call.args) && makes_new(expected.nr, &expected.args).is_some()
}

/// Says whether an argument is one that the kernel looks at.
fn counts(call: &Call, arg: usize) -> bool {
    call.row.is_some_and(|row| arg < row.args.len())
}

/// Returns which argument names the file, if the call makes one that must not be there yet.
fn makes_new(nr: u32, args: &[u64; 6]) -> Option<u8> {
    let excludes = |flags: u64| {
        let both = (libc::O_CREAT | libc::O_EXCL) as u64;
        flags & both == both
    };
    let row = syscalls::row(nr)?;
    let is_folder = matches!(i64::from(nr), libc::SYS_mkdir | libc::SYS_mkdirat);
    row.path().filter(|_| is_folder || row.open_flags(args).is_some_and(excludes))
}

fn differ_in_a_choice(own: &[u8], leaders: &[u8]) -> bool {
    if own.len() != leaders.len() {
        return false;
    }
    let differ = |at: &usize| own[*at] != leaders[*at];
    let (Some(first), Some(last)) = ((0..own.len()).find(differ), (0..own.len()).rfind(differ)) else { return false };
    // The choice may begin or end with characters that are equal by chance.
    let is_choice = |from: usize| {
        let range = from..from + CHOSEN;
        [own, leaders]
            .iter()
            .all(|name| name.get(range.clone()).is_some_and(|part| part.iter().all(u8::is_ascii_alphanumeric)))
    };
    // A number that counts something, or a date, is none; a choice without a letter is made once in 55,000 times.
    let has_letter = |name: &[u8]| (first..=last).any(|at| differ(&at) && name[at].is_ascii_alphabetic());
    let is_random = has_letter(own) && has_letter(leaders);
    is_random && last - first < CHOSEN && (last.saturating_sub(CHOSEN - 1)..=first).any(is_choice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_characters_are_a_choice() {
        let differ = |own: &str, leaders: &str| differ_in_a_choice(own.as_bytes(), leaders.as_bytes());
        assert!(differ("/tmp/ccAbC123.o\0", "/tmp/ccxyZ789.o\0"));
        assert!(differ("/tmp/tmp.Abcdef\0", "/tmp/tmp.Abcxef\0"), "others are equal by chance");
        assert!(!differ("/tmp/one\0", "/tmp/two\0"), "too short for one");
        assert!(!differ("/tmp/abcdefg\0", "/tmp/tuvwxyz\0"), "too much differs");
        assert!(!differ("/tmp/a\0", "/tmp/ab\0"));
        assert!(!differ("a/b/c/d\0", "x/b/c/d\0"));
    }

    #[test]
    fn a_number_is_no_choice() {
        let differ = |own: &str, leaders: &str| differ_in_a_choice(own.as_bytes(), leaders.as_bytes());
        assert!(!differ("/data/segment000124\0", "/data/segment000123\0"));
        assert!(!differ("/data/segment00124\0", "/data/segment00123\0"), "what is equal in both is not chosen");
        assert!(!differ("/data/backup20240102\0", "/data/backup20240131\0"));
        assert!(!differ("/tmp/tmp.123456\0", "/tmp/tmp.Ab3dEf\0"), "both must be such a name");
    }
}
