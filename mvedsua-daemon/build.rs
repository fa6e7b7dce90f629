//! Builds the agent and the eBPF programs, so that the daemon can embed them.
//!
//! The programs are compiled for BPF, for which no stable toolchain has a `core`. Two ways lead there, and the first that is
//! present is taken: a nightly with `rust-src`, which builds `core` itself, or Debian's `rustc-web`, for which Debian
//! has a ready-built one. `cargo xtask setup` installs what is missing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const TARGET: &str = "bpfel-unknown-none";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// bpf-linker is built with this LLVM and cannot read what a newer one wrote.
const LINKER_LLVM: u32 = 22;

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = root.parent().expect("the crate lies in the workspace").to_path_buf();
    let ebpf = root.join("mvedsua-ebpf");
    for watched in ["mvedsua-ebpf/src", "mvedsua-ebpf/Cargo.toml", "mvedsua-ebpf/Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", root.join(watched).display());
    }
    // The rest of the common crate is compiled along, but nothing of it is used. Of the table it is which calls are to wait.
    for watched in ["lib.rs", "bulk.rs", "histogram.rs", "monitor.rs", "syscalls"] {
        println!("cargo:rerun-if-changed={}", root.join("mvedsua-common/src").join(watched).display());
    }
    println!("cargo:rerun-if-changed=build.rs");

    agent(&root, Path::new(&env::var_os("OUT_DIR").expect("cargo sets it")));

    let linker = find("bpf-linker").unwrap_or_else(|| fail("bpf-linker is missing"));
    let mut build = if nightly_can() {
        let mut cargo = Command::new("rustup");
        cargo.args(["run", "nightly", "cargo", "build", "-Zbuild-std=core"]);
        cleaned(&mut cargo);
        cargo
    } else if debian_can() {
        let mut cargo = Command::new(DEBIAN_CARGO);
        cargo.arg("build");
        cleaned(&mut cargo);
        cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
        cargo
    } else {
        fail("no Rust compiler for BPF: neither a nightly with rust-src nor Debian's rustc-web is installed");
    };
    // v3 has 32-bit arithmetic and jumps; every kernel with raw tracepoints of this kind knows it (Linux 5.5).
    let flags = format!("-Ctarget-cpu=v3 -Clinker={} -Clink-arg=--btf -Cdebuginfo=2", linker.display());
    build
        .current_dir(&ebpf)
        .env("RUSTFLAGS", flags)
        .args(["--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(ebpf.join("target"));
    match build.output() {
        Ok(out) if out.status.success() => {}
        Ok(out) => {
            eprintln!("{}", String::from_utf8_lossy(&out.stderr));
            fail("the eBPF programs do not compile (see above)");
        }
        Err(error) => fail(&format!("cannot run {}: {error}", build.get_program().to_string_lossy())),
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    for programs in ["monitor", "recorder"] {
        let object = ebpf.join("target").join(TARGET).join("release").join(programs);
        if let Err(error) = std::fs::copy(&object, out.join(format!("{programs}.bpf.o"))) {
            fail(&format!("cannot copy {}: {error}", object.display()));
        }
    }
}

/// Compiles the agent as one piece that runs wherever it lies, see `mvedsua-agent`.
fn agent(root: &Path, out: &Path) {
    let agent = root.join("mvedsua-agent");
    for watched in ["src", "blob.ld"] {
        println!("cargo:rerun-if-changed={}", agent.join(watched).display());
    }
    let mut rustc = Command::new(env::var_os("RUSTC").expect("cargo sets it"));
    rustc.args(["--edition", "2024", "--crate-name", "agent", "-Copt-level=3", "-Cpanic=abort"]);
    // Its registers are general ones alone; a test reads all of it.
    rustc.args(["-Crelocation-model=pic", "-Cno-vectorize-loops", "-Cno-vectorize-slp"]);
    rustc.args(
        ["-nostartfiles", "-nostdlib", "-static", "-Wl,--build-id=none", "-Wl,--oformat=binary"]
            .map(|option| format!("-Clink-arg={option}")),
    );
    rustc.arg(format!("-Clink-arg=-Wl,-T,{}", agent.join("blob.ld").display()));
    rustc.arg(agent.join("src/blob.rs")).arg("-o").arg(out.join("agent.bin"));
    match rustc.output() {
        Ok(done) if done.status.success() => {}
        Ok(done) => {
            eprintln!("{}", String::from_utf8_lossy(&done.stderr));
            eprintln!("error: the agent does not compile (see above)");
            exit(1);
        }
        Err(error) => {
            eprintln!("error: cannot run rustc: {error}");
            exit(1);
        }
    }
}

fn fail(what: &str) -> ! {
    eprintln!("error: {what}");
    eprintln!("help: `cargo xtask setup` installs what building the eBPF programs needs");
    exit(1);
}

/// Takes away what this build tells its own tools, so that it does not leak into the other one.
fn cleaned(command: &mut Command) {
    const KEPT: [&str; 4] = ["CARGO_HOME", "CARGO_HTTP", "CARGO_NET", "CARGO_REGISTR"];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"];
        if ours.iter().any(|prefix| text.starts_with(prefix)) && !KEPT.iter().any(|kept| text.starts_with(kept)) {
            command.env_remove(&name);
        }
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    env::split_paths(&path)
        .chain(home.map(|home| home.join("bin")))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

fn printed(command: &mut Command) -> Option<String> {
    let out = command.output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// Says whether there is a nightly that can build `core` and whose output the linker can read.
fn nightly_can() -> bool {
    let mut sysroot = Command::new("rustup");
    cleaned(sysroot.args(["run", "nightly", "rustc", "--print", "sysroot"]));
    let mut version = Command::new("rustup");
    cleaned(version.args(["run", "nightly", "rustc", "-vV"]));
    let (Some(sysroot), Some(version)) = (printed(&mut sysroot), printed(&mut version)) else { return false };
    let llvm = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .and_then(|number| number.split('.').next()?.parse::<u32>().ok());
    Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
        && llvm.is_some_and(|major| major <= LINKER_LLVM)
}

/// Says whether Debian's compiler is there with its `core` for BPF.
fn debian_can() -> bool {
    let mut sysroot = Command::new(DEBIAN_RUSTC);
    cleaned(sysroot.args(["--print", "sysroot"]));
    let Some(sysroot) = printed(&mut sysroot) else { return false };
    Path::new(DEBIAN_CARGO).is_file() && Path::new(&sysroot).join("lib/rustlib").join(TARGET).join("lib").is_dir()
}
