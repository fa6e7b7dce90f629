//! Counting the processors, which either version may do alone, see [`super::super::elastic`].

use super::*;

impl Following {
    fn counting(&mut self, tid: Tid, counting: Counting) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.counting = counting;
        }
    }

    /// Passes over a record of the leader's counting, for which the follower makes another call. Says whether it was one.
    pub(super) fn pass_over_counting(&mut self, tid: Tid, call: &Call, entry: &CallEntry, ret: Option<i64>) -> bool {
        match self.threads.get(&tid).map(|thread| thread.counting) {
            Some(Counting::Leader(fd)) if elastic::goes_on_counting(entry.nr, &entry.args, fd) => {
                if i64::from(entry.nr) == libc::SYS_close {
                    // An output, whose return may be a record of its own.
                    self.counting(tid, if ret.is_some() { Counting::Neither } else { Counting::LeaderCloses });
                }
                true
            }
            Some(Counting::Neither)
                if elastic::counts_processors(entry.nr, &entry.inputs)
                    && !elastic::counts_processors(call.nr, &call.inputs) =>
            {
                if let Some(fd @ 0..) = ret {
                    self.counting(tid, Counting::Leader(fd as i32));
                }
                self.relaxed();
                true
            }
            _ => false,
        }
    }

    /// Passes over the return from the call by which the leader's counting ends. Says whether that was it.
    pub(super) fn end_counting(&mut self, tid: Tid) -> bool {
        let ends = self.threads.get(&tid).is_some_and(|thread| thread.counting == Counting::LeaderCloses);
        if ends {
            self.counting(tid, Counting::Neither);
        }
        ends
    }

    /// Answers a follower that begins to count although the leader does not. Says whether it does.
    pub(super) fn begin_counting(&mut self, tid: Tid, call: &Call) -> Result<bool> {
        if !elastic::counts_processors(call.nr, &call.inputs) {
            return Ok(false);
        }
        self.counting(tid, Counting::Follower(0));
        self.relaxed();
        sys::set_result(tid, i64::from(elastic::PROCESSORS_FD))?;
        self.go(tid, Resume::Sysemu, State::Running { local: None })?;
        Ok(true)
    }

    /// Answers the calls by which the follower alone goes on counting. Says whether this was one.
    pub(super) fn count_on(&mut self, process: &Process, tid: Tid, nr: u32, args: &[u64; 6]) -> Result<bool> {
        let Some(Counting::Follower(seen)) = self.threads.get(&tid).map(|thread| thread.counting) else {
            return Ok(false);
        };
        if !elastic::goes_on_counting(nr, args, elastic::PROCESSORS_FD) {
            return Ok(false);
        }
        let ret = if i64::from(nr) == libc::SYS_close {
            self.counting(tid, Counting::Neither);
            0
        } else {
            // Both versions run on the same machine: what the leader would read is what we read.
            let text = std::fs::read(elastic::PROCESSORS).unwrap_or_default();
            let rest = text.get(seen..).unwrap_or_default();
            let part = &rest[..rest.len().min(args[2] as usize)];
            process.memory.write(args[1], part)?;
            self.counting(tid, Counting::Follower(seen + part.len()));
            part.len() as i64
        };
        sys::set_result(tid, ret)?;
        self.go(tid, Resume::Sysemu, State::Running { local: None })?;
        Ok(true)
    }
}
