//! Stripped programs that know nothing of updates, in several versions: `tests/servers/stock`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::server::{Server, start_program};

/// How a program's addresses come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// It is loaded anywhere (`-pie`).
    Anywhere,
    /// They stand in the file (`-no-pie`).
    Fixed,
}

/// Versions of a program, each a file in a folder of its own, as a package manager would install them.
#[derive(Debug)]
pub struct Versions {
    dir: TempDir,
    addresses: Addresses,
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers/stock")
}

fn compile(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

impl Versions {
    /// Makes an empty folder for them.
    pub fn new(addresses: Addresses) -> Result<Versions> {
        let dir = tempfile::Builder::new().prefix("mvedsua-stock-").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Versions { dir, addresses })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn folder(&self, version: &str) -> Result<PathBuf> {
        let folder = self.dir.path().join(version);
        fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// Compiles and strips a version of `service`; `defines` are as `-DNAME`.
    pub fn service(&self, version: &str, defines: &[&str]) -> Result<PathBuf> {
        let out = self.folder(version)?.join("service");
        let mut gcc = Command::new("gcc");
        gcc.args(["-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-s", "-Wl,--build-id"]);
        gcc.args(match self.addresses {
            Addresses::Anywhere => ["-fPIE", "-pie"],
            Addresses::Fixed => ["-fno-pie", "-no-pie"],
        });
        compile(gcc.args(defines).arg("-o").arg(&out).arg(sources().join("service.c")))?;
        Ok(out)
    }

    /// Does the same, and keeps symbols and types in a file of their own, as distributions do.
    pub fn service_with_debug(&self, version: &str, defines: &[&str]) -> Result<(PathBuf, PathBuf)> {
        let folder = self.folder(version)?;
        let (whole, out, debug) = (folder.join("whole"), folder.join("service"), folder.join("service.debug"));
        let mut gcc = Command::new("gcc");
        gcc.args(["-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-g", "-Wl,--build-id", "-fPIE", "-pie"]);
        compile(gcc.args(defines).arg("-o").arg(&whole).arg(sources().join("service.c")))?;
        compile(Command::new("objcopy").arg("--only-keep-debug").arg(&whole).arg(&debug))?;
        compile(Command::new("strip").arg("-o").arg(&out).arg(&whole))?;
        Ok((out, debug))
    }

    /// Compiles the hooks for versions of `service`.
    pub fn hooks(&self, name: &str, defines: &[&str]) -> Result<PathBuf> {
        let out = self.dir.path().join(name);
        let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../mvedsua-sdk/include");
        let mut gcc = Command::new("gcc");
        gcc.args(["-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I"]).arg(include);
        compile(gcc.args(defines).arg("-o").arg(&out).arg(sources().join("hooks.c")))?;
        Ok(out)
    }

    /// Compiles and strips a version of the library `shapes`.
    pub fn shapes(&self, version: &str, defines: &[&str]) -> Result<PathBuf> {
        let out = self.folder(version)?.join("libshapes.so.1");
        let mut gcc = Command::new("g++");
        gcc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-s", "-fPIC", "-shared", "-Wl,--build-id"]);
        gcc.args(["-Wl,-soname,libshapes.so.1"]).args(defines).arg("-o").arg(&out).arg(sources().join("shapes.cc"));
        compile(&mut gcc)?;
        Ok(out)
    }

    /// Compiles `draw`, which uses a version of `shapes`.
    pub fn draw(&self, library: &Path) -> Result<PathBuf> {
        let out = self.dir.path().join("draw");
        let folder = library.parent().context("it lies in a folder")?;
        let mut gcc = Command::new("g++");
        gcc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-s", "-pthread", "-o"]).arg(&out);
        gcc.arg(sources().join("draw.cc")).arg(library).arg(format!("-Wl,-rpath,{}", folder.display()));
        compile(&mut gcc)?;
        Ok(out)
    }

    /// Starts a version.
    pub fn start(&self, program: &Path) -> Result<Server> {
        let name = program.file_name().and_then(|name| name.to_str()).context("it has a name")?;
        start_program(name, program, |port, _| Ok(vec![port.to_string()]))
    }
}
