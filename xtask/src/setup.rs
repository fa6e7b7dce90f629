//! `cargo xtask setup`: what building and testing need, on Debian 12.
//!
//! Every item says what it is for and how to see whether it is there; only what is missing is installed. Services that
//! come with Debian's server packages are neither started nor left enabled: the tests start servers of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::sh;

#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Says what is missing and installs nothing
    #[arg(long)]
    pub(crate) check: bool,
}

/// One Debian package.
struct Package {
    name: &'static str,
    why: &'static str,
}

const fn package(name: &'static str, why: &'static str) -> Package {
    Package { name, why }
}

/// What the tests, the demo and the benchmarks run.
const TOOLS: &[Package] = &[
    package("gcc", "compiles the test guests"),
    package("libc6-dev", "compiles the test guests"),
    package("g++", "bpf-linker links with its library, and libFuzzer is built with it"),
    package("redis-server", "a real server that the demo and the tests update"),
    package("redis-tools", "redis-benchmark puts load on it"),
    package("memcached", "a real server with worker threads"),
    package("lighttpd", "a real web server"),
    package("git", "one of the programs that are followed from their start"),
    package("make", "one of the programs that are followed from their start"),
    package("procps", "pkill ends what a test started, by session"),
    package("python3", "http.server is one of the tested programs"),
    package("systemd", "a supervisor whose services are updated"),
    package("runit", "a supervisor whose services are updated"),
    package("supervisor", "a supervisor whose services are updated"),
    package("nginx-light", "a server with a number file under a supervisor"),
    package("dnsmasq-base", "a server with a number file and children under a supervisor"),
    package("mariadb-server-core", "a server that tells its supervisor when it is ready"),
    package("mariadb-client-core", "has what mariadb-server-core makes its first tables with"),
    package("prometheus", "scrapes the daemon while a server is updated, and promtool checks what is shipped for it"),
    package("curl", "asks Prometheus in the example of a gate"),
    package("e2fsprogs", "makes the disk that a test freezes"),
    package("tmux", "a real terminal, in which the display of `top` is looked at"),
    package("strace", "the monitor's counts are compared with strace's"),
    package("linux-perf", "the benchmarks compare with perf trace"),
];

/// A compiler with a ready-built `core` for BPF, and what its linker needs. Not needed where a nightly has `rust-src`.
const BPF_TOOLCHAIN: &[Package] = &[
    package("rustc-web", "compiles the eBPF programs"),
    package("cargo-web", "compiles the eBPF programs"),
    package("libstd-rust-web-dev-bpf", "the core library for BPF"),
];

/// What bpf-linker is built with.
const LLVM: &[Package] = &[
    package("llvm-22-dev", "bpf-linker links with it"),
    package("libpolly-22-dev", "bpf-linker links with it"),
    package("zlib1g-dev", "bpf-linker links with it"),
    package("libzstd-dev", "bpf-linker links with it"),
    package("libxml2-dev", "bpf-linker links with it"),
];

/// Packages that bring a service unit which the project does not want running, and the unit.
const SERVICES: &[(&str, &str)] = &[
    ("redis-server", "redis-server"),
    ("memcached", "memcached"),
    ("lighttpd", "lighttpd"),
    ("nginx-light", "nginx"),
    ("haproxy", "haproxy"),
    ("beanstalkd", "beanstalkd"),
    ("mosquitto", "mosquitto"),
    ("unbound", "unbound"),
    ("supervisor", "supervisor"),
    ("caddy", "caddy"),
    ("squid", "squid"),
    ("bind9", "named"),
    ("knot", "knot"),
    ("stunnel4", "stunnel4"),
    ("prometheus", "prometheus"),
];

const BPF_LINKER: &str = "0.13.0";

/// Installs what is missing.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let nightly = nightly_with_rust_src();
    let linker = linker_version();
    let mut wanted: Vec<&Package> = TOOLS.iter().collect();
    if !nightly {
        wanted.extend(BPF_TOOLCHAIN);
    }
    // bpf-linker reads the compiler's bitcode, so it is built against the LLVM of Debian's compiler.
    if linker.as_deref() != Some(BPF_LINKER) {
        wanted.extend(LLVM);
    }
    let missing: Vec<&Package> = wanted.into_iter().filter(|p| !installed(p.name)).collect();
    if missing.is_empty() && linker.as_deref() == Some(BPF_LINKER) {
        println!("setup: everything is there, nothing changed");
        return Ok(());
    }
    for package in &missing {
        println!("setup: {} is missing: {}", package.name, package.why);
    }
    if linker.as_deref() != Some(BPF_LINKER) {
        println!("setup: bpf-linker {BPF_LINKER} is missing: links the eBPF programs");
    }
    if args.check {
        bail!("something is missing; `cargo xtask setup` installs it");
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("installing packages needs root: run `cargo xtask setup` as root");
    }
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
        install_packages(&names)?;
    }
    if linker.as_deref() != Some(BPF_LINKER) {
        install_linker()?;
    }
    println!("setup: done");
    Ok(())
}

/// Installs those of the packages that are missing; for commands that need more than the rest.
pub(crate) fn install<'a>(packages: impl Iterator<Item = &'a str>, why: &str) -> anyhow::Result<()> {
    let missing: Vec<&str> = packages.filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    missing.iter().for_each(|package| println!("setup: {package} is missing: {why}"));
    install_packages(&missing)
}

/// Says whether a nightly toolchain can build `core` itself.
pub(crate) fn nightly_with_rust_src() -> bool {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", "nightly", "rustc", "--print", "sysroot"]);
    let Ok(out) = rustc.output() else { return false };
    let sysroot = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim().to_owned());
    out.status.success() && sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
}

fn linker_version() -> Option<String> {
    let linker = sh::find("bpf-linker")?;
    let text = sh::output(Command::new(linker).arg("--version")).ok()?;
    text.split_whitespace().nth(1).map(str::to_owned)
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .is_ok_and(|out| out.status.success() && out.stdout == b"installed")
}

fn install_packages(missing: &[&str]) -> anyhow::Result<()> {
    let quiet = KeepServicesDown::new()?;
    apt(&["update", "--quiet"])?;
    let mut arguments = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    arguments.extend(missing);
    apt(&arguments)?;
    for (_, service) in SERVICES.iter().filter(|(package, _)| missing.contains(package)) {
        disable(service)?;
    }
    drop(quiet);
    Ok(())
}

fn apt(arguments: &[&str]) -> anyhow::Result<()> {
    sh::run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(arguments))
}

/// Takes back the enabling of a service that its package did, where systemd is there.
fn disable(service: &str) -> anyhow::Result<()> {
    if sh::find("systemctl").is_none() {
        return Ok(());
    }
    println!("setup: {service} stays disabled as a service; the tests start their own");
    sh::run(Command::new("systemctl").args(["disable", "--quiet", service]))
}

/// Keeps package installation from starting services, by Debian's own means, for as long as it lives.
struct KeepServicesDown {
    placed: Option<PathBuf>,
}

impl KeepServicesDown {
    fn new() -> anyhow::Result<Self> {
        let policy = Path::new("/usr/sbin/policy-rc.d");
        if policy.exists() {
            // The machine has a policy of its own; `invoke-rc.d` asks only one.
            return Ok(KeepServicesDown { placed: None });
        }
        fs::write(policy, "#!/bin/sh\n# No service is started while packages are installed.\nexit 101\n")
            .and_then(|()| fs::set_permissions(policy, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {}", policy.display()))?;
        Ok(KeepServicesDown { placed: Some(policy.to_path_buf()) })
    }
}

impl Drop for KeepServicesDown {
    fn drop(&mut self) {
        if let Some(policy) = &self.placed
            && let Err(error) = fs::remove_file(policy)
        {
            eprintln!("setup: cannot remove {}: {error}", policy.display());
        }
    }
}

fn install_linker() -> anyhow::Result<()> {
    println!("setup: building bpf-linker {BPF_LINKER}, about a minute");
    sh::run(
        Command::new("cargo")
            // The workspace's own settings must not leak into another program's build.
            .current_dir("/")
            .env("LLVM_PREFIX", "/usr/lib/llvm-22")
            .args(["install", "bpf-linker", "--locked", "--version", BPF_LINKER])
            .args(["--no-default-features", "--features", "llvm-22"]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a fresh machine this program is built before the eBPF toolchain is there.
    #[test]
    fn set_up_needs_nothing_that_it_installs() {
        let tree = sh::output(
            Command::new("cargo")
                .current_dir(sh::root())
                .args(["tree", "--locked", "--offline", "--package", "xtask"])
                .args(["--edges", "normal,build", "--prefix", "none"]),
        )
        .expect("cargo says what xtask is built from");
        assert!(tree.contains("harness v"), "{tree}");
        for package in ["mvedsua-daemon", "aya"] {
            assert!(!tree.lines().any(|line| line.starts_with(&format!("{package} v"))), "xtask needs {package}");
        }
    }
}
