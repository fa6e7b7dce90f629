//! A real Prometheus, as Debian ships it, that scrapes a daemon and is asked.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{self, Program};
use crate::server::free_port;
use crate::wait::{try_wait_for, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

/// A Prometheus with folders of its own; ended and removed on drop.
#[derive(Debug)]
pub struct Prometheus {
    pub port: u16,
    _program: Program,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes a port once a second as the job `mvedsuad`, with a file of rules.
    pub fn start(scraped: u16, rules: Option<&Path>) -> Result<Prometheus> {
        let dir = tempfile::Builder::new().prefix("mvedsua-prometheus-").tempdir()?;
        let rules = rules.map(|path| format!("rule_files: [{:?}]\n", path.display().to_string())).unwrap_or_default();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n{rules}scrape_configs:\n\
             - job_name: mvedsuad\n  static_configs: [{{targets: [\"127.0.0.1:{scraped}\"]}}]\n"
        );
        let path = dir.path().join("prometheus.yml");
        fs::write(&path, config)?;
        let port = free_port()?;
        let args = [
            format!("--config.file={}", path.display()),
            format!("--storage.tsdb.path={}", dir.path().join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--log.level=warn".to_owned(),
        ];
        let binary = process::find_program("prometheus").context("`cargo xtask setup` installs Prometheus")?;
        let output = dir.path().join("output");
        let program = Program::start(&binary, &args, dir.path(), &output)?;
        let up = try_wait_for(LIMIT, || get(port, "/-/ready").is_ok_and(|(status, _)| status == 200).then_some(()));
        if up.is_none() {
            bail!("Prometheus did not start: {}", fs::read_to_string(&output).unwrap_or_default());
        }
        Ok(Prometheus { port, _program: program, _dir: dir })
    }

    /// Runs a query; returns its series.
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        let (status, body) = get(self.port, &format!("/api/v1/query?query={}", escaped(query)))?;
        let answer: Value = serde_json::from_str(&body).with_context(|| format!("{status} {body}"))?;
        if answer["status"] != "success" {
            bail!("{query}: {body}");
        }
        Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until a query has series, and returns them.
    #[track_caller]
    pub fn wait_series(&self, query: &str) -> Vec<Value> {
        wait_for(&format!("series of {query}"), LIMIT, || {
            let series = self.query(query).unwrap_or_else(|error| panic!("{error:#}"));
            (!series.is_empty()).then_some(series)
        })
    }

    /// Returns what a page of it says.
    pub fn page(&self, path: &str) -> Result<Value> {
        let (_, body) = get(self.port, path)?;
        Ok(serde_json::from_str(&body)?)
    }
}

/// Gets a page of a loopback port; returns the status and the body.
pub fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes())?;
    let mut answer = vec![];
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("an answer without a status")?;
    Ok((status, body.to_owned()))
}

fn escaped(query: &str) -> String {
    query.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}
