//! The loads: real servers with their clients, and a guest that does nothing but call.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use harness::process;
use harness::server::{self, Server};

use super::guest::Guest;
use super::memcached;
use crate::sh;

/// Connections of a server's client.
pub(super) const CLIENTS: usize = 50;

/// One run of a load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Requests or calls a second.
    pub(super) throughput: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) max_us: f64,
}

/// Where the watched process and its client run.
pub(super) struct Cpus {
    pub(super) server: String,
    pub(super) client: String,
}

impl Cpus {
    fn of_machine() -> Result<Cpus> {
        let count = std::thread::available_parallelism()?.get();
        Ok(Cpus { server: "0".to_owned(), client: (count - 1).to_string() })
    }
}

/// The loads by name; each is started when its turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Redis { command: &'static str, pipeline: u32 },
    Memcached,
    Calls,
    Bystander,
}

pub(super) const ALL: [Kind; 7] = [
    Kind::Redis { command: "get", pipeline: 1 },
    Kind::Redis { command: "set", pipeline: 1 },
    Kind::Redis { command: "get", pipeline: 16 },
    Kind::Redis { command: "set", pipeline: 16 },
    Kind::Memcached,
    Kind::Calls,
    Kind::Bystander,
];

impl Kind {
    pub(super) fn name(self) -> String {
        match self {
            Kind::Redis { command, pipeline } => format!("redis {command} P={pipeline}"),
            Kind::Memcached => "memcached get".to_owned(),
            Kind::Calls => "getppid".to_owned(),
            Kind::Bystander => "getppid, another watched".to_owned(),
        }
    }

    /// Says whether strace and perf are compared; what they cost a bystander is no question.
    pub(super) fn takes_other_tools(self) -> bool {
        self != Kind::Bystander
    }

    pub(super) fn start(self) -> Result<Load> {
        let cpus = Cpus::of_machine()?;
        let running = match self {
            Kind::Redis { command, pipeline } => {
                Running::Redis { server: pinned(server::redis(&[])?, &cpus)?, command, pipeline }
            }
            Kind::Memcached => Running::Memcached { server: pinned(server::memcached()?, &cpus)? },
            Kind::Calls => Running::Calls { guest: Guest::start(&cpus.server)? },
            Kind::Bystander => Running::Bystander { guest: Guest::start(&cpus.server)?, watched: Sleeper::start()? },
        };
        Ok(Load { cpus, running })
    }
}

fn pinned(server: Server, cpus: &Cpus) -> Result<Server> {
    process::pin(server.pid(), &cpus.server)?;
    Ok(server)
}

enum Running {
    Redis {
        server: Server,
        command: &'static str,
        pipeline: u32,
    },
    Memcached {
        server: Server,
    },
    /// The guest is watched.
    Calls {
        guest: Guest,
    },
    /// Somebody else is watched: what the guest pays for that.
    Bystander {
        guest: Guest,
        watched: Sleeper,
    },
}

/// A running load.
pub(super) struct Load {
    cpus: Cpus,
    running: Running,
}

impl Load {
    /// The process to watch.
    pub(super) fn watched_pid(&self) -> i32 {
        match &self.running {
            Running::Redis { server, .. } | Running::Memcached { server } => server.pid(),
            Running::Calls { guest } => guest.pid(),
            Running::Bystander { watched, .. } => watched.0.id().cast_signed(),
        }
    }

    /// An amount that takes a fraction of a second.
    pub(super) fn trial(&self) -> u64 {
        match &self.running {
            Running::Redis { pipeline, .. } => 30_000 * u64::from(*pipeline),
            Running::Memcached { .. } => 30_000,
            Running::Calls { .. } | Running::Bystander { .. } => 2_000_000,
        }
    }

    /// Makes so many requests or calls.
    pub(super) fn run(&mut self, amount: u64) -> Result<Measured> {
        match &mut self.running {
            Running::Redis { server, command, pipeline } => {
                redis_benchmark(server, &self.cpus, command, *pipeline, amount)
            }
            Running::Memcached { server } => memcached::run(server.address, &self.cpus.client, amount),
            Running::Calls { guest } | Running::Bystander { guest, .. } => guest.run(amount),
        }
    }
}

fn redis_benchmark(server: &Server, cpus: &Cpus, command: &str, pipeline: u32, requests: u64) -> Result<Measured> {
    let mut client = Command::new("taskset");
    client
        .args(["-c", &cpus.client])
        .arg(process::find_program("redis-benchmark")?)
        .args(["-h", "127.0.0.1", "-p", &server.address.port().to_string(), "-t", command, "--csv"])
        .args(["-c", &CLIENTS.to_string(), "-P", &pipeline.to_string(), "-n", &requests.to_string()]);
    let text = sh::output(&mut client)?;
    parse(&text).with_context(|| format!("redis-benchmark printed {text:?}"))
}

/// Reads the second line of `redis-benchmark --csv`; times there are milliseconds.
fn parse(text: &str) -> Option<Measured> {
    let fields: Vec<f64> =
        text.lines().nth(1)?.split(',').map(|field| field.trim_matches('"').parse().unwrap_or(0.0)).collect();
    let us = |index: usize| Some(fields.get(index)? * 1000.0);
    Some(Measured { throughput: *fields.get(1)?, p50_us: us(4)?, p99_us: us(6)?, max_us: us(7)? })
}

/// A process that does nothing; ends with its owner.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Result<Sleeper> {
        let mut sleep = Command::new("sleep");
        let child = sleep.arg("infinity").stdin(Stdio::null()).spawn().context("starting sleep")?;
        Ok(Sleeper(child))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        if self.0.kill().and_then(|()| self.0.wait()).is_err() {
            eprintln!("the sleeping process of the benchmark could not be ended");
        }
    }
}
