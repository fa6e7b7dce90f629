//! Servers of protocols that have one server here each: snmpd, chronyd, proftpd, pgbouncer, NATS, etcd, Prometheus.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::{Kind, Standing, stayers_and_visitors};
use crate::load::exchange::{self, Exchange};
use crate::load::{Clients, Load, Persistence, Plan, Transport};
use crate::process;
use crate::server::{self, Ready, Server, strings};

/// What snmpd says of the system: the number of the object, and its value.
const SYSTEM: [(u8, &str); 3] = [(4, "nobody@localhost"), (5, "a name"), (6, "a place")];
/// A user that proftpd knows, and the password of which `HASH` was made (`openssl passwd -1 -salt mvedsua secret`).
const USER: &str = "somebody";
const PASSWORD: &str = "secret";
const HASH: &str = "$1$mvedsua$1hAoPypTkbQwUu3bwFUUE0";

pub(super) const SNMPD: Kind =
    Kind { name: "snmpd", packages: &["snmpd"], start: snmpd, clients: snmp_clients, standing: Standing::Works };

pub(super) const CHRONYD: Kind = Kind {
    name: "chronyd",
    packages: &["chrony"],
    start: chronyd,
    clients: |server| datagrams(server, 10, |_, random| exchange::ntp(random)),
    standing: Standing::Works,
};

pub(super) const PROFTPD: Kind = Kind {
    name: "proftpd",
    packages: &["proftpd-core"],
    start: proftpd,
    clients: ftp_clients,
    standing: Standing::Works,
};

pub(super) const PGBOUNCER: Kind = Kind {
    name: "pgbouncer",
    packages: &["pgbouncer"],
    start: pgbouncer,
    clients: pgbouncer_clients,
    standing: Standing::Works,
};

pub(super) const NATS: Kind = Kind {
    name: "nats",
    packages: &["nats-server"],
    start: nats,
    clients: |server| {
        stayers_and_visitors(server, (10, 4), |name| {
            let ask = Box::new(move |number, random: &mut _| exchange::nats(&name, number, random));
            Exchange::new(Persistence::Open, ask).nudged_by(b"PING\r\n")
        })
    },
    standing: Standing::Works,
};

pub(super) const ETCD: Kind = Kind {
    name: "etcd",
    packages: &["etcd-server"],
    start: etcd,
    clients: |server| connections(server, |name| Box::new(move |number, _| etcd_request(&name, number))),
    standing: Standing::NotYet(
        "its threads part now and then where they compete: one writes where its twin asks for the time",
    ),
};

pub(super) const PROMETHEUS: Kind = Kind {
    name: "prometheus",
    packages: &["prometheus"],
    start: prometheus,
    clients: |server| {
        let ask = |number: u32| {
            let holds = format!("\"{}\"", number * 3);
            exchange::http("GET", &format!("/api/v1/query?query={number}*3"), "", holds)
        };
        connections(server, move |_| Box::new(move |number, _| ask(number)))
    },
    standing: Standing::NotYet(
        "its threads part now and then where they compete, and do not meet that again often enough",
    ),
};

/// Clients over TCP that stay, and some that come and go.
fn connections(server: &Server, ask: impl Fn(String) -> exchange::Ask) -> Vec<Box<dyn Clients>> {
    stayers_and_visitors(server, (10, 4), move |name| Exchange::new(Persistence::Open, ask(name)))
}

/// So many clients that ask by datagrams.
fn datagrams(
    server: &Server,
    clients: usize,
    ask: fn(u32, &mut rand::rngs::StdRng) -> (Vec<u8>, exchange::Judge),
) -> Vec<Box<dyn Clients>> {
    let plan = Plan { transport: Transport::Udp, ..Plan::busy(server.address, clients) };
    vec![Box::new(Load::start(plan, |_| Exchange::new(Persistence::Open, Box::new(ask))))]
}

fn snmp_clients(server: &Server) -> Vec<Box<dyn Clients>> {
    datagrams(server, 10, |number, random| {
        let (object, value) = SYSTEM[number as usize % SYSTEM.len()];
        exchange::snmp(object, value, random)
    })
}

/// One client at a time: each connection is a process, and the server is to be alone now and then.
fn ftp_clients(server: &Server) -> Vec<Box<dyn Clients>> {
    let plan = Plan { pause_one_in: 1, split_one_in: 0, ..Plan::busy(server.address, 1) };
    let ask = |_: usize| Exchange::new(Persistence::OneReply, Box::new(|_, _| exchange::ftp(USER, PASSWORD)));
    vec![Box::new(Load::start(plan, ask))]
}

/// Each request comes in one piece: another is refused while a client logs in.
fn pgbouncer_clients(server: &Server) -> Vec<Box<dyn Clients>> {
    let client = |_: usize| Exchange::new(Persistence::Open, Box::new(|number, _| exchange::pgbouncer(number)));
    let stay = Plan { split_one_in: 0, ..Plan::busy(server.address, 10) };
    let visit = Plan { split_one_in: 0, ..Plan::churn(server.address, 4) };
    vec![Box::new(Load::start(stay, client)), Box::new(Load::start(visit, client))]
}

/// Puts a value and reads it again.
fn etcd_request(name: &str, number: u32) -> (Vec<u8>, exchange::Judge) {
    let key = base64(name.as_bytes());
    let value = base64(format!("{name} {}", number / 2).as_bytes());
    match number % 2 {
        0 => exchange::http(
            "POST",
            "/v3/kv/put",
            &format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}"),
            "\"revision\"".to_owned(),
        ),
        _ => {
            let holds = format!("\"value\":\"{value}\"");
            exchange::http("POST", "/v3/kv/range", &format!("{{\"key\":\"{key}\"}}"), holds)
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let digit = |at: usize| match at <= chunk.len() {
            true => char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]),
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// Over UDP; tells of the system what is written in its file, and knows no names of objects.
fn snmpd() -> Result<Server> {
    server::start_program_until(Ready::Listens, "snmpd", Path::new("/usr/bin/env"), |port, dir| {
        let [(_, contact), (_, name), (_, place)] = SYSTEM;
        // In its state it writes a file of its own, `snmpd.conf`.
        let (config, state) = (dir.join("agent.conf"), dir.join("state"));
        fs::create_dir(&state)?;
        let lines = format!(
            "rocommunity public 127.0.0.1\nsysContact {contact}\nsysName {name}\nsysLocation {place}\n\
             dontLogTCPWrappersConnects yes\n"
        );
        fs::write(&config, lines)?;
        let (config, state) = (config.display().to_string(), format!("--persistentDir={}", state.display()));
        let (agents, address) = (dir.join("agents").display().to_string(), format!("udp:127.0.0.1:{port}"));
        Ok(strings(&["MIBS=", "snmpd", "-f", "-Lo", "-C", "-c", &config, &state, "-x", &agents, &address]))
    })
}

/// Tells the machine's time and leaves the clock alone.
fn chronyd() -> Result<Server> {
    server::start_program_until(Ready::Listens, "chronyd", &process::find_program("chronyd")?, |port, dir| {
        let config = dir.join("chrony.conf");
        let lines = format!(
            "port {port}\nbindaddress 127.0.0.1\nallow 127.0.0.1\nlocal stratum 8\ncmdport 0\nbindcmdaddress /\npidfile {}\n",
            dir.join("pid").display()
        );
        fs::write(&config, lines)?;
        Ok(strings(&["-d", "-x", "-u", "root", "-4", "-f", &config.display().to_string()]))
    })
}

/// A process for each connection.
fn proftpd() -> Result<Server> {
    server::start("proftpd", |port, dir| {
        let (at, users) = (dir.display(), dir.join("users"));
        fs::write(&users, format!("{USER}:{HASH}:0:0::{at}:/bin/sh\n"))?;
        fs::set_permissions(&users, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let config = dir.join("proftpd.conf");
        let lines = format!(
            "ServerName test\nServerType standalone\nDefaultServer on\nPort {port}\nDefaultAddress 127.0.0.1\n\
             SocketBindTight on\nUseIPv6 off\nUseReverseDNS off\nUser root\nGroup root\nRootLogin on\nRequireValidShell off\n\
             AuthOrder mod_auth_file.c\nAuthUserFile {}\nPidFile {at}/pid\nScoreboardFile {at}/scores\nSystemLog none\n\
             WtmpLog off\nTransferLog none\nDelayEngine off\n",
            users.display()
        );
        fs::write(&config, lines)?;
        Ok(strings(&["-n", "-q", "-c", &config.display().to_string()]))
    })
}

/// Its console alone, which needs no database.
fn pgbouncer() -> Result<Server> {
    server::start("pgbouncer", |port, dir| {
        let config = dir.join("pgbouncer.ini");
        let lines = format!(
            "[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n\
             log_connections = 0\nlog_disconnections = 0\n"
        );
        fs::write(&config, lines)?;
        Ok(strings(&["-q", "-u", "nobody", &config.display().to_string()]))
    })
}

fn nats() -> Result<Server> {
    server::start("nats-server", |port, _| Ok(strings(&["--addr", "127.0.0.1", "--port", &port.to_string()])))
}

/// The only one of its cluster; it is a client of its own.
fn etcd() -> Result<Server> {
    server::start_program_until(Ready::Listens, "etcd", &process::find_program("etcd")?, |port, dir| {
        let (clients, peers) =
            (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", server::free_port()?));
        let data = dir.join("data").display().to_string();
        let own = ["--data-dir", &data, "--log-level", "error", "--name", "only"];
        let listens = ["--listen-client-urls", &clients, "--advertise-client-urls", &clients];
        let cluster = format!("only={peers}");
        let peers =
            ["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers, "--initial-cluster", &cluster];
        Ok(strings(&[&own[..], &listens, &peers].concat()))
    })
}

/// It scrapes nothing, and computes what it is asked.
fn prometheus() -> Result<Server> {
    server::start("prometheus", |port, dir| {
        let (config, data) = (dir.join("prometheus.yml"), dir.join("data"));
        fs::write(&config, "global:\n  scrape_interval: 1m\n")?;
        Ok(vec![
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", data.display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--log.level=warn".to_owned(),
        ])
    })
}
