//! `cargo xtask check`: what is wrong without running anything of it. Under a minute where everything is built already.

use std::process::Command;

use anyhow::bail;

use crate::{layers, named_calls, setup, sh};

#[derive(clap::Args)]
pub(crate) struct Args {}

/// One check.
struct Check {
    name: &'static str,
    cargo: &'static [&'static str],
    /// For rustdoc.
    flags: &'static str,
}

const CHECKS: [Check; 3] = [
    Check { name: "format", cargo: &["fmt", "--all", "--check"], flags: "" },
    Check {
        name: "clippy",
        cargo: &["clippy", "--locked", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"],
        flags: "",
    },
    Check {
        name: "documentation",
        cargo: &["doc", "--locked", "--workspace", "--no-deps", "--document-private-items", "--quiet"],
        // Private items are documented as well, so links to them lead somewhere.
        flags: "-D warnings -A rustdoc::private-intra-doc-links",
    },
];

/// Licences, bans and sources. What advisories say changes from day to day, and is no property of the code.
const DENY: Check = Check {
    name: "dependencies",
    cargo: &["deny", "--locked", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"],
    flags: "",
};

/// Sets up and runs all checks.
pub(crate) fn run(_: &Args) -> anyhow::Result<()> {
    setup::run(&setup::Args::default())?;
    all()
}

/// Runs all checks, whatever the first ones say.
pub(crate) fn all() -> anyhow::Result<()> {
    let mut failed = vec![];
    let source = sh::root().join("mvedsua-daemon/src");
    for (name, faults) in [("layers", layers::faults(&source)?), ("named calls", named_calls::faults(&source)?)] {
        println!("check: {name}");
        if !faults.is_empty() {
            faults.iter().for_each(|fault| eprintln!("check: {fault}"));
            failed.push(name);
        }
    }
    let deny = sh::find("cargo-deny").map(|_| DENY);
    if deny.is_none() {
        println!("check: dependencies: left out, `cargo install --locked cargo-deny` installs what looks at them");
    }
    for check in CHECKS.into_iter().chain(deny) {
        println!("check: {}", check.name);
        let mut cargo = Command::new("cargo");
        cargo.current_dir(sh::root()).args(check.cargo);
        if !check.flags.is_empty() {
            cargo.env("RUSTDOCFLAGS", check.flags);
        }
        if let Err(error) = sh::run(&mut cargo) {
            eprintln!("check: {error:#}");
            failed.push(check.name);
        }
    }
    if failed.is_empty() {
        println!("check: all is well");
        return Ok(());
    }
    bail!("wrong: {}", failed.join(", "))
}
