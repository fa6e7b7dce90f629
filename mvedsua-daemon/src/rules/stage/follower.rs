//! What the follower asks of the stage: what its rules leave open, and whether a call of its own is allowed.

use std::collections::VecDeque;
use std::sync::Arc;

use mvedsua_common::syscalls;

use super::super::ast::Kind;
use super::super::exec::{self, Asked};
use super::super::matcher::Found;
use super::super::program::{Action, Part, Trigger};
use super::Stage;
use crate::compare::{self, Actual, Input};
use crate::record::{CallEntry, CallReturn, Event, Piece, Record, Seq, Slot};

impl Stage {
    /// Returns a record's call with what its rule leaves open filled in from the follower's own call; `None` for a call
    /// that is simply compared.
    ///
    /// # Errors
    ///
    /// What the rule gives does not fit into the room that the follower has.
    pub fn expected(
        &mut self,
        record: &Record,
        args: &[u64; 6],
        inputs: &[Piece],
    ) -> Result<Option<(CallEntry, Option<CallReturn>)>, String> {
        self.carried.begin();
        let Some((seq, Some(expected))) = self.expected.get(&record.slot).and_then(VecDeque::front) else {
            return Ok(None);
        };
        let (entry, ret) = match &record.event {
            Event::Call(entry, ret) => (entry, Some(ret)),
            Event::Enter(entry) => (entry, None),
            _ => return Ok(None),
        };
        let Some(row) = syscalls::row(entry.nr).filter(|_| *seq == record.seq) else { return Ok(None) };
        let is = |fd: u64, kind: &Kind| self.descriptors.get(fd as i32).is_some_and(|what| what.is(kind));
        let asked = Asked { row, args, inputs, is: &is };
        let (entry, mut ret) = expected.fill(entry, ret, &asked);
        if let Some(ret) = &mut ret
            && let Some((bytes, room)) = expected.overflow(ret, &asked)
            && !(expected.cut && self.carried.cut(entry.args[0] as i32, room, ret))
        {
            let rule = &self.counts.rules.rules[expected.rule].name;
            return Err(format!(
                "rule `{rule}`: {bytes} bytes do not fit into the {room} that the follower has room for"
            ));
        }
        Ok(Some((entry, ret)))
    }

    /// Says whether a rule leaves something of a record's call to the follower.
    #[must_use]
    pub fn leaves_open(&self, record: &Record) -> bool {
        let Some(queue) = self.expected.get(&record.slot) else { return false };
        let from = queue.partition_point(|(seq, _)| *seq < record.seq);
        queue.range(from..).take_while(|(seq, _)| *seq == record.seq).any(|(_, open)| open.is_some())
    }

    /// The follower has made the call of this record.
    pub fn answered(&mut self, record: &Record) {
        if !matches!(record.event, Event::Call(..) | Event::Enter(_)) {
            return;
        }
        self.carried.answered(record);
        if let Some(queue) = self.expected.get_mut(&record.slot) {
            if queue.front().is_some_and(|(seq, _)| *seq == record.seq) {
                queue.pop_front();
            }
            if queue.is_empty() {
                self.expected.remove(&record.slot);
            }
        }
    }

    /// Returns records to answer before anything else in this slot, when a `nothing => …` rule allows the follower a call
    /// that the leader did not make; they take the number `seq`.
    pub fn extra(&mut self, slot: Slot, nr: u32, args: &[u64; 6], inputs: &[Piece], seq: Seq) -> Vec<Record> {
        let rules = Arc::clone(&self.counts.rules);
        for (index, rule) in rules.rules.iter().enumerate() {
            let Some(Part::Call(first)) = rule.right.first() else { continue };
            if rule.trigger != Trigger::Replayed || first.row.nr != nr || !rules.applies(index, self.direction) {
                continue;
            }
            let thread = super::super::matcher::Thread::empty(rule.variables.len());
            let found = Found { rule: index, calls: 0, thread };
            let done = exec::perform(&rules, &found, &[], &self.sets, &mut self.streams);
            let [head, ..] = done.calls.as_slice() else { continue };
            let Some(expected) = &head.expected else { continue };
            let is = |fd: u64, kind: &Kind| self.descriptors.get(fd as i32).is_some_and(|what| what.is(kind));
            let asked = Asked { row: first.row, args, inputs, is: &is };
            let (entry, _) = expected.fill(&head.entry, head.ret.as_ref(), &asked);
            let views: Vec<Input<'_>> =
                inputs.iter().map(|piece| Input { arg: piece.arg, part: piece.part, bytes: &piece.bytes }).collect();
            if compare::entry(first.row, &entry, &Actual { nr, args: *args, inputs: &views }).is_err() {
                continue;
            }
            self.counts.add(index, &done);
            let queue = self.expected.entry(slot).or_default();
            let mut records = Vec::new();
            for (at, call) in done.calls.into_iter().enumerate() {
                queue.insert(at, (seq, call.expected));
                let ret = call.ret.unwrap_or(CallReturn { ret: 0, outputs: Vec::new(), at: Default::default() });
                records.push(Record { seq, slot, event: Event::Call(call.entry, ret) });
            }
            return records;
        }
        Vec::new()
    }

    /// Returns the rule that came nearest to explaining a call of the leader's, for a report.
    #[must_use]
    pub fn nearest(&self, entry: &CallEntry) -> Option<String> {
        let rules = &self.counts.rules;
        let score = |state: &Action| match state {
            Action::Match { call, .. } if call.row.is_some_and(|row| row.nr == entry.nr) => {
                Some(super::super::matcher::fitting(call, entry, &self.sets))
            }
            _ => None,
        };
        let of_rule = |(index, rule): (usize, &super::super::program::Rule)| {
            let (Trigger::Recorded { start } | Trigger::Begin { start }) = rule.trigger else { return None };
            if !rules.applies(index, self.direction) {
                return None;
            }
            // The states of a rule end at its start and begin after the one before it.
            let from = rules.rules[..index].iter().rev().find_map(|before| match before.trigger {
                Trigger::Recorded { start } | Trigger::Begin { start } => Some(start + 1),
                Trigger::Replayed => None,
            });
            let best = rules.states[from.unwrap_or(0)..=start].iter().filter_map(score).max()?;
            Some((best, std::cmp::Reverse(index), rule.name.clone()))
        };
        rules.rules.iter().enumerate().filter_map(of_rule).max().map(|(_, _, name)| name)
    }
}
