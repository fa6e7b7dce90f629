//! Servers that nobody here wrote, as Debian ships them, each with its clients.
//!
//! One row a server: what it is called, which packages bring it, how it is started in a folder of its own on a free loopback
//! port, who its clients are, and what is known of updating it.

mod applications;
mod daemons;
mod names;
mod queues;
mod stores;
mod web;

pub use stores::{SALT, mariadb_args};
pub use web::{haproxy_of, nginx_of};

use anyhow::Result;

use crate::load::{Clients, Dialogue, Load, Plan};
use crate::server::Server;

/// What is known of updating a server to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is updated again and again under load, and no client notices.
    Works,
    /// The same with these rules, for what two runs of the same version do differently.
    WorksWith(&'static str),
    /// It is not yet, for this reason.
    NotYet(&'static str),
}

/// One kind of server.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    /// Debian's packages.
    pub packages: &'static [&'static str],
    pub start: fn() -> Result<Server>,
    /// Starts its clients.
    pub clients: fn(&Server) -> Vec<Box<dyn Clients>>,
    pub standing: Standing,
}

/// Every server, in the order in which they are tried.
pub const FLEET: &[Kind] = &[
    stores::REDIS,
    stores::MEMCACHED,
    web::NGINX,
    web::LIGHTTPD,
    web::HAPROXY,
    web::HAPROXY_THREADS,
    queues::BEANSTALKD,
    queues::MOSQUITTO,
    stores::MARIADB,
    names::DNSMASQ,
    names::UNBOUND,
    names::KNOT,
    names::NAMED,
    web::PYTHON,
    web::NODE,
    web::CADDY,
    web::JAVA,
    web::APACHE,
    web::SQUID,
    web::STUNNEL,
    applications::UVICORN,
    applications::UWSGI,
    applications::PUMA,
    applications::PHP,
    applications::TOKIO,
    daemons::SNMPD,
    daemons::CHRONYD,
    daemons::PROFTPD,
    daemons::PGBOUNCER,
    daemons::NATS,
    daemons::ETCD,
    daemons::PROMETHEUS,
];

/// Clients that stay, and a few that come and go.
fn stayers_and_visitors<D: Dialogue>(
    server: &Server,
    (stayers, visitors): (usize, usize),
    client: impl Fn(String) -> D,
) -> Vec<Box<dyn Clients>> {
    let stay = Load::start(Plan::busy(server.address, stayers), |index| client(format!("stay{index}")));
    let visit = Load::start(Plan::churn(server.address, visitors), |index| client(format!("visit{index}")));
    vec![Box::new(stay), Box::new(visit)]
}
