//! The terminal while the display has it, and as it was before whenever that ends: by a key, an error, a panic or a signal.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ratatui::DefaultTerminal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// The terminal in the display's hands; given back when this is dropped, and by a panic's hook before it speaks.
pub(super) struct Screen {
    pub(super) terminal: DefaultTerminal,
    ended_by: Arc<AtomicUsize>,
}

impl Screen {
    /// Takes the terminal: the alternate screen, and keys one by one.
    pub(super) fn take() -> io::Result<Screen> {
        let ended_by = Arc::new(AtomicUsize::new(0));
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            signal_hook::flag::register_usize(signal, Arc::clone(&ended_by), usize::try_from(signal).unwrap_or(0))?;
        }
        let watched = Arc::clone(&ended_by);
        std::thread::Builder::new().name("top-ends".to_owned()).spawn(move || end_anyhow(&watched))?;
        Ok(Screen { terminal: ratatui::try_init()?, ended_by })
    }

    /// Returns the signal that came to end this process, if one did.
    pub(super) fn ended_by(&self) -> Option<i32> {
        i32::try_from(self.ended_by.load(Ordering::Relaxed)).ok().filter(|signal| *signal != 0)
    }

    /// Gives the terminal back, stops as a job of the shell does, and takes the terminal again.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        ratatui::try_restore()?;
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTSTP)?;
        self.terminal = ratatui::try_init()?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Ends this process after a signal that the main loop does not come to: a terminal that is gone may hold it for ever.
fn end_anyhow(ended_by: &AtomicUsize) {
    const LOOK_EVERY: Duration = Duration::from_millis(200);
    const LEAVE_WITHIN: Duration = Duration::from_secs(1);
    loop {
        std::thread::sleep(LOOK_EVERY);
        let signal = ended_by.load(Ordering::Relaxed);
        if signal != 0 {
            std::thread::sleep(LEAVE_WITHIN);
            // Writing to a terminal that is gone fails at once.
            ratatui::restore();
            let _ = i32::try_from(signal).map(end_by);
            std::process::exit(1);
        }
    }
}

/// Ends this process by a signal, as if nobody had waited for it.
pub(super) fn end_by(signal: i32) -> io::Result<()> {
    signal_hook::low_level::emulate_default_handler(signal)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    #[ignore = "it panics; the other test runs it in a terminal"]
    fn panics_with_the_terminal_in_its_hands() {
        let _screen = Screen::take().expect("there is a terminal");
        panic!("what the panic says");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_speaks() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let this = std::env::current_exe().expect("it runs");
        let panics = "cli::top::screen::tests::panics_with_the_terminal_in_its_hands";
        let script =
            format!("stty -a > before; '{}' {panics} --exact --ignored --nocapture; stty -a > after", this.display());
        let output = Command::new("script")
            .args(["--quiet", "--command", &script, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .current_dir(dir.path())
            .stdin(std::process::Stdio::null())
            .output()
            .expect("script is installed");
        let text = String::from_utf8_lossy(&output.stdout);
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what:?} is missing: {text:?}"));
        let (entered, left, spoke) = (at("\x1b[?1049h"), at("\x1b[?1049l"), at("what the panic says"));
        assert!(entered < left && left < spoke, "{text:?}");
        let modes = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("stty said it");
        assert_eq!(modes("after"), modes("before"));
        assert!(modes("after").contains(" icanon"), "{}", modes("after"));
    }
}
