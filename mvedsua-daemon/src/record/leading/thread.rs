//! What is known of one of the leader's threads.

use super::*;

/// A call between its entry and its exit.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) treatment: Treatment,
    pub(super) entry: CallEntry,
    pub(super) notes: regions::Notes,
    /// Each version makes it for itself, but a signal may come with it.
    pub(super) lets_in: bool,
    /// When its time is over, of a call that was made again and does not know that by itself.
    pub(super) limit: Option<limits::Limit>,
    /// What it is given that the kernel does not have any more.
    pub(super) given: Option<unread::Given>,
}

impl Call {
    pub(super) fn row(&self) -> Option<&'static Row> {
        self.treatment.row()
    }

    /// The place of the call in the total order; `None` for what each version does for itself.
    pub(super) fn order(&self) -> Option<Order> {
        match self.treatment {
            Treatment::Row(_) if self.lets_in => Some(Order::ByExit),
            Treatment::Row(row) => row.class.order(),
            Treatment::ThreadClone(_)
            | Treatment::GhostFork(_)
            | Treatment::Fork(_)
            | Treatment::Exec(_)
            | Treatment::MmapFile(_) => Some(Order::ByEntry),
            Treatment::Alike(_) => Some(Order::ByExit),
            Treatment::Restart(_) | Treatment::Absent(_) | Treatment::Refuse(_) => None,
        }
    }
}

#[derive(Debug)]
pub(super) enum State {
    Running,
    InCall(Box<Call>),
    Interrupted(Box<Call>, i64),
    /// Will enter the call again; `written` says that its entry is in the log already.
    Restarting {
        call: Box<Call>,
        written: bool,
    },
    Held {
        call: Option<Box<Call>>,
        at: HeldAt,
        written: bool,
    },
    /// About to return from an `execve` into another program.
    Executed,
}

impl State {
    /// Returns the call before which the thread is held, and where.
    pub(super) fn held_before(&self) -> Option<(&Call, &HeldAt)> {
        match self {
            State::Held { call, at, .. } => call.as_deref().map(|call| (call, at)),
            State::Running | State::InCall(_) | State::Interrupted(..) | State::Restarting { .. } | State::Executed => {
                None
            }
        }
    }

    /// Returns the call that the thread is in.
    pub(super) fn in_call(&self) -> Option<&Call> {
        match self {
            State::InCall(call) => Some(call),
            State::Running
            | State::Interrupted(..)
            | State::Restarting { .. }
            | State::Held { .. }
            | State::Executed => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Thread {
    pub(super) slot: Slot,
    pub(super) state: State,
    /// It has not reported its first stop yet, at which it gets a ring.
    pub(super) newborn: bool,
    /// At its last stop a signal was delivered, and these could be at once.
    pub(super) deliverable: u64,
    /// What the `execve` that it is in will execute.
    pub(super) program: Option<processes::Target>,
    /// Signals that it is given at its next call.
    pub(super) postponed: VecDeque<postponed::Postponed>,
    /// It stands still by this signal until somebody lets it go on.
    pub(super) stopped_by: Option<i32>,
    /// A fault of its own that it handles; what follows the first call that it makes by that is known.
    pub(super) fault: Option<Fault>,
}

/// A fault that the program has a handler for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) signo: i32,
    /// Where its stack ended.
    rsp: u64,
}

impl Fault {
    /// How far above the place of the fault a stack pointer is that shows that the handler was left by a jump.
    const LEFT: u64 = 64 << 20;

    pub(super) fn at(signo: i32, rsp: u64) -> Fault {
        Fault { signo, rsp }
    }

    /// Says whether a thread with this stack pointer may be in the handler: below the place of the fault, or on a stack of
    /// its own.
    pub(super) fn is_handled_at(self, rsp: u64) -> bool {
        !(self.rsp..self.rsp.saturating_add(Fault::LEFT)).contains(&rsp)
    }
}

impl Thread {
    pub(super) fn new(slot: Slot, state: State) -> Thread {
        let postponed = VecDeque::new();
        Thread { slot, state, newborn: false, deliverable: 0, program: None, postponed, stopped_by: None, fault: None }
    }

    /// Says whether it is ending by itself: not with its process, and not by a signal.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(&self.state, State::InCall(call) if i64::from(call.entry.nr) == libc::SYS_exit)
    }
}
