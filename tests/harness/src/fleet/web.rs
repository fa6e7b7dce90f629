//! Web servers, all with the same files: nginx, lighttpd, Apache, Python's and Node's own; and what stands before one: haproxy,
//! squid, stunnel.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::{Kind, Standing, stayers_and_visitors};
use crate::load::chunks;
use crate::load::http::HttpClient;
use crate::load::{Clients, Load, Persistence, Plan};
use crate::process;
use crate::server::{self, Server, strings, write_web_files};

pub(super) const NGINX: Kind =
    Kind { name: "nginx", packages: &["nginx-light"], start: nginx, clients: keeping_alive, standing: Standing::Works };

pub(super) const LIGHTTPD: Kind = Kind {
    name: "lighttpd",
    packages: &["lighttpd"],
    start: server::lighttpd,
    clients: keeping_alive,
    standing: Standing::Works,
};

pub(super) const HAPROXY: Kind = Kind {
    name: "haproxy",
    packages: &["haproxy", "lighttpd"],
    start: || haproxy(1),
    clients: keeping_alive,
    standing: Standing::Works,
};

pub(super) const HAPROXY_THREADS: Kind = Kind {
    name: "haproxy-threads",
    packages: &["haproxy", "lighttpd"],
    start: || haproxy(2),
    clients: keeping_alive,
    standing: Standing::Works,
};

pub(super) const PYTHON: Kind = Kind {
    name: "http.server",
    packages: &["python3"],
    start: server::python_http,
    clients: one_by_one,
    standing: Standing::Works,
};

pub(super) const NODE: Kind =
    Kind { name: "node", packages: &["nodejs"], start: node, clients: keeping_alive, standing: Standing::Works };

pub(super) const CADDY: Kind =
    Kind { name: "caddy", packages: &["caddy"], start: caddy, clients: keeping_alive, standing: Standing::Works };

pub(super) const JAVA: Kind = Kind {
    name: "java",
    packages: &["openjdk-17-jdk-headless"],
    start: java,
    clients: keeping_alive,
    standing: Standing::Works,
};

pub(super) const APACHE: Kind = Kind {
    name: "apache",
    packages: &["apache2-bin"],
    start: apache,
    clients: keeping_alive,
    standing: Standing::Works,
};

pub(super) const SQUID: Kind = Kind {
    name: "squid",
    packages: &["squid", "lighttpd"],
    start: squid,
    clients: keeping_alive,
    standing: Standing::Works,
};

pub(super) const STUNNEL: Kind = Kind {
    name: "stunnel",
    packages: &["stunnel4", "lighttpd", "openssl"],
    start: stunnel,
    clients: keeping_alive,
    standing: Standing::Works,
};

/// A connection for each request. No more of them than the server keeps waiting: the others would come again only after a second.
pub(super) fn one_by_one(server: &Server) -> Vec<Box<dyn Clients>> {
    let plan = Plan::busy(server.address, 5);
    vec![Box::new(Load::start(plan, |_| HttpClient::new(Persistence::OneReply)))]
}

pub(super) fn keeping_alive(server: &Server) -> Vec<Box<dyn Clients>> {
    stayers_and_visitors(server, (10, 4), |_| HttpClient::new(Persistence::Open))
}

/// As one process, without a master.
fn nginx() -> Result<Server> {
    nginx_of(&process::find_program("nginx")?)
}

/// The same with a file of the caller's.
pub fn nginx_of(program: &Path) -> Result<Server> {
    server::start_program("nginx", program, |port, dir| {
        let root = write_web_files(dir)?;
        let at = dir.display();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log stderr;\nevents {{ worker_connections 512; }}\n\
             http {{\n  access_log off;\n  sendfile on;\n  keepalive_requests 100000000;\n  default_type text/plain;\n  \
             client_body_temp_path {at}/body;\n  proxy_temp_path {at}/proxy;\n  fastcgi_temp_path {at}/fastcgi;\n  \
             uwsgi_temp_path {at}/uwsgi;\n  scgi_temp_path {at}/scgi;\n  \
             server {{ listen 127.0.0.1:{port}; root {root}; }}\n}}\n"
        );
        let file = dir.join("nginx.conf");
        fs::write(&file, config)?;
        Ok(strings(&["-p", &at.to_string(), "-c", &file.display().to_string()]))
    })
}

/// As one process with so many threads, without a master; it passes everything on to a lighttpd.
fn haproxy(threads: u32) -> Result<Server> {
    haproxy_of(&process::find_program("haproxy")?, threads, "", None)
}

/// The same with a file of the caller's, and more lines for the side of the clients; what begins with [`chunks::PATH`] goes to
/// another server, where one is given.
pub fn haproxy_of(program: &Path, threads: u32, lines: &str, echo: Option<SocketAddr>) -> Result<Server> {
    let behind = server::lighttpd()?;
    let front = server::start_program("haproxy", program, |port, dir| {
        let (choice, other) = echo.map_or_else(Default::default, |address| {
            let choice = format!("  use_backend other if {{ path_beg {} }}\n", chunks::PATH);
            (choice, format!("backend other\n  server only {address}\n"))
        });
        let config = format!(
            "global\n  maxconn 500\n  nbthread {threads}\ndefaults\n  mode http\n  timeout connect 20s\n  timeout client 60s\n  \
             timeout server 60s\nfrontend front\n  bind 127.0.0.1:{port}\n{lines}{choice}  default_backend behind\n\
             backend behind\n  server only {}\n{other}",
            behind.address
        );
        let file = dir.join("haproxy.cfg");
        fs::write(&file, config)?;
        Ok(strings(&["-db", "-f", &file.display().to_string()]))
    })?;
    Ok(front.with(behind))
}

/// The project's own few lines around Node's `http` module.
fn node() -> Result<Server> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers/files.js");
    server::start("node", |port, dir| {
        let root = write_web_files(dir)?;
        Ok(vec![script.display().to_string(), port.to_string(), root])
    })
}

/// A server written in Go, with nothing but files to serve.
fn caddy() -> Result<Server> {
    server::start("caddy", |port, dir| {
        let root = write_web_files(dir)?;
        let at = dir.display();
        let config = format!(
            r#"{{
              "admin": {{"disabled": true, "config": {{"persist": false}}}},
              "storage": {{"module": "file_system", "root": "{at}/caddy"}},
              "apps": {{"http": {{"servers": {{"files": {{
                "listen": ["127.0.0.1:{port}"],
                "automatic_https": {{"disable": true}},
                "routes": [{{"handle": [{{"handler": "file_server", "root": "{root}"}}]}}]
              }}}}}}}}
            }}"#
        );
        let file = dir.join("caddy.json");
        fs::write(&file, config)?;
        Ok(strings(&["run", "--config", &file.display().to_string()]))
    })
}

/// The project's own few lines around Java's server. The machine's counters in a shared file are nothing that could be
/// followed.
fn java() -> Result<Server> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers/Files.java");
    server::start("java", |port, dir| {
        let root = write_web_files(dir)?;
        let options = ["-XX:-UsePerfData", "-Djava.net.preferIPv4Stack=true"];
        Ok(strings(&[&options[..], &[&source.display().to_string(), &port.to_string(), &root]].concat()))
    })
}

/// As one process with threads, as for looking for faults.
fn apache() -> Result<Server> {
    server::start("apache2", |port, dir| {
        let root = write_web_files(dir)?;
        let at = dir.display();
        let modules = ["mpm_event", "authz_core", "mime"]
            .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"));
        let config = format!(
            "ServerRoot {at}\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile {at}/pid\nErrorLog {at}/errors\n{}\
             TypesConfig /dev/null\nDocumentRoot {root}\nMutex fcntl:{at}\nMaxKeepAliveRequests 0\nKeepAliveTimeout 600\n\
             StartServers 1\nServerLimit 1\nThreadsPerChild 25\nMaxRequestWorkers 25\n",
            modules.concat()
        );
        let file = dir.join("apache.conf");
        fs::write(&file, config)?;
        Ok(strings(&["-X", "-f", &file.display().to_string()]))
    })
}

/// Keeps in memory what a lighttpd has; gives up root for the user `proxy`, as Debian's does. It leaves segments of shared memory
/// behind, so it gets a place of its own for them.
fn squid() -> Result<Server> {
    let behind = server::lighttpd()?;
    let front = server::start_program("squid", Path::new("/usr/bin/unshare"), |port, dir| {
        let config = format!(
            "http_port 127.0.0.1:{port} accel defaultsite=localhost\n\
             cache_peer 127.0.0.1 parent {} 0 no-query originserver\nhttp_access allow all\npid_filename none\n\
             access_log none\ncache_log /dev/null\ncache_store_log none\npinger_enable off\ncache_effective_user proxy\n\
             client_idle_pconn_timeout 10 minutes\nserver_idle_pconn_timeout 10 minutes\n",
            behind.address.port()
        );
        let file = dir.join("squid.conf");
        fs::write(&file, config)?;
        let command = format!("mount -t tmpfs none /dev/shm && exec squid -N -f {}", file.display());
        Ok(strings(&["--mount", "sh", "-c", &command]))
    })?;
    Ok(front.with(behind))
}

/// The end of a tunnel at which clients come; its other end stands before a lighttpd.
fn stunnel() -> Result<Server> {
    let behind = server::lighttpd()?;
    let end = |name: &str, lines: &dyn Fn(&Path) -> Result<String>| {
        server::start(name, |port, dir| {
            let config = format!("foreground = yes\npid =\n[web]\naccept = 127.0.0.1:{port}\n{}", lines(dir)?);
            let file = dir.join("stunnel.conf");
            fs::write(&file, config)?;
            Ok(strings(&[&file.display().to_string()]))
        })
    };
    let far = end("stunnel", &|dir| {
        let certificate = dir.join("certificate.pem");
        certify(&certificate)?;
        Ok(format!("cert = {}\nconnect = {}\n", certificate.display(), behind.address))
    })?;
    let near = end("stunnel", &|_| Ok(format!("client = yes\nconnect = {}\n", far.address)))?;
    Ok(near.with(far.with(behind)))
}

/// Writes a key and a certificate of its own into a file.
fn certify(file: &Path) -> Result<()> {
    let at = file.display().to_string();
    let common = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"];
    let made = Command::new("openssl").args(common).args(["-keyout", &at, "-out", &at]).output()?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}
