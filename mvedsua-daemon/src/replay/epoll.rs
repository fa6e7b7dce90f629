//! What each version registered with its epoll sets.
//!
//! The kernel hands back whatever 64 bits a program registered, usually a pointer; the two versions' pointers may differ.
//! So for each registration both values are kept, and the leader's events are rewritten before the follower sees them.

use std::collections::HashMap;

/// Bytes of one `struct epoll_event`, which is packed on x86-64: events, then data.
const EVENT: usize = 12;

/// What was registered, by epoll descriptor and watched descriptor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registrations {
    /// Where the values differ.
    differing: HashMap<(i32, i32), Pair>,
    /// Where both are the same; those that were there from the beginning are not among them.
    same: HashMap<(i32, i32), u64>,
}

/// What the two versions registered for one descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) leader: u64,
    pub(crate) follower: u64,
}

impl Registrations {
    /// Both versions registered a descriptor.
    pub(crate) fn set(&mut self, epfd: i32, fd: i32, pair: Pair) {
        self.remove(epfd, fd);
        if pair.leader == pair.follower {
            self.same.insert((epfd, fd), pair.leader);
        } else {
            self.differing.insert((epfd, fd), pair);
        }
    }

    /// Another leads from here on, whose values are others.
    pub(crate) fn succeed(&mut self, changes: &[(i32, i32, u64, u64)]) {
        for (epfd, fd, old, new) in changes {
            let follower = self.differing.get(&(*epfd, *fd)).map_or(*old, |pair| pair.follower);
            self.set(*epfd, *fd, Pair { leader: *new, follower });
        }
    }

    pub(crate) fn remove(&mut self, epfd: i32, fd: i32) {
        self.differing.remove(&(epfd, fd));
        self.same.remove(&(epfd, fd));
    }

    /// Returns what the leader has registered for a descriptor, as far as that is known.
    pub(crate) fn leaders(&self, epfd: i32, fd: i32) -> Option<u64> {
        let differing = self.differing.get(&(epfd, fd)).map(|pair| pair.leader);
        differing.or_else(|| self.same.get(&(epfd, fd)).copied())
    }

    /// Rewrites the events that the leader got to what the follower would have got.
    pub(crate) fn translate(&self, epfd: i32, events: &mut [u8]) {
        if self.differing.is_empty() {
            return;
        }
        for event in events.chunks_exact_mut(EVENT) {
            let mut data = [0; 8];
            data.copy_from_slice(&event[4..]);
            let leader = u64::from_ne_bytes(data);
            let found = self.differing.iter().find(|((of, _), pair)| *of == epfd && pair.leader == leader);
            if let Some((_, pair)) = found {
                event[4..].copy_from_slice(&pair.follower.to_ne_bytes());
            }
        }
    }

    /// Returns what must be registered anew when the follower takes over.
    pub(crate) fn differing(&self) -> impl Iterator<Item = (i32, i32, Pair)> {
        self.differing.iter().map(|((epfd, fd), pair)| (*epfd, *fd, *pair))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: u64) -> Vec<u8> {
        [&1u32.to_ne_bytes()[..], &data.to_ne_bytes()[..]].concat()
    }

    #[test]
    fn a_new_leader_has_values_of_its_own() {
        let mut registrations = Registrations::default();
        registrations.set(3, 7, Pair { leader: 0xaa, follower: 0xbb });
        registrations.succeed(&[(3, 7, 0xaa, 0xdd), (3, 8, 0xcc, 0xee)]);
        let mut events = [event(0xdd), event(0xee), event(0xaa)].concat();
        registrations.translate(3, &mut events);
        assert_eq!(events, [event(0xbb), event(0xcc), event(0xaa)].concat());
    }

    #[test]
    fn only_what_differs_is_rewritten() {
        let mut registrations = Registrations::default();
        registrations.set(3, 7, Pair { leader: 0xaa, follower: 0xbb });
        registrations.set(3, 8, Pair { leader: 0xcc, follower: 0xcc });
        let mut events = [event(0xaa), event(0xcc), event(0xaa)].concat();
        registrations.translate(3, &mut events);
        assert_eq!(events, [event(0xbb), event(0xcc), event(0xbb)].concat());
        let mut other = event(0xaa);
        registrations.translate(4, &mut other);
        assert_eq!(other, event(0xaa));
        assert_eq!(registrations.differing().count(), 1);
        registrations.set(3, 7, Pair { leader: 5, follower: 5 });
        assert_eq!(registrations.differing().count(), 0);
        assert_eq!((registrations.leaders(3, 7), registrations.leaders(4, 7)), (Some(5), None));
    }
}
