//! Tells others over HTTP what happens: each event as one signed request.
//!
//! Each webhook is a reader of the stream of events as a client of `events` is: the ring is its queue, and what the ring has
//! lost before it was told is counted. An event that is not taken is told again after 1 s, 2 s, and so on; after
//! [`MOST_TRIES`] it is given up and counted, and the next one is told. Nothing else waits for it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use serde::Deserialize;
use sha2::Sha256;
use tokio::time::Instant;

use super::clock;
use super::daemon::Daemon;
use super::events::{Event, KINDS};
use super::gates::GatesConfig;
use super::http::client;
use crate::package::Endpoint;

/// How often an event is told before it is given up.
const MOST_TRIES: u32 = 6;
/// How long the first pause between two tries is; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long one try may take.
const TRY_WITHIN: Duration = Duration::from_secs(10);
/// How many events are taken from the ring at once.
const AT_ONCE: usize = 16;
/// How long the daemon waits at its end until everything is told.
const END_WITHIN: Duration = Duration::from_secs(3);
/// The shortest secret, bytes.
const SHORTEST_SECRET: usize = 16;

/// A section `[[webhook]]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WebhookConfig {
    /// What it is called in metrics and in the log.
    pub name: String,
    pub url: String,
    /// Holds what requests are signed with; root's, and nobody else may read it.
    pub secret_file: PathBuf,
    /// The kinds of events that are told; all where it is left out.
    #[serde(default)]
    pub events: Vec<String>,
}

/// A webhook that can be told.
pub(crate) struct Webhook {
    pub(crate) name: String,
    url: Endpoint,
    secret: Vec<u8>,
    kinds: Vec<String>,
    pub(crate) counts: Counts,
}

/// What came of telling it.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) delivered: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) lost: AtomicU64,
    /// The number of the last event that was told, or given up.
    told: AtomicU64,
}

impl Webhook {
    /// Reads the secret of a webhook.
    ///
    /// # Errors
    ///
    /// What is wrong with what the configuration says.
    pub(crate) fn open(config: &WebhookConfig, gates: &GatesConfig) -> Result<Webhook, String> {
        let name = config.name.clone();
        let wrong = |why: String| format!("the webhook `{name}`: {why}");
        if name.is_empty() || name.len() > 40 || name.chars().any(char::is_control) {
            return Err("the name of a webhook has 1 to 40 characters".to_owned());
        }
        let url = Endpoint::parse(&config.url).map_err(wrong)?;
        if !url.is_local() && !gates.hosts.contains(&url.host) {
            return Err(wrong(format!(
                "{url} is neither this machine nor one of `hosts` in the section `[gates]` of the configuration"
            )));
        }
        if let Some(unknown) = config.events.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
            return Err(wrong(format!("there is no event `{unknown}`; there are {}", KINDS.join(", "))));
        }
        let secret = secret(&config.secret_file).map_err(wrong)?;
        Ok(Webhook { name, url, secret, kinds: config.events.clone(), counts: Counts::default() })
    }

    fn wants(&self, event: &Event) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == event.what.kind())
    }

    /// Tells an event; returns whether it was taken.
    async fn deliver(&self, event: &Event) -> bool {
        let Ok(body) = serde_json::to_vec(event) else { return false };
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=MOST_TRIES {
            let refused = match self.attempt(&body).await {
                Ok(()) => return true,
                Err(refused) => refused,
            };
            tracing::debug!(
                webhook = self.name,
                event = event.seq,
                attempt,
                why = refused.why,
                "a webhook did not take it"
            );
            if refused.is_final || attempt == MOST_TRIES {
                tracing::warn!(
                    webhook = self.name,
                    event = event.seq,
                    why = refused.why,
                    "a webhook is not told an event"
                );
                return false;
            }
            self.counts.retried.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        false
    }

    async fn attempt(&self, body: &[u8]) -> Result<(), Refused> {
        let timestamp = (clock::now_ms() / 1000).to_string();
        let headers =
            [("x-mvedsua-signature", sign(&self.secret, &timestamp, body)), ("x-mvedsua-timestamp", timestamp)];
        let answered = client::post(&self.url, &headers, Bytes::copy_from_slice(body), TRY_WITHIN).await;
        let (status, _) = answered.map_err(|why| Refused { why, is_final: false })?;
        if status.is_success() {
            return Ok(());
        }
        // Those two say that it may be taken later; what else is wrong with a request will be wrong with the next one.
        let is_final = status.is_client_error() && !matches!(status.as_u16(), 408 | 429);
        Err(Refused { why: format!("{}: status {}", self.url, status.as_u16()), is_final })
    }
}

/// Why an event was not taken.
struct Refused {
    why: String,
    is_final: bool,
}

/// Returns the signature of a request: what was signed is its time, a dot, and its body, so that an old one cannot be told
/// again later.
fn sign(secret: &[u8], timestamp: &str, body: &[u8]) -> String {
    // A key may have any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().iter().fold("sha256=".to_owned(), |mut text, byte| {
        text.push_str(&format!("{byte:02x}"));
        text
    })
}

fn secret(path: &Path) -> Result<Vec<u8>, String> {
    let unread = |e: std::io::Error| format!("the secret in {} cannot be read: {e}", path.display());
    let meta = fs::metadata(path).map_err(unread)?;
    let own = nix::unistd::geteuid().as_raw();
    if (meta.uid() != 0 && meta.uid() != own) || meta.mode() & 0o077 != 0 {
        return Err(format!("others may read the secret in {}; make it root's, with mode 600", path.display()));
    }
    let secret = fs::read(path).map_err(unread)?.trim_ascii().to_vec();
    if secret.len() < SHORTEST_SECRET {
        return Err(format!("the secret in {} is shorter than {SHORTEST_SECRET} bytes", path.display()));
    }
    Ok(secret)
}

/// Begins to tell every webhook what happens, from the start of this daemon on.
pub(super) fn start(daemon: &Arc<Daemon>) {
    for webhook in &daemon.webhooks {
        let (daemon, webhook) = (Arc::clone(daemon), Arc::clone(webhook));
        tokio::spawn(async move { tell(&daemon, &webhook).await });
    }
}

async fn tell(daemon: &Daemon, webhook: &Webhook) {
    let events = &daemon.shared.events;
    let mut newest = events.newest();
    let mut told = daemon.first_event.saturating_sub(1);
    loop {
        newest.borrow_and_update();
        let batch = events.after(told, AT_ONCE);
        if let Some((after, next)) = batch.missed {
            let missed = next.saturating_sub(after + 1);
            tracing::warn!(webhook = webhook.name, missed, "a webhook is too slow for what happens");
            webhook.counts.lost.fetch_add(missed, Ordering::Relaxed);
        }
        for event in &batch.events {
            if webhook.wants(event) {
                let count = if webhook.deliver(event).await { &webhook.counts.delivered } else { &webhook.counts.lost };
                count.fetch_add(1, Ordering::Relaxed);
            }
            told = event.seq;
            webhook.counts.told.store(told, Ordering::Relaxed);
        }
        if batch.events.is_empty() && newest.changed().await.is_err() {
            return;
        }
    }
}

/// Waits a little, before the daemon ends, until every webhook has been told everything.
pub(super) async fn end(daemon: &Daemon) {
    let newest = *daemon.shared.events.newest().borrow();
    let deadline = Instant::now() + END_WITHIN;
    let is_behind = |webhook: &Arc<Webhook>| webhook.counts.told.load(Ordering::Relaxed) < newest;
    while daemon.webhooks.iter().any(is_behind) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for webhook in daemon.webhooks.iter().filter(|webhook| is_behind(webhook)) {
        tracing::warn!(webhook = webhook.name, "a webhook was not told everything before the daemon's end");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_signature_is_what_everybody_computes() {
        // printf '1700000000.{"seq":1}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let expected = "sha256=e08bda826cf051c0f1f919531cf4fec45eca56a374d4a56a26f82fcfb9101386";
        assert_eq!(sign(b"0123456789abcdef", "1700000000", b"{\"seq\":1}"), expected);
    }

    #[test]
    fn what_the_configuration_says_is_checked() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("secret");
        let config = WebhookConfig {
            name: "chat".to_owned(),
            url: "http://127.0.0.1:1/hook".to_owned(),
            secret_file: path.clone(),
            events: vec!["ended".to_owned()],
        };
        let open = |config: &WebhookConfig| Webhook::open(config, &GatesConfig::default()).map(drop);
        assert!(open(&config).is_err_and(|why| why.contains("cannot be read")));
        fs::write(&path, "0123456789abcdef\n").expect("it is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
        assert!(open(&config).is_err_and(|why| why.contains("others may read")));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        assert_eq!(open(&config), Ok(()));
        let unknown = WebhookConfig { events: vec!["endet".to_owned()], ..config.clone() };
        assert!(open(&unknown).is_err_and(|why| why.contains("no event `endet`")));
        let elsewhere = WebhookConfig { url: "http://192.0.2.1/".to_owned(), ..config.clone() };
        assert!(open(&elsewhere).is_err_and(|why| why.contains("neither this machine")));
        let allowed = GatesConfig { hosts: vec!["192.0.2.1".to_owned()], ..GatesConfig::default() };
        assert!(Webhook::open(&elsewhere, &allowed).is_ok());
        fs::write(&path, "short").expect("it is ours");
        assert!(open(&config).is_err_and(|why| why.contains("shorter")));
    }
}
