//! Streams of lines: what the follower is given of them ends with a line, so that no rule sees half of one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// How long a line may get.
const LINE: usize = 1 << 20;

/// What there is for the follower to read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lines {
    /// The end of the stream, or an error.
    Unchanged,
    Whole {
        /// The end of a line whose beginning the follower had read itself, before it followed: it is not looked at.
        rest: Vec<u8>,
        lines: Vec<u8>,
    },
    /// Only a part of a line.
    None,
}

/// What is known of the leader's streams of lines, by descriptor.
#[derive(Debug, Default)]
pub(super) struct LineStreams {
    /// What was read of a line and kept back from the follower until the line is whole.
    kept: BTreeMap<i32, Vec<u8>>,
    /// Where the follower has read the beginning of a line itself.
    inside: BTreeSet<i32>,
}

impl LineStreams {
    /// The follower has read the beginning of a line from these descriptors itself.
    pub(super) fn begin_inside(&mut self, fds: impl IntoIterator<Item = i32>) {
        self.inside.extend(fds);
    }

    /// The follower has read from a descriptor itself, up to the end of a line or into one.
    pub(super) fn stands(&mut self, fd: i32, is_inside: bool) {
        if is_inside {
            self.inside.insert(fd);
        } else {
            self.inside.remove(&fd);
        }
    }

    /// Adds what was read to what was kept back, and keeps back what is no whole line yet.
    ///
    /// # Errors
    ///
    /// A line is longer than 1 MiB.
    pub(super) fn take(&mut self, fd: i32, read: &[u8]) -> Result<Lines, String> {
        if read.is_empty() {
            return Ok(Lines::Unchanged);
        }
        let (rest, read) = match self.inside.contains(&fd) {
            false => (Vec::new(), read),
            true => match read.iter().position(|byte| *byte == b'\n') {
                None => return Ok(Lines::Whole { rest: read.to_vec(), lines: Vec::new() }),
                Some(at) => {
                    self.inside.remove(&fd);
                    (read[..=at].to_vec(), &read[at + 1..])
                }
            },
        };
        let mut lines = self.kept.remove(&fd).unwrap_or_default();
        lines.extend_from_slice(read);
        let end = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let kept = lines.split_off(end);
        if kept.len() > LINE {
            return Err(format!("a line of more than {LINE} bytes"));
        }
        if !kept.is_empty() {
            self.kept.insert(fd, kept);
        }
        Ok(if rest.is_empty() && lines.is_empty() { Lines::None } else { Lines::Whole { rest, lines } })
    }

    /// The leader has closed a descriptor.
    pub(super) fn close(&mut self, fd: i32) {
        self.kept.remove(&fd);
        self.inside.remove(&fd);
    }

    /// Returns what is kept back, by descriptor.
    pub(super) fn kept(&self) -> impl Iterator<Item = (i32, Bytes)> {
        self.kept.iter().map(|(fd, bytes)| (*fd, Bytes::copy_from_slice(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(rest: &str, lines: &str) -> Lines {
        Lines::Whole { rest: rest.into(), lines: lines.into() }
    }

    #[test]
    fn parts_are_kept_until_the_line_is_whole() {
        let mut streams = LineStreams::default();
        assert_eq!(streams.take(5, b"ab"), Ok(Lines::None));
        assert_eq!(streams.take(6, b"x\ny"), Ok(whole("", "x\n")));
        assert_eq!(streams.take(5, b"c\n"), Ok(whole("", "abc\n")));
        assert_eq!(streams.kept().collect::<Vec<_>>(), [(6, Bytes::from_static(b"y"))]);
        streams.close(6);
        assert_eq!(streams.kept().count(), 0);
        assert_eq!(streams.take(5, b""), Ok(Lines::Unchanged));
    }

    #[test]
    fn a_line_that_began_before_passes() {
        let mut streams = LineStreams::default();
        streams.begin_inside([5, 6]);
        assert_eq!(streams.take(5, b"b"), Ok(whole("b", "")));
        assert_eq!(streams.take(5, b"c\nd\ne"), Ok(whole("c\n", "d\n")));
        assert_eq!(streams.take(5, b"\n"), Ok(whole("", "e\n")));
        assert_eq!(streams.take(6, b"\nk"), Ok(whole("\n", "")));
        assert_eq!(streams.take(6, b"\n"), Ok(whole("", "k\n")));
    }

    #[test]
    fn a_line_has_an_end() {
        assert!(LineStreams::default().take(5, &vec![b'a'; LINE + 1]).is_err());
    }
}
