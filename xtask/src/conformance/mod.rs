//! `cargo xtask conformance …`: the engine on programs that nobody here wrote.

mod cycle;
mod ltp;
mod mutants;
mod pairs;
mod programs;
mod redis_suite;
mod rounds;
mod servers;
mod soak;
mod table;
mod wrong;

use anyhow::{Result, ensure};
use clap::Subcommand;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Two versions of files as Debian ships them: what does the comparison say, and is it what it must say?
    Pairs(pairs::Args),
    /// One pair, for the command above
    #[command(hide = true)]
    Pair(pairs::Files),
    /// Command lines of ordinary programs, each with a follower beside it from the start; needs root
    Programs(programs::Args),
    /// Test programs of the Linux Test Project, each alone and with a follower beside it; needs root, and the project's sources
    Ltp(ltp::Args),
    /// Debian's servers under load, each updated to itself, promoted and confirmed again and again; needs root
    Servers(servers::Args),
    /// Redis, Memcached and lighttpd under load, updated to themselves all the time; needs root
    Soak(soak::Args),
    /// Redis's own tests, with each server that they start updated to itself every few seconds; needs root
    RedisSuite(redis_suite::Args),
    /// Debian's Redis goes to its security update and back again and again: does it grow, and what does it say to damaged values?
    /// Needs root
    Rounds(rounds::Args),
    /// Wrong next versions of Debian's Redis and HAProxy: does the comparison of traffic find them in time? Needs root
    Wrong(wrong::Args),
    /// Next versions with one small mistake each, of the key-value store and of stock programs: is any missed? With `--self`: is there
    /// a false alarm? Needs root
    Mutants(mutants::Args),
}

pub(crate) fn run(args: &Args) -> Result<()> {
    // Files are compared without any process.
    let needs_root = !matches!(args.what, What::Pairs(_) | What::Pair(_));
    ensure!(
        !needs_root || nix::unistd::geteuid().is_root(),
        "conformance is tried by tracing processes: run it as root"
    );
    match &args.what {
        What::Pairs(args) => pairs::run(args),
        What::Pair(files) => pairs::run_one(files),
        What::Programs(args) => programs::run(args),
        What::Ltp(args) => ltp::run(args),
        What::Servers(args) => servers::run(args),
        What::Soak(args) => soak::run(args),
        What::RedisSuite(args) => redis_suite::run(args),
        What::Rounds(args) => rounds::run(args),
        What::Wrong(args) => wrong::run(args),
        What::Mutants(args) => mutants::run(args),
    }
}
