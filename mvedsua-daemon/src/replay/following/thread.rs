//! What is known of one thread of the follower.

use super::real::{RealCall, What};
use super::*;

#[derive(Debug)]
pub(super) enum State {
    /// In user code, or in a call of its own (its number).
    Running {
        local: Option<u32>,
    },
    AtCall(Box<Call>),
    Entered(Box<Call>),
    /// Makes a call for real.
    Real(RealCall),
    /// Has come upon a fault that ends it, which may be what ends the leader too.
    Faulted(Box<DivergenceKind>),
    /// Stopped inside a call of its own, rewound, for a promotion.
    Parked(Rewound),
}

impl State {
    /// Returns the call that the thread waits at for its record.
    pub(super) fn at_call(&self) -> Option<&Call> {
        match self {
            State::AtCall(call) => Some(call),
            State::Running { .. } | State::Entered(_) | State::Real(_) | State::Faulted(_) | State::Parked(_) => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Thread {
    pub(super) slot: Slot,
    pub(super) state: State,
    /// Where it stood at first.
    pub(super) standing: Standing,
    pub(super) seat: Seat,
    /// A signal that the leader's thread was given on the return from its present call.
    pub(super) at_return: Option<Box<SignalRecord>>,
    /// A signal that was sent to the thread; its delivery is still to come.
    pub(super) incoming: Option<Box<SignalRecord>>,
    /// Signals that were sent to it to be delivered right after that one.
    pub(super) nested: Vec<SignalRecord>,
    /// It stands at the delivery of this signal, and it is not known yet whether another follows at once.
    pub(super) signalled: Option<Box<SignalRecord>>,
    /// A fault of its own that it has handled since its last call that was the leader's.
    pub(super) fault: Option<Box<DivergenceKind>>,
    /// Whether the record of its end was answered.
    pub(super) last_record_seen: bool,
    /// Whether it counts the processors, or its twin does.
    pub(super) counting: Counting,
    /// Which of its next records it was told already.
    pub(super) ahead: super::ahead::Ahead,
    pub(super) reach: super::ahead::Reach,
}

impl Thread {
    /// How the thread goes on where nothing but a stop has come in between.
    pub(super) fn next_stop(&self) -> Resume {
        match self.state {
            State::Real(_) => Resume::Syscall,
            State::Running { .. } | State::AtCall(_) | State::Entered(_) | State::Faulted(_) | State::Parked(_) => {
                Resume::Sysemu
            }
        }
    }

    pub(super) fn running(slot: Slot) -> Thread {
        Thread {
            slot,
            state: State::Running { local: None },
            standing: Standing::AtCall,
            seat: Seat::default(),
            at_return: None,
            incoming: None,
            nested: Vec::new(),
            signalled: None,
            fault: None,
            last_record_seen: false,
            counting: Counting::Neither,
            ahead: super::ahead::Ahead::default(),
            reach: super::ahead::Reach::default(),
        }
    }
}

/// Says where a thread stands, for people.
pub(super) fn describe_state(tid: Tid, thread: &Thread) -> String {
    let name = |nr: u32| syscalls::name(nr).unwrap_or("an unknown call");
    let what = match &thread.state {
        State::Running { .. } if thread.seat.is_held() => "stands after its call until its turn comes".to_owned(),
        State::Running { local: None } => "computes".to_owned(),
        State::Running { local: Some(nr) } => format!("is in or after its own {}", name(*nr)),
        State::AtCall(call) => format!("waits at {}({:#x}, …)", name(call.nr), call.args[0]),
        State::Entered(call) => format!("waits in {}({:#x}, …)", name(call.nr), call.args[0]),
        State::Real(real) => match &real.what {
            What::Own { nr } => format!("is in or after its own {}", name(*nr)),
            What::Thread(_) => "makes a thread".to_owned(),
            What::Process(_) => "makes a process".to_owned(),
            What::Program(_) => "executes another program".to_owned(),
            What::Alike { call, .. } => format!("makes its {}", name(call.nr)),
            What::Mapping(_) | What::Copies(_) => "maps memory".to_owned(),
            What::Update(_) => "makes a call of the update's own".to_owned(),
            What::Suspension(_) => "waits for a signal".to_owned(),
            What::End => "ends".to_owned(),
        },
        State::Faulted(kind) => format!("came upon a fault: {kind:?}"),
        State::Parked(call) => format!("is parked in {}", name(call.nr)),
    };
    format!("thread {} ({tid}) {what}", thread.slot.0)
}
