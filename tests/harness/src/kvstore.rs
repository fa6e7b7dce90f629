//! The project's own key-value store, `tests/servers/kvstore`: its versions, good and bad, and packages of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::server::{Server, start_program};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Builds the SDK in the profile of the running test and returns its static library.
fn library() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let folder = exe.ancestors().skip(1).find(|dir| !dir.ends_with("deps")).context("the test lies in a folder")?;
    let profile = if folder.ends_with("release") { "release" } else { "dev" };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(cargo)
        .args(["build", "--quiet", "--profile", profile, "--package", "mvedsua-sdk"])
        .current_dir(project()))?;
    Ok(folder.join("libmvedsua.a"))
}

/// The store's files, compiled into a folder of their own.
#[derive(Debug)]
pub struct Store {
    dir: TempDir,
}

impl Store {
    /// Compiles the executable and version 1, the latter with `defines`.
    pub fn compile(defines: &[&str]) -> Result<Store> {
        Store::of("tests/servers/kvstore/v1.c", defines)
    }

    /// Compiles the executable and another program's version 1.
    pub fn of(source: &str, defines: &[&str]) -> Result<Store> {
        let dir = tempfile::Builder::new().prefix("mvedsua-kvstore-").tempdir()?;
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-g", "-Wl,--export-dynamic-symbol=mvedsua_*", "-o"]).arg(dir.path().join("kvstore"));
        run(gcc.arg(project().join("mvedsua-sdk/driver/mvedsua-run.c")).arg(library()?))?;
        let store = Store { dir };
        store.compile_object(source, "v1.so", defines)?;
        Ok(store)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Compiles a version of the store; `defines` are as `-DNAME=VALUE`.
    pub fn object(&self, source: &str, out: &str, defines: &[&str]) -> Result<PathBuf> {
        self.compile_object(&format!("tests/servers/kvstore/{source}"), out, defines)
    }

    fn compile_object(&self, source: &str, out: &str, defines: &[&str]) -> Result<PathBuf> {
        let out = self.dir.path().join(out);
        let mut gcc = Command::new("gcc");
        gcc.args(["-std=gnu17", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-pthread"]);
        gcc.arg("-Wl,--build-id")
            .arg("-I")
            .arg(project().join("mvedsua-sdk/include"))
            .args(defines)
            .arg("-o")
            .arg(&out);
        run(gcc.arg(project().join(source)))?;
        Ok(out)
    }

    /// Makes a package of version 2, compiled with `defines`, and returns its folder. `policy` is the manifest's section.
    pub fn package(&self, name: &str, defines: &[&str], policy: &str) -> Result<PathBuf> {
        self.package_of("tests/servers/kvstore/v2.c", name, defines, policy)
    }

    /// Makes a package of another program's version 2.
    pub fn package_of(&self, source: &str, name: &str, defines: &[&str], policy: &str) -> Result<PathBuf> {
        let folder = self.dir.path().join(name);
        fs::create_dir(&folder)?;
        self.compile_object(source, &format!("{name}/{name}.so"), defines)?;
        let (from, to) = (build_id(&self.dir.path().join("v1.so"))?, build_id(&folder.join(format!("{name}.so")))?);
        let manifest = format!(
            "name = \"{name}\"\nmethod = \"in-place\"\nfrom = [\"{from}\"]\nto = \"{to}\"\nobject = \"{name}.so\"\n\
             entry = \"mvedsua_main\"\n[policy]\n{policy}"
        );
        fs::write(folder.join("update.toml"), manifest)?;
        for path in [folder.clone(), folder.join("update.toml"), folder.join(format!("{name}.so"))] {
            let mode = if path.is_dir() { 0o755 } else { 0o644 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok(folder)
    }

    /// Makes a package of version 2 with the rules by which each version follows the other.
    pub fn typed_package(&self, name: &str, policy: &str) -> Result<PathBuf> {
        self.typed_package_of("tests/servers/kvstore/v2.c", name, &[], policy)
    }

    /// Makes such a package of another source, compiled with `defines`.
    pub fn typed_package_of(&self, source: &str, name: &str, defines: &[&str], policy: &str) -> Result<PathBuf> {
        let folder = self.package_of(source, name, defines, policy)?;
        let rules = folder.join("v1-v2.rules");
        fs::copy(project().join("tests/servers/kvstore/v1-v2.rules"), &rules)?;
        fs::set_permissions(&rules, fs::Permissions::from_mode(0o644))?;
        let manifest = fs::read_to_string(folder.join("update.toml"))?;
        fs::write(folder.join("update.toml"), manifest.replace("[policy]", "rules = [\"v1-v2.rules\"]\n[policy]"))?;
        Ok(folder)
    }

    /// Starts version 1 with that many entries: `key0` has `value0`, and so on.
    pub fn start(&self, entries: u64) -> Result<Server> {
        start_program("kvstore", &self.dir.path().join("kvstore"), |port, _| Ok(self.arguments(port, entries)))
    }

    /// Starts version 1, which updates itself to `new` when it gets a SIGUSR2.
    pub fn start_for(&self, entries: u64, new: &Path) -> Result<Server> {
        start_program("kvstore", Path::new("/usr/bin/env"), |port, _| {
            let program = self.dir.path().join("kvstore").display().to_string();
            let head = [format!("MVEDSUA_DIRECT={}", new.display()), program];
            Ok(head.into_iter().chain(self.arguments(port, entries)).collect())
        })
    }

    fn arguments(&self, port: u16, entries: u64) -> Vec<String> {
        vec![self.dir.path().join("v1.so").display().to_string(), port.to_string(), entries.to_string()]
    }
}

/// Returns the build-id of a file.
pub fn build_id(path: &Path) -> Result<String> {
    let notes = run(Command::new("readelf").arg("-n").arg(path))?;
    let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: "));
    Ok(id.with_context(|| format!("{} has no build-id", path.display()))?.to_owned())
}
