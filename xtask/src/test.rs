//! `cargo xtask test`: everything that is tested, in one go.

use std::process::Command;

use anyhow::bail;

use crate::{setup, sh};

#[derive(clap::Args)]
pub(crate) struct Args {
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
    let mut cargo = Command::new("cargo");
    cargo.current_dir(sh::root()).args(["test", "--locked", "--no-fail-fast"]);
    if args.cargo_args.is_empty() {
        cargo.arg("--workspace");
    }
    sh::run(cargo.args(&args.cargo_args))
}
