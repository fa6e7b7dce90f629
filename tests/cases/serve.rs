//! `serve`: the pages for a browser, and who gets them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use harness::server;
use harness::stand::{STEP_LIMIT, Stand, code};
use harness::wait::wait_for;

/// A server of pages; ended on drop.
struct Pages {
    child: Child,
    address: SocketAddr,
    token: String,
    cookie: String,
}

impl Pages {
    fn start(stand: &Stand) -> Pages {
        let mut child = stand.daemon.command(&["serve"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (address, token) = line.trim().strip_prefix("http://").unwrap().split_once("/?token=").unwrap();
        let address = address.parse().unwrap();
        let mut pages = Pages { child, address, token: token.to_owned(), cookie: String::new() };
        let answer = pages.get(&format!("/?token={token}"));
        assert!(answer.starts_with("HTTP/1.1 303 "), "{answer}");
        let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        pages.cookie = cookie.split(';').next().unwrap().to_owned();
        pages
    }

    fn say(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "{head}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, path: &str) -> String {
        self.say(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nCookie: other=1; {}", self.address, self.cookie))
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_update_is_seen_while_it_is_under_way_and_afterwards() {
    let mut stand = Stand::new(server::redis(&[]).unwrap());
    let pages = Pages::start(&stand);
    assert!(pages.get("/").contains("no update is known"));
    stand.validate(&[]);
    wait_for("the page to tell the stage", STEP_LIMIT, || {
        pages.get("/live").contains("aria-current=\"step\">validating").then_some(())
    });
    assert!(pages.get("/").contains("redis-server"));
    stand.rollback();
    wait_for("the page to list the update", STEP_LIMIT, || {
        pages.get("/live").contains("href=\"/updates/1\"").then_some(())
    });
    let report = pages.get("/updates/1");
    assert!(report.starts_with("HTTP/1.1 200 ") && report.contains("Rolled back"), "{report}");
    assert!(pages.get("/updates/99").starts_with("HTTP/1.1 404 "));
    stand.daemon.terminate();
    wait_for("the page to tell that nobody answers", STEP_LIMIT, || {
        pages.get("/live").contains("Nothing is known").then_some(())
    });
}

#[test]
fn nobody_else_sees_anything() {
    let stand = Stand::new(server::redis(&[]).unwrap());
    let pages = Pages::start(&stand);
    let host = format!("Host: {}", pages.address);
    for path in ["/", "/live", "/live.js", "/updates/1", "/?token=", &format!("/?token={}x", pages.token)] {
        let answer = pages.say(&format!("GET {path} HTTP/1.1\r\n{host}"));
        assert!(answer.starts_with("HTTP/1.1 403 ") && !answer.contains("redis"), "{path}: {answer}");
    }
    let with_cookie = format!("Cookie: {}", pages.cookie);
    let rebound = pages.say(&format!("GET / HTTP/1.1\r\nHost: evil.example\r\n{with_cookie}"));
    assert!(rebound.starts_with("HTTP/1.1 421 "), "{rebound}");
    for method in ["POST", "PUT", "DELETE"] {
        let answer = pages.say(&format!("{method} / HTTP/1.1\r\n{host}\r\nContent-Length: 0\r\n{with_cookie}"));
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    }
    let answer = pages.get("/");
    for header in ["content-security-policy: default-src 'none'", "x-frame-options: DENY", "cache-control: no-store"] {
        assert!(answer.contains(header), "{header}: {answer}");
    }
    assert!(!answer.contains(&pages.token), "the token is in no page");
    let refused = stand.daemon.expect(&["serve", "--listen", "0.0.0.0:0"], code::USAGE);
    assert!(refused.stderr.contains("no address of this machine alone"), "{}", refused.stderr);
}
