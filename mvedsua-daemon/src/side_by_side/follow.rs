//! Drives the processes of one follower: each lives through the stream of its twin.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use mvedsua_common::syscalls::Pairing;

use super::failover::{self, Fallen, Legacy, Prepared};
use super::report::{Followed, FollowerEnd};
use super::streams::{Branch, Streams};
use super::tree::{self, Members, Nursery, Order, Part, Tracees, Tree, leave_ring};
use crate::compare::{Divergence, DivergenceKind};
use crate::ptrace::memory::Memory;
use crate::ptrace::wait::{Inbox, Stop};
use crate::ptrace::{Pid, Result, Tid};
use crate::record::leading::{self, Leading};
use crate::record::{Event, Slot, StreamId};
use crate::replay::following::processes::Birth;
use crate::replay::following::reconcile::Reconcile;
use crate::replay::following::{Following, Living, Settings, Silence, Standing, Tally};
use crate::replay::objects::Objects;
use crate::rules::{Counts, Descriptor, Descriptors};
use crate::tracee::process::{Half, Process};
use crate::tracee::slots::Slots;
use crate::update::OnFull;
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
    pub(super) on_full: OnFull,
    pub(super) open: Open,
    pub(super) tell: Box<dyn Fn(Says) + Send>,
}

/// What a follower says.
#[derive(Debug)]
pub(super) enum Says {
    /// It follows no more; said once.
    Ended(FollowerEnd, Followed),
    /// It is ready to go on in place of the leader, which has crashed.
    Prepared(Pid),
    /// It is not, and will not be.
    CannotTakeOver,
}

/// A follower that goes on as the leader.
pub(super) struct Successor {
    pub(super) inbox: Inbox,
    pub(super) process: Process,
    pub(super) role: Leading,
    pub(super) notices: Receiver<Notice>,
    pub(super) settings: leading::Settings,
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
    /// Whether it is on its way to where that one stands.
    draining: bool,
    prepared: Option<Prepared>,
    succeeded: Option<(Process, Leading, Receiver<Notice>)>,
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
            draining: false,
            prepared: None,
            succeeded: None,
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
                Notice::Drained => self.prepare(),
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
        (self.fallen, self.draining) = (Some(fallen), false);
        self.come_to_the_fallen()
    }

    /// Brings the twin of the process that has crashed to where that one stands, as soon as it is alone as well: a follower that
    /// is behind may have others still, or may not have made it yet.
    fn come_to_the_fallen(&mut self) -> Result<()> {
        let alone = self.members.len() == 1 && self.nursery.is_empty();
        let Some(fallen) = self.fallen.as_ref().filter(|_| alone && !self.draining && self.ended.is_none()) else {
            return Ok(());
        };
        match self.members.values_mut().next() {
            Some(member) if member.stream == fallen.stream => {
                self.draining = true;
                member.role.drain(&mut member.process, fallen.target, fallen.held.clone())
            }
            _ => Ok(()),
        }
    }

    /// It stands where the leader does: gets what the leader has.
    fn prepare(&mut self) {
        let (Some(fallen), Some(member)) = (&self.fallen, self.members.values().next()) else { return };
        match failover::prepare(&self.inbox, &member.process, &member.role, fallen) {
            Ok(prepared) => {
                self.prepared = Some(prepared);
                (self.ways.tell)(Says::Prepared(member.process.pid));
            }
            Err(error) => self.fail(format!("it could not take over: {error}")),
        }
    }

    /// The old leader is dead: goes on for real.
    fn lead(&mut self, legacy: Legacy) -> Result<()> {
        let (Some(fallen), Some(prepared)) = (self.fallen.take(), self.prepared.take()) else { return Ok(()) };
        let Some((pid, mut member)) = self.members.pop_first() else { return Ok(()) };
        let Legacy { mut stream, pending } = legacy;
        let (process, role) = (&mut member.process, &mut member.role);
        let succeeded = failover::succeed(&self.inbox, process, role, (&fallen, &prepared), &pending);
        let (threads, succession) = match succeeded {
            Ok(succeeded) => succeeded,
            Err(error) => {
                self.fail(format!("it could not take over: {error}"));
                // It may have been set already to live on without us.
                tree::end(pid)?;
                return self.kill();
            }
        };
        tracing::info!(%pid, signo = fallen.signo, "goes on in place of the leader");
        self.followed.add(&member.tally);
        self.ended = Some(FollowerEnd::TookOver { signo: fallen.signo });
        self.leave();
        let (sender, notices) = unbounded();
        let settings = super::lead::settings(self.ways.on_full, Arc::clone(&self.ways.streams));
        stream.emit(Slot(0), Event::Succession(succession));
        let role = Leading::succeed(threads, &member.process.memory, stream, settings, sender);
        self.succeeded = Some((member.process, role, notices));
        Ok(())
    }

    /// Returns what goes on as the leader, once the follower is over.
    pub(super) fn into_successor(self) -> Option<Successor> {
        let (process, role, notices) = self.succeeded?;
        let settings = super::lead::settings(self.ways.on_full, self.ways.streams);
        Some(Successor { inbox: self.inbox, process, role, notices, settings })
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

impl Tree for Follower {
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
            if let Some(member) = self.members.get_mut(&pid) {
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
                let pid = self.members.keys().next().copied();
                let heard = pid.map_or(Ok(()), |pid| self.listen(pid));
                self.check(heard);
            }
            Order::GoOn => {
                (self.fallen, self.draining) = (None, false);
                let released = self.members.values_mut().next().map(|one| one.role.release_drain(&mut one.process));
                self.check(released.unwrap_or(Ok(())));
            }
            Order::Lead(legacy) => {
                let result = self.lead(*legacy);
                self.check(result);
            }
            Order::LetDie | Order::Surrender => {}
        }
    }

    fn is_over(&mut self, tracees: Tracees) -> bool {
        let over = self.succeeded.is_some()
            || self.members.is_empty() && self.nursery.is_empty()
            || self.ended.is_some() && tracees == Tracees::None;
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
