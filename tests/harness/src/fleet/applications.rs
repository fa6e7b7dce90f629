//! Servers that run a program in Python, Ruby or PHP: uvicorn, uWSGI, puma and PHP's own, all with the same files; and one in Rust.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::web::keeping_alive;
use super::{Kind, Standing};
use crate::load::http::HttpClient;
use crate::load::{Clients, Load, Persistence, Plan};
use crate::server::{self, Server, strings, write_web_files};

pub(super) const UVICORN: Kind =
    Kind { name: "uvicorn", packages: &["uvicorn"], start: uvicorn, clients: keeping_alive, standing: Standing::Works };

pub(super) const UWSGI: Kind = Kind {
    name: "uwsgi",
    packages: &["uwsgi-core", "uwsgi-plugin-python3"],
    start: uwsgi,
    clients: super::web::one_by_one,
    standing: Standing::Works,
};

pub(super) const PUMA: Kind =
    Kind { name: "puma", packages: &["puma"], start: puma, clients: keeping_alive, standing: Standing::Works };

pub(super) const PHP: Kind =
    Kind { name: "php", packages: &["php-cli"], start: php, clients: in_one_piece, standing: Standing::Works };

pub(super) const TOKIO: Kind =
    Kind { name: "tokio", packages: &[], start: tokio, clients: keeping_alive, standing: Standing::Works };

/// Clients whose requests come in one piece: PHP's server loses some others.
fn in_one_piece(server: &Server) -> Vec<Box<dyn Clients>> {
    let plan = Plan { split_one_in: 0, ..Plan::busy(server.address, 5) };
    vec![Box::new(Load::start(plan, |_| HttpClient::new(Persistence::OneReply)))]
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers").join(name)
}

/// Starts a program that takes the folder of the files from its environment.
fn with_files(name: &str, args: impl Fn(u16) -> Vec<String>) -> Result<Server> {
    server::start_program(name, Path::new("/usr/bin/env"), |port, dir| {
        let root = write_web_files(dir)?;
        Ok([strings(&[&format!("FILES={root}"), name]), args(port)].concat())
    })
}

/// One process with an event loop.
fn uvicorn() -> Result<Server> {
    let folder = script("");
    with_files("uvicorn", |port| {
        let (folder, port) = (folder.display().to_string(), port.to_string());
        strings(&[
            "--app-dir",
            &folder,
            "--port",
            &port,
            "--log-level",
            "warning",
            "--timeout-keep-alive",
            "600",
            "files:app",
        ])
    })
}

/// One process, without a master.
fn uwsgi() -> Result<Server> {
    with_files("uwsgi", |port| {
        let (file, socket) = (script("files.py").display().to_string(), format!("127.0.0.1:{port}"));
        let common = ["--plugins", "python3", "--http-socket", &socket, "--wsgi-file", &file, "--callable", "wsgi"];
        strings(&[&common[..], &["--disable-logging", "--need-app"]].concat())
    })
}

/// One process with a pool of threads.
fn puma() -> Result<Server> {
    with_files("puma", |port| {
        let (file, bind) = (script("files.ru").display().to_string(), format!("tcp://127.0.0.1:{port}"));
        strings(&["--quiet", "--bind", &bind, "--threads", "2:4", &file])
    })
}

/// PHP's own server, as programmers use it.
fn php() -> Result<Server> {
    server::start("php", |port, dir| {
        let root = write_web_files(dir)?;
        Ok(strings(&["-S", &format!("127.0.0.1:{port}"), "-t", &root]))
    })
}

/// The project's own, in Rust on Tokio: two threads, and more for the files. It is built first, unless it was before.
fn tokio() -> Result<Server> {
    let manifest = script("tokio/Cargo.toml");
    let built = std::env::temp_dir().join("mvedsua-files-tokio");
    let cargo = std::process::Command::new("cargo")
        .args(["build", "--quiet", "--manifest-path"])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&built)
        .output()?;
    anyhow::ensure!(
        cargo.status.success(),
        "building {}: {}",
        manifest.display(),
        String::from_utf8_lossy(&cargo.stderr)
    );
    let program = built.join("debug/files-tokio").display().to_string();
    server::start_program("files-tokio", Path::new("/usr/bin/env"), |port, dir| {
        let root = write_web_files(dir)?;
        Ok(strings(&[&format!("FILES={root}"), &program, &port.to_string()]))
    })
}
