//! Name servers: dnsmasq, unbound, knot, BIND's named.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

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

pub(super) const KNOT: Kind =
    Kind { name: "knot", packages: &["knot"], start: knot, clients: both_ways, standing: Standing::Works };

pub(super) const NAMED: Kind =
    Kind { name: "named", packages: &["bind9"], start: named, clients: both_ways, standing: Standing::Works };

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

/// Writes a zone with all names, for servers that have whole zones only.
fn write_zone(dir: &Path) -> Result<PathBuf> {
    let mut zone = "$ORIGIN test.\n$TTL 60\n@ SOA ns hostmaster 1 60 60 60 60\n@ NS ns\nns A 127.0.0.1\n".to_owned();
    for (name, address) in hosts() {
        let _ = writeln!(zone, "{name}. A {}", Ipv4Addr::from(address));
    }
    let file = dir.join("test.zone");
    fs::write(&file, zone)?;
    Ok(file)
}

/// Several threads, and a database that is mapped.
fn knot() -> Result<Server> {
    server::start("knotd", |port, dir| {
        let (zone, at) = (write_zone(dir)?, dir.display());
        let config = format!(
            "server:\n  rundir: {at}\n  listen: 127.0.0.1@{port}\ndatabase:\n  storage: {at}\nlog:\n  - target: stderr\n    \
             any: warning\nzone:\n  - domain: test\n    file: {}\n",
            zone.display()
        );
        let file = dir.join("knot.conf");
        fs::write(&file, config)?;
        Ok(strings(&["-c", &file.display().to_string()]))
    })
}

/// Several threads; answers for one zone alone.
fn named() -> Result<Server> {
    server::start("named", |port, dir| {
        let (zone, at) = (write_zone(dir)?, dir.display());
        let config = format!(
            "options {{ directory \"{at}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; pid-file none; \
             session-keyfile none; recursion no; notify no; dnssec-validation no; }};\ncontrols {{ }};\n\
             zone \"test\" {{ type primary; file \"{}\"; }};\n",
            zone.display()
        );
        let file = dir.join("named.conf");
        fs::write(&file, config)?;
        Ok(strings(&["-f", "-4", "-c", &file.display().to_string()]))
    })
}
