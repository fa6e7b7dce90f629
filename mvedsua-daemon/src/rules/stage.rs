//! The stage between the log and the replayer: records in, the records that the follower is expected to live through out.
//!
//! The order of the records is kept: what a rule has not decided on yet holds back everything behind it. That waits for
//! the leader alone, never for the follower, so nothing can dead-lock on it; and it is bounded, by [`WINDOW`] calls for one
//! left side and by [`HELD`] records in all, after which the rule counts as not matched. Under lockstep the leader waits
//! for the follower before an output, so there an output that has been entered decides at once.
//!
//! A record that no rule can be about costs one look at a table.

pub(super) mod carried;
mod counts;
mod follower;
mod tails;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use mvedsua_common::syscalls::{self, Arg, Fds, row_of};
use serde::Serialize;

use super::ast::Direction;
use super::calls::{self, Seen};
use super::descriptors::Descriptors;
use super::exec::{self, Expected};
use super::lines::LineStreams;
use super::matcher::{Context, Found, Search, Sets};
use super::program::{Action, RuleSet, Trigger};
use crate::record::{CallEntry, CallReturn, Event, Gap, Record, Seq, Slot};

use carried::Carried;
pub use counts::{Counts, RuleCount};
use tails::Tails;

/// How many calls one left side may take.
pub const WINDOW: usize = 256;
/// How many records may be held back in all.
pub const HELD: usize = 4096;
/// How many bytes of them.
const HELD_BYTES: usize = 64 << 20;
/// System calls are numbered below this.
const NUMBERS: usize = 512;

/// Whether the leader waits for the follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It never does.
    Free,
    /// Before each output.
    Lockstep,
}

/// One application of a rule, for `rules test`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Application {
    pub rule: String,
    pub slot: u32,
    /// The first and the last record that it took.
    pub from: u64,
    pub to: u64,
    /// The calls that it took, and those that the follower is to make instead.
    pub took: Vec<&'static str>,
    pub gave: Vec<&'static str>,
}

/// A record on its way through.
#[derive(Debug)]
struct Entry {
    record: Record,
    /// What becomes of it; `None` while that is not decided.
    out: Option<Vec<Record>>,
}

/// A call that a left side may take.
#[derive(Debug)]
struct Windowed {
    id: u64,
    /// The record of its return, where that is one of its own.
    ret_id: Option<u64>,
    seen: Seen,
}

/// What becomes of the return that an emitted output still waits for.
#[derive(Debug)]
enum Open {
    Drop,
    Adapt { given_before: Option<i64>, given_now: Option<i64>, result: Option<i64> },
}

#[derive(Debug, Default)]
struct Thread {
    /// Its first call has been seen.
    fed: bool,
    /// The rule that lets everything vanish until it matches.
    skipping: Option<usize>,
    search: Option<Search>,
    window: Vec<Windowed>,
    /// An output that must return before it can be looked at.
    waiting: Option<Windowed>,
    open: Option<Open>,
    /// The last output that was entered, where its result will be a descriptor.
    duplicating: Option<CallEntry>,
}

/// Rules at work on one stream of records.
#[derive(Debug)]
pub struct Stage {
    counts: Arc<Counts>,
    direction: Direction,
    pace: Pace,
    /// Says which calls concern nobody but their thread and are let through unless a rule names them.
    transparent: fn(u32) -> bool,
    /// Calls that some rule may begin with, and calls that are named anywhere.
    begins: Vec<bool>,
    named: Vec<bool>,
    has_begin: bool,
    threads: HashMap<Slot, Thread>,
    held: VecDeque<Entry>,
    first_id: u64,
    held_bytes: usize,
    descriptors: Descriptors,
    sets: Sets,
    streams: LineStreams,
    tails: Tails,
    carried: Carried,
    expected: HashMap<Slot, VecDeque<(Seq, Option<Expected>)>>,
    visited: Vec<bool>,
    work: u64,
    /// One more than the number of the last record that was let go.
    past: u64,
    applications: Option<Vec<Application>>,
}

impl Stage {
    /// Makes a stage for one direction; `open` is what is known of the leader's descriptors.
    #[must_use]
    pub fn new(
        counts: Arc<Counts>,
        direction: Direction,
        pace: Pace,
        transparent: fn(u32) -> bool,
        open: Descriptors,
    ) -> Stage {
        let rules = Arc::clone(&counts.rules);
        let tails = match direction {
            Direction::OutdatedLeader => Tails::of(&open),
            // What the other version had not read whole is told.
            Direction::UpdatedLeader => Tails::default(),
        };
        let mut stage = Stage {
            direction,
            pace,
            transparent,
            begins: vec![false; NUMBERS],
            named: vec![false; NUMBERS],
            has_begin: false,
            threads: HashMap::new(),
            held: VecDeque::new(),
            first_id: 0,
            held_bytes: 0,
            descriptors: open,
            sets: vec![Vec::new(); rules.sets.len()],
            streams: LineStreams::default(),
            tails,
            carried: Carried::default(),
            expected: HashMap::new(),
            visited: vec![false; rules.states.len()],
            work: 0,
            past: 0,
            applications: None,
            counts,
        };
        for (index, rule) in rules.rules.iter().enumerate() {
            let begins = matches!(rule.trigger, Trigger::Begin { .. });
            stage.has_begin |= begins && rules.applies(index, direction);
        }
        for action in &rules.states {
            if let Action::Match { call, .. } = action {
                mark(&mut stage.named, call.row.map(|row| row.nr), false);
            }
        }
        let search = Search::begin(&mut stage.context(&rules), direction, false, None);
        search.heads(&rules, |nr| mark(&mut stage.begins, nr, true));
        stage
    }

    /// Returns what the rules have done.
    #[must_use]
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Keeps a list of what was applied.
    pub fn trace(&mut self) {
        self.applications = Some(Vec::new());
    }

    /// Returns what was applied since [`Stage::trace`].
    #[must_use]
    pub fn applications(&self) -> &[Application] {
        self.applications.as_deref().unwrap_or_default()
    }

    /// Returns how many steps of the automaton were made.
    #[must_use]
    pub fn work(&self) -> u64 {
        self.work
    }

    /// Says whether records are held back: a left side has begun and is not decided.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Returns what the leader has read and the follower has not, by descriptor: lines that are not whole yet.
    pub fn kept(&self) -> impl Iterator<Item = (i32, Bytes)> {
        self.streams.kept()
    }

    /// The follower has itself read the beginning of a line from these descriptors of the leader's: what ends it is passed on
    /// as it is.
    pub fn begin_inside(&mut self, fds: impl IntoIterator<Item = i32>) {
        let fds: Vec<i32> = fds.into_iter().collect();
        self.tails.begin_inside(fds.iter().copied());
        self.streams.begin_inside(fds);
    }

    fn note(&mut self, entry: &CallEntry, ret: Option<&CallReturn>) {
        self.descriptors.note(entry, ret);
        if i64::from(entry.nr) == libc::SYS_close {
            self.streams.close(entry.args[0] as i32);
        }
    }

    /// Returns how many records are held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns one more than the number of the last record that was let go or dropped.
    #[must_use]
    pub fn past(&self) -> u64 {
        self.past
    }

    /// Ends the stage and returns what it knows of the descriptors.
    #[must_use]
    pub fn into_descriptors(self) -> Descriptors {
        self.descriptors
    }

    fn context<'a>(&'a mut self, rules: &'a RuleSet) -> Context<'a> {
        Context { rules, sets: &self.sets, work: &mut self.work, visited: &mut self.visited }
    }

    /// Takes the next record of the log; adds what the follower is to live through to `out`.
    pub fn push(&mut self, record: Record, out: &mut Vec<Record>) {
        let rules = Arc::clone(&self.counts.rules);
        let slot = record.slot;
        if self.pace == Pace::Lockstep && matches!(record.event, Event::Enter(_)) {
            // The leader waits at this output: nothing more will come to decide by.
            let busy: Vec<Slot> = self.threads.keys().copied().collect();
            busy.into_iter().for_each(|slot| self.settle(&rules, slot));
        }
        let call = match &record.event {
            Event::Call(entry, ret) => {
                self.tails.note(record.seq, entry, ret);
                self.look(slot, entry, Some(ret))
            }
            Event::Enter(entry) => self.look(slot, entry, None),
            Event::Return(ret) => {
                let ret = ret.clone();
                return self.returned(&rules, record, ret, out);
            }
            Event::Signal(_)
            | Event::ThreadStarted { .. }
            | Event::ThreadEnded
            | Event::Resumed
            | Event::Overdue
            | Event::Gap(_)
            | Event::ProcessStarted { .. }
            | Event::Executed(_)
            | Event::Succession(_)
            | Event::ProcessEnded(_) => {
                let ends = matches!(record.event, Event::ThreadEnded);
                if matches!(record.event, Event::Executed(_) | Event::ProcessEnded(_)) {
                    let all: Vec<Slot> = self.threads.keys().copied().collect();
                    all.into_iter().for_each(|slot| self.settle(&rules, slot));
                }
                self.settle(&rules, slot);
                if ends {
                    self.threads.remove(&slot);
                }
                None
            }
        };
        match call {
            None if self.held.is_empty() => {
                self.past = record.seq.0 + 1;
                out.push(record);
                return;
            }
            None => {
                self.hold(record, true);
            }
            Some(seen) => {
                let id = self.hold(record, false);
                self.feed(&rules, slot, VecDeque::from([Windowed { id, ret_id: None, seen }]));
            }
        }
        self.release(&rules, out);
    }

    /// Takes note of a record that no rule is to be applied to: what it says of descriptors holds.
    pub fn observe(&mut self, record: &Record) {
        match &record.event {
            Event::Call(entry, ret) => {
                self.look(record.slot, entry, Some(ret));
                if let Some((fd, is_inside)) = self.tails.note_own(entry, ret) {
                    self.streams.stands(fd, is_inside);
                }
            }
            Event::Enter(entry) => drop(self.look(record.slot, entry, None)),
            Event::Return(_)
            | Event::Signal(_)
            | Event::ThreadStarted { .. }
            | Event::ThreadEnded
            | Event::Resumed
            | Event::Overdue
            | Event::Gap(_)
            | Event::ProcessStarted { .. }
            | Event::Executed(_)
            | Event::Succession(_)
            | Event::ProcessEnded(_) => {}
        }
    }

    /// Says whether what a record does may come of a line that had begun before any rule saw it.
    #[must_use]
    pub fn may_end_a_line(&self, seq: Seq, nr: u32, args: &[u64; 6]) -> bool {
        self.tails.explains(seq, nr, args)
    }

    /// Takes a record in; it passes unchanged, or waits for a decision.
    fn hold(&mut self, record: Record, passes: bool) -> u64 {
        self.held_bytes += record.footprint();
        let out = passes.then(|| vec![record.clone()]);
        self.held.push_back(Entry { record, out });
        self.first_id + self.held.len() as u64 - 1
    }

    /// Lets go what is decided, in order.
    fn release(&mut self, rules: &RuleSet, out: &mut Vec<Record>) {
        loop {
            while let Some(Entry { out: Some(_), .. }) = self.held.front() {
                let Some(entry) = self.held.pop_front() else { break };
                self.first_id += 1;
                self.held_bytes -= entry.record.footprint();
                self.past = entry.record.seq.0 + 1;
                out.extend(entry.out.unwrap_or_default());
            }
            let too_much = self.held.len() > HELD || self.held_bytes > HELD_BYTES;
            match self.held.front() {
                Some(entry) if too_much => {
                    let slot = entry.record.slot;
                    self.settle(rules, slot);
                }
                _ => return,
            }
        }
    }

    fn decided(&mut self, id: u64, out: Vec<Record>) {
        if let Some(entry) = id.checked_sub(self.first_id).and_then(|at| self.held.get_mut(at as usize)) {
            entry.out = Some(out);
        }
    }

    fn passes(&mut self, id: u64) {
        let record = id.checked_sub(self.first_id).and_then(|at| self.held.get(at as usize)).map(|e| e.record.clone());
        self.decided(id, record.into_iter().collect());
    }

    /// Looks at a call: returns it as rules see it if one of them may be about it.
    fn look(&mut self, slot: Slot, entry: &CallEntry, ret: Option<&CallReturn>) -> Option<Seen> {
        let nr = entry.nr as usize;
        let named = self.named.get(nr).copied().unwrap_or(false);
        let passes = (self.transparent)(entry.nr) && !named;
        let begins = self.begins.get(nr).copied().unwrap_or(false);
        let searching = match self.threads.get(&slot) {
            Some(thread) => thread.search.is_some() || thread.skipping.is_some(),
            None => false,
        };
        let first = self.has_begin && !self.threads.get(&slot).is_some_and(|thread| thread.fed);
        let wanted = !passes && (begins || searching || first);
        let seen = wanted.then(|| {
            let mut descriptors = [const { None }; 6];
            let params = syscalls::row(entry.nr).map(|row| row.args).unwrap_or_default();
            for (index, _) in params.iter().enumerate().filter(|(_, arg)| matches!(arg, Arg::Fd)) {
                descriptors[index] = self.descriptors.get(entry.args[index] as i32).cloned();
            }
            Seen { entry: entry.clone(), ret: ret.cloned(), descriptors }
        });
        self.note(entry, ret);
        let duplicates =
            row_of(entry.nr, &entry.args).is_some_and(|row| matches!(row.fds, Fds::Duplicates | Fds::DuplicatesOnto));
        if ret.is_none() && duplicates {
            self.threads.entry(slot).or_default().duplicating = Some(entry.clone());
        }
        seen
    }

    /// An output that was recorded in two parts has returned.
    fn returned(&mut self, rules: &RuleSet, record: Record, ret: CallReturn, out: &mut Vec<Record>) {
        let slot = record.slot;
        let thread = self.threads.entry(slot).or_default();
        if let Some(entry) = thread.duplicating.take() {
            self.descriptors.note(&entry, Some(&ret));
        }
        if let Some(mut waiting) = thread.waiting.take() {
            let id = self.hold(record, false);
            waiting.seen.ret = Some(ret);
            waiting.ret_id = Some(id);
            self.feed(rules, slot, VecDeque::from([waiting]));
        } else if let Some(last) = thread.window.last_mut().filter(|last| last.seen.ret.is_none()) {
            last.seen.ret = Some(ret);
            let id = self.hold(record, false);
            if let Some(last) = self.threads.get_mut(&slot).and_then(|thread| thread.window.last_mut()) {
                last.ret_id = Some(id);
            }
        } else {
            let adapted = match thread.open.take() {
                None => vec![record.clone()],
                Some(Open::Drop) => Vec::new(),
                Some(Open::Adapt { given_before, given_now, result }) => {
                    let ret = CallReturn { ret: exec::adapt(ret.ret, given_before, given_now, result), ..ret };
                    vec![Record { event: Event::Return(ret), ..record.clone() }]
                }
            };
            let id = self.hold(record, false);
            self.decided(id, adapted);
        }
        self.release(rules, out);
    }

    /// Runs calls of a thread through the automaton.
    fn feed(&mut self, rules: &RuleSet, slot: Slot, mut queue: VecDeque<Windowed>) {
        let mut thread = self.threads.remove(&slot).unwrap_or_default();
        if !thread.fed && self.has_begin {
            thread.skipping = self.skipping_rule(rules);
        }
        while let Some(call) = queue.pop_front() {
            let first = !thread.fed;
            let (direction, only) = (self.direction, thread.skipping);
            let mut context = self.context(rules);
            let search = thread.search.get_or_insert_with(|| Search::begin(&mut context, direction, first, only));
            if call.seen.ret.is_none() && self.pace == Pace::Free && search.needs_return(rules, &call.seen) {
                thread.waiting = Some(call);
                break;
            }
            thread.fed = true;
            search.step(&mut self.context(rules), &call.seen);
            let last = call.seen.ret.is_none() && self.pace == Pace::Lockstep;
            thread.window.push(call);
            if !search.is_open() || thread.window.len() >= WINDOW || last {
                self.decide(rules, slot, &mut thread, &mut queue);
            }
        }
        self.threads.insert(slot, thread);
    }

    fn skipping_rule(&self, rules: &RuleSet) -> Option<usize> {
        (0..rules.rules.len()).find(|index| {
            rules.applies(*index, self.direction)
                && matches!(rules.rules[*index].trigger, Trigger::Begin { start }
                    if matches!(rules.states[start], Action::Skip { .. }))
        })
    }

    /// Decides for the beginning of the window; the rest of it goes back to the front of the queue.
    fn decide(&mut self, rules: &RuleSet, slot: Slot, thread: &mut Thread, queue: &mut VecDeque<Windowed>) {
        let mut calls = std::mem::take(&mut thread.window);
        let found = thread.search.take().and_then(|search| search.found);
        let taken = found.as_ref().map_or(1, |found| found.calls).min(calls.len());
        for call in calls.split_off(taken).into_iter().rev() {
            queue.push_front(call);
        }
        match (found, thread.skipping) {
            (Some(found), _) => {
                thread.skipping = None;
                self.apply(rules, slot, thread, &found, &calls);
            }
            (None, Some(rule)) => {
                for call in &calls {
                    self.vanish(call);
                    self.counts.skipped(rule);
                    if call.seen.ret.is_none() {
                        thread.open = Some(Open::Drop);
                    }
                }
            }
            (None, None) => {
                for call in &calls {
                    self.passes(call.id);
                    call.ret_id.into_iter().for_each(|id| self.passes(id));
                }
            }
        }
    }

    fn vanish(&mut self, call: &Windowed) {
        self.decided(call.id, Vec::new());
        call.ret_id.into_iter().for_each(|id| self.decided(id, Vec::new()));
    }

    /// Puts what a rule makes of the calls into their places.
    fn apply(&mut self, rules: &RuleSet, slot: Slot, thread: &mut Thread, found: &Found, calls: &[Windowed]) {
        let seen: Vec<Seen> = calls.iter().map(|call| call.seen.clone()).collect();
        let done = exec::perform(rules, found, &seen, &self.sets, &mut self.streams);
        self.counts.add(found.rule, &done);
        let seq_of = |stage: &Stage, id: u64| {
            id.checked_sub(stage.first_id).and_then(|at| stage.held.get(at as usize)).map_or(Seq(0), |e| e.record.seq)
        };
        if let Some(applications) = &self.applications {
            let name = |nr| syscalls::name(nr).unwrap_or("unknown");
            let (from, to) = (seq_of(self, calls[0].id), seq_of(self, calls[calls.len() - 1].id));
            let application = Application {
                rule: rules.rules[found.rule].name.clone(),
                slot: slot.0,
                from: from.0,
                to: to.0,
                took: seen.iter().map(|call| name(call.entry.nr)).collect(),
                gave: done.calls.iter().map(|call| name(call.entry.nr)).collect(),
            };
            if applications.len() < HELD {
                self.applications.get_or_insert_default().push(application);
            }
        }
        let rule = &rules.rules[found.rule];
        for (variable, set) in &rule.remember {
            let value = found.thread.bindings.int(*variable).filter(|value| !self.sets[*set].contains(value));
            self.sets[*set].extend(value);
        }
        for (variable, set) in &rule.forget {
            let value = found.thread.bindings.int(*variable);
            self.sets[*set].retain(|known| Some(*known) != value);
        }
        let is_open = seen.last().is_some_and(|call| call.ret.is_none());
        if is_open {
            thread.open = Some(Open::Drop);
        }
        let mut outs: Vec<Vec<Record>> = calls.iter().map(|_| Vec::new()).collect();
        if let Some(reason) = done.failed {
            let seq = seq_of(self, calls[0].id);
            outs[0].push(Record { seq, slot, event: Event::Gap(Gap { reason }) });
        }
        let special = done.calls.iter().any(|call| call.expected.is_some());
        for call in done.calls {
            let seq = seq_of(self, calls[call.place].id);
            if special {
                self.expected.entry(slot).or_default().push_back((seq, call.expected.clone()));
            }
            let row = syscalls::row(call.entry.nr);
            let event = match call.ret {
                Some(ret) => Event::Call(call.entry, ret),
                None => {
                    let given = |entry: &CallEntry| row.and_then(|row| calls::given(row, entry));
                    thread.open = Some(Open::Adapt {
                        given_before: call.base.and_then(|base| given(&seen[base].entry)),
                        given_now: given(&call.entry),
                        result: call.expected.as_ref().and_then(|expected| expected.result),
                    });
                    Event::Enter(call.entry)
                }
            };
            outs[call.place].push(Record { seq, slot, event });
        }
        for (call, out) in calls.iter().zip(outs) {
            self.vanish(call);
            self.decided(call.id, out);
        }
    }

    /// Decides everything that a thread holds back with what is there.
    fn settle(&mut self, rules: &RuleSet, slot: Slot) {
        loop {
            let Some(mut thread) = self.threads.remove(&slot) else { return };
            if let Some(call) = thread.waiting.take() {
                // It is looked at as it is: patterns that ask for its result do not match.
                let only = thread.skipping;
                let (direction, first) = (self.direction, !thread.fed);
                let mut context = self.context(rules);
                let search = thread.search.get_or_insert_with(|| Search::begin(&mut context, direction, first, only));
                search.step(&mut self.context(rules), &call.seen);
                thread.fed = true;
                thread.window.push(call);
            }
            if thread.window.is_empty() {
                thread.search = None;
                self.threads.insert(slot, thread);
                return;
            }
            let mut queue = VecDeque::new();
            self.decide(rules, slot, &mut thread, &mut queue);
            self.threads.insert(slot, thread);
            self.feed(rules, slot, queue);
        }
    }

    /// Decides everything that is held back with what is there, and lets it go.
    pub fn flush(&mut self, out: &mut Vec<Record>) {
        let rules = Arc::clone(&self.counts.rules);
        let busy: Vec<Slot> = self.threads.keys().copied().collect();
        busy.into_iter().for_each(|slot| self.settle(&rules, slot));
        self.release(&rules, out);
    }
}

fn mark(set: &mut [bool], nr: Option<u32>, any: bool) {
    match nr {
        Some(nr) => {
            if let Some(place) = set.get_mut(nr as usize) {
                *place = true;
            }
        }
        None if any => set.fill(true),
        None => {}
    }
}
