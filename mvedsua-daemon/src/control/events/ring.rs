//! The last events, in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Event;

/// How many events are kept.
pub(super) const KEEP: usize = 4096;

/// The last events, with numbers that count up by one.
#[derive(Debug, Default)]
pub(super) struct Ring {
    events: VecDeque<Arc<Event>>,
    newest: u64,
}

/// What came after a number.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The numbers that are not kept any more: those after the first and before the second. Where the second is not greater, the
    /// numbers have begun anew with it.
    pub(crate) missed: Option<(u64, u64)>,
    pub(crate) events: Vec<Arc<Event>>,
}

impl Ring {
    /// Takes what an earlier daemon has kept, in any order.
    pub(super) fn of(mut kept: Vec<Event>) -> Ring {
        kept.sort_by_key(|event| event.seq);
        kept.dedup_by_key(|event| event.seq);
        let mut ring = Ring::default();
        for event in kept {
            ring.add(Arc::new(event));
        }
        ring
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn add(&mut self, event: Arc<Event>) {
        self.newest = event.seq;
        self.events.push_back(event);
        if self.events.len() > KEEP {
            self.events.pop_front();
        }
    }

    pub(super) fn after(&self, seq: u64, most: usize) -> Batch {
        let (from, begun_anew) = if seq > self.newest { (0, true) } else { (seq, false) };
        let at = self.events.partition_point(|event| event.seq <= from);
        let events: Vec<_> = self.events.range(at..).take(most).cloned().collect();
        let missed = events.first().map(|first| first.seq).filter(|first| begun_anew || *first > from + 1);
        // The file may lack what a full disk did not take: a number that is left out is missed, wherever it is.
        let gap = events.windows(2).position(|pair| pair[1].seq != pair[0].seq + 1);
        let events = match gap {
            Some(at) => events[..=at].to_vec(),
            None => events,
        };
        Batch { missed: missed.map(|first| (seq, first)), events }
    }
}

#[cfg(test)]
mod tests {
    use super::super::What;
    use super::*;

    fn event(seq: u64) -> Event {
        Event { seq, at_ms: 0, update: None, pid: None, target: None, owner: None, what: What::DaemonEnds {} }
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        batch.events.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn what_is_not_kept_any_more_is_told() {
        let mut ring = Ring::default();
        let keep = KEEP as u64;
        for seq in 1..=keep + 3 {
            ring.add(Arc::new(event(seq)));
        }
        let batch = ring.after(1, 2);
        assert_eq!((batch.missed, numbers(&batch)), (Some((1, 4)), vec![4, 5]));
        let batch = ring.after(3, 1);
        assert_eq!((batch.missed, numbers(&batch)), (None, vec![4]));
        let batch = ring.after(keep + 3, 9);
        assert_eq!((batch.missed, numbers(&batch)), (None, vec![]));
        let batch = ring.after(keep + 9, 1);
        assert_eq!(batch.missed, Some((keep + 9, 4)), "the numbers have begun anew");
    }

    #[test]
    fn a_number_that_the_file_lacked_is_missed() {
        let ring = Ring::of(vec![event(7), event(2), event(3), event(3)]);
        let batch = ring.after(1, 9);
        assert_eq!((batch.missed, numbers(&batch)), (None, vec![2, 3]));
        let batch = ring.after(3, 9);
        assert_eq!((batch.missed, numbers(&batch)), (Some((3, 7)), vec![7]));
    }
}
