//! Equal divergences, counted once.

use crate::compare::{Divergence, DivergenceKind};

/// Divergences that parted at the same place in the same way.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// The first of them.
    pub example: &'a Divergence,
    pub count: usize,
}

/// Groups divergences that are equal in what parted and where; the order is that of their first appearance.
///
/// Addresses, counters and payload bytes may differ: a second attempt meets the same fault with other data.
#[must_use]
pub fn group<'a>(divergences: impl IntoIterator<Item = &'a Divergence>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for divergence in divergences {
        match groups.iter_mut().find(|group| is_alike(group.example, divergence)) {
            Some(group) => group.count += 1,
            None => groups.push(Group { example: divergence, count: 1 }),
        }
    }
    groups
}

fn is_alike(a: &Divergence, b: &Divergence) -> bool {
    let calls = |d: &Divergence| (d.expected.as_ref().map(|call| call.nr), d.actual.as_ref().map(|call| call.nr));
    let frames = |d: &Divergence| d.backtrace.iter().filter_map(|frame| frame.symbol.clone()).collect::<Vec<_>>();
    is_alike_kind(&a.kind, &b.kind) && a.slot == b.slot && calls(a) == calls(b) && frames(a) == frames(b)
}

fn is_alike_kind(a: &DivergenceKind, b: &DivergenceKind) -> bool {
    use DivergenceKind as K;
    match (a, b) {
        (K::Argument { arg: a, .. }, K::Argument { arg: b, .. }) => a == b,
        (K::Payload { arg: a, .. }, K::Payload { arg: b, .. }) => a == b,
        (K::Crash { signo: a, .. }, K::Crash { signo: b, .. }) => a == b,
        (K::Refused { call: a, .. }, K::Refused { call: b, .. }) => a == b,
        (K::Call, K::Call)
        | (K::End, K::End)
        | (K::Order { .. }, K::Order { .. })
        | (K::Hang { .. }, K::Hang { .. })
        | (K::Silent { .. }, K::Silent { .. }) => true,
        (K::Gone { .. } | K::Gap { .. }, _) => a == b,
        (
            K::Call
            | K::Argument { .. }
            | K::Payload { .. }
            | K::End
            | K::Order { .. }
            | K::Crash { .. }
            | K::Hang { .. }
            | K::Silent { .. }
            | K::Refused { .. },
            _,
        ) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::payload_divergence;
    use super::*;

    #[test]
    fn the_same_fault_with_other_data_is_one_group() {
        let a = payload_divergence();
        let mut b = payload_divergence();
        b.kind = DivergenceKind::Payload { arg: 1, offset: 9, expected_len: 100, actual_len: 90 };
        let mut c = payload_divergence();
        c.kind = DivergenceKind::Crash { signo: 11, address: 0 };
        let groups = group([&a, &b, &c]);
        assert_eq!(groups.iter().map(|group| group.count).collect::<Vec<_>>(), [2, 1]);
    }
}
