//! Names of errors.

use nix::errno::Errno;

/// The kernel's internal restart codes, `include/linux/errno.h`: seen at a call's end, never by the program.
const RESTARTS: [(u16, &str); 4] =
    [(512, "ERESTARTSYS"), (513, "ERESTARTNOINTR"), (514, "ERESTARTNOHAND"), (516, "ERESTART_RESTARTBLOCK")];

/// Returns the name of a positive errno, or the number where it has none.
pub(super) fn errno_name(errno: u16) -> String {
    if let Some((_, name)) = RESTARTS.iter().find(|(code, _)| *code == errno) {
        return (*name).to_owned();
    }
    match Errno::from_raw(i32::from(errno)) {
        Errno::UnknownErrno if errno == 0 => "other".to_owned(),
        Errno::UnknownErrno => format!("E{errno}"),
        known => format!("{known:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_unknown() {
        assert_eq!(errno_name(11), "EAGAIN");
        assert_eq!(errno_name(512), "ERESTARTSYS");
        assert_eq!(errno_name(0), "other");
        assert_eq!(errno_name(524), "E524");
    }
}
