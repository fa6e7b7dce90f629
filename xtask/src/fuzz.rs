//! `cargo xtask fuzz`: the fuzz targets of `mvedsua-daemon/fuzz`, each for a bounded time.
//!
//! cargo-fuzz wants a nightly compiler for its flags; a stable one takes them as well when it is told to. Without a sanitizer
//! nothing else is needed: what the targets look for are panics and broken promises, and the code is safe Rust.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::{setup, sh};

/// The targets, and the files that each begins with.
const TARGETS: [(&str, &[&str]); 6] = [
    ("agent", &[]),
    ("rules", &["tests/servers/kvstore/v1-v2.rules"]),
    ("stage", &[]),
    ("files", &[]),
    ("recording", &[]),
    ("requests", &[]),
];
const CARGO_FUZZ: &str = "0.13.2";
/// From how many seconds a target on the time is well spent that a build with every optimisation takes.
const WORTH_OPTIMISING: u64 = 60;
/// What a target begins with that is no file of its own: a rule, and records; a request.
const SEEDS: [(&str, &[u8]); 2] = [("stage", STAGE_SEED), ("requests", REQUEST_SEED)];
const REQUEST_SEED: &[u8] = br#"{"v":1,"request":{"update":{"pid":7,"ask":{"to":"self","wishes":{"soak_ms":20}}}}}"#;
const STAGE_SEED: &[u8] = b"rule a read(fd, /^put /) => nothing\nrule b write(1, x), write(1, y) => write(1, \"{x}{y}\")\n\xff\x00\x02\x12\x22\x44\x05\x46";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds for each target
    #[arg(long, default_value_t = 20)]
    pub(crate) seconds: u64,
}

/// Runs every target; fails when one finds something, and says where the input is.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    setup::run(&setup::Args::default())?;
    targets(args.seconds)
}

/// Runs every target for so many seconds, on a machine that is set up.
pub(crate) fn targets(seconds: u64) -> anyhow::Result<()> {
    if !Command::new("cargo").args(["fuzz", "--version"]).output().is_ok_and(|output| output.status.success()) {
        println!("fuzz: installing cargo-fuzz, which runs the targets");
        // The workspace's own settings must not leak into another program's build.
        let mut cargo = Command::new("cargo");
        sh::run(cargo.current_dir("/").args(["install", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked"]))?;
    }
    let fuzz = sh::root().join("mvedsua-daemon/fuzz");
    for (target, seeds) in TARGETS {
        let corpus = fuzz.join("corpus").join(target);
        std::fs::create_dir_all(&corpus).with_context(|| format!("making {}", corpus.display()))?;
        for seed in seeds {
            let name = seed.rsplit('/').next().unwrap_or(seed);
            std::fs::copy(sh::root().join(seed), corpus.join(name)).with_context(|| format!("copying {seed}"))?;
        }
        if let Some((_, seed)) = SEEDS.iter().find(|(of, _)| *of == target) {
            std::fs::write(corpus.join("seed"), seed)?;
        }
        let mut cargo = Command::new("cargo");
        if target == "files" {
            let pair = compile_pair(&corpus.with_file_name("pair"))?;
            cargo.envs(["MVEDSUA_FUZZ_OLD", "MVEDSUA_FUZZ_NEW"].into_iter().zip(pair));
        }
        cargo.current_dir(sh::root().join("mvedsua-daemon")).env("RUSTC_BOOTSTRAP", "1");
        cargo.args(["fuzz", "run", "--sanitizer", "none"]);
        if seconds < WORTH_OPTIMISING {
            cargo.arg("--dev");
        }
        cargo.args([target, "--"]);
        cargo.arg(format!("-max_total_time={seconds}")).args(["-max_len=2000", "-print_final_stats=1"]);
        sh::run(&mut cargo)?;
    }
    Ok(())
}

/// Compiles and strips two versions of a small program.
fn compile_pair(folder: &Path) -> anyhow::Result<[PathBuf; 2]> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let source = sh::root().join("tests/servers/stock/service.c");
    let versions = [("old", vec![]), ("new", vec!["-DAREA", "-DCALLBACK", "-DNAMES", "-DHELPER"])];
    for (name, changes) in &versions {
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-s", "-fPIE", "-pie", "-Wl,--build-id"]).args(changes).arg("-o").arg(folder.join(name));
        sh::run(gcc.arg(&source))?;
    }
    Ok(versions.map(|(name, _)| folder.join(name)))
}
