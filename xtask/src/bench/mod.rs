//! `cargo xtask bench …`: what mvedsuad costs, measured.

mod duo;
mod report;

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
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Duo(args) => duo::run(args),
    }
}
