//! Counting the processors, which either version may do alone, see [`crate::matcher::elastic`].

use super::*;

impl Following {
    pub(super) fn counting(&mut self, tid: Tid, counting: Counting) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.counting = counting;
        }
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
