//! Telling a thread the time before it asks, see [`crate::ptrace::agent`].
//!
//! When a thread is let go, those of its next records that only tell the time are put into its ring as well. It uses them
//! without a stop, in their order, as long as it asks what the leader asked. What it has used is counted at its next stop;
//! what it has not used is still due and treated like every record.

use super::*;
use crate::ptrace::ring::Answer;

impl Following {
    /// Fills the ring of a thread that is about to go on.
    pub(super) fn tell_ahead(&mut self, process: &Process, tid: Tid) {
        let (Some(ring), Some(slot)) = (process.ring(tid), process.slot(tid)) else { return };
        // The record that is being answered is still the thread's first where it was not taken off.
        while self.due.first_of(slot).is_none() && self.fetch() {}
        let ahead = ring.fill(self.due.of(slot).map_while(answer));
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.ahead = ahead;
        }
    }

    /// Counts what a stopped thread has used, and takes the rest back.
    pub(super) fn count_told(&mut self, process: &Process, tid: Tid) {
        let Some(thread) = self.threads.get_mut(&tid) else { return };
        let (slot, ahead) = (thread.slot, std::mem::take(&mut thread.ahead));
        let Some(ring) = process.ring(tid).filter(|_| ahead > 0) else { return };
        // Whoever claims to have used more than there was gets no more.
        for _ in 0..ring.used().min(ahead) {
            if let Some(record) = self.due.pop(slot) {
                if let Event::Call(entry, ret) = &record.event {
                    self.known.times.note(entry, ret);
                }
                self.passed();
            }
        }
        ring.fill(std::iter::empty());
    }
}

/// Returns what a record tells of the time, if that is all it does.
fn answer(record: &Record) -> Option<Answer> {
    let Event::Call(entry, ret) = &record.event else { return None };
    let [told] = &ret.outputs[..] else { return None };
    Answer::to(entry.nr, &entry.args, ret.ret, told.bytes[..].try_into().ok()?)
}
