//! `cargo xtask pictures`: the pictures under `docs/`, of a real server that is really updated.
//!
//! The display of `top` runs in a tmux; what that shows becomes a page, and a headless Chromium takes the picture of it and of
//! the pages that `report --html` writes. Chromium is large, so nothing else installs it or needs it.

mod ansi;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::daemon::Daemon;
use harness::kvstore::Store;
use harness::load::resp::RedisClient;
use harness::load::store::{Speech, StoreClient};
use harness::load::{Load, Plan};
use harness::server::{self, Server};
use harness::stand::{UPDATED, VALIDATING, code};
use harness::tmux::Terminal;
use tempfile::TempDir;

use crate::{build, setup, sh};

/// The browser, as a package and as a program.
const CHROMIUM: &str = "chromium-headless-shell";
/// How long any single step may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Entries that the store begins with.
const ENTRIES: u64 = 10_000;
/// The largest picture, bytes.
const LARGEST: u64 = 200_000;
/// How the pictures' pages look, by Chromium's switches.
const LIGHT: &[&str] = &[];
const DARK: &[&str] = &["--blink-settings=preferredColorScheme=0"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the pictures go
    #[arg(long, value_name = "DIR", default_value = "docs")]
    to: PathBuf,
    /// Which build of the daemon to show, unless MVEDSUAD names one
    #[arg(long, value_enum, default_value_t = build::Profile::Release)]
    profile: build::Profile,
}

/// Takes all pictures; fails where what is to be seen is not there.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "an update traces a process: run it as root");
    setup::install([CHROMIUM, "fonts-dejavu-core", "tmux", "redis-server"].into_iter(), "takes the pictures")?;
    // As in the tests.
    let binary = match std::env::var_os("MVEDSUAD") {
        Some(binary) => PathBuf::from(binary),
        None => build::run(&build::Args { profile: args.profile })?,
    };
    let studio = Studio { pages: TempDir::with_prefix("mvedsua-pictures-")?, to: sh::root().join(&args.to) };
    let server = server::redis(&[])?;
    let load = Load::start(Plan::busy(server.address, 8), |index| RedisClient::new(&format!("c{index}")));
    let daemon = Daemon::prepare(&binary)?;
    let pid = server.pid().to_string();
    daemon.expect(&["attach", &pid, "--mode", "exact"], code::DONE);
    let terminal = open_top(&daemon)?;
    studio.update(&daemon, &server, &terminal)?;
    load.wait_requests(200, LIMIT);
    load.stop().expect_clean();
    studio.roll_back(&daemon)?;
    Ok(())
}

/// Shows the display in a terminal of 80 columns and 24 lines.
fn open_top(daemon: &Daemon) -> Result<Terminal> {
    let command = daemon.command(&["top", "--interval", "500ms"]);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
    Terminal::open(&format!("exec {}", words.join(" ")), (80, 24), &[])
}

/// How a picture is taken.
struct Shot {
    /// Chromium's switches.
    look: &'static [&'static str],
    /// Columns and rows of pixels.
    size: (u32, u32),
}

/// Where pages become pictures.
struct Studio {
    pages: TempDir,
    to: PathBuf,
}

impl Studio {
    /// An update that is confirmed, in the terminal and as a page.
    fn update(&self, daemon: &Daemon, server: &Server, terminal: &Terminal) -> Result<()> {
        let pid = server.pid().to_string();
        terminal.wait(&["exact", "write", "mean"]);
        // A sparkline is made of some seconds.
        std::thread::sleep(Duration::from_secs(8));
        self.terminal("top-calls", terminal)?;
        daemon.expect(&["update", &pid, "--to", "self", "--soak", "3s"], code::DONE);
        daemon.wait_stage(server.pid(), VALIDATING, LIMIT);
        std::thread::sleep(Duration::from_secs(6));
        terminal.wait(&["`promote` or `rollback` decides", "the old version leads"]);
        self.terminal("top", terminal)?;
        daemon.expect(&["promote", &pid], code::DONE);
        daemon.wait_stage(server.pid(), UPDATED, LIMIT);
        std::thread::sleep(Duration::from_secs(5));
        daemon.expect(&["confirm", &pid], code::DONE);
        self.report("report-updated", daemon, &[], &Shot { look: LIGHT, size: (1000, 1500) })
    }

    /// An update of the project's store to a version that answers one byte wrong now and then.
    fn roll_back(&self, daemon: &Daemon) -> Result<()> {
        let store = Store::compile(&[])?;
        let server = store.start(ENTRIES)?;
        let load =
            Load::start(Plan::busy(server.address, 8), |index| StoreClient::new(Speech::Common, index, 8, ENTRIES));
        load.wait_requests(200, LIMIT);
        let pid = server.pid().to_string();
        daemon.expect(&["attach", &pid, "--mode", "exact"], code::DONE);
        load.wait_requests(20_000, LIMIT);
        let faulty = store.package("faulty", &["-DBAD_BYTE_EVERY=1000"], "")?.display().to_string();
        daemon.expect(&["update", &pid, "--to", &faulty, "--wait"], code::DIVERGED);
        // These bytes are nobody's secrets.
        let shown = [pid.as_str(), "--payloads"];
        self.report("report", daemon, &shown, &Shot { look: LIGHT, size: (1000, 1250) })?;
        self.report("report-dark", daemon, &shown, &Shot { look: DARK, size: (1000, 1250) })?;
        load.stop().expect_clean();
        Ok(())
    }

    fn terminal(&self, name: &str, terminal: &Terminal) -> Result<()> {
        let page = self.pages.path().join(format!("{name}.html"));
        std::fs::write(&page, ansi::page(&terminal.coloured()?))?;
        self.picture(name, &page, &Shot { look: LIGHT, size: (760, 500) })
    }

    fn report(&self, name: &str, daemon: &Daemon, extra: &[&str], shot: &Shot) -> Result<()> {
        let page = self.pages.path().join(format!("{name}.html"));
        let path = page.display().to_string();
        let mut args = vec!["report", "--html", &path];
        args.extend(extra);
        daemon.expect(&args, code::DONE);
        self.picture(name, &page, shot)
    }

    fn picture(&self, name: &str, page: &Path, shot: &Shot) -> Result<()> {
        let file = self.to.join(format!("{name}.png"));
        let (width, height) = shot.size;
        sh::run(
            Command::new(CHROMIUM)
                .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
                .args(shot.look)
                .arg(format!("--window-size={width},{height}"))
                .arg(format!("--screenshot={}", file.display()))
                .arg(format!("file://{}", page.display()))
                .env("HOME", self.pages.path()),
        )?;
        let length = std::fs::metadata(&file).with_context(|| format!("no picture {}", file.display()))?.len();
        ensure!(length < LARGEST, "{} has {length} bytes, {LARGEST} are allowed", file.display());
        println!("pictures: {} ({length} bytes)", file.display());
        Ok(())
    }
}
