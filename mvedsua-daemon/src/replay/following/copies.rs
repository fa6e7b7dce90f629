//! Where the follower has its copies of the files that the leader has mapped.

use super::*;
use crate::record::IN_MAPPING;

/// Copies by the address of the mapping in the leader.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copies(BTreeMap<u64, Copy>);

#[derive(Clone, Copy, Debug)]
struct Copy {
    place: u64,
    len: u64,
}

impl Copies {
    /// Takes note of a copy, in place of others that were there in the leader.
    pub(super) fn insert(&mut self, leader: u64, place: u64, len: u64) {
        self.0.retain(|other, copy| *other + copy.len <= leader || leader + len <= *other);
        self.0.insert(leader, Copy { place, len });
    }

    /// Forgets all: another program runs now.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns where that is which stands at an address of the leader; nothing for what is no copy, or is not any more.
    fn place(&self, addr: u64, len: u64) -> Option<u64> {
        let (leader, copy) = self.0.range(..=addr).next_back()?;
        let offset = addr - leader;
        (offset + len <= copy.len).then_some(copy.place + offset)
    }

    /// Brings what a call of the leader has changed in its mappings into the copies.
    pub(super) fn change(&self, memory: &Memory, ret: &CallReturn) -> Result<()> {
        for piece in ret.outputs.iter().filter(|piece| piece.arg == IN_MAPPING) {
            if let Some(place) = self.place(piece.addr.0, piece.bytes.len() as u64) {
                memory.force(place, &piece.bytes)?;
            }
        }
        Ok(())
    }
}

impl Following {
    /// Returns where the follower has what stands at an address of a file that the leader has mapped.
    pub(crate) fn place_of_copy(&self, addr: u64, len: u64) -> Option<u64> {
        self.known.copies.place(addr, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_copy_takes_the_place_of_those_before() {
        let mut copies = Copies::default();
        copies.insert(0x1000, 0x5000, 0x2000);
        copies.insert(0x8000, 0x9000, 0x1000);
        assert_eq!(copies.place(0x1800, 0x100), Some(0x5800));
        assert_eq!((copies.place(0x2f00, 0x200), copies.place(0x800, 1), copies.place(0x7000, 1)), (None, None, None));
        copies.insert(0x2000, 0xa000, 0x1000);
        assert_eq!((copies.place(0x1800, 1), copies.place(0x2800, 1)), (None, Some(0xa800)));
        assert_eq!(copies.place(0x8010, 16), Some(0x9010));
    }
}
