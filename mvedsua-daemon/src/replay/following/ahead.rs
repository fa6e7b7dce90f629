//! Answering a thread before it asks, see [`crate::ptrace::agent`] and [`crate::ptrace::sites`].
//!
//! When a thread is let go, its next records are put where it finds them without a stop: those that only tell the time into its
//! ring, and calls among its answers ([`prepare`]) as long as all that comes before them in the order of the threads is its own.
//! It uses them in their order, as long as it asks what the leader asked. What it has used is counted at its next stop, and
//! meanwhile whenever somebody looks; what it has not used is still due and treated like every record.

use super::*;
use crate::ptrace::ring::{ANSWERS, Answer};
use crate::ptrace::sites::{Answers, Prepared, Progress};

/// What a thread was given ahead, and has not been seen to use.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    next: VecDeque<Told>,
    /// How many of the questions for the time were counted.
    times: u64,
    /// How many it was given in all.
    given: usize,
}

/// How many records a thread is told ahead: more where it uses them all, fewer where it does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach(usize);

impl Default for Reach {
    fn default() -> Self {
        Reach(Self::LEAST * 4)
    }
}

impl Reach {
    const LEAST: usize = 8;
    /// What is told is counted when the thread stops, and the leader is held back by what is not counted.
    const MOST: usize = 512;

    /// A thread has used so many of those that it was given.
    fn note(&mut self, used: usize, given: usize) {
        self.0 = match given {
            0 => return,
            given if used == given => self.0 * 2,
            given if used < given / 2 => used * 2,
            _ => return,
        }
        .clamp(Self::LEAST, Self::MOST);
    }
}

/// One record that was told ahead.
#[derive(Clone, Copy, Debug)]
enum Told {
    Time,
    /// A call, and what it proves.
    Call(Evidence),
}

/// What one thread is to be told.
#[derive(Debug, Default)]
struct Telling {
    times: Vec<Answer>,
    /// Calls, each with how many questions for the time come before it.
    calls: Vec<(Prepared, u64)>,
    told: VecDeque<Told>,
    bytes: u64,
}

impl Telling {
    /// Returns how many questions for the time come before the call with this index.
    fn times_before(&self, index: usize) -> u64 {
        self.calls.get(index).map_or(self.times.len() as u64, |(_, times)| *times)
    }

    fn add_time(&mut self, answer: Answer) -> bool {
        let fits = (self.times.len() as u64) < ANSWERS;
        if fits {
            self.times.push(answer);
            self.told.push_back(Told::Time);
        }
        fits
    }

    fn add_call(&mut self, (prepared, evidence): (Prepared, Evidence)) -> bool {
        self.bytes += Answers::size(&prepared);
        let fits = self.bytes <= Answers::ROOM;
        if fits {
            self.calls.push((prepared, self.times.len() as u64));
            self.told.push_back(Told::Call(evidence));
        }
        fits
    }
}

impl Following {
    /// Puts what a thread is about to ask where it finds it.
    pub(super) fn tell_ahead(&mut self, process: &Process, tid: Tid) {
        let Some(slot) = process.slot(tid) else { return };
        let answers_calls = self.has_answers(process, tid);
        if answers_calls {
            while self.fetch() {}
        }
        let Some(ring) = process.ring(tid) else { return };
        // The record that is being answered is still the thread's first where it was not taken off.
        while self.due.first_of(slot).is_none() && self.fetch() {}
        let mut telling = Telling::default();
        if answers_calls {
            let reach = self.threads.get(&tid).map_or(Reach::LEAST, |thread| thread.reach.0);
            for record in self.due.in_a_row(slot).take(reach) {
                let more = match answer(record) {
                    Some(time) => telling.add_time(time),
                    None => self.prepare(record).is_some_and(|prepared| telling.add_call(prepared)),
                };
                if !more {
                    break;
                }
            }
        } else {
            for time in self.due.of(slot).map_while(answer).take(GIVEN) {
                telling.add_time(time);
            }
        }
        ring.put(telling.times.iter().copied());
        ring.show(telling.times_before(0));
        if let Some((answers, mapped)) = self.agent.answers(tid) {
            for (index, (prepared, before)) in telling.calls.iter().enumerate() {
                answers.add(mapped, prepared, (*before, telling.times_before(index + 1)));
            }
            answers.publish(mapped);
        }
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.ahead = Ahead { given: telling.told.len(), next: telling.told, times: 0 };
        }
    }

    /// Counts what a stopped thread has used, and takes the rest back.
    pub(super) fn count_told(&mut self, process: &Process, tid: Tid) {
        self.count_used(process, tid);
        let was_told = self.threads.get_mut(&tid).is_some_and(|thread| {
            let ahead = std::mem::take(&mut thread.ahead);
            thread.reach.note(ahead.given - ahead.next.len(), ahead.given);
            ahead.given > 0
        });
        if let Some(ring) = process.ring(tid).filter(|_| was_told) {
            ring.put(std::iter::empty());
        }
        if let Some((answers, mapped)) = self.agent.answers(tid) {
            answers.clear(mapped);
        }
    }

    /// Counts what the threads have used that run.
    pub(super) fn count_running(&mut self, process: &Process) {
        let told: Vec<Tid> =
            self.threads.iter().filter(|(_, thread)| !thread.ahead.next.is_empty()).map(|(tid, _)| *tid).collect();
        told.into_iter().for_each(|tid| self.count_used(process, tid));
    }

    /// Counts what a thread has used.
    fn count_used(&mut self, process: &Process, tid: Tid) {
        let Some(thread) = self.threads.get_mut(&tid).filter(|thread| !thread.ahead.next.is_empty()) else { return };
        let slot = thread.slot;
        // Calls first: whatever was asked before a call that is seen was asked by now.
        let given = match self.agent.answers(tid).map(|(answers, mapped)| answers.progress(mapped)) {
            Some(Progress::Given(given)) => given,
            Some(Progress::Damaged) => return self.found_damaged(process, slot),
            None => 0,
        };
        let used = process.ring(tid).map_or(0, |ring| ring.used());
        let mut calls = given;
        while let Some(thread) = self.threads.get_mut(&tid) {
            let Ahead { next, times, .. } = &mut thread.ahead;
            let told = match next.front().copied() {
                // Whoever claims to have used more than there was gets no more.
                Some(Told::Time) if *times < used => {
                    *times += 1;
                    Told::Time
                }
                Some(Told::Call(evidence)) if calls > 0 => {
                    calls -= 1;
                    thread.fault = None;
                    thread.seat.woken = 0;
                    Told::Call(evidence)
                }
                Some(Told::Time | Told::Call(_)) | None => break,
            };
            next.pop_front();
            if let Some(record) = self.due.pop(slot) {
                self.take_note(&record, told);
                self.passed();
            }
        }
        if calls > 0 {
            self.found_damaged(process, slot);
        }
    }

    /// Takes note of a record that the follower has lived through without a stop.
    fn take_note(&mut self, record: &Record, told: Told) {
        let Event::Call(entry, ret) = &record.event else { return };
        let evidence = match told {
            Told::Time => return self.known.times.note(entry, ret),
            Told::Call(evidence) => evidence,
        };
        self.count(evidence);
        self.agent_answered += 1;
        self.note_agreement(record, entry, ret.ret);
        self.known.own_files.note(entry.nr, &entry.args, &entry.inputs, ret.ret);
        self.waiting.lived_until = self.waiting.lived_until.max(ret.at.0);
    }

    /// What the agent has written is not what it could have written.
    fn found_damaged(&mut self, process: &Process, slot: Slot) {
        let reason = "the new version wrote over the memory by which its calls are answered".to_owned();
        let divergence = self.describe(slot, DivergenceKind::Gap { reason }, None, None);
        self.diverge(process, divergence);
    }
}

/// Answers to questions for the time that a thread is given where its calls stop.
const GIVEN: usize = 64;

/// Returns what a record tells of the time, if that is all it does.
fn answer(record: &Record) -> Option<Answer> {
    let Event::Call(entry, ret) = &record.event else { return None };
    let [told] = &ret.outputs[..] else { return None };
    Answer::to(entry.nr, &entry.args, ret.ret, told.bytes[..].try_into().ok()?)
}
