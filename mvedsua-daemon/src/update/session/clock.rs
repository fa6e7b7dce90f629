//! The clock of a session: rings the tracer threads' bells, so that they see their deadlines, and watches the memory.

use super::*;

/// Rings the tracer threads' bells, so that they see their deadlines.
pub(super) struct Clock {
    stop: Arc<AtomicBool>,
    join: Option<JoinHandle<()>>,
}

impl Clock {
    pub(super) fn start(tracers: &[&Tracer]) -> Clock {
        Clock::start_with(tracers, || {})
    }

    /// Starts a clock that says as well when memory runs short.
    pub(super) fn start_watching(
        tracers: &[&Tracer],
        mut watch: memory_limit::Watch,
        notices: Sender<Notice>,
    ) -> Clock {
        Clock::start_with(tracers, move || {
            if let Some(how) = watch.look() {
                // Nobody listens to this once the session has ended.
                let _ = notices.send(Notice::MemoryShort(how));
            }
        })
    }

    fn start_with(tracers: &[&Tracer], mut also: impl FnMut() + Send + 'static) -> Clock {
        let stop = Arc::new(AtomicBool::new(false));
        let bells: Vec<_> = tracers.iter().map(|tracer| tracer.bell()).collect();
        let stopped = Arc::clone(&stop);
        let join = std::thread::Builder::new()
            .name("mvedsua-clock".into())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    std::thread::park_timeout(CLOCK);
                    bells.iter().for_each(|bell| bell.ring());
                    also();
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
