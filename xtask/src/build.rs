//! `cargo xtask build`: the daemon with its eBPF programs embedded.

use std::path::PathBuf;
use std::process::Command;

use clap::ValueEnum;

use crate::sh;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which profile to build with
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    pub(crate) profile: Profile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    Dev,
    Release,
}

/// Builds the daemon and returns where `mvedsuad` lies.
pub(crate) fn run(args: &Args) -> anyhow::Result<PathBuf> {
    let (flag, folder) = match args.profile {
        Profile::Dev => ("dev", "debug"),
        Profile::Release => ("release", "release"),
    };
    sh::run(Command::new("cargo").current_dir(sh::root()).args([
        "build",
        "--locked",
        "--profile",
        flag,
        "--package",
        "mvedsua-daemon",
    ]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| sh::root().join("target"), PathBuf::from);
    Ok(target.join(folder).join("mvedsuad"))
}
