//! t0 to t1: the leader is forked and recorded, its child becomes a follower.

use super::*;
use crate::ptrace::tsc;
use crate::update::method::Follower;

pub(super) fn log_config(options: &Options) -> log::Config {
    log::Config { memory: options.log_memory, disk: options.log_disk, spill_dir: options.spill_dir.clone() }
}

/// How the process that serves is recorded while somebody follows it.
pub(super) fn recorder_settings(
    options: &Options,
    pace: &Arc<Pace>,
    agreed: Option<Arc<AtomicU64>>,
) -> leading::Settings {
    leading::Settings {
        on_full: options.on_full,
        agreed,
        pace: Arc::clone(pace),
        pairing: Pairing::Threads,
        interleaving: options.interleaving,
        on_crash: OnCrash::Hold,
        streams: None,
    }
}

/// t0 to t1: forks the leader, records it, makes the child a follower.
pub(super) fn begin<'a>(pid: Pid, options: &'a Options, events: &'a Sender<SessionEvent>) -> Result<Running<'a>> {
    let (notice_sender, notices) = unbounded();
    let lead = Tracer::spawn("mvedsua-lead", notice_sender.clone())?;
    let follow = Tracer::spawn("mvedsua-follow", notice_sender.clone())?;
    let _clock = Clock::start(&[&lead, &follow]);
    let limit = FORK_LIMIT;
    let mut application = options.change.0.look(pid)?;
    let start_time = procfs::start_time(pid)?;
    let recording = record(pid, options)?;
    let (writer, reader) = log::channel(log_config(options));
    let gauge = reader.gauge();
    let (lead_bell, follow_bell) = (lead.bell(), follow.bell());
    let agreed = options.lockstep.then(|| Arc::new(AtomicU64::new(0)));
    let agreement = agreed.clone().map(|agreed| (agreed, lead.bell()));
    writer.set_waker(Arc::new(move || lead_bell.ring()));
    reader.set_waker(Arc::new(move || follow_bell.ring()));
    let pace = Arc::new(Pace::default());
    let settings = recorder_settings(options, &pace, agreed);
    let bulk = match options.stops {
        Stops::WhereNeeded { calm } if !options.lockstep => Bulk::load(options.sight.clone(), calm),
        Stops::WhereNeeded { .. } => Bulk::stepped(options.sight.clone(), "its outputs wait for the follower"),
        Stops::AtEachCall => Bulk::stepped(options.sight.clone(), "it is asked to"),
    };
    let (birth, application) = lead.ask(move |core| {
        if recover::undo_leftovers(&core.inbox, pid, limit)? != recover::Recovered::Nothing {
            tracing::warn!(%pid, "cleaned up what an earlier daemon had left in the process");
        }
        let mut process = birth::prepare(&core.inbox, pid, limit)?;
        let forked = birth::fork(&core.inbox, &mut process, limit);
        let (mut birth, begun) = match forked {
            Ok(forked) => forked,
            Err(birth::Unborn { error, child }) => {
                let zombies = child.map_or(Zombies::Any, |child| Zombies::These(vec![child]));
                return Err(undo_fork(&core.inbox, process, zombies, error, limit));
            }
        };
        if let Err(error) = application.on_forked(&process.memory) {
            tracing::warn!(%error, "the program is not told of its update");
        }
        let threads = birth.threads.iter().map(|thread| (thread.tid, thread.slot, thread.parked.rewound()));
        let mut leading = Leading::new(threads, &process.memory, Stream::new(writer), settings, core.notices.clone());
        leading.use_bulk(bulk);
        if let Err(error) = leading.start() {
            let _ = sys::kill(birth.child, libc::SIGKILL);
            return Err(undo_fork(&core.inbox, process, Zombies::These(vec![birth.child]), error, limit));
        }
        birth.pause = begun.elapsed();
        core.process = Some(process);
        core.role = Role::Leading(Box::new(leading));
        Ok((birth, application))
    })?;
    let follower = birth.child;
    let threads = birth.threads.len() as u32;
    let pause_us = birth.pause.as_micros() as u64;
    let _ = events.send(SessionEvent::Forked { leader: pid.0, follower: follower.0, threads, pause_us });
    let tally = Arc::new(Tally::default());
    let reconcile = reconcile(pid, options, recording.as_ref(), Direction::OutdatedLeader);
    let settings = following::Settings {
        leaders: birth.threads.iter().map(|thread| (thread.slot, thread.tid)).collect(),
        objects: Objects::of_process(pid),
        hang_timeout: options.hang_timeout,
        silence: Silence::Accepted,
        tally: Arc::clone(&tally),
        agreement,
        reconcile,
        pairing: Pairing::Threads,
        interleaving: options.interleaving,
        raced: false,
        unrecorded_clock: reads_counter(pid),
        situations: options.situations,
        answers: options.answers,
    };
    let limit = options.apply_timeout;
    let rings = birth.rings.map(|rings| rings.base);
    let adopted = follow.ask(move |core| {
        let leaders: BTreeMap<Slot, Tid> = birth.threads.iter().map(|thread| (thread.slot, thread.tid)).collect();
        self::follow(core, &birth, reader, settings, |following, inbox, process| {
            let applying = application.begin(&Follower { inbox, process, leader: pid, leaders, limit })?;
            let is_there = applying.is_none();
            applying.into_iter().for_each(|applying| following.apply_first(applying));
            Ok(is_there)
        })
    });
    let mut running = Running {
        options,
        events,
        notices,
        notice_sender,
        lead,
        follow,
        leader: pid,
        start_time,
        follower,
        stage: Stage::Outdated,
        tally,
        gauge,
        pace,
        applied_at: None,
        caught_up: false,
        was_behind: 0,
        parted: false,
        generation: 0,
        rings,
        ended: Vec::new(),
        recording,
    };
    match adopted {
        Ok(is_there) => {
            if is_there {
                running.applied_at = Some(Instant::now());
                running.tell(SessionEvent::Applied);
            }
            Ok(running)
        }
        Err(error) => {
            if let Err(second) = running.undo("the follower could not be made") {
                tracing::error!(error = %second, "undoing a failed start");
            }
            Err(error)
        }
    }
}

/// Makes a follower of a child that was forked. `prepare` does what is to be done before it goes on.
pub(super) fn follow<T>(
    core: &mut Core,
    birth: &birth::Birth,
    reader: log::Reader,
    settings: following::Settings,
    prepare: impl FnOnce(&mut Following, &Inbox, &Process) -> Result<T>,
) -> Result<T> {
    let adopted = birth::adopt(&core.inbox, birth).and_then(|process| {
        let place = |slot| {
            let twin = birth.threads.iter().find(|thread| thread.slot == slot);
            Standing::of(twin.and_then(|thread| thread.parked.rewound()))
        };
        let threads: Vec<_> = process.threads.iter().map(|(tid, slot)| (tid, slot, place(slot))).collect();
        let mut following = Following::new(threads, reader, settings, core.notices.clone());
        let prepared = prepare(&mut following, &core.inbox, &process)?;
        following.start()?;
        core.process = Some(process);
        core.role = Role::Following(Box::new(following));
        Ok(prepared)
    });
    adopted.inspect_err(|_| {
        // The leader waits for it when it is put back.
        if let Err(error) = crate::tracee::process::kill(&core.inbox, birth.child) {
            tracing::error!(%error, "ending a child that did not become a follower");
        }
    })
}

/// A leader that was prepared and has no follower is put back. Its threads may be parked.
fn undo_fork(inbox: &Inbox, process: Process, zombies: Zombies, error: Error, limit: Duration) -> Error {
    match park_all(inbox, &process, limit).and_then(|parked| process.release(inbox, parked, zombies)) {
        Ok(()) => error,
        Err(second) if second.is_gone() => error,
        Err(second) => {
            tracing::error!(error = %second, "undoing a failed fork");
            error
        }
    }
}

/// Says whether a version reads the processor's counter: in a process that was there before its tracer nobody sees what it reads
/// (`update/preflight.rs`).
pub(super) fn reads_counter(pid: Pid) -> bool {
    tsc::is_read_by(std::path::Path::new(&format!("/proc/{pid}/exe"))).unwrap_or(false)
}
