//! Drives the leader's processes: each is recorded into a stream of its own.

mod letting_go;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::failover::{self, Fallen, Legacy};
use super::tree::{self, LOOK_AGAIN, Members, Nursery, Order, Part, ending, leave_ring};
use crate::image::place::Failure;
use crate::ptrace::memory::Memory;
use crate::ptrace::ring::Area;
use crate::ptrace::tsc;
use crate::ptrace::wait::{Inbox, Stop};
use crate::ptrace::{Pid, Result, Tid, procfs};
use crate::record::leading::processes::Birth;
use crate::record::leading::{Hold, Leading, OnCrash, Settings};
use crate::record::stream::Stream;
use crate::record::{Ending, Event, Slot};
use crate::tracee::driver::{Driven, Tracees};
use crate::tracee::process::{self, Half, Process};
use crate::tracee::rings::Rings;
use crate::tracee::slots::Slots;
use crate::update::session::Notice;

/// How long stopping the threads of a leader that has crashed may take.
const HOLD_LIMIT: Duration = Duration::from_secs(10);

/// Of how many processes that have ended it is kept where their rings were, for children that come to light later.
const AREAS: usize = 64;

/// What is heard of the leader.
#[derive(Debug)]
pub(super) enum Heard {
    /// Its first process has ended.
    Ended(Ending),
    /// It made a call that cannot be recorded: nobody can follow it any further.
    Refused { call: String, reason: String },
    /// A request to the kernel failed.
    Broken(String),
    /// It was told to end, and some of it still lived.
    Stopped,
    /// All of its processes have ended.
    Over,
    /// A process of it is held before a signal that would end it.
    Crashed(Box<Fallen>),
    /// It goes on with the memory of the follower that was ready.
    Became,
    /// Something that whoever started the run has to know.
    Noted(String),
    /// It could not be given that memory, and stands where it did.
    NotBecome(String),
}

#[derive(Debug)]
struct Member {
    process: Process,
    role: Leading,
    notices: Receiver<Notice>,
}

impl Part for Member {
    fn process(&self) -> &Process {
        &self.process
    }
}

/// The leader's processes.
pub(super) struct Leader {
    inbox: Inbox,
    first: Pid,
    members: Members<Member>,
    nursery: Nursery<Birth>,
    /// How children ended that were killed before anything else was heard of them.
    gone: BTreeMap<Tid, Ending>,
    settings: Settings,
    tell: Box<dyn Fn(Heard) + Send>,
    /// Nobody follows any more.
    released: bool,
    /// When it is tried again to let those go that could not be.
    free_again: Instant,
    /// It was told to end: whatever comes to light yet is ended too.
    killed: bool,
    /// Where the rings of the processes are that are not recorded any more.
    areas: Vec<Area>,
    /// Set while a process is held that has crashed.
    crashed: Option<Crashed>,
}

/// A process that has crashed.
#[derive(Clone, Copy, Debug)]
struct Crashed {
    pid: Pid,
    signo: i32,
    /// Since when its threads are being held.
    since: Instant,
    /// Whether it was told where they are held.
    told: bool,
}

impl Leader {
    fn new(inbox: Inbox, first: Pid, settings: Settings, tell: Box<dyn Fn(Heard) + Send>) -> Leader {
        Leader {
            inbox,
            first,
            members: Members::default(),
            nursery: Nursery::default(),
            gone: BTreeMap::new(),
            settings,
            tell,
            released: false,
            free_again: Instant::now(),
            killed: false,
            areas: Vec::new(),
            crashed: None,
        }
    }

    /// Takes over the first process, which stands before its first instruction, and lets it go.
    pub(super) fn start(
        inbox: Inbox,
        process: Process,
        stream: Stream,
        settings: Settings,
        tell: Box<dyn Fn(Heard) + Send>,
    ) -> Result<Leader> {
        let first = process.pid;
        let mut leader = Leader::new(inbox, first, settings, tell);
        leader.take_over(process, first.main(), stream)?;
        Ok(leader)
    }

    fn take_over(&mut self, process: Process, tid: Tid, stream: Stream) -> Result<()> {
        let (sender, notices): (Sender<Notice>, _) = unbounded();
        let mut role = Leading::new([(tid, Slot(0), None)], &process.memory, stream, self.settings.clone(), sender);
        role.start()?;
        self.members.insert(process.pid, Member { process, role, notices });
        Ok(())
    }

    /// Records a child from its first stop on.
    fn adopt(&mut self, birth: Birth) -> Result<()> {
        let (tid, pid) = (birth.child, Pid(birth.child.0));
        let memory = match leave_ring(tid, birth.rings).and_then(|()| Memory::open(pid)) {
            Ok(memory) => memory,
            // It was killed meanwhile: its end is still to be heard.
            Err(error) if error.is_gone() => {
                // It has stopped, so nothing else is waited for.
                self.nursery.born(tid, birth);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let process = process_of(&birth, memory);
        match birth.stream {
            Some(stream) => self.take_over(process, tid, stream),
            // Its parent is not recorded any more.
            None => self.free_child(birth),
        }
    }

    fn handle(&mut self, tid: Tid, stop: Stop) -> Result<()> {
        if tid == self.first.main()
            && let Some(ending) = ending(stop)
        {
            (self.tell)(Heard::Ended(ending));
        }
        if self.released {
            return self.let_go(tid, stop);
        }
        let Some(pid) = self.members.owner(tid) else {
            if let Some(ending) = ending(stop) {
                match self.nursery.ended(tid) {
                    Some(birth) => end_unseen(birth, ending),
                    None => drop(self.gone.insert(tid, ending)),
                }
                return Ok(());
            }
            if self.killed {
                return tree::end(Pid(tid.0));
            }
            self.gone.remove(&tid);
            return self.nursery.stopped(tid).map_or(Ok(()), |birth| self.adopt(birth));
        };
        let Some(member) = self.members.get_mut(&pid) else { return Ok(()) };
        if stop.is_end() && tid == pid.main() {
            // It may leave a child that it could not tell of any more.
            self.areas.extend(member.process.rings.as_ref().map(Rings::area));
            self.areas.drain(..self.areas.len().saturating_sub(AREAS));
        }
        let result = member.role.on_stop(&self.inbox, &mut member.process, tid, stop);
        let births = member.role.take_births();
        self.listen(pid);
        for birth in births {
            if let Some(ending) = self.gone.remove(&birth.child) {
                end_unseen(birth, ending);
            } else if let Some(birth) = self.nursery.born(birth.child, birth) {
                self.adopt(birth)?;
            }
        }
        result
    }

    /// Passes on what a process has to say, and forgets it when it has ended.
    fn listen(&mut self, pid: Pid) {
        let Some(member) = self.members.get_mut(&pid) else { return };
        let (mut crashed, mut held) = (None, false);
        for notice in member.notices.try_iter() {
            match notice {
                Notice::Refused { call, reason } => (self.tell)(Heard::Refused { call, reason }),
                Notice::Broken { tid, error } => (self.tell)(Heard::Broken(format!("thread {tid}: {error}"))),
                Notice::LeaderCrashed { signo, .. } => crashed = Some(signo),
                Notice::Held => held = true,
                _ => {}
            }
        }
        if member.role.is_over() {
            self.members.remove(&pid);
        }
        if let Some(signo) = crashed {
            let result = self.on_crash(pid, signo);
            self.check(result);
        }
        if held || crashed.is_some() {
            self.look_whether_held(pid);
        }
    }

    /// A process is held before a signal that would end it: a follower can take over, unless that is its parent's business.
    fn on_crash(&mut self, pid: Pid, signo: i32) -> Result<()> {
        let has_parent = self.members.contains_key(&procfs::parent(pid)?);
        let Some(member) = self.members.get_mut(&pid) else { return Ok(()) };
        if has_parent || self.crashed.is_some() {
            return member.role.let_die(&mut member.process);
        }
        self.crashed = Some(Crashed { pid, signo, since: Instant::now(), told: false });
        member.role.hold(&mut member.process, Hold::Anywhere)
    }

    /// Tells of a crash once all threads are held.
    fn look_whether_held(&mut self, pid: Pid) {
        let (Some(crashed), Some(member)) = (&mut self.crashed, self.members.get_mut(&pid)) else { return };
        if crashed.pid != pid || !member.role.is_held() || std::mem::replace(&mut crashed.told, true) {
            return;
        }
        match Fallen::describe(&member.process, &member.role, crashed.signo) {
            Ok(fallen) => (self.tell)(Heard::Crashed(Box::new(fallen))),
            Err(error) => {
                (self.tell)(Heard::Noted(format!("nobody takes over from process {pid}, which has crashed: {error}")));
                let result = self.let_die();
                self.check(result);
            }
        }
    }

    /// Nobody takes over: the signal does what it does.
    fn let_die(&mut self) -> Result<()> {
        let Some(Crashed { pid, .. }) = self.crashed.take() else { return Ok(()) };
        self.members.get_mut(&pid).map_or(Ok(()), |member| member.role.let_die(&mut member.process))
    }

    /// A process that has crashed goes on with the memory of a follower.
    fn become_other(&mut self, legacy: &Legacy) {
        let Some(crashed) = self.crashed else { return };
        let Some(member) = self.members.get_mut(&crashed.pid) else {
            return (self.tell)(Heard::NotBecome("the process that has crashed was ended".to_owned()));
        };
        let (sender, notices) = unbounded();
        let listening = (self.settings.clone(), sender);
        match failover::become_other(&self.inbox, &mut member.process, &mut member.role, legacy, listening) {
            Ok(note) => {
                member.notices = notices;
                self.crashed = None;
                note.into_iter().for_each(|note| (self.tell)(Heard::Noted(note)));
                (self.tell)(Heard::Became);
            }
            Err(Failure::Before(error)) => (self.tell)(Heard::NotBecome(error.to_string())),
            Err(Failure::After(error)) => {
                // It is neither the one nor the other.
                self.crashed = None;
                (self.tell)(Heard::Broken(format!(
                    "the memory of a follower is not in place as it should be: {error}"
                )));
                let ended = tree::end(crashed.pid);
                self.check(ended);
            }
        }
    }

    fn check(&self, result: Result<()>) {
        if let Err(error) = result
            && !error.is_gone()
        {
            (self.tell)(Heard::Broken(error.to_string()));
        }
    }

    /// Ends every process; says so if there was any left.
    fn kill(&mut self) -> Result<()> {
        self.killed = true;
        let living = self.members.iter().filter(|(_, member)| member.process.threads.first().is_some());
        let mut living: Vec<Pid> = living.map(|(pid, _)| *pid).collect();
        living.extend(self.nursery.take_stopped().into_iter().map(|tid| Pid(tid.0)));
        if !living.is_empty() {
            (self.tell)(Heard::Stopped);
        }
        living.into_iter().try_for_each(tree::end)
    }

    /// A child whose maker was killed before it could tell of it has no stream: it runs on by itself.
    fn look_for_strays(&mut self) {
        if self.members.is_empty() && self.nursery.has_stopped() && !self.released {
            let result = self.release();
            self.check(result);
        }
    }
}

/// Returns the process of a child that has just been born.
fn process_of(birth: &Birth, memory: Memory) -> Process {
    Process {
        pid: Pid(birth.child.0),
        memory,
        footprint: birth.footprint.clone(),
        threads: Slots::one(birth.child, Slot(0)),
        restarted: BTreeMap::new(),
        half: Half::First,
        rings: None,
        agent: None,
        leftovers: Vec::new(),
        ghosts: Vec::new(),
    }
}

/// A child was killed before it did anything: that is all there is to record of it.
fn end_unseen(birth: Birth, ending: Ending) {
    if let Some(mut stream) = birth.stream {
        stream.emit(Slot(0), Event::ProcessEnded(ending));
        stream.finish();
    }
}

impl Driven for Leader {
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
        if self.crashed.is_some_and(|crashed| !crashed.told && crashed.since.elapsed() > HOLD_LIMIT) {
            let result = self.let_die();
            self.check(result);
        }
        for pid in self.members.pids() {
            if let Some(member) = self.members.get_mut(&pid) {
                let result = member.role.on_bell(&self.inbox, &mut member.process);
                self.check(result);
                self.listen(pid);
            }
        }
        self.look_for_strays();
        self.free_the_rest();
    }

    fn on_order(&mut self, order: Order) {
        let result = match order {
            Order::Kill => self.kill(),
            Order::Release => self.release(),
            Order::LetDie => self.let_die(),
            Order::Become(legacy) => {
                self.become_other(&legacy);
                Ok(())
            }
            Order::TakeOver(_) | Order::Gone | Order::Unwanted(_) | Order::GoOn => Ok(()),
        };
        self.check(result);
    }

    fn is_over(&mut self, tracees: Tracees) -> bool {
        let over =
            if self.released { tracees == Tracees::None } else { self.members.is_empty() && self.nursery.is_empty() };
        if over {
            (self.tell)(Heard::Over);
        }
        over
    }
}

/// The settings of a leader that followers of its processes stand behind.
pub(super) fn settings(on_full: crate::update::OnFull, streams: Arc<super::streams::Streams>) -> Settings {
    let on_crash = if streams.have_takers() { OnCrash::Hold } else { OnCrash::End };
    Settings {
        on_crash,
        on_full,
        agreed: None,
        interleaving: streams.interleaving,
        pace: Arc::default(),
        pairing: mvedsua_common::syscalls::Pairing::Processes,
        streams: Some(streams),
    }
}
