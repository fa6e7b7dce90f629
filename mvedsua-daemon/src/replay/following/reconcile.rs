//! Rules between the log and the records that are due, see [`crate::rules`]. Without rules all of this is one test for `None`.

use std::fs::File;
use std::io::BufWriter;
use std::sync::Mutex;

use bytes::Bytes;

use super::*;
use crate::record::Seq;
use crate::rules::recording::{Frame, Writer};
use crate::rules::{Counts, Descriptors, Direction, Pace, Stage};

/// A recording that the followers of one update write to, one after the other.
pub(crate) type Recording = Arc<Mutex<Writer<BufWriter<File>>>>;

/// What a follower is to be reconciled by.
#[derive(Debug, Default)]
pub(crate) struct Reconcile {
    pub(crate) rules: Option<(Arc<Counts>, Descriptors)>,
    pub(crate) recording: Option<Recording>,
    pub(crate) direction: Option<Direction>,
    /// The leader's descriptors from which the follower has itself read the beginning of a line.
    pub(crate) inside: Vec<i32>,
}

/// Rules at work.
#[derive(Debug)]
pub(super) struct Rules {
    stage: Stage,
    /// How many records were taken from the log.
    fetched: u64,
    /// Reused for every record.
    out: Vec<Record>,
    /// Calls of the follower's own that are answered before the record that is put back.
    extra: Vec<Record>,
    /// What is left of that record, of which the follower does the beginning before.
    left: Option<Record>,
}

/// What a rule makes of a record once the follower's call is known: the call, and how it returns.
pub(super) type Filled = Option<(CallEntry, Option<CallReturn>)>;

impl Reconcile {
    /// Starts the stage, where there are rules.
    pub(super) fn begin(&mut self, pace: Pace) -> Option<Box<Rules>> {
        let direction = self.direction.unwrap_or(Direction::OutdatedLeader);
        if let Some(recording) = &self.recording {
            put(recording, &Frame::Direction(direction));
        }
        let (counts, open) = self.rules.take()?;
        let mut stage = Stage::new(counts, direction, pace, calls::is_internal, open);
        stage.begin_inside(std::mem::take(&mut self.inside));
        Some(Box::new(Rules { stage, fetched: 0, out: Vec::new(), extra: Vec::new(), left: None }))
    }
}

fn put(recording: &Recording, frame: &Frame) {
    // A writer that panicked wrote whole frames or none.
    recording.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(frame);
}

impl Following {
    /// Takes in a record of the log: what the follower is to live through instead becomes due.
    pub(super) fn admit(&mut self, record: Record) {
        if let Some(recording) = &self.settings.reconcile.recording {
            put(recording, &Frame::Record(record.clone()));
        }
        self.known.objects.note(&record, self.due.agreed());
        self.take_in(record);
    }

    fn take_in(&mut self, record: Record) {
        let Some(rules) = &mut self.rules else { return self.due.push(record) };
        rules.fetched += 1;
        // A follower that has not applied its new version yet is the old one: it lives through what the leader did.
        if self.applying.is_some() {
            return self.due.push(record);
        }
        rules.stage.push(record, &mut rules.out);
        rules.out.drain(..).for_each(|record| self.due.push(record));
        self.due.skip_to(rules.stage.past());
        self.count_replayed();
    }

    /// The new version is there: rules hold for what is still due, and for all that comes.
    pub(super) fn begin_rules(&mut self) {
        let Some(rules) = &mut self.rules else { return };
        let due = self.due.take_all();
        rules.fetched = rules.fetched.saturating_sub(due.len() as u64);
        due.into_iter().for_each(|record| self.take_in(record));
    }

    /// Says how many records of the log are behind the follower, whether it lived through them or rules took them away.
    pub(super) fn behind(&self) -> u64 {
        match &self.rules {
            None => self.turns.applied(),
            Some(rules) => rules.fetched.saturating_sub((self.due.len() + rules.stage.held()) as u64),
        }
    }

    pub(super) fn count_replayed(&self) {
        self.settings.tally.replayed.store(self.behind(), Ordering::Relaxed);
    }

    /// Says whether a rule waits for more of the leader's calls before it can decide. What one keeps back of a line moves with
    /// the image in an update; in a run it would be lost with the leader.
    pub(super) fn is_undecided(&self) -> bool {
        let keeps = || self.settings.pairing == Pairing::Processes && self.unread().next().is_some();
        let undecided = |rules: &Rules| rules.stage.is_holding() || rules.stage.carries();
        self.rules.as_deref().is_some_and(undecided) || keeps()
    }

    /// Returns what the leader has read and the follower has not, by the leader's descriptor: rules kept it back.
    pub(crate) fn unread(&self) -> impl Iterator<Item = (i32, Bytes)> {
        self.rules.iter().flat_map(|rules| rules.stage.kept())
    }

    /// No more of the leader's calls will come: rules decide with what is there. Says whether there was something to decide.
    pub(super) fn decide_with_what_is_there(&mut self, target: u64) -> bool {
        let Some(rules) = &mut self.rules else { return false };
        if rules.fetched < target || !self.due.is_empty() || !rules.stage.is_holding() {
            return false;
        }
        rules.stage.flush(&mut rules.out);
        rules.out.drain(..).for_each(|record| self.due.push(record));
        self.due.skip_to(rules.stage.past());
        self.count_replayed();
        true
    }

    /// Puts a record back, behind what a rule has let in before it; says whether there is such.
    pub(super) fn put_back(&mut self, record: Record) -> bool {
        let left = self.rules.as_mut().and_then(|rules| rules.left.take());
        self.due.put_back(left.unwrap_or(record));
        let extra = self.rules.as_mut().map(|rules| std::mem::take(&mut rules.extra)).unwrap_or_default();
        let any = !extra.is_empty();
        extra.into_iter().rev().for_each(|record| self.due.put_back(record));
        any
    }

    /// Fills in what a rule leaves to the follower; the error says what the rule could not do.
    pub(super) fn fill(&mut self, record: &Record, call: &Call) -> std::result::Result<Filled, DivergenceKind> {
        let Some(rules) = &mut self.rules else { return Ok(None) };
        let filled = rules.stage.expected(record, &call.args, &call.inputs);
        filled.map_err(|reason| DivergenceKind::Gap { reason })
    }

    /// Says whether a rule leaves something of a record's call to the follower.
    pub(super) fn is_left_open(&self, record: &Record) -> bool {
        self.rules.as_ref().is_some_and(|rules| rules.stage.leaves_open(record))
    }

    /// Says whether the follower has not read all of what a rule made of the leader's input.
    pub(super) fn has_input_left(&self) -> bool {
        self.rules.as_ref().is_some_and(|rules| rules.stage.carries())
    }

    /// The follower has made the call of this record.
    pub(super) fn agreed_to(&mut self, record: &Record) {
        if let Some(rules) = &mut self.rules {
            if self.applying.is_some() {
                return rules.stage.observe(record);
            }
            rules.stage.answered(record);
        }
    }

    /// Says whether the follower reads, or waits for, what is left of input that a rule made longer, or comes to what was put off
    /// meanwhile; that is answered before the record that is due.
    pub(super) fn reads_on(&mut self, slot: Slot, seq: Seq, call: &Call) -> bool {
        let Some(rules) = self.rules.as_mut().filter(|rules| rules.stage.carries()) else { return false };
        let leader = self.settings.leaders.get(&slot).copied();
        let (known, nr) = (&self.known.registrations, call.nr);
        let registered = |epfd, fd| known.leaders(epfd, fd).or_else(|| registered(leader?, epfd, fd));
        let own = rules.stage.carry((slot, seq), (nr, &call.args), &call.inputs, &registered);
        let back = if own.is_none() { rules.stage.brings_back(slot, nr, &call.args) } else { Vec::new() };
        rules.extra.extend(own.into_iter().chain(back));
        !rules.extra.is_empty()
    }

    /// Says whether the follower writes the beginning of what the leader wrote, for it has read the beginning of the input.
    pub(super) fn writes_beginning(&mut self, record: &Record, call: &Call) -> bool {
        let Some(rules) = self.rules.as_mut().filter(|_| self.parted.is_none()) else { return false };
        let Some((own, left)) = rules.stage.begins(record, call.nr, &call.args, &call.inputs) else { return false };
        rules.extra.push(own);
        rules.left = Some(left);
        true
    }

    /// Says whether a record waits until the follower has read what is left of the input that the record is about.
    pub(super) fn puts_off(&mut self, record: &Record, call: &Call) -> bool {
        // An output that waits for the follower's agreement is not put off.
        if self.settings.agreement.is_some() || self.parted.is_some() {
            return false;
        }
        self.rules.as_mut().is_some_and(|rules| rules.stage.puts_off(record, call.nr, &call.args))
    }

    /// Says whether the return of a call waits whose entry waits.
    pub(super) fn puts_return_off(&mut self, record: &Record) -> bool {
        self.rules.as_mut().is_some_and(|rules| rules.stage.puts_return_off(record))
    }

    /// Answers those who stand at a call for what is left of their input, where nothing else is due; says whether there were some.
    pub(super) fn give_what_is_left(&mut self) -> bool {
        if !self.has_input_left() || self.ended || self.due.has_ordered() {
            return false;
        }
        let standing = |thread: &Thread| match &thread.state {
            State::AtCall(call) => Some((thread.slot, call.clone())),
            State::Running { .. } | State::Entered(_) | State::Real(_) | State::Faulted(_) | State::Parked(_) => None,
        };
        let standing: Vec<(Slot, Box<Call>)> = self.threads.values().filter_map(standing).collect();
        standing.into_iter().any(|(slot, call)| {
            self.reads_on(slot, Seq(self.due.agreed()), &call) && {
                let extra = self.rules.as_mut().map(|rules| std::mem::take(&mut rules.extra)).unwrap_or_default();
                extra.into_iter().rev().for_each(|record| self.due.put_back(record));
                true
            }
        })
    }

    /// Returns what is left of the result of an output whose beginning the follower has written before.
    pub(super) fn rest_of(
        &mut self,
        slot: Slot,
        ret: &CallReturn,
    ) -> std::result::Result<Option<CallReturn>, DivergenceKind> {
        let Some(rules) = &mut self.rules else { return Ok(None) };
        rules.stage.rest_of(slot, ret).map_err(|reason| DivergenceKind::Gap { reason })
    }

    /// Returns what a difference is where it may come of input that is left: nothing is known then.
    pub(super) fn of_what_is_left(&self, seq: Seq, call: &Call, kind: DivergenceKind) -> DivergenceKind {
        let explains = |rules: &Rules| rules.stage.explains_difference(seq, call.nr, &call.args);
        if !self.rules.as_deref().is_some_and(explains) {
            return kind;
        }
        let reason = "a rule made input longer than the new version's buffer, and what it does with the pieces \
                      cannot be compared with what the old version did with the whole: let clients send less at once";
        DivergenceKind::Gap { reason: reason.to_owned() }
    }

    /// Says whether a rule lets the follower make this call although another is due; it will be answered first.
    pub(super) fn lets_in(&mut self, slot: Slot, seq: Seq, call: &Call) -> bool {
        if self.applying.is_some() {
            return false;
        }
        if self.reads_on(slot, seq, call) {
            return true;
        }
        let Some(rules) = &mut self.rules else { return false };
        rules.extra = rules.stage.extra(slot, call.nr, &call.args, &call.inputs, seq);
        !rules.extra.is_empty()
    }

    /// Lets a call in for which nothing is due at all.
    pub(super) fn lets_in_at_rest(&mut self, slot: Slot, call: &Call) -> bool {
        if !self.lets_in(slot, Seq(self.due.agreed()), call) {
            return false;
        }
        let extra = self.rules.as_mut().map(|rules| std::mem::take(&mut rules.extra)).unwrap_or_default();
        extra.into_iter().for_each(|record| self.due.push(record));
        true
    }

    /// Says whether a difference may come of a line that was read in part before any rule saw it.
    pub(super) fn may_end_a_line(&self, divergence: &Divergence) -> bool {
        let Some(((rules, seq), expected)) = self.rules.as_ref().zip(divergence.seq).zip(divergence.expected.as_ref())
        else {
            return false;
        };
        rules.stage.may_end_a_line(seq, expected.nr, &expected.args)
    }

    /// Names the rule that came nearest to explaining a difference.
    pub(super) fn nearest_rule(&self, entry: &CallEntry) -> Option<String> {
        self.rules.as_ref().and_then(|rules| rules.stage.nearest(entry))
    }
}

/// Returns what the leader has registered with an epoll set for a descriptor.
fn registered(leader: Tid, epfd: i32, fd: i32) -> Option<u64> {
    let entries = procfs::epoll_entries(Pid(leader.0), epfd).ok()?;
    entries.into_iter().find(|entry| entry.fd == fd).map(|entry| entry.data)
}
