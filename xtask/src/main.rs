//! The project's chores, one module per command: `cargo xtask <command>`.

mod bench;
mod build;
mod check;
mod conformance;
mod deb;
mod demo;
mod fuzz;
mod layers;
mod named_calls;
mod pictures;
mod setup;
mod sh;
mod test;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Sets up, builds, tests, shows and measures mvedsuad", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs what building and testing need; changes nothing when everything is there
    Setup(setup::Args),
    /// Builds the daemon with its eBPF programs
    Build(build::Args),
    /// Measures what mvedsuad costs; needs root
    Bench(bench::Args),
    /// Runs as the guest of a benchmark
    #[command(hide = true)]
    BenchGuest,
    /// Looks at format, lints, documentation, dependencies and which module knows which, and runs nothing
    Check(check::Args),
    /// Tries the engine on programs that nobody here wrote; needs root, and installs them
    Conformance(conformance::Args),
    /// Builds the Debian package
    Deb(deb::Args),
    /// Shows on a real Redis under load what mvedsuad does; needs root
    Demo(demo::Args),
    /// Feeds the rules' reader and matcher with inputs that nobody thought of, for a while
    Fuzz(fuzz::Args),
    /// Takes the pictures under docs/; needs root, and installs a headless Chromium
    Pictures(pictures::Args),
    /// Sets up, builds and runs all tests; needs root
    Test(test::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Build(args) => build::run(&args).map(|_| ()),
        Command::Bench(args) => bench::run(&args),
        Command::BenchGuest => bench::run_guest(),
        Command::Check(args) => check::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Deb(args) => deb::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Pictures(args) => pictures::run(&args),
        Command::Test(args) => test::run(&args),
    }
}
