//! `cargo xtask deb`: the Debian package, from the metadata in the daemon's manifest and the files in `dist/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::{build, setup, sh};

/// The version that builds the package, where none is installed.
const CARGO_DEB: &str = "3.8.0";

#[derive(clap::Args)]
pub(crate) struct Args {}

/// Builds the package and says where it lies.
pub(crate) fn run(_: &Args) -> anyhow::Result<()> {
    setup::run(&setup::Args::default())?;
    let cargo_deb = match sh::find("cargo-deb") {
        Some(found) => found,
        None => install()?,
    };
    let mvedsuad = build::run(&build::Args { profile: build::Profile::Release })?;
    let folder = mvedsuad.parent().context("the daemon lies in a folder")?;
    for what in ["man", "completions"] {
        generate(&mvedsuad, what, &folder.join("dist").join(what))?;
    }
    let pages = std::fs::read_dir(folder.join("dist/man")).context("listing the man pages")?;
    let pages: Vec<PathBuf> = pages.map(|page| page.map(|page| page.path())).collect::<Result<_, _>>()?;
    // cargo-deb leaves what lies in the build's folder as it is.
    sh::run(Command::new("gzip").args(["-9", "--no-name"]).args(pages))?;
    let mut cargo_deb = Command::new(cargo_deb);
    cargo_deb.current_dir(sh::root()).args(["--no-build", "--locked", "--strip", "--package", "mvedsua-daemon"]);
    sh::run(&mut cargo_deb)
}

/// Lets the daemon write its pages or completions into a folder that holds nothing else.
fn generate(mvedsuad: &Path, what: &str, into: &Path) -> anyhow::Result<()> {
    if into.exists() {
        std::fs::remove_dir_all(into).with_context(|| format!("removing {}", into.display()))?;
    }
    sh::run(Command::new(mvedsuad).args(["generate", what]).arg(into))
}

fn install() -> anyhow::Result<PathBuf> {
    println!("deb: cargo-deb is missing: it makes packages; building it takes a minute");
    sh::run(
        Command::new("cargo")
            // The workspace's own settings must not leak into another program's build.
            .current_dir("/")
            .args(["install", "cargo-deb", "--locked", "--version", CARGO_DEB, "--no-default-features"]),
    )?;
    sh::find("cargo-deb").context("cargo has installed cargo-deb, but not into its folder of programs")
}
