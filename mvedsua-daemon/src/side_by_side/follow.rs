//! Drives the processes of one follower: each lives through the stream of its twin.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use mvedsua_common::syscalls::Pairing;

use super::failover::{self, Fallen, Legacy};
use super::report::{Followed, FollowerEnd};
use super::streams::{Branch, Streams};
use super::tree::{self, LOOK_AGAIN, Members, Nursery, Order, Part, leave_ring};
use crate::compare::{Divergence, DivergenceKind};
use crate::ptrace::memory::Memory;
use crate::ptrace::wait::{Inbox, Stop};
use crate::ptrace::{Pid, Result, Tid};
use crate::record::{Slot, StreamId};
use crate::replay::following::processes::Birth;
use crate::replay::following::reconcile::Reconcile;
use crate::replay::following::{Following, Living, Settings, Silence, Standing, Tally};
use crate::replay::objects::Objects;
use crate::rules::{Counts, Descriptor, Descriptors};
use crate::tracee::driver::{Driven, Tracees};
use crate::tracee::process::{Half, Process};
use crate::tracee::slots::Slots;
use crate::update::session::Notice;

/// What is known of what a process of the leader has open when its stream begins.
pub(super) enum Open {
    /// It lives: `/proc` tells.
    Live,
    /// A recording tells it of the first process. That is taken for its children too, as far as the kinds go.
    Recorded(Vec<(i32, Descriptor)>),
}

impl Open {
    fn descriptors(&self, twin: Pid) -> Descriptors {
        match self {
            Open::Live => Descriptors::new(crate::update::descriptors::open_in(twin)),
            Open::Recorded(known) => Descriptors::new(known.iter().cloned()),
        }
    }

    fn objects(&self, twin: Pid) -> Objects {
        match self {
            Open::Live => Objects::of_process(twin),
            Open::Recorded(_) => Objects::default(),
        }
    }
}

/// What a follower needs beside its processes.
pub(super) struct Ways {
    pub(super) number: usize,
    pub(super) streams: Arc<Streams>,
    pub(super) hang_timeout: Duration,
    pub(super) rules: Option<Arc<Counts>>,
    pub(super) open: Open,
    pub(super) tell: Box<dyn Fn(Says) + Send>,
}

/// What a follower says.
#[derive(Debug)]
pub(super) enum Says {
    /// It follows no more; said once.
    Ended(FollowerEnd, Followed),
    /// It stands where the leader has crashed, and this is its memory.
    Prepared(Box<Legacy>),
    /// It is not, and will not be.
    CannotTakeOver,
}

struct Member {
    /// The leader's process that it is paired with, and the number of that one's stream.
    twin: Pid,
    stream: StreamId,
    process: Process,
    role: Following,
    tally: Arc<Tally>,
    notices: Receiver<Notice>,
}

impl Part for Member {
    fn process(&self) -> &Process {
        &self.process
    }
}

/// The processes of a follower.
pub(super) struct Follower {
    inbox: Inbox,
    ways: Ways,
    members: Members<Member>,
    nursery: Nursery<Birth>,
    followed: Followed,
    /// Set when it follows no more: it only ends.
    ended: Option<FollowerEnd>,
    /// The leader that it may go on for.
    fallen: Option<Box<Fallen>>,
    /// Its process that is on its way to where that one stands.
    draining: Option<Pid>,
    /// The process that has given its memory away. It does nothing any more.
    given: Option<Pid>,
    living: Living,
}

impl Follower {
    /// Takes over the first process, which stands before its first instruction, and lets it go.
    pub(super) fn start(inbox: Inbox, process: Process, twin: Pid, ways: Ways) -> Result<Follower> {
        let mut follower = Follower {
            inbox,
            ways,
            members: Members::default(),
            nursery: Nursery::default(),
            followed: Followed::default(),
            ended: None,
            fallen: None,
            draining: None,
            given: None,
            living: Living::default(),
        };
        let main = process.pid.main();
        if let Some(branch) = follower.ways.streams.take(follower.ways.number, StreamId(0)) {
            follower.take_over(process, main, twin, branch, |_| {})?;
        }
        Ok(follower)
    }

    fn take_over(
        &mut self,
        process: Process,
        tid: Tid,
        twin: Pid,
        branch: Branch,
        prepare: impl FnOnce(&mut Following),
    ) -> Result<()> {
        let (sender, notices) = unbounded();
        let stream = branch.id;
        let tally = Arc::new(Tally::default());
        let descriptors = || self.ways.open.descriptors(twin);
        let settings = Settings {
            leaders: BTreeMap::from([(Slot(0), twin.main())]),
            objects: self.ways.open.objects(twin),
            hang_timeout: self.ways.hang_timeout,
            silence: Silence::Accepted,
            tally: Arc::clone(&tally),
            agreement: branch.agreement,
            reconcile: Reconcile {
                rules: self.ways.rules.clone().map(|counts| (counts, descriptors())),
                ..Reconcile::default()
            },
            pairing: Pairing::Processes,
            interleaving: self.ways.streams.interleaving,
            raced: false,
            // These are trapped from the start.
            unrecorded_clock: false,
            situations: Default::default(),
            answers: crate::replay::following::Answering::AtStops,
        };
        let mut role = Following::new([(tid, Slot(0), Standing::InUserCode)], branch.reader, settings, sender);
        role.know(Arc::clone(&self.living));
        prepare(&mut role);
        role.start()?;
        self.followed.processes += 1;
        self.members.insert(process.pid, Member { twin, stream, process, role, tally, notices });
        Ok(())
    }

    /// Lets a child follow its twin from its first stop on.
    fn adopt(&mut self, birth: Birth) -> Result<()> {
        let (tid, pid) = (birth.child, Pid(birth.child.0));
        leave_ring(tid, birth.rings)?;
        birth.registers.put_back(tid)?;
        let memory = Memory::open(pid)?;
        if let Some(place) = birth.child_tid {
            memory.write(place, &birth.twin.0.to_ne_bytes())?;
        }
        let process = Process {
            pid,
            memory,
            footprint: birth.footprint,
            threads: Slots::one(tid, Slot(0)),
            restarted: BTreeMap::new(),
            half: Half::First,
            rings: None,
            agent: None,
            leftovers: Vec::new(),
            ghosts: Vec::new(),
        };
        match self.ways.streams.take(self.ways.number, birth.stream) {
            Some(branch) => self.take_over(process, tid, birth.twin, branch, |role| role.inherit(birth.inherited)),
            // It was dropped meanwhile.
            None => tree::end(pid),
        }
    }

    fn handle(&mut self, tid: Tid, stop: Stop) -> Result<()> {
        let Some(pid) = self.members.owner(tid) else {
            if stop.is_end() {
                self.nursery.ended(tid);
                return Ok(());
            }
            if self.ended.is_some() {
                return tree::end(Pid(tid.0));
            }
            return self.nursery.stopped(tid).map_or(Ok(()), |birth| self.adopt(birth));
        };
        let Some(member) = self.members.get_mut(&pid) else { return Ok(()) };
        let result = if self.ended.is_some() && !stop.is_end() {
            tree::end(pid)
        } else {
            member.role.on_stop(&self.inbox, &mut member.process, tid, stop)
        };
        self.listen(pid)?;
        result
    }

    /// Hears what a process has to say, takes its children over, and forgets it when it has ended.
    fn listen(&mut self, pid: Pid) -> Result<()> {
        let Some(member) = self.members.get_mut(&pid) else { return Ok(()) };
        let births = member.role.take_births();
        let notices: Vec<Notice> = member.notices.try_iter().collect();
        if member.role.is_starved() && self.ended.is_none() {
            let reason = "the leader's records end before its process: the log had no room for more".to_owned();
            self.ended = Some(FollowerEnd::Failed(reason));
        }
        let twin = member.twin;
        if member.role.is_empty()
            && (member.role.finished().is_some() || self.ended.is_some())
            && let Some(member) = self.members.remove(&pid)
        {
            self.followed.add(&member.tally);
            self.living.lock().unwrap_or_else(PoisonError::into_inner).remove(&twin.0);
        }
        for notice in notices {
            match notice {
                Notice::Diverged(divergence) => self.part(twin, divergence),
                Notice::Broken { tid, error } => self.fail(format!("thread {tid}: {error}")),
                Notice::Faulted => (self.ways.tell)(Says::CannotTakeOver),
                Notice::Drained => self.give(pid),
                _ => {}
            }
        }
        for birth in births {
            if let Some(birth) = self.nursery.born(birth.child, birth) {
                self.adopt(birth)?;
            }
        }
        if self.ended.is_some() {
            self.kill()?;
        }
        self.come_to_the_fallen()
    }

    /// The leader has crashed: lives through all that is recorded, to stand where it does.
    fn take_over_from(&mut self, fallen: Box<Fallen>) -> Result<()> {
        if self.ended.is_some() {
            (self.ways.tell)(Says::CannotTakeOver);
            return Ok(());
        }
        (self.fallen, self.draining) = (Some(fallen), None);
        self.come_to_the_fallen()
    }

    /// Brings the twin of the process that has crashed to where that one stands. A follower that is behind may not have made it
    /// yet.
    fn come_to_the_fallen(&mut self) -> Result<()> {
        let Some(fallen) = self.fallen.as_ref().filter(|_| self.draining.is_none() && self.ended.is_none()) else {
            return Ok(());
        };
        match self.members.iter_mut().find(|(_, member)| member.stream == fallen.stream) {
            Some((pid, member)) => {
                self.draining = Some(*pid);
                member.role.drain(&mut member.process, fallen.target, fallen.held.clone())
            }
            None => Ok(()),
        }
    }

    /// A process stands where the leader does: gives its memory away.
    fn give(&mut self, pid: Pid) {
        let (Some(fallen), Some(member)) = (&self.fallen, self.members.get(&pid)) else { return };
        match failover::give(&self.inbox, &member.process, &member.role, fallen) {
            Ok(legacy) => {
                self.given = Some(pid);
                (self.ways.tell)(Says::Prepared(Box::new(legacy)));
            }
            Err(error) => self.fail(format!("it could not take over: {error}")),
        }
    }

    /// The leader goes on with the memory of this follower, which ends.
    fn end_in_favour(&mut self) -> Result<()> {
        if let Some(fallen) = self.fallen.take() {
            self.ended.get_or_insert(FollowerEnd::TookOver { signo: fallen.signo });
        }
        self.kill()
    }

    fn part(&mut self, process: Pid, divergence: Box<Divergence>) {
        match &divergence.kind {
            // The records end early: that shows nothing about the version.
            DivergenceKind::Gap { reason } if divergence.actual.is_none() => self.fail(reason.clone()),
            _ => drop(self.ended.get_or_insert(FollowerEnd::Parted { process: process.0, divergence })),
        }
    }

    fn fail(&mut self, reason: String) {
        self.ended.get_or_insert(FollowerEnd::Failed(reason));
    }

    /// A child whose birth nobody is left to tell of will never have a twin.
    fn look_for_strays(&mut self) {
        if self.members.is_empty() && self.nursery.has_stopped() && self.ended.is_none() {
            self.fail(
                "a process of it was made by one that has ended, and no record says which its twin is".to_owned(),
            );
            let result = self.kill();
            self.check(result);
        }
    }

    /// Takes no more streams.
    fn leave(&self) {
        let end = self.ended.as_ref().unwrap_or(&FollowerEnd::Followed);
        self.ways.streams.abandon(self.ways.number, end);
    }

    fn kill(&mut self) -> Result<()> {
        self.leave();
        self.nursery.take_stopped().into_iter().try_for_each(|tid| tree::end(Pid(tid.0)))?;
        self.members.end()
    }

    fn check(&mut self, result: Result<()>) {
        if let Err(error) = result
            && !error.is_gone()
        {
            self.fail(error.to_string());
            if let Err(error) = self.kill() {
                tracing::error!(%error, "ending a follower");
            }
        }
    }
}

impl Driven for Follower {
    type Order = Order;
    const IDLE: Option<Duration> = Some(LOOK_AGAIN);

    fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    fn on_stop(&mut self, tid: Tid, stop: Stop) {
        let result = self.handle(tid, stop);
        self.check(result);
    }

    fn on_bell(&mut self) {
        if self.ended.is_some() {
            return;
        }
        for pid in self.members.pids() {
            if let Some(member) = self.members.get_mut(&pid).filter(|_| self.given != Some(pid)) {
                let result = member.role.on_bell(&mut member.process);
                let heard = self.listen(pid);
                self.check(result.and(heard));
            }
        }
        self.look_for_strays();
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Kill | Order::Release => {
                self.fail("it was ended".to_owned());
                let result = self.kill();
                self.check(result);
            }
            Order::TakeOver(fallen) => {
                let result = self.take_over_from(fallen);
                self.check(result);
                let heard = self.draining.map_or(Ok(()), |pid| self.listen(pid));
                self.check(heard);
            }
            Order::GoOn => {
                self.fallen = None;
                let draining = self.draining.take().and_then(|pid| self.members.get_mut(&pid));
                let released = draining.map_or(Ok(()), |one| one.role.release_drain(&mut one.process));
                self.check(released);
            }
            Order::Gone => {
                let result = self.end_in_favour();
                self.check(result);
            }
            Order::Unwanted(reason) => {
                self.fail(format!("it could not take over: {reason}"));
                let result = self.kill();
                self.check(result);
            }
            Order::LetDie | Order::Become(_) => {}
        }
    }

    fn is_over(&mut self, tracees: Tracees) -> bool {
        let over =
            self.members.is_empty() && self.nursery.is_empty() || self.ended.is_some() && tracees == Tracees::None;
        if over {
            for member in self.members.values() {
                self.followed.add(&member.tally);
            }
            self.leave();
            let end = self.ended.take().unwrap_or(FollowerEnd::Followed);
            (self.ways.tell)(Says::Ended(end, self.followed));
        }
        over
    }
}
