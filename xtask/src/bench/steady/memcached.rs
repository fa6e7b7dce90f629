//! A client for Memcached: one thread, many connections, one request under way on each, no thinking time.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::loads::{CLIENTS, Measured};
use crate::sh;

const REQUEST: &[u8] = b"get benchmark\r\n";
const STORE: &[u8] = b"set benchmark 0 0 3\r\nxxx\r\n";
const REPLY: &[u8] = b"VALUE benchmark 0 3\r\nxxx\r\nEND\r\n";

/// How long a reply may take.
const LIMIT_MS: u16 = 30_000;

/// Makes so many requests, in a thread that is pinned to `cpu`; each reply is checked.
pub(super) fn run(address: SocketAddr, cpu: &str, requests: u64) -> Result<Measured> {
    std::thread::scope(|scope| {
        let client = std::thread::Builder::new().name("memcached-client".to_owned());
        let client = client.spawn_scoped(scope, || {
            let tid = nix::unistd::gettid().to_string();
            sh::output(Command::new("taskset").args(["-p", "-c", cpu, &tid]))?;
            drive(address, requests)
        })?;
        client.join().unwrap_or_else(|_| bail!("the client has panicked"))
    })
}

struct Connection {
    stream: TcpStream,
    /// What has come of the reply.
    got: usize,
    asked: Instant,
}

impl Connection {
    fn ask(&mut self) -> Result<()> {
        self.got = 0;
        self.asked = Instant::now();
        // Far smaller than the socket's buffer, which is empty.
        self.stream.write_all(REQUEST).context("asking")
    }

    /// Reads what has come; says whether the reply is complete.
    fn take(&mut self) -> Result<bool> {
        let mut buffer = [0; 64];
        match self.stream.read(&mut buffer) {
            Ok(0) => bail!("memcached closed a connection"),
            Ok(n) => {
                let expected = REPLY.get(self.got..self.got + n);
                ensure!(expected == Some(&buffer[..n]), "a wrong reply: {:?}", String::from_utf8_lossy(&buffer[..n]));
                self.got += n;
                Ok(self.got == REPLY.len())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).context("reading a reply"),
        }
    }
}

fn drive(address: SocketAddr, requests: u64) -> Result<Measured> {
    store(address)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut connections = Vec::with_capacity(CLIENTS);
    for index in 0..CLIENTS {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        connections.push(Connection { stream, got: 0, asked: Instant::now() });
    }
    let mut latencies = Histogram::<u64>::new(3)?;
    let mut events = [EpollEvent::empty(); CLIENTS];
    let began = Instant::now();
    let (mut asked, mut done) = (0, 0);
    for connection in connections.iter_mut().take(usize::try_from(requests)?) {
        connection.ask()?;
        asked += 1;
    }
    while done < requests {
        let ready = epoll.wait(&mut events, EpollTimeout::from(LIMIT_MS))?;
        ensure!(ready > 0, "no reply within {LIMIT_MS} ms");
        for event in &events[..ready] {
            let connection = &mut connections[usize::try_from(event.data())?];
            if connection.take()? {
                latencies.record(u64::try_from(connection.asked.elapsed().as_nanos())?)?;
                done += 1;
                if asked < requests {
                    connection.ask()?;
                    asked += 1;
                }
            }
        }
    }
    let us = |ns: u64| ns as f64 / 1e3;
    Ok(Measured {
        throughput: requests as f64 / began.elapsed().as_secs_f64(),
        p50_us: us(latencies.value_at_quantile(0.5)),
        p99_us: us(latencies.value_at_quantile(0.99)),
        max_us: us(latencies.max()),
    })
}

fn store(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(STORE)?;
    let mut reply = [0; 8];
    stream.read_exact(&mut reply)?;
    ensure!(&reply == b"STORED\r\n", "memcached said {:?}", String::from_utf8_lossy(&reply));
    Ok(())
}
