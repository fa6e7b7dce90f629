//! `cargo xtask conformance …`: the engine on programs that nobody here wrote.

mod cycle;
mod programs;
mod redis_suite;
mod servers;
mod soak;
mod table;

use anyhow::{Result, ensure};
use clap::Subcommand;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Command lines of ordinary programs, each with a follower beside it from the start; needs root
    Programs(programs::Args),
    /// Debian's servers under load, each updated to itself, promoted and confirmed again and again; needs root
    Servers(servers::Args),
    /// Redis, Memcached and lighttpd under load, updated to themselves all the time; needs root
    Soak(soak::Args),
    /// Redis's own tests, with each server that they start updated to itself every few seconds; needs root
    RedisSuite(redis_suite::Args),
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "conformance is tried by tracing processes: run it as root");
    match &args.what {
        What::Programs(args) => programs::run(args),
        What::Servers(args) => servers::run(args),
        What::Soak(args) => soak::run(args),
        What::RedisSuite(args) => redis_suite::run(args),
    }
}
