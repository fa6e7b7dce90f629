//! A real terminal: a tmux of its own, in which a program is looked at and typed to.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::wait::try_wait_for;

/// How long the terminal may take to show something.
const LIMIT: Duration = Duration::from_secs(60);

/// A terminal of a certain size; it and what runs in it end with this.
#[derive(Debug)]
pub struct Terminal {
    dir: TempDir,
}

impl Terminal {
    /// Opens a terminal in which a shell runs a script, and which stays when the script has ended.
    pub fn open(script: &str, (columns, rows): (u16, u16), environment: &[(&str, &str)]) -> Result<Terminal> {
        let dir = tempfile::Builder::new().prefix("mvedsua-tmux-").tempdir()?;
        // Nobody's own settings count, and no status line takes a row.
        std::fs::write(dir.path().join("conf"), "set -g status off\nset -g remain-on-exit on\n")?;
        let terminal = Terminal { dir };
        let mut command = terminal.tmux();
        command
            .args(["-f", "conf", "new-session", "-d", "-s", "test"])
            .args(["-x", &columns.to_string(), "-y", &rows.to_string()])
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NO_COLOR")
            .envs(environment.iter().copied())
            .args(["sh", "-c", script]);
        terminal.done(command)?;
        Ok(terminal)
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        // UTF-8, whatever the locale here.
        command.current_dir(self.dir.path()).env_remove("TMUX").args(["-u", "-S", "socket"]);
        command
    }

    fn done(&self, mut command: Command) -> Result<Output> {
        let output = command.output().with_context(|| "running tmux; `cargo xtask setup` installs it")?;
        ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output)
    }

    /// The directory in which the script runs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns what the terminal shows.
    pub fn screen(&self) -> Result<String> {
        let mut command = self.tmux();
        command.args(["capture-pane", "-p", "-t", "test"]);
        Ok(String::from_utf8_lossy(&self.done(command)?.stdout).into_owned())
    }

    /// Returns what the terminal shows, with its colours as escape sequences.
    pub fn coloured(&self) -> Result<String> {
        let mut command = self.tmux();
        // With the spaces at the ends of lines, which may be coloured too.
        command.args(["capture-pane", "-p", "-e", "-N", "-t", "test"]);
        Ok(String::from_utf8_lossy(&self.done(command)?.stdout).into_owned())
    }

    /// Returns what tmux knows of the terminal, by a format of its own.
    pub fn knows(&self, format: &str) -> Result<String> {
        let mut command = self.tmux();
        command.args(["display-message", "-p", "-t", "test", format]);
        Ok(String::from_utf8_lossy(&self.done(command)?.stdout).trim_end().to_owned())
    }

    /// Presses keys, by tmux's names for them.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        let mut command = self.tmux();
        command.args(["send-keys", "-t", "test"]).args(keys);
        self.done(command).map(drop)
    }

    /// Gives the terminal another size.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let mut command = self.tmux();
        command.args(["resize-window", "-t", "test", "-x", &columns.to_string(), "-y", &rows.to_string()]);
        self.done(command).map(drop)
    }

    /// Waits until the terminal shows all of these, and returns everything that it shows.
    #[track_caller]
    pub fn wait(&self, texts: &[&str]) -> String {
        let mut seen = String::new();
        let found = try_wait_for(LIMIT, || {
            seen = self.screen().unwrap_or_else(|error| format!("{error:#}"));
            texts.iter().all(|text| seen.contains(text)).then_some(())
        });
        assert!(found.is_some(), "waited {LIMIT:?} in vain for {texts:?}; the terminal shows\n{seen}");
        seen
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut command = self.tmux();
        command.arg("kill-server");
        // Where it does not run any more nothing is left.
        let _ = command.output();
    }
}
