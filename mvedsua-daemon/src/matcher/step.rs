//! What a thread's next record asks for, by the place where the thread is.
//!
//! One function for each kind of record, and each place by name: a pair that nobody has thought of does not compile. What
//! cannot resolve itself by anything that the thread does is a difference, not a wait.

use super::{Child, Making, Phase, Progress};
use crate::compare::DivergenceKind;
use crate::record::{Delivery, Ending, Event, SignalRecord};

/// What is to be done about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The call that waits is compared with it ([`super::tolerances`]), and answered.
    Answer,
    /// The call that was entered returns as it says.
    Return,
    /// It asks for nothing that concerns this follower.
    PassOver,
    /// It cannot be answered yet.
    Wait(For),
    /// The call that was entered makes a thread, for real.
    MakeThread,
    /// The thread that was made lives through records from here on.
    AdoptThread,
    /// The call that has made a thread returns as it says.
    ReturnFromThread,
    /// The call that was entered makes a process, for real.
    MakeProcess,
    /// The process that was made is handed over.
    AdoptProcess,
    /// The call that has made a process returns as it says.
    ReturnFromProcess,
    /// The call that was entered replaces the program, for real.
    Execute,
    /// Others go on beside the thread.
    LetOverdue,
    /// The thread, which was held until it is told, may go on.
    Tell,
    /// The thread was to be held until it is told, and its twin was not.
    TellUnasked,
    /// The signal is delivered with the return of the call.
    KeepSignal,
    /// The signal is sent to the thread, in its own call.
    SendSignal,
    /// The signal is delivered before the call at which the thread stands.
    DeliverSignal,
    /// The fault of the thread is its twin's, and ends it.
    ShareFault,
    /// The fault that the thread came upon is not its twin's.
    Fault,
    /// The thread ends, as its twin has.
    End,
    /// The thread stands at a call that its twin did not make; unless that is allowed it is a difference.
    Unexpected,
    /// Nothing that the thread can do leads to this record.
    Impossible,
}

/// What a record waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// The thread comes to a call.
    Call,
    /// A call that the thread makes for real comes to its end.
    RealCall,
    /// A thread or process that is being made is there.
    Birth,
    /// The thread ends.
    End,
    /// The roles change, or do not.
    ChangeOfRoles,
}

/// What is to be known of a thread beside its phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// It is held until it is told to go on.
    pub(crate) untold: bool,
    /// It is in user code, or in a call that it will not wait in.
    pub(crate) busy: bool,
    /// Its twin is about to return from the call by which it ends counting the processors alone.
    pub(crate) twin_closes: bool,
    /// Its twin is in a call that was passed over.
    pub(crate) twin_alone: bool,
    /// The versions have parted, and the signal is one that the leader has sent itself.
    pub(crate) own_signal: bool,
}

/// Returns what is to be done about a thread's next record.
pub(crate) fn step(event: &Event, phase: Phase<'_>, facts: Facts) -> Step {
    if facts.own_signal || facts.twin_closes && matches!(event, Event::Return(_)) {
        return Step::PassOver;
    }
    if let Phase::Faulted(fault) = phase {
        return of_fault(event, fault);
    }
    match event {
        Event::Overdue => return Step::LetOverdue,
        Event::Resumed => return of_turn(facts),
        Event::Call(..)
        | Event::Enter(_)
        | Event::Return(_)
        | Event::Signal(_)
        | Event::ThreadStarted { .. }
        | Event::ThreadEnded
        | Event::ProcessStarted { .. }
        | Event::Executed(_)
        | Event::Gap(_)
        | Event::Succession(_)
        | Event::ProcessEnded(_) => {}
    }
    // Its twin has come further, and so it may go on as well.
    if facts.untold && matches!(phase, Phase::Computes | Phase::InOwnCall(_)) {
        return Step::TellUnasked;
    }
    match event {
        Event::Call(..) | Event::Enter(_) => of_call(phase),
        Event::Return(_) => of_return(phase, facts),
        Event::Signal(signal) => of_signal(signal, phase),
        Event::ThreadStarted { .. } => of_thread(phase),
        Event::ThreadEnded => of_end(phase),
        Event::ProcessStarted { .. } => of_process(phase),
        Event::Executed(_) => of_program(phase),
        // They concern the whole process, and no thread is asked.
        Event::Gap(_) | Event::Succession(_) | Event::ProcessEnded(_) | Event::Overdue | Event::Resumed => {
            Step::Impossible
        }
    }
}

fn of_fault(event: &Event, fault: &DivergenceKind) -> Step {
    match (event, fault) {
        (Event::Signal(signal), DivergenceKind::Crash { signo, .. }) if *signo == signal.signo => Step::ShareFault,
        _ => Step::Fault,
    }
}

/// What becomes of a record that asks for something else than the place where the thread is: it is waited for if the thread
/// leaves that place by itself.
fn elsewhere(phase: Phase<'_>) -> Step {
    match phase {
        Phase::Computes | Phase::InOwnCall(_) => Step::Wait(For::Call),
        Phase::Makes(
            Making::Own | Making::Program | Making::Alike | Making::Mapping | Making::Update | Making::Suspension,
        ) => Step::Wait(For::RealCall),
        Phase::Makes(Making::End) => Step::Wait(For::End),
        Phase::Parked => Step::Wait(For::ChangeOfRoles),
        Phase::AtCall(_) => Step::Unexpected,
        // Only a record lets it return, and this one is not it.
        Phase::Entered | Phase::Makes(Making::Thread(..) | Making::Process(_)) => Step::Impossible,
        Phase::Faulted(_) => Step::Fault,
    }
}

fn of_call(phase: Phase<'_>) -> Step {
    if let Phase::AtCall(_) = phase { Step::Answer } else { elsewhere(phase) }
}

fn of_return(phase: Phase<'_>, facts: Facts) -> Step {
    if let Phase::Entered = phase {
        return Step::Return;
    }
    if let Phase::AtCall(_) = phase
        && facts.twin_alone
    {
        return Step::PassOver;
    }
    if let Phase::Makes(Making::Thread(_, progress) | Making::Process(progress)) = phase {
        return match (progress, phase) {
            (Progress::UnderWay, _) => Step::Wait(For::RealCall),
            (Progress::Returned, Phase::Makes(Making::Thread(..))) => Step::ReturnFromThread,
            (Progress::Returned, _) => Step::ReturnFromProcess,
        };
    }
    elsewhere(phase)
}

fn of_signal(signal: &SignalRecord, phase: Phase<'_>) -> Step {
    // It belongs to the call behind the one that is being made.
    if let Phase::Makes(Making::Alike | Making::Mapping) = phase {
        return Step::Wait(For::RealCall);
    }
    if signal.delivery == Delivery::AtReturn {
        return Step::KeepSignal;
    }
    match phase {
        Phase::InOwnCall(_) if signal.delivery == Delivery::InOwnCall => Step::SendSignal,
        Phase::AtCall(_) => Step::DeliverSignal,
        Phase::Computes
        | Phase::InOwnCall(_)
        | Phase::Entered
        | Phase::Makes(_)
        | Phase::Parked
        | Phase::Faulted(_) => elsewhere(phase),
    }
}

fn of_thread(phase: Phase<'_>) -> Step {
    if let Phase::Entered = phase {
        return Step::MakeThread;
    }
    if let Phase::Makes(Making::Thread(child, _)) = phase {
        return match child {
            Child::Here => Step::AdoptThread,
            Child::Awaited | Child::Announced => Step::Wait(For::Birth),
            // A call makes one thread.
            Child::Adopted => Step::Impossible,
        };
    }
    elsewhere(phase)
}

fn of_end(phase: Phase<'_>) -> Step {
    match phase {
        Phase::Makes(Making::End) => Step::End,
        // Another thread ends the process, or replaces its program.
        Phase::Entered | Phase::Makes(Making::Thread(..) | Making::Process(_)) => Step::Wait(For::End),
        Phase::Computes
        | Phase::InOwnCall(_)
        | Phase::AtCall(_)
        | Phase::Makes(
            Making::Own | Making::Program | Making::Alike | Making::Mapping | Making::Update | Making::Suspension,
        )
        | Phase::Parked
        | Phase::Faulted(_) => elsewhere(phase),
    }
}

fn of_process(phase: Phase<'_>) -> Step {
    // Made when it is known that the leader's was: it may have failed, or be made again after a signal.
    if let Phase::Entered = phase {
        return Step::MakeProcess;
    }
    if let Phase::Makes(Making::Process(_)) = phase { Step::AdoptProcess } else { elsewhere(phase) }
}

fn of_program(phase: Phase<'_>) -> Step {
    if let Phase::Entered = phase { Step::Execute } else { elsewhere(phase) }
}

fn of_turn(facts: Facts) -> Step {
    match facts {
        Facts { untold: true, .. } => Step::Tell,
        // When the roles changed it stood at a call that orders threads, the leader's before or behind it.
        Facts { busy: true, .. } => Step::Wait(For::Call),
        Facts { busy: false, .. } => Step::PassOver,
    }
}

/// Says whether the fault that the follower has come upon is what ended the leader's process.
pub(crate) fn is_same_end(fault: &DivergenceKind, ending: Ending) -> bool {
    matches!(fault, DivergenceKind::Crash { signo, .. } if ending == Ending::Killed(*signo))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::tests::{call, entry, ret};
    use crate::record::{Executed, Gap, Slot, StreamId, Succession};

    fn signal(delivery: Delivery) -> Event {
        Event::Signal(SignalRecord { delivery, signo: 10, more: false, siginfo: bytes::Bytes::new() })
    }

    fn events() -> Vec<Event> {
        let executed = Executed { path: "/x".into(), directory: "/".into(), random: [0; 16], image: None };
        vec![
            Event::Call(entry(1, [0; 6]), ret(0)),
            Event::Enter(entry(1, [0; 6])),
            Event::Return(ret(0)),
            signal(Delivery::AtReturn),
            signal(Delivery::InOwnCall),
            signal(Delivery::BeforeNextCall),
            signal(Delivery::AtOnce),
            Event::ThreadStarted { child: Slot(1), tid: 2 },
            Event::ThreadEnded,
            Event::Resumed,
            Event::Overdue,
            Event::Gap(Gap { reason: String::new() }),
            Event::ProcessStarted { stream: StreamId(1), pid: 3 },
            Event::Executed(executed),
            Event::ProcessEnded(Ending::Exited(0)),
            Event::Succession(Succession::default()),
        ]
    }

    /// Where only a record leads out of: nothing that the thread does by itself.
    fn is_stuck(phase: Phase<'_>) -> bool {
        match phase {
            Phase::AtCall(_) | Phase::Entered | Phase::Faulted(_) => true,
            Phase::Makes(Making::Thread(_, progress) | Making::Process(progress)) => progress == Progress::Returned,
            Phase::Makes(
                Making::Own
                | Making::Program
                | Making::Alike
                | Making::Mapping
                | Making::Update
                | Making::Suspension
                | Making::End,
            )
            | Phase::Computes
            | Phase::InOwnCall(_)
            | Phase::Parked => false,
        }
    }

    #[test]
    fn no_record_waits_for_a_thread_that_cannot_go_on_without_it() {
        let (waiting, fault) = (call(1, [0; 6]), DivergenceKind::Crash { signo: 11, address: 0 });
        let children = [Child::Awaited, Child::Announced, Child::Here, Child::Adopted];
        let progress = [Progress::UnderWay, Progress::Returned];
        let threads = children.iter().flat_map(|child| progress.map(|progress| Making::Thread(*child, progress)));
        let others = [Making::Own, Making::Program, Making::Alike, Making::Mapping, Making::Update, Making::Suspension];
        let makes = threads.chain(progress.map(Making::Process)).chain(others).chain([Making::End]).map(Phase::Makes);
        let phases = [Phase::Computes, Phase::InOwnCall(202), Phase::Entered, Phase::Parked];
        let held = [Phase::AtCall(&waiting), Phase::Faulted(&fault)];
        let phases: Vec<Phase<'_>> = phases.into_iter().chain(held).chain(makes).collect();
        for event in events() {
            for phase in &phases {
                let Step::Wait(what) = step(&event, *phase, Facts::default()) else { continue };
                let comes = match what {
                    // Another thread ends it, or its child comes to its first stop.
                    For::End => event == Event::ThreadEnded || matches!(phase, Phase::Makes(Making::End)),
                    For::Birth => matches!(phase, Phase::Makes(Making::Thread(..))),
                    For::Call | For::RealCall | For::ChangeOfRoles => !is_stuck(*phase),
                };
                assert!(comes, "{event:?} at {phase:?} waits for {what:?}");
            }
        }
    }

    #[test]
    fn a_call_is_compared_where_the_thread_waits_at_one() {
        let waiting = call(1, [0; 6]);
        let whole = Event::Call(entry(1, [0; 6]), ret(0));
        let of = |event: &Event, phase| step(event, phase, Facts::default());
        assert_eq!(of(&whole, Phase::AtCall(&waiting)), Step::Answer);
        assert_eq!(of(&whole, Phase::Computes), Step::Wait(For::Call));
        assert_eq!(of(&whole, Phase::Entered), Step::Impossible, "its return is missing");
        assert_eq!(of(&Event::Return(ret(0)), Phase::Entered), Step::Return);
        assert_eq!(of(&Event::Return(ret(0)), Phase::AtCall(&waiting)), Step::Unexpected);
        let alone = Facts { twin_alone: true, ..Facts::default() };
        assert_eq!(step(&Event::Return(ret(0)), Phase::AtCall(&waiting), alone), Step::PassOver);
    }

    #[test]
    fn a_thread_is_made_adopted_and_let_go() {
        let started = Event::ThreadStarted { child: Slot(1), tid: 2 };
        let of = |event: &Event, child, progress| {
            step(event, Phase::Makes(Making::Thread(child, progress)), Facts::default())
        };
        assert_eq!(step(&started, Phase::Entered, Facts::default()), Step::MakeThread);
        assert_eq!(of(&started, Child::Announced, Progress::UnderWay), Step::Wait(For::Birth));
        assert_eq!(of(&started, Child::Here, Progress::UnderWay), Step::AdoptThread);
        assert_eq!(of(&started, Child::Here, Progress::Returned), Step::AdoptThread, "the maker may be first");
        let returned = Event::Return(ret(7));
        assert_eq!(of(&returned, Child::Adopted, Progress::UnderWay), Step::Wait(For::RealCall));
        assert_eq!(of(&returned, Child::Adopted, Progress::Returned), Step::ReturnFromThread);
    }

    #[test]
    fn a_signal_has_its_place() {
        let waiting = call(1, [0; 6]);
        let of = |delivery, phase| step(&signal(delivery), phase, Facts::default());
        assert_eq!(of(Delivery::AtReturn, Phase::Entered), Step::KeepSignal);
        assert_eq!(of(Delivery::AtReturn, Phase::Makes(Making::Alike)), Step::Wait(For::RealCall));
        assert_eq!(of(Delivery::InOwnCall, Phase::InOwnCall(202)), Step::SendSignal);
        assert_eq!(of(Delivery::InOwnCall, Phase::Computes), Step::Wait(For::Call));
        assert_eq!(of(Delivery::BeforeNextCall, Phase::AtCall(&waiting)), Step::DeliverSignal);
        let own = Facts { own_signal: true, ..Facts::default() };
        assert_eq!(step(&signal(Delivery::AtReturn), Phase::Entered, own), Step::PassOver);
    }

    #[test]
    fn a_fault_is_shared_or_a_difference() {
        let fault = |signo| DivergenceKind::Crash { signo, address: 0 };
        let of = |signo| step(&signal(Delivery::BeforeNextCall), Phase::Faulted(&fault(signo)), Facts::default());
        assert_eq!((of(10), of(11)), (Step::ShareFault, Step::Fault));
        assert!(is_same_end(&fault(11), Ending::Killed(11)) && !is_same_end(&fault(11), Ending::Exited(11)));
    }

    #[test]
    fn a_held_thread_is_told_by_its_record() {
        let untold = Facts { untold: true, ..Facts::default() };
        assert_eq!(step(&Event::Resumed, Phase::Computes, untold), Step::Tell);
        assert_eq!(step(&Event::Return(ret(0)), Phase::Computes, untold), Step::TellUnasked);
        let busy = Facts { busy: true, ..Facts::default() };
        assert_eq!(step(&Event::Resumed, Phase::Computes, busy), Step::Wait(For::Call));
        assert_eq!(step(&Event::Resumed, Phase::Computes, Facts::default()), Step::PassOver);
        assert_eq!(step(&Event::Overdue, Phase::Entered, Facts::default()), Step::LetOverdue);
    }
}
