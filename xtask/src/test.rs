//! `cargo xtask test`: everything that is tested, in one go.
//!
//! First the checks, then the fuzz targets, for a bounded time, then the tests. What finds something does not keep the rest
//! from running: all verdicts are wanted.

use std::process::Command;

use anyhow::{Context, bail};

use crate::{check, fuzz, setup, sh};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds for each fuzz target; 0 leaves them out, and so do arguments for `cargo test`
    #[arg(long, default_value_t = 10)]
    pub(crate) fuzz_seconds: u64,
    /// Arguments for `cargo test`, such as a package (`-p mvedsua-common`) or a test's name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) cargo_args: Vec<String>,
}

/// Sets up, builds and runs the tests; the last lines are the test runner's own summary.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the tests trace processes and load eBPF programs: run them as root");
    }
    setup::run(&setup::Args::default())?;
    let everything = args.cargo_args.is_empty();
    let checked = if everything { check::all() } else { Ok(()) };
    let fuzzed = if everything && args.fuzz_seconds > 0 { fuzz::targets(args.fuzz_seconds) } else { Ok(()) };
    let mut cargo = Command::new("cargo");
    cargo.current_dir(sh::root()).args(["test", "--locked", "--no-fail-fast"]);
    if everything {
        cargo.arg("--workspace");
    }
    let tested = sh::run(cargo.args(&args.cargo_args));
    checked.context("checking")?;
    fuzzed.context("fuzzing")?;
    tested
}
