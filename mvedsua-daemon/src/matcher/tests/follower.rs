//! A follower that is simulated: it lives through records under the matcher, its threads stop in any order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use mvedsua_common::syscalls::regions::{self, After};
use mvedsua_common::syscalls::{Class, Pairing};
use rand::Rng;
use rand::rngs::StdRng;

use super::leader::{HeldThread, inputs, row_of};
use super::program::{Machine, Program, Request};
use super::{Call, Nobody};
use crate::calls;
use crate::compare::DivergenceKind;
use crate::matcher::drive::{self, Carrier, Sight};
use crate::matcher::due::Due;
use crate::matcher::elastic::{Counting, LastTimes};
use crate::matcher::readiness::{Held, Nudge, Readiness, Stand, readiness};
use crate::matcher::schedule::{self, Ending, Place, RELAX_AT_LAST, Seat, Seen, Turn, Turns, Wakes, Why};
use crate::matcher::schedule::{free, one_by_one};
use crate::matcher::step::{Facts, Step, step};
use crate::matcher::tolerances::{FollowersAlone, Judgement, LeadersAlone, Question, agree, judge};
use crate::matcher::{Child, Making, Orders, Phase, Progress, pouring};
use crate::record::interleaving::Interleaving;
use crate::record::{CallReturn, Event, Record, Slot};

/// How many bells there may be without anything that moves.
const MOST_BELLS: u32 = 300;

/// How a follower has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It lived through all, and ended as the leader did; its threads in the leader's order, as far as that is known, or not.
    Same(Order),
    Differs(DivergenceKind),
    /// All its threads stand where their twins are held.
    Ready,
    /// Nothing moves, and nobody says why.
    Hangs(String),
}

/// Whether the order of threads is known to be the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Known,
    Unknown,
}

#[derive(Debug)]
enum State {
    Computes,
    InOwnCall(Request),
    AtCall(Box<Call>),
    Entered(Box<Call>),
    /// Is about to make a call of its own.
    Own(Request),
    MakesThread {
        child: usize,
        is: Child,
        returned: Progress,
    },
    Ends,
}

#[derive(Debug)]
struct Thread {
    state: State,
    seat: Seat,
    /// It sleeps at this word.
    sleeps_at: Option<u64>,
}

impl Thread {
    fn new() -> Thread {
        Thread { state: State::Computes, seat: Seat::default(), sleeps_at: None }
    }

    fn phase(&self) -> Phase<'_> {
        match &self.state {
            State::Computes => Phase::Computes,
            State::InOwnCall(request) => Phase::InOwnCall(request.nr),
            State::AtCall(call) => Phase::AtCall(call),
            State::Entered(_) => Phase::Entered,
            State::Own(_) => Phase::Makes(Making::Own),
            State::MakesThread { is, returned, .. } => Phase::Makes(Making::Thread(*is, *returned)),
            State::Ends => Phase::Makes(Making::End),
        }
    }
}

pub(super) struct Follower<'a> {
    machine: Machine,
    threads: BTreeMap<usize, Thread>,
    gone: BTreeSet<Slot>,
    due: Due,
    /// Records that have not come yet, and those that have and were not taken.
    coming: VecDeque<Record>,
    log: VecDeque<Record>,
    interleaving: Interleaving,
    turns: Turns,
    times: LastTimes,
    now: Instant,
    moved: Instant,
    difference: Option<DivergenceKind>,
    /// Its threads did something in an order which is not known to be the leader's.
    raced: bool,
    /// Where the leader is held.
    held: Vec<HeldThread>,
    rng: &'a mut StdRng,
}

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Next {
    Stop(usize),
    Birth(usize),
    Record,
}

/// Lets a program follow records to its end.
pub(super) fn follow(program: &Program, records: Vec<Record>, interleaving: Interleaving, rng: &mut StdRng) -> Outcome {
    follow_to(program, records, Vec::new(), interleaving, rng)
}

/// Lets a program follow records up to where the leader is held; one that is held nowhere runs to its end.
pub(super) fn follow_to(
    program: &Program,
    records: Vec<Record>,
    held: Vec<HeldThread>,
    interleaving: Interleaving,
    rng: &mut StdRng,
) -> Outcome {
    let alone = match interleaving {
        Interleaving::OneByOne => calls::of_one_thread_in_order,
        Interleaving::Free => calls::of_one_thread,
    };
    let now = Instant::now();
    let mut follower = Follower {
        machine: Machine::new(program),
        threads: BTreeMap::from([(0, Thread::new())]),
        gone: BTreeSet::new(),
        due: Due::new(alone),
        coming: records.into(),
        log: VecDeque::new(),
        interleaving,
        turns: Turns::new(now),
        times: LastTimes::default(),
        now,
        moved: now,
        difference: None,
        raced: false,
        held,
        rng,
    };
    follower.live()
}

impl Follower<'_> {
    fn live(&mut self) -> Outcome {
        let mut bells = 0;
        loop {
            let Ok(()) = drive::advance(self);
            if let Some(kind) = self.difference.take() {
                return Outcome::Differs(kind);
            }
            if self.threads.is_empty() && self.is_finished() && self.due.is_empty() {
                return Outcome::Same(if self.raced { Order::Unknown } else { Order::Known });
            }
            if let Some(next) = self.choose() {
                bells = 0;
                self.happens(next);
                continue;
            }
            // Nobody stops any more by himself: the session's clock rings.
            self.now += 2 * RELAX_AT_LAST;
            let before = (self.turns.applied(), self.due.len());
            if self.interleaving == Interleaving::Free {
                let Ok(()) = free::share_turn(self);
            }
            let Ok(improvised) = match self.interleaving {
                Interleaving::OneByOne => schedule::improvise_for_waiting(self),
                Interleaving::Free => schedule::relax(self),
            };
            bells += 1;
            if improvised || before != (self.turns.applied(), self.due.len()) || self.choose().is_some() {
                continue;
            }
            let Ok(()) = drive::advance(self);
            if self.choose().is_some() || self.difference.is_some() {
                continue;
            }
            if let Some(outcome) = self.changes_roles() {
                return outcome;
            }
            if schedule::stands_for_good(self) {
                // Where nothing is due it is the end of the leader that tells.
                return Outcome::Differs(DivergenceKind::Order { waiting: Vec::new() });
            }
            if bells > MOST_BELLS {
                return Outcome::Hangs(format!("{:?}, {:?} due", self.threads, self.due.front()));
            }
        }
    }

    /// Brings threads to where their twins are held; says how it ended, if it has.
    fn changes_roles(&mut self) -> Option<Outcome> {
        if self.held.is_empty() || !self.is_finished() || !self.due.is_empty() {
            return None;
        }
        let mut ready = true;
        for held in self.held.clone() {
            let what = self.threads.get(&held.thread)?;
            let stand = Stand { counting: Counting::Neither, parted: false, orders: self.orders() };
            let of = Held { call: Some(&held.call), local: held.local, written: held.written };
            match readiness(of, what.phase(), stand) {
                // It stops there.
                Readiness::Ready | Readiness::Nudge(Nudge::Interrupt) => {}
                Readiness::Wait => ready = false,
                Readiness::Differs(kind) => return Some(Outcome::Differs(kind)),
                Readiness::Nudge(nudge) => {
                    ready = false;
                    let call = self.call_of(held.thread)?;
                    let helped = match nudge {
                        Nudge::Time => self.tell_time(held.thread, &call),
                        Nudge::Order => self.order_alone(held.thread, &call),
                        Nudge::Count | Nudge::Interrupt => panic!("{nudge:?} at {call:?}"),
                    };
                    assert!(helped, "{nudge:?} at {call:?}");
                }
            }
        }
        ready.then_some(Outcome::Ready)
    }

    /// Returns one of the things that may happen next.
    fn choose(&mut self) -> Option<Next> {
        let mut able = Vec::new();
        for (thread, what) in &self.threads {
            if let State::MakesThread { is: Child::Announced, .. } = what.state {
                able.push(Next::Birth(*thread));
            }
            let wakes = matches!(what.seat.turn, Turn::Asleep { .. }) && what.sleeps_at.is_none();
            let runs = what.seat.turn == Turn::Going && what.phase().moves();
            if wakes || runs {
                able.push(Next::Stop(*thread));
            }
        }
        if !self.coming.is_empty() {
            able.push(Next::Record);
        }
        (!able.is_empty()).then(|| able[self.rng.random_range(0..able.len())])
    }

    fn happens(&mut self, next: Next) {
        self.now += Duration::from_micros(self.rng.random_range(1..500));
        match next {
            Next::Record => {
                let many = self.rng.random_range(1..=self.coming.len().min(8));
                self.log.extend(self.coming.drain(..many));
            }
            Next::Birth(maker) => {
                if let Some(Thread { state: State::MakesThread { is, .. }, .. }) = self.threads.get_mut(&maker) {
                    *is = Child::Here;
                }
            }
            Next::Stop(thread) => self.stops(thread),
        }
    }

    /// A thread comes to its next stop.
    fn stops(&mut self, thread: usize) {
        let Some(what) = self.threads.get_mut(&thread) else { return };
        match &mut what.state {
            State::InOwnCall(_) if matches!(what.seat.turn, Turn::Asleep { .. }) => {
                self.machine.returned(thread, 0);
                what.state = State::Computes;
                self.turns.hold(&mut what.seat, 0, Why::Moved);
            }
            State::Computes | State::InOwnCall(_) => self.comes_to_a_call(thread),
            State::Own(request) => {
                let request = *request;
                self.makes_its_own(thread, request);
            }
            State::MakesThread { is, returned, .. } => {
                if *is == Child::Awaited {
                    *is = Child::Announced;
                } else {
                    *returned = Progress::Returned;
                }
            }
            State::Ends => {
                self.threads.remove(&thread);
                self.gone.insert(Slot(thread as u32));
            }
            State::AtCall(_) | State::Entered(_) => {}
        }
    }

    fn comes_to_a_call(&mut self, thread: usize) {
        let request = self.machine.run(thread);
        let row = row_of(self.interleaving, request, &self.machine);
        let inputs = inputs(row, &request.args, &self.machine);
        let Some(what) = self.threads.get_mut(&thread) else { return };
        what.seat.turn = Turn::Going;
        what.state = if row.class == Class::Local {
            State::Own(request)
        } else {
            let Request { nr, args } = request;
            State::AtCall(Box::new(Call { nr, args, row: Some(row), inputs, since: self.now }))
        };
    }

    /// A call that each version makes for itself.
    fn makes_its_own(&mut self, thread: usize, request: Request) {
        let Request { nr, args } = request;
        let whom = schedule::wakes_whom(nr, &args);
        for other in self.threads.values_mut() {
            let Turn::Asleep { place, .. } = other.seat.turn else { continue };
            if whom != Wakes::Nobody && whom.reaches(place) {
                other.sleeps_at = other.sleeps_at.filter(|word| *word != args[0]);
                other.seat.disturb();
            }
        }
        let word = calls::waits(nr, &args).then(|| self.machine.word(args[0]));
        let Some(what) = self.threads.get_mut(&thread) else { return };
        what.state = State::InOwnCall(request);
        match word {
            None => self.machine.returned(thread, 0),
            Some(word) => {
                what.sleeps_at = (word == args[2] as u32).then_some(args[0]);
                let place = schedule::place(nr, &args, Pairing::Threads);
                assert_eq!(place, Place::Word(args[0]));
                what.seat.turn = Turn::Asleep { limit: None, ending: Ending::Open, place, seen: Seen::NotYet };
            }
        }
    }

    /// Does what a record asks for; says whether it is dealt with.
    fn apply(&mut self, record: &Record) -> bool {
        let thread = record.slot.0 as usize;
        let Some(what) = self.threads.get(&thread) else {
            return self.gone.contains(&record.slot) && {
                let passes = match &record.event {
                    Event::ThreadEnded => true,
                    Event::Call(entry, _) => {
                        calls::of_one_thread(entry.nr) || self.orders().of(entry.nr, &entry.args).is_some()
                    }
                    _ => false,
                };
                self.difference = (!passes).then_some(DivergenceKind::End);
                passes
            };
        };
        let facts = Facts {
            untold: matches!(what.seat.turn, Turn::Held { why: Why::NotTold, .. }),
            busy: what.seat.turn == Turn::Going && what.phase().moves(),
            ..Facts::default()
        };
        let done = step(&record.event, what.phase(), facts);
        match done {
            Step::Answer => return self.answer(thread, record),
            Step::Wait(_) => return false,
            Step::PassOver | Step::End => {}
            Step::Return => match (&record.event, self.call_of(thread)) {
                (Event::Return(ret), Some(call)) => self.supply(thread, &call, ret),
                other => panic!("{other:?}"),
            },
            Step::MakeThread => {
                let child = self.machine.child_of(thread);
                self.state(thread, State::MakesThread { child, is: Child::Awaited, returned: Progress::UnderWay });
                return false;
            }
            Step::AdoptThread => self.adopt(thread),
            Step::ReturnFromThread => {
                let Event::Return(ret) = &record.event else { panic!("{record:?}") };
                self.machine.returned(thread, ret.ret);
                self.state(thread, State::Computes);
                self.hold(thread, Why::Moved);
            }
            Step::Tell => self.seat(thread).into_iter().for_each(Seat::tell),
            Step::TellUnasked => {
                self.raced = true;
                self.seat(thread).into_iter().for_each(Seat::tell);
                let Ok(()) = one_by_one::let_next_go(self);
                return false;
            }
            Step::Unexpected => {
                let call = self.call_of(thread).expect("it waits at one");
                if !self.order_alone(thread, &call) {
                    self.difference = Some(DivergenceKind::End);
                }
                return false;
            }
            Step::Impossible => {
                self.difference = Some(DivergenceKind::End);
                return false;
            }
            Step::MakeProcess
            | Step::AdoptProcess
            | Step::ReturnFromProcess
            | Step::Execute
            | Step::LetOverdue
            | Step::KeepSignal
            | Step::SendSignal
            | Step::DeliverSignal
            | Step::ShareFault
            | Step::Fault => panic!("no such record was made: {record:?}"),
        }
        true
    }

    fn answer(&mut self, thread: usize, record: &Record) -> bool {
        let call = self.call_of(thread).expect("it waits at one");
        let (entry, ret) = match &record.event {
            Event::Call(entry, ret) => (entry, Some(ret)),
            Event::Enter(entry) => (entry, None),
            other => panic!("{other:?}"),
        };
        let (counting, leader_reads_itself) = (Counting::Neither, false);
        let question = Question { call: &call, entry, ret, counting, leader_reads_itself, orders: self.orders() };
        match (judge(&question), ret) {
            (Judgement::Supply, Some(ret)) => {
                self.times.note(entry, ret);
                self.supply(thread, &call, ret);
                true
            }
            (Judgement::PassOver(LeadersAlone::Time), Some(ret)) => {
                self.times.note(entry, ret);
                true
            }
            (Judgement::PassOver(LeadersAlone::Order), _) => {
                self.raced = true;
                true
            }
            (Judgement::Alone(FollowersAlone::Time), _) => {
                self.tell_time(thread, &call);
                false
            }
            (Judgement::Alone(FollowersAlone::Order), _) => {
                self.order_alone(thread, &call);
                false
            }
            (Judgement::Compare, ret) => self.compare(thread, &call, (entry, ret)),
            (other, _) => panic!("{other:?} of {question:?}", question = question.entry),
        }
    }

    fn compare(
        &mut self,
        thread: usize,
        call: &Call,
        (entry, ret): (&crate::record::CallEntry, Option<&CallReturn>),
    ) -> bool {
        if let Err(kind) = agree(call, entry) {
            self.difference = Some(kind);
            return false;
        }
        match ret {
            Some(ret) => self.supply(thread, call, ret),
            None if i64::from(call.nr) == libc::SYS_exit => self.state(thread, State::Ends),
            None => self.state(thread, State::Entered(Box::new(call.clone()))),
        }
        true
    }

    fn call_of(&self, thread: usize) -> Option<Call> {
        match &self.threads.get(&thread)?.state {
            State::AtCall(call) | State::Entered(call) => Some((**call).clone()),
            State::Computes | State::InOwnCall(_) | State::Own(_) | State::MakesThread { .. } | State::Ends => None,
        }
    }

    fn state(&mut self, thread: usize, state: State) {
        if let Some(what) = self.threads.get_mut(&thread) {
            what.state = state;
        }
    }

    fn hold(&mut self, thread: usize, why: Why) {
        if let Some(what) = self.threads.get_mut(&thread) {
            self.turns.hold(&mut what.seat, 0, why);
        }
    }

    fn supply(&mut self, thread: usize, call: &Call, ret: &CallReturn) {
        let row = call.row.expect("all have rows");
        let mut places = Vec::new();
        let after = After::Emulated;
        regions::outputs(row, &call.args, ret.ret, after, &self.machine, &mut |region| places.push(region));
        match pouring::writes(row, &call.args, ret, &places) {
            Ok(writes) => writes.iter().for_each(|(addr, bytes)| self.machine.write(*addr, bytes)),
            Err(kind) => {
                self.difference = Some(kind);
                return;
            }
        }
        self.machine.returned(thread, ret.ret);
        self.state(thread, State::Computes);
        self.seat(thread).into_iter().for_each(|seat| seat.woken = 0);
        self.hold(thread, Why::Moved);
    }

    fn adopt(&mut self, maker: usize) {
        let Some(Thread { state: State::MakesThread { child, is, .. }, .. }) = self.threads.get_mut(&maker) else {
            return;
        };
        *is = Child::Adopted;
        let child = *child;
        self.threads.insert(child, Thread::new());
        self.hold(child, if self.interleaving == Interleaving::OneByOne { Why::NotTold } else { Why::Moved });
    }

    /// Answers a call that orders threads and that the leader did not make; says whether it is one.
    fn order_alone(&mut self, thread: usize, call: &Call) -> bool {
        let Some((_, role)) = self.orders().of(call.nr, &call.args) else { return false };
        self.raced = true;
        let computes = self.sights().any(|sight| sight.thread != thread && sight.is_busy());
        let Some(seat) = self.seat(thread) else { return false };
        if one_by_one::answers_alone(seat, role, || computes) {
            self.machine.returned(thread, 0);
            self.state(thread, State::Computes);
        }
        true
    }

    /// Answers a call that asks for a time that the leader did not ask for; says whether it could be.
    fn tell_time(&mut self, thread: usize, call: &Call) -> bool {
        let Some((ret, outputs)) = self.times.answer(call.nr, &call.args) else { return false };
        // It goes on at once, and others may have come further since it asked.
        self.raced = true;
        outputs.iter().for_each(|bytes| self.machine.write(call.args[1], bytes));
        self.machine.returned(thread, ret);
        self.state(thread, State::Computes);
        true
    }
}

impl Carrier for Follower<'_> {
    type Thread = usize;
    /// A descriptor.
    type Touched = Option<u64>;
    type Error = std::convert::Infallible;

    fn due(&self) -> &Due {
        &self.due
    }

    fn fetch(&mut self) -> bool {
        let Some(record) = self.log.pop_front() else { return false };
        if self.due.is_empty() {
            self.moved = self.now;
        }
        self.due.push(record);
        true
    }

    fn may_fetch(&self) -> bool {
        true
    }

    fn arm(&mut self) -> bool {
        self.log.is_empty()
    }

    fn is_finished(&self) -> bool {
        self.log.is_empty() && self.coming.is_empty()
    }

    fn sights(&self) -> impl Iterator<Item = Sight<'_, usize>> {
        self.threads.iter().map(|(thread, what)| Sight {
            thread: *thread,
            slot: Slot(*thread as u32),
            phase: what.phase(),
            seat: &what.seat,
            is_main: false,
            is_signalled: false,
        })
    }

    fn seat(&mut self, thread: usize) -> Option<&mut Seat> {
        self.threads.get_mut(&thread).map(|what| &mut what.seat)
    }

    fn turns(&self) -> &Turns {
        &self.turns
    }

    fn turns_mut(&mut self) -> &mut Turns {
        &mut self.turns
    }

    fn orders(&self) -> Orders<'_> {
        Orders { interleaving: self.interleaving, pairing: Pairing::Threads, leaders: &Nobody }
    }

    fn goes_on(&self) -> bool {
        self.difference.is_none()
    }

    fn is_draining(&self) -> bool {
        !self.held.is_empty()
    }

    fn waits_for_child(&mut self) -> bool {
        false
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn since_moved(&self) -> Duration {
        self.now - self.moved
    }

    fn leaders_present(&self) -> u64 {
        u64::MAX
    }

    fn leaders_end(&mut self) -> u64 {
        u64::MAX
    }

    fn leader_comes(&self, _: Slot) -> bool {
        !self.coming.is_empty()
    }

    fn is_awake(&self, thread: usize) -> bool {
        self.threads.get(&thread).is_some_and(|what| what.sleeps_at.is_none())
    }

    fn note_race(&mut self, _: &'static str) {
        self.raced = true;
    }

    fn answer(&mut self, slot: Slot) -> Result<bool, Self::Error> {
        let Some(record) = self.due.pop(slot) else { return Ok(false) };
        if self.apply(&record) {
            self.turns.passed();
            self.moved = self.now;
            return Ok(true);
        }
        self.due.put_back(record);
        Ok(false)
    }

    fn improvise(&mut self, thread: usize) -> Result<bool, Self::Error> {
        let call = self.call_of(thread).filter(|call| calls::is_elastic(call.nr, &call.args));
        Ok(call.is_some_and(|call| self.tell_time(thread, &call)))
    }

    fn improvise_or_count(&mut self, thread: usize) -> Result<bool, Self::Error> {
        let call = self.call_of(thread).filter(|call| schedule::may_be_improvised(call.nr, &call.args));
        Ok(call.is_some_and(|call| self.tell_time(thread, &call)))
    }

    fn deliver_signalled(&mut self) -> Result<bool, Self::Error> {
        Ok(false)
    }

    fn let_go(&mut self, thread: usize) -> Result<(), Self::Error> {
        let in_user_code = |what: &Thread| what.seat.turn == Turn::Going && matches!(what.state, State::Computes);
        if self.interleaving == Interleaving::OneByOne && !self.raced {
            assert!(!self.threads.values().any(in_user_code), "{thread} would run beside another");
        }
        if let Some(what) = self.threads.get_mut(&thread) {
            self.turns.give(&mut what.seat, self.now);
        }
        Ok(())
    }

    fn end_wait(&mut self, thread: usize) -> Result<(), Self::Error> {
        if let Some(what) = self.threads.get_mut(&thread) {
            what.seat.expire();
            what.sleeps_at = None;
        }
        Ok(())
    }

    fn touched(&self, slot: Slot) -> Option<Option<u64>> {
        let descriptor =
            |nr: u32, args: &[u64; 6]| [libc::SYS_read, libc::SYS_write].contains(&i64::from(nr)).then_some(args[0]);
        Some(match &self.due.first_of(slot)?.event {
            Event::Call(entry, _) | Event::Enter(entry) => descriptor(entry.nr, &entry.args),
            _ => self.call_of(slot.0 as usize).and_then(|call| descriptor(call.nr, &call.args)),
        })
    }

    fn concern(one: &Option<u64>, other: &Option<u64>) -> bool {
        one.is_some() && one == other
    }

    fn overtake(&mut self, slot: Slot) -> Result<bool, Self::Error> {
        let answered = Carrier::answer(self, slot)?;
        self.difference = None;
        Ok(answered)
    }
}
