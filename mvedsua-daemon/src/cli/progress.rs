//! What goes on, for somebody who waits at a terminal.
//!
//! It is drawn on standard error, so that what is printed on standard output stays what it is, and only after a second: what
//! takes less needs no words. Elsewhere, with `--json` and with `--quiet`, nothing is drawn.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::Cli;

/// How long something takes before it is worth a word.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
/// How often the drawing moves.
const EVERY: Duration = Duration::from_millis(120);

/// Something that may take long; the drawing goes when this does.
pub(super) struct Progress {
    bar: ProgressBar,
    /// Waits until it is worth drawing, or until this end is gone.
    waiting: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Begins something of which nobody knows how much there is to do.
    pub(super) fn begin(cli: &Cli, what: &str) -> Progress {
        Progress::start(cli, what, None)
    }

    /// Begins something of so many steps.
    pub(super) fn of(cli: &Cli, what: &str, steps: usize) -> Progress {
        Progress::start(cli, what, u64::try_from(steps).ok())
    }

    fn start(cli: &Cli, what: &str, steps: Option<u64>) -> Progress {
        let bar = ProgressBar::with_draw_target(steps, ProgressDrawTarget::hidden()).with_message(what.to_owned());
        // No colours: NO_COLOR has nothing to turn off.
        let shape = if steps.is_some() { "[{bar:20}] {pos} of {len}  {wide_msg}" } else { "{spinner} {wide_msg}" };
        if let Ok(style) = ProgressStyle::with_template(shape) {
            bar.set_style(style.progress_chars("=> ").tick_chars("|/-\\ "));
        }
        let is_drawn = io::stderr().is_terminal() && !cli.json && !cli.quiet;
        let waiting = is_drawn.then(|| wait_and_draw(&bar)).flatten();
        Progress { bar, waiting }
    }

    /// Says what is being done now.
    pub(super) fn tell(&self, what: &str) {
        self.bar.set_message(what.replace(char::is_control, "?"));
    }

    /// One step begins, after those before it.
    pub(super) fn step(&self, what: &str) {
        self.tell(what);
        self.bar.inc(1);
    }

    /// Says whether anybody can see it.
    pub(super) fn is_drawn(&self) -> bool {
        self.waiting.is_some()
    }
}

/// Draws the bar after a while, unless it is gone by then.
fn wait_and_draw(bar: &ProgressBar) -> Option<(Sender<()>, JoinHandle<()>)> {
    let (end, ended) = mpsc::channel();
    let bar = bar.clone();
    let wait = move || {
        if ended.recv_timeout(SHOWN_AFTER) == Err(RecvTimeoutError::Timeout) {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.enable_steady_tick(EVERY);
        }
    };
    // Without a thread nothing is drawn.
    let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(wait).ok()?;
    Some((end, thread))
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.waiting.take() {
            drop(end);
            // It cannot panic.
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}
