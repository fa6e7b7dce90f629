//! `cargo xtask bench …`: what mvedsuad costs, measured.

mod duo;
mod followers;
mod pause;
mod report;
mod steady;
mod threads;

use clap::Subcommand;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Redis while two versions run, against Redis alone
    Duo(duo::Args),
    /// Servers with up to six followers beside them from the start, against each alone
    Followers(followers::Args),
    /// The longest request while a large store goes to another version, by each way of getting there
    Pause(pause::Args),
    /// Redis, Memcached and a guest while they are observed, against each alone and other tools
    Steady(steady::Args),
    /// A server with up to 500 threads: how long it stands still for the fork and the promotion
    Threads(threads::Args),
}

pub(crate) use steady::run_guest;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Duo(args) => duo::run(args),
        What::Followers(args) => followers::run(args),
        What::Pause(args) => pause::run(args),
        What::Steady(args) => steady::run(args),
        What::Threads(args) => threads::run(args),
    }
}
