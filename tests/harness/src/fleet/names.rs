//! Name servers: dnsmasq, unbound.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;

use anyhow::Result;

use super::{Kind, Standing};
use crate::load::dns::{DnsClient, hosts};
use crate::load::{Clients, Load, Persistence, Plan, Transport};
use crate::server::{self, Server, strings};

pub(super) const DNSMASQ: Kind = Kind {
    name: "dnsmasq",
    packages: &["dnsmasq-base"],
    start: dnsmasq,
    clients: both_ways,
    standing: Standing::Works,
};

pub(super) const UNBOUND: Kind =
    Kind { name: "unbound", packages: &["unbound"], start: unbound, clients: both_ways, standing: Standing::Works };

/// Clients that ask over UDP, and a few over TCP.
fn both_ways(server: &Server) -> Vec<Box<dyn Clients>> {
    let udp = Plan { transport: Transport::Udp, ..Plan::busy(server.address, 10) };
    let tcp = Plan { visits: Some(1..=3), pause_one_in: 1, ..Plan::busy(server.address, 2) };
    let over = |plan: Plan, persistence: Persistence| {
        let transport = plan.transport;
        Box::new(Load::start(plan, move |_| DnsClient::new(transport, persistence))) as Box<dyn Clients>
    };
    vec![over(udp, Persistence::Open), over(tcp, Persistence::OneReply)]
}

/// As one process: otherwise it forks for each question over TCP, remembers its own number, and takes itself for such a child
/// where it has another, as it has after a promotion.
fn dnsmasq() -> Result<Server> {
    server::start("dnsmasq", |port, dir| {
        let mut config = format!(
            "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nlocal=/test/\nuser=root\n\
             pid-file={}\n",
            dir.join("pid").display()
        );
        for (name, address) in hosts() {
            let _ = writeln!(config, "host-record={name},{}", Ipv4Addr::from(address));
        }
        let file = dir.join("dnsmasq.conf");
        fs::write(&file, config)?;
        Ok(strings(&["--no-daemon", "-C", &file.display().to_string()]))
    })
}

/// Gives up root for the user `unbound`, as Debian's does.
fn unbound() -> Result<Server> {
    server::start("unbound", |port, dir| {
        let mut config = format!(
            "server:\n  interface: 127.0.0.1\n  port: {port}\n  do-daemonize: no\n  chroot: \"\"\n  directory: \"\"\n  \
             pidfile: \"\"\n  use-syslog: no\n  logfile: \"\"\n  local-zone: \"test.\" static\n"
        );
        for (name, address) in hosts() {
            let _ = writeln!(config, "  local-data: \"{name}. A {}\"", Ipv4Addr::from(address));
        }
        config.push_str("remote-control:\n  control-enable: no\n");
        let file = dir.join("unbound.conf");
        fs::write(&file, config)?;
        Ok(strings(&["-d", "-c", &file.display().to_string()]))
    })
}
