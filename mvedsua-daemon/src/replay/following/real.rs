//! A call that a thread of the follower makes for real.
//!
//! ```text
//!  at its entry ──undone──► Undone ───────────────► Undone ──────► Entered ─────► what it was made for
//!                                  exit of the entry       entry           exit
//!                                  that was undone
//! ```
//!
//! A thread that stands at an entry under `PTRACE_SYSEMU` has not made its call and will not. So it is rewound and comes to
//! the entry once more. From there on the two stops are told apart by the stage, whatever the call is made for.

use super::*;
use crate::matcher::schedule;
use crate::matcher::{Child, Making, Progress};

/// How far the call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The thread was rewound. Its next entry is that of the call.
    Undone,
    /// The kernel executes it.
    Entered,
}

#[derive(Debug)]
pub(super) struct RealCall {
    stage: Stage,
    pub(super) what: What,
}

/// What a call is made for.
#[derive(Debug)]
pub(super) enum What {
    /// It is each version's own business. What follows its entry is [`State::Running`].
    Own { nr: u32 },
    /// It makes a thread.
    Thread(Newborn),
    /// It makes a process.
    Process(Box<processes::Forking>),
    /// It executes another program.
    Program(Box<processes::Executing>),
    /// Its result is the leader's.
    Alike { call: Box<Call>, ret: Box<CallReturn> },
    /// It maps memory where the leader mapped a file.
    Mapping(Mapping),
    /// It changes mappings that are copies.
    Copies(copies::Change),
    /// It applies a new version.
    Update(applying::OwnCall),
    /// It waits for a signal that it lets in for the time of one call.
    Suspension(Box<letting_in::Suspending>),
    /// It ends the thread.
    End,
}

/// A thread that is being made.
#[derive(Debug)]
pub(super) struct Newborn {
    pub(super) call: Box<Call>,
    pub(super) born: Option<Tid>,
    pub(super) returned: Progress,
}

/// Memory of the follower's own, in place of a file that the leader maps.
#[derive(Debug)]
pub(super) struct Mapping {
    /// Where the leader's is, and how long.
    pub(super) leader: (u64, u64),
    pub(super) shared: bool,
    pub(super) writable: bool,
    /// What stands where from its beginning on.
    pub(super) contents: Vec<(u64, bytes::Bytes)>,
    pub(super) restore: [u64; 3],
}

impl RealCall {
    pub(super) fn new(what: What) -> RealCall {
        RealCall { stage: Stage::Undone, what }
    }

    /// Another call is made in its place, by which the same comes about. The thread stands at an exit, rewound.
    pub(super) fn begin_again(&mut self) {
        self.stage = Stage::Undone;
    }

    /// What the matcher is told; `child` says where a thread is that was made.
    pub(super) fn making(&self, child: impl FnOnce(Option<Tid>) -> Child) -> Making {
        match &self.what {
            What::Own { .. } | What::Copies(_) => Making::Own,
            What::Thread(newborn) => Making::Thread(child(newborn.born), newborn.returned),
            What::Process(forking) => Making::Process(forking.returned),
            What::Program(_) => Making::Program,
            What::Alike { .. } => Making::Alike,
            What::Mapping(_) => Making::Mapping,
            What::Update(_) => Making::Update,
            What::Suspension(_) => Making::Suspension,
            What::End => Making::End,
        }
    }

    /// Says whether the thread comes to its next stop without a record.
    pub(super) fn is_under_way(&self) -> bool {
        match &self.what {
            What::Thread(Newborn { returned, .. }) => *returned == Progress::UnderWay,
            What::Process(forking) => forking.returned == Progress::UnderWay,
            What::Own { .. }
            | What::Program(_)
            | What::Alike { .. }
            | What::Mapping(_)
            | What::Copies(_)
            | What::Update(_)
            | What::Suspension(_)
            | What::End => true,
        }
    }
}

impl State {
    /// The thread was rewound, to make its call for this.
    pub(super) fn real(what: What) -> State {
        State::Real(RealCall::new(what))
    }
}

impl Following {
    /// A thread that makes a call for real stands at its entry.
    pub(super) fn enter_real(&mut self, process: &mut Process, tid: Tid, nr: u32, args: &[u64; 6]) -> Result<()> {
        let Some(Thread { state: State::Real(real), .. }) = self.threads.get_mut(&tid) else { return Ok(()) };
        match &real.what {
            // From here the call is executed, and the next one is stopped before it is.
            What::Own { nr: original } => {
                let original = *original;
                self.enter_own(process, tid, original, nr, args)
            }
            What::End => {
                self.wake_by(process, nr, args);
                sys::resume(tid, Resume::Cont, 0)
            }
            What::Suspension(_) => self.on_suspended(tid),
            What::Thread(_)
            | What::Process(_)
            | What::Program(_)
            | What::Alike { .. }
            | What::Mapping(_)
            | What::Copies(_)
            | What::Update(_) => {
                real.stage = Stage::Entered;
                sys::resume(tid, Resume::Syscall, 0)
            }
        }
    }

    fn enter_own(&mut self, process: &mut Process, tid: Tid, original: u32, nr: u32, args: &[u64; 6]) -> Result<()> {
        let state = State::Running { local: Some(original) };
        if calls::lets_in(original) {
            self.send_incoming(tid);
        }
        if !calls::waits(original, args) {
            self.wake_by(process, original, args);
            self.tell_ahead(process, tid);
            return self.go(tid, Resume::Sysemu, state);
        }
        self.state(tid, state);
        // How much is left of the time that is given to `restart_syscall` is known to the kernel alone.
        let limit = schedule::limit(nr, args, self.waiting.lived_until, turns::realtime_ahead, &process.memory);
        // Nor is it known what it waits at.
        let pairing = self.settings.pairing;
        let place = if nr == original { schedule::place(nr, args, pairing) } else { schedule::Place::Unknown };
        let seen = self.will_sleep(process, tid, nr, args);
        self.fall_asleep(tid, limit, place, seen)?;
        self.advance(process)
    }

    /// A thread that makes a call for real stands at an exit; says whether there is such a thread.
    pub(super) fn leave_real(&mut self, inbox: &Inbox, process: &mut Process, tid: Tid, ret: i64) -> Result<bool> {
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(false) };
        let slot = thread.slot;
        let State::Real(real) = &mut thread.state else { return Ok(false) };
        if real.stage == Stage::Undone {
            sys::resume(tid, Resume::Syscall, 0)?;
            return Ok(true);
        }
        let failed = ret < 0 && !regs::is_interrupted(ret);
        match &mut real.what {
            What::Thread(newborn) if newborn.born.is_some() => {
                newborn.returned = Progress::Returned;
                self.advance(process)?;
            }
            What::Process(forking) if forking.born.is_some() => {
                forking.returned = Progress::Returned;
                self.advance(process)?;
            }
            What::Thread(_) if failed => {
                self.fails(process, slot, format!("the follower could not make a thread: {}", processes::error(ret)));
            }
            What::Process(_) if failed => {
                self.fails(process, slot, format!("the follower could not make a process: {}", processes::error(ret)));
            }
            What::Program(_) => self.leave_program(inbox, process, tid, ret)?,
            What::Alike { call, ret } => {
                let (call, ret) = (call.clone(), ret.clone());
                self.supply(process, tid, &call, &ret)?;
                self.advance(process)?;
            }
            What::Mapping(_) => self.fill_copy(process, tid)?,
            What::Copies(change) => {
                let change = *change;
                self.finish_change(process, tid, change, ret)?;
            }
            What::Update(_) => self.finish_own(tid)?,
            // It is made again.
            What::Thread(_) | What::Process(_) => sys::resume(tid, Resume::Syscall, 0)?,
            // Their entries are the last that is seen of them, or a signal ends them.
            What::Own { .. } | What::Suspension(_) | What::End => sys::resume(tid, Resume::Syscall, 0)?,
        }
        Ok(true)
    }
}
