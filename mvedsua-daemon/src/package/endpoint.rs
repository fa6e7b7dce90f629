//! The address of somebody who is asked, or told, over HTTP.

use std::net::IpAddr;

/// `http://HOST[:PORT]/PATH`. There is no TLS: what is asked is on this machine, or behind a proxy that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    /// With the query, from the first slash.
    pub path: String,
}

impl Endpoint {
    /// Reads an address.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Endpoint, String> {
        let wrong = |why: &str| format!("`{text}` {why}");
        let rest = text
            .strip_prefix("http://")
            .ok_or_else(|| wrong("does not begin with http://, and nothing else is spoken"))?;
        let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        if path.contains('#') || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("holds what has no place in an address: spaces, a `#`, or letters that are not ASCII"));
        }
        if authority.contains('@') {
            return Err(wrong("holds a password, which is not supported"));
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(|| wrong("lacks a `]`"))?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() {
            return Err(wrong("names no host"));
        }
        let port = match port {
            None => 80,
            Some(port) => port.parse().map_err(|_| wrong("has no valid port"))?,
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Endpoint { host: host.to_owned(), port, path })
    }

    /// Returns whether it is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Returns the header `Host`.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 80 { host } else { format!("{host}:{}", self.port) }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back() {
        for (text, host, port, path) in [
            ("http://127.0.0.1:9090/judge?x=1", "127.0.0.1", 9090, "/judge?x=1"),
            ("http://localhost", "localhost", 80, "/"),
            ("http://[::1]:8080/", "::1", 8080, "/"),
            ("http://judge.internal?x", "judge.internal", 80, "/?x"),
        ] {
            let endpoint = Endpoint::parse(text).expect(text);
            assert_eq!((endpoint.host.as_str(), endpoint.port, endpoint.path.as_str()), (host, port, path));
            assert_eq!(Endpoint::parse(&endpoint.to_string()), Ok(endpoint));
        }
        assert!(Endpoint::parse("http://[::1]/").is_ok_and(|endpoint| endpoint.is_local()));
        assert!(Endpoint::parse("http://192.0.2.1/").is_ok_and(|endpoint| !endpoint.is_local()));
        for text in ["https://x/", "x", "http://", "http://a:b/", "http://a/b c", "http://u:p@h/", "http://a/#x"] {
            Endpoint::parse(text).expect_err(text);
        }
    }
}
