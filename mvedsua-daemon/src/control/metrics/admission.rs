//! Which calls have series of their own, where there are too many.
//!
//! A call that has been told once is told on, so that no series comes and goes; others are let in while there is room, those
//! that were called most first.

use std::collections::BTreeSet;

use super::family::{Family, Kind, Value};

/// Target, role and call.
pub(super) type Key = (String, &'static str, String);

/// What was let in.
#[derive(Debug, Default)]
pub(super) struct Admission {
    admitted: BTreeSet<Key>,
    /// Calls that are not told at present.
    left_out: usize,
    /// Those that were left out at some scrape, each scrape counted.
    left_out_in_all: u64,
}

impl Admission {
    /// Returns those of the keys, which come with how often they were called, that fit into a number of series, each being
    /// worth `cost` of them.
    pub(super) fn choose(&mut self, mut keys: Vec<(Key, u64)>, room: usize, cost: usize) -> BTreeSet<Key> {
        let present: BTreeSet<&Key> = keys.iter().map(|(key, _)| key).collect();
        self.admitted.retain(|key| present.contains(key));
        let most = room / cost.max(1);
        keys.sort_by(|(a, calls_a), (b, calls_b)| {
            let is_new = |key: &Key| !self.admitted.contains(key);
            (is_new(a), calls_b, a).cmp(&(is_new(b), calls_a, b))
        });
        self.left_out = keys.len().saturating_sub(most);
        self.left_out_in_all += self.left_out as u64;
        self.admitted = keys.into_iter().take(most).map(|(key, _)| key).collect();
        self.admitted.clone()
    }

    /// Says what was left out.
    pub(super) fn families(&self) -> Vec<Family> {
        vec![
            Family::single(
                "mvedsua_calls_left_out",
                "Calls (each of a target and a role) that have no series since there are too many.",
                Kind::Gauge,
                Value::Count(self.left_out as u64),
            ),
            Family::single(
                "mvedsua_calls_left_out_scrapes",
                "The same, added up over all scrapes.",
                Kind::Counter,
                Value::Count(self.left_out_in_all),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(call: &str) -> Key {
        ("redis".to_owned(), "leader", call.to_owned())
    }

    #[test]
    fn what_was_let_in_stays_and_the_rest_is_counted() {
        let mut admission = Admission::default();
        let keys = |reads, writes, polls| vec![(key("read"), reads), (key("write"), writes), (key("poll"), polls)];
        let first = admission.choose(keys(5, 9, 1), 20, 10);
        assert_eq!(first, BTreeSet::from([key("read"), key("write")]));
        assert_eq!(admission.choose(keys(5, 9, 100), 29, 10), first, "those that were told are told on");
        assert_eq!((admission.left_out, admission.left_out_in_all), (1, 2));
        let without = vec![(key("write"), 9), (key("poll"), 100)];
        assert_eq!(
            admission.choose(without, 20, 10),
            BTreeSet::from([key("write"), key("poll")]),
            "there is room again"
        );
        assert_eq!(admission.choose(keys(5, 9, 1), 0, 10), BTreeSet::new());
        assert_eq!(admission.left_out, 3);
    }
}
