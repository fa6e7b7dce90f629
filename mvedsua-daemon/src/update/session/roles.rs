//! The change of roles: the follower's image takes the place of the one in the service ([`crate::image`]).
//!
//! The process that serves is never replaced. Where a way back is wanted it is forked once more, and the child goes on with the
//! old image as the new follower; the old follower has given its image away and ends.

use bytes::Bytes;

use super::begin::{follow, reads_counter, recorder_settings};
use super::*;
use crate::image::place::{self, Failure};
use crate::image::program::Watch;
use crate::image::version::{Handlers, Version, parked};
use crate::ptrace::memory::Memory;
use crate::ptrace::ring::Mode;
use crate::record::leading::{HeldAt, HeldThread, holding};
use crate::replay::following::reconcile::Reconcile;
use crate::update::birth::{Birth, Unborn};
use crate::update::uncopied::{self, Uncopied};

/// Whether the image that is replaced goes on as a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WayBack {
    /// It may be wanted again.
    Wanted,
    /// It crashed or is wrong, and the update is over.
    None,
}

/// An exchange that has happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchanged {
    /// How many bytes of memory were moved.
    pub(super) moved: u64,
    /// When the service went on.
    pub(super) went_on: Instant,
}

/// Says what a failure after the commit means.
pub(super) fn harm(error: &Error) -> String {
    format!("the other version's memory is in place, but not all of it went as it should: {error}")
}

/// The follower right before it gives its image away.
struct Coming {
    version: Version,
    /// What the epoll sets call by different values in the two.
    registrations: Vec<(i32, i32, Pair)>,
    /// Threads had run beside each other while the old version led.
    raced: bool,
    /// What the service has read and this version has not.
    unread: Vec<(i32, Bytes)>,
}

/// A call that was interrupted has less of its time left, and the program's memory says so. The version that leads makes it with
/// all of the time, and so does the child that follows it.
fn give_time_back(child: Pid, held: &[HeldThread]) -> Result<()> {
    let shortened = held.iter().filter(|thread| matches!(thread.at, HeldAt::Rewound(_)));
    let calls = shortened.filter_map(|thread| thread.call.as_ref()).filter(|call| regs::shortens(call.nr));
    let mut memory = None;
    for piece in calls.flat_map(|call| &call.inputs) {
        let memory = match &mut memory {
            Some(memory) => memory,
            none => none.insert(Memory::open(child)?),
        };
        memory.write(piece.addr.0, &piece.bytes)?;
    }
    Ok(())
}

/// A timed call that was to go on as `restart_syscall` is made under its own number: in another process, nothing of it is left
/// to restart.
pub(crate) fn show_original_call(tid: Tid, rewound: Option<regs::Rewound>) -> Result<()> {
    let Some(call) = rewound else { return Ok(()) };
    let mut regs = sys::get_regs(tid)?;
    if regs.rax as i64 == libc::SYS_restart_syscall {
        regs.rax = u64::from(call.nr);
        sys::set_regs(tid, &regs)?;
    }
    Ok(())
}

/// Returns what of the epoll sets of a process another version calls by another value.
pub(crate) fn watches(pid: Pid, registrations: &[(i32, i32, Pair)]) -> Result<Vec<Watch>> {
    let mut watches = Vec::new();
    for (set, fd, pair) in registrations {
        let entries = procfs::epoll_entries(pid, *set)?;
        if let Some(entry) = entries.into_iter().find(|entry| entry.fd == *fd && entry.data == pair.leader) {
            watches.push(Watch { set: *set, fd: *fd, events: entry.events, data: pair.follower });
        }
    }
    Ok(watches)
}

impl Running<'_> {
    /// Looks, while the service runs, at what is not to be looked at while it stands still.
    pub(super) fn look_ahead(&self, way_back: WayBack) -> Result<Option<Vec<Uncopied>>> {
        match way_back {
            WayBack::Wanted => uncopied::find(self.leader, self.rings).map(Some),
            WayBack::None => Ok(None),
        }
    }

    /// Puts the follower's image in place. Both versions are held at the same call. `uncopied` is there where a way back is
    /// wanted.
    pub(super) fn swap(&mut self, uncopied: Option<Vec<Uncopied>>) -> Result<Exchanged, Failure> {
        let (service, old) = self.take_stock_of_service(uncopied).map_err(Failure::Before)?;
        let exchanged = match self.take_stock_of_follower(&service) {
            Ok(coming) => self.put_in_place(service, coming, old.as_ref()),
            Err(error) => Err(Failure::Before(error)),
        };
        match (exchanged, old) {
            (Ok((exchanged, reader, settings, registrations)), old) => {
                self.replace_follower(old, reader, settings, registrations);
                Ok(exchanged)
            }
            (Err(why), old) => {
                if let Some(old) = old {
                    let _ = sys::kill(old.child, libc::SIGKILL);
                    self.ended.push(old.child);
                }
                Err(why)
            }
        }
    }

    /// Takes stock of the image that is to be replaced, and forks it where it is to go on.
    fn take_stock_of_service(&mut self, uncopied: Option<Vec<Uncopied>>) -> Result<(Version, Option<Birth>)> {
        let limit = FORK_LIMIT;
        let (service, forked) = self.lead.ask(move |core| {
            let (inbox, process, role) = parts(core)?;
            let Role::Leading(leading) = role else { return Err(wrong_role()) };
            let held = leading.held().0;
            let threads = holding::rewind(&held)?;
            let service = Version::take_stock(inbox, process, &parked(&threads), Handlers::Unasked)?;
            let fork = |uncopied| {
                let birth = birth::fork_parked(inbox, process, service.threads.clone(), uncopied, limit)?;
                match give_time_back(birth.child, &held) {
                    Ok(()) => Ok(birth),
                    Err(error) => {
                        let _ = sys::kill(birth.child, libc::SIGKILL);
                        Err(Unborn { error, child: Some(birth.child) })
                    }
                }
            };
            let forked = uncopied.map(fork);
            Ok((service, forked))
        })?;
        match forked.transpose() {
            Ok(old) => Ok((service, old)),
            Err(Unborn { error, child }) => {
                self.ended.extend(child);
                Err(error)
            }
        }
    }

    fn take_stock_of_follower(&mut self, service: &Version) -> Result<Coming> {
        let handlers = Handlers::For(service.signals);
        self.follow.ask(move |core| {
            let (inbox, process, role) = parts(core)?;
            let Role::Following(following) = role else { return Err(wrong_role()) };
            let threads = following.rewind_all()?;
            threads.iter().try_for_each(|(tid, _, rewound)| show_original_call(*tid, *rewound))?;
            let version = Version::take_stock(inbox, process, &parked(&threads), handlers)?;
            let registrations = following.registrations().differing().collect();
            let unread = following.unread().collect();
            Ok(Coming { version, registrations, raced: following.has_raced(), unread })
        })
    }

    /// The commit and what belongs to it; the service goes on, recorded if somebody is to follow.
    #[expect(clippy::type_complexity, reason = "what the new follower is made of, used once")]
    fn put_in_place(
        &mut self,
        service: Version,
        coming: Coming,
        old: Option<&Birth>,
    ) -> Result<(Exchanged, log::Reader, following::Settings, Vec<(i32, i32, Pair)>), Failure> {
        let watches = watches(self.leader, &coming.registrations).map_err(Failure::Before)?;
        let (writer, reader) = log::channel(log_config(self.options));
        let gauge = reader.gauge();
        let (lead_bell, follow_bell) = (self.lead.bell(), self.follow.bell());
        writer.set_waker(Arc::new(move || lead_bell.ring()));
        reader.set_waker(Arc::new(move || follow_bell.ring()));
        let agreed = self.options.lockstep.then(|| Arc::new(AtomicU64::new(0)));
        let leaders = service.threads.iter().map(|thread| (thread.slot, thread.tid)).collect();
        let settings = following::Settings {
            leaders,
            objects: Objects::default(),
            hang_timeout: self.options.hang_timeout,
            // The new version leads: if it does not come to its calls, it is stuck.
            silence: Silence::Fault,
            tally: Arc::clone(&self.tally),
            agreement: agreed.clone().map(|agreed| (agreed, self.lead.bell())),
            reconcile: Reconcile {
                inside: coming.unread.iter().map(|(fd, _)| *fd).collect(),
                ..reconcile(self.leader, self.options, self.recording.as_ref(), Direction::UpdatedLeader)
            },
            pairing: Pairing::Threads,
            interleaving: self.options.interleaving,
            raced: coming.raced,
            unrecorded_clock: [self.leader, self.follower].into_iter().any(reads_counter),
            situations: self.options.situations,
            answers: self.options.answers,
        };
        let has_follower = old.is_some();
        let unread = coming.unread;
        let records = has_follower || !unread.is_empty();
        let recorder = records.then(|| (writer, recorder_settings(self.options, &self.pace, agreed)));
        let generation = self.generation;
        let version = coming.version;
        let placed = self.lead.ask_to_decide(move |core, permit| {
            let notices = core.notices.clone();
            let before = Failure::Before;
            let (inbox, process, role) = parts(core).map_err(before)?;
            let Role::Leading(leading) = role else { return Err(before(wrong_role())) };
            let prepared = place::prepare(inbox, process, &service, &version, &watches).map_err(before)?;
            let moved = prepared.moved;
            let threads = match prepared.commit(generation, generation + 1, || permit.decide()) {
                Ok(threads) => threads,
                Err(failure) => {
                    if let Failure::After(_) = failure {
                        *role = Role::Idle;
                    }
                    return Err(failure);
                }
            };
            leading.send_all_postponed();
            let bulk = leading.take_bulk();
            process.restarted.clear();
            process.change_rings(Mode::Note);
            match recorder {
                Some((writer, settings)) => {
                    let stream = Stream::new(writer);
                    let mut leading = Leading::new(threads, &process.memory, stream, settings, notices);
                    leading.use_bulk(bulk);
                    leading.has_not_read(unread);
                    if !has_follower {
                        leading.record_no_more("nobody follows");
                    }
                    let started = leading.start();
                    *role = Role::Leading(Box::new(leading));
                    started.map_err(Failure::After)?;
                }
                None => *role = Role::Idle,
            }
            Ok(Exchanged { moved, went_on: Instant::now() })
        });
        match placed {
            Ok(exchanged) => {
                self.generation = generation + 1;
                self.gauge = gauge;
                Ok((exchanged, reader, settings, coming.registrations))
            }
            Err(failure) => {
                if let Failure::After(_) = failure {
                    self.generation = generation + 1;
                }
                Err(failure)
            }
        }
    }

    /// The follower has given its image away and ends; the child with the old image, if there is one, follows from now on.
    /// Whatever fails here does not concern the service.
    fn replace_follower(
        &mut self,
        old: Option<Birth>,
        reader: log::Reader,
        mut settings: following::Settings,
        registrations: Vec<(i32, i32, Pair)>,
    ) {
        self.end_follower();
        self.ended.push(self.follower);
        let Some(old) = old else { return };
        self.follower = old.child;
        settings.objects = Objects::of_process(self.leader);
        let swapped = registrations
            .into_iter()
            .map(|(epfd, fd, pair)| (epfd, fd, Pair { leader: pair.follower, follower: pair.leader }))
            .collect();
        let followed = self.follow.ask(move |core| {
            follow(core, &old, reader, settings, |following, _, _| {
                following.adopt_registrations(swapped);
                Ok(())
            })
        });
        if let Err(error) = followed {
            tracing::error!(%error, "the new version serves, but the old one does not follow");
            let _ = self.notice_sender.send(Notice::Broken { tid: Tid(0), error: error.to_string() });
        }
    }
}
