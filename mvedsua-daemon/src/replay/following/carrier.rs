//! What the matcher drives: the threads of one process that follows.

use super::super::objects::Touched;
use super::*;
use crate::matcher::drive::Carrier;
use crate::matcher::schedule;

/// A process that follows, and what is known of it.
pub(super) struct Live<'a> {
    pub(super) following: &'a mut Following,
    pub(super) process: &'a mut Process,
}

impl Carrier for Live<'_> {
    type Thread = Tid;
    type Touched = Touched;
    type Error = Error;

    fn due(&self) -> &Due {
        &self.following.due
    }

    fn fetch(&mut self) -> bool {
        self.following.fetch()
    }

    fn may_fetch(&self) -> bool {
        self.following.may_fetch()
    }

    fn arm(&mut self) -> bool {
        self.following.reader.arm()
    }

    fn is_finished(&self) -> bool {
        self.following.reader.is_finished()
    }

    fn sights(&self) -> impl Iterator<Item = Sight<'_, Tid>> {
        self.following.threads.iter().map(|(tid, thread)| self.following.sight(self.process, *tid, thread))
    }

    fn seat(&mut self, thread: Tid) -> Option<&mut Seat> {
        self.following.threads.get_mut(&thread).map(|thread| &mut thread.seat)
    }

    fn turns(&self) -> &Turns {
        &self.following.turns
    }

    fn turns_mut(&mut self) -> &mut Turns {
        &mut self.following.turns
    }

    fn orders(&self) -> Orders<'_> {
        self.following.orders()
    }

    fn goes_on(&self) -> bool {
        !self.following.ended && !self.following.is_on_its_own()
    }

    fn is_draining(&self) -> bool {
        self.following.drain.is_some()
    }

    fn waits_for_child(&mut self) -> bool {
        self.following.waits_for_child()
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn since_moved(&self) -> Duration {
        self.following.waiting.moved.elapsed()
    }

    fn leaders_present(&self) -> u64 {
        self.following.waiting.over.unwrap_or_else(|| now().0)
    }

    fn leaders_end(&mut self) -> u64 {
        *self.following.waiting.over.get_or_insert_with(|| now().0)
    }

    fn leader_comes(&self, slot: Slot) -> bool {
        self.following.leader_comes(slot)
    }

    fn is_awake(&self, thread: Tid) -> bool {
        turns::wakes(self.process.pid, thread)
    }

    fn note_race(&mut self, how: &'static str) {
        self.following.note_race(how);
    }

    fn answer(&mut self, slot: Slot) -> Result<bool> {
        self.following.answer_first(self.process, slot)
    }

    fn improvise(&mut self, thread: Tid) -> Result<bool> {
        match self.following.call_of(thread) {
            Some(call) if calls::is_elastic(call.nr, &call.args) => {
                self.following.improvise(self.process, thread, &call)
            }
            Some(_) | None => Ok(false),
        }
    }

    fn improvise_or_count(&mut self, thread: Tid) -> Result<bool> {
        match self.following.call_of(thread) {
            Some(call) if schedule::may_be_improvised(call.nr, &call.args) => {
                self.following.improvise(self.process, thread, &call)
            }
            Some(call) => self.following.begin_counting(thread, &call),
            None => Ok(false),
        }
    }

    fn deliver_signalled(&mut self) -> Result<bool> {
        self.following.deliver_signalled()
    }

    fn let_go(&mut self, thread: Tid) -> Result<()> {
        self.following.let_go(self.process, thread)
    }

    fn end_wait(&mut self, thread: Tid) -> Result<()> {
        self.following.end_wait(thread)
    }

    fn touched(&self, slot: Slot) -> Option<Touched> {
        self.following.due.first_of(slot).map(|record| self.following.touched(record))
    }

    fn concern(one: &Touched, other: &Touched) -> bool {
        one.concerns(other)
    }

    fn overtake(&mut self, slot: Slot) -> Result<bool> {
        self.following.overtake(self.process, slot)
    }
}
