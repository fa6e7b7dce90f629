//! Stores: Redis, Memcached, MariaDB.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Kind, Standing, stayers_and_visitors};
use crate::load::memcached::MemcachedClient;
use crate::load::mysql::MysqlClient;
use crate::load::resp::RedisClient;
use crate::process::find_program;
use crate::server::{self, Server};

pub(super) const REDIS: Kind = Kind {
    name: "redis-server",
    packages: &["redis-server"],
    start: || server::redis(&[]),
    clients: |server| stayers_and_visitors(server, (16, 4), |name| RedisClient::new(&name)),
    standing: Standing::Works,
};

pub(super) const MEMCACHED: Kind = Kind {
    name: "memcached",
    packages: &["memcached"],
    start: server::memcached,
    clients: |server| stayers_and_visitors(server, (16, 4), |name| MemcachedClient::new(&name)),
    standing: Standing::Works,
};

pub(super) const MARIADB: Kind = Kind {
    name: "mariadbd",
    // The second has `my_print_defaults`, which `mariadb-install-db` of the first runs.
    packages: &["mariadb-server-core", "mariadb-client-core"],
    start: mariadb,
    clients: |server| stayers_and_visitors(server, (6, 2), |name| MysqlClient::new(&name)),
    standing: Standing::WorksWith(SALT),
};

/// The salt of a greeting is a random number with the processor's counter in its seed.
pub const SALT: &str = r"rule salt
    sendto(_, /^...\x00\x0a[ -~]+\x00.+mysql_native_password\x00$/s) =>
        sendto(_, /^...\x00\x0a[ -~]+\x00.+mysql_native_password\x00$/s)
";

fn mariadb() -> Result<Server> {
    server::start("mariadbd", mariadb_args)
}

/// Makes the first tables in a folder and returns the arguments of MariaDB with a small InnoDB. Without kernel AIO, whose
/// results appear in memory without a call.
pub fn mariadb_args(port: u16, dir: &Path) -> Result<Vec<String>> {
    let data = dir.join("data");
    let installed = Command::new(find_program("mariadb-install-db")?)
        .args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"])
        .arg(format!("--datadir={}", data.display()))
        .stdin(Stdio::null())
        .output()
        .context("running mariadb-install-db")?;
    // It tells of its errors on the output.
    let told = [installed.stdout, installed.stderr].concat();
    ensure!(installed.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&told));
    let socket = dir.join("socket");
    Ok(vec![
        "--no-defaults".into(),
        "--user=root".into(),
        format!("--datadir={}", data.display()),
        format!("--port={port}"),
        "--bind-address=127.0.0.1".into(),
        format!("--socket={}", socket.display()),
        "--skip-grant-tables".into(),
        "--skip-name-resolve".into(),
        "--innodb-use-native-aio=0".into(),
        "--innodb-buffer-pool-size=16M".into(),
        "--innodb-log-file-size=8M".into(),
        "--max-connect-errors=1000000".into(),
    ])
}
