//! What the configuration says of HTTP.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// The section `[http]`.
///
/// ```toml
/// [http]
/// listen = "127.0.0.1:9468"  # or unix:/run/mvedsua/http.sock
/// socket-mode = 0o600        # who may connect to a Unix socket
/// max-series = 10000         # of the metrics
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct HttpConfig {
    /// Without it nothing is served.
    pub listen: Option<Listen>,
    pub socket_mode: u32,
    pub max_series: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig { listen: None, socket_mode: 0o600, max_series: 10_000 }
    }
}

/// A place on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Listen::Unix(path))
            } else {
                Err(format!("`{text}` has no absolute path"))
            };
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            format!(
                "`{text}` is neither an address with a port, such as 127.0.0.1:9468, nor unix:/run/mvedsua/http.sock"
            )
        })?;
        if !address.ip().is_loopback() {
            let why =
                "others than this machine could reach it, and nobody is asked who they are; let a proxy serve them";
            return Err(format!("`{text}` is no loopback address: {why}"));
        }
        Ok(Listen::Tcp(address))
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_places_of_this_machine_are_taken() {
        let read = |text: &str| toml::from_str::<HttpConfig>(text);
        assert_eq!(read("").expect("it is off").listen, None);
        let unix = read("listen = \"unix:/run/x.sock\"\nsocket-mode = 0o660").expect("it reads");
        assert_eq!((unix.listen, unix.socket_mode), (Some(Listen::Unix("/run/x.sock".into())), 0o660));
        assert!(matches!(read("listen = \"[::1]:80\"").expect("it reads").listen, Some(Listen::Tcp(_))));
        for (text, why) in [
            ("listen = \"0.0.0.0:9468\"", "no loopback address"),
            ("listen = \"9468\"", "neither an address"),
            ("listen = \"unix:x\"", "no absolute path"),
            ("lisen = \"127.0.0.1:1\"", "lisen"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
