//! The clock of a session: rings the tracer threads' bells, so that they see their deadlines.

use super::*;

/// Rings the tracer threads' bells, so that they see their deadlines.
pub(super) struct Clock {
    stop: Arc<AtomicBool>,
    join: Option<JoinHandle<()>>,
}

impl Clock {
    pub(super) fn start(tracers: &[&Tracer]) -> Clock {
        let stop = Arc::new(AtomicBool::new(false));
        let bells: Vec<_> = tracers.iter().map(|tracer| tracer.bell()).collect();
        let stopped = Arc::clone(&stop);
        let join = std::thread::Builder::new()
            .name("mvedsua-clock".into())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    std::thread::park_timeout(CLOCK);
                    bells.iter().for_each(|bell| bell.ring());
                }
            })
            .ok();
        Clock { stop, join }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(join) = self.join.take() {
            join.thread().unpark();
            let _ = join.join();
        }
    }
}
