//! Who may do what.
//!
//! root may do everything. Another user may observe or update only processes of their own uid, and only where the
//! administrator lists the user in the configuration:
//!
//! ```toml
//! [access]
//! observe = ["alice", "bob"]
//! update = ["alice"]
//! ```
//!
//! Files of the directory `conf.d` beside it add to it. What `outdated --update` may do is in the same file, see [`OutdatedPolicy`],
//! and so are [metrics](HttpConfig), [gates](GatesConfig) and [webhooks](WebhookConfig).

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::gates::GatesConfig;
use super::http::HttpConfig;
use super::process;
use super::webhooks::WebhookConfig;
use crate::lifecycle::{Confirmation, Promotion};
use crate::package::{Accept, Gate, MaxSlowdown, Wishes};

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To look.
    Observe,
    /// To change which process serves.
    Update,
    /// To change the daemon itself.
    Administer,
}

/// The configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub access: Access,
    #[serde(default)]
    pub outdated: OutdatedPolicy,
    #[serde(default)]
    pub http: HttpConfig,
    #[serde(default)]
    pub gates: GatesConfig,
    /// Who is asked before any update goes on.
    #[serde(default)]
    pub gate: Vec<Gate>,
    #[serde(default)]
    pub webhook: Vec<WebhookConfig>,
    #[serde(default)]
    pub update: UpdatePolicy,
}

/// What the configuration says of all updates; who asks for one, and its package, say otherwise.
///
/// ```toml
/// [update]
/// max-slowdown = 25          # or "off"
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct UpdatePolicy {
    pub max_slowdown: Option<MaxSlowdown>,
}

impl UpdatePolicy {
    /// Returns it as what somebody asks for.
    #[must_use]
    pub fn wishes(&self) -> Wishes {
        Wishes { max_slowdown: self.max_slowdown, ..Wishes::default() }
    }
}

/// What the configuration says of `outdated --update`.
///
/// ```toml
/// [outdated]
/// accept = "inferred"        # without it nothing is updated
/// promote = "auto"           # manual: each waits for `promote`
/// confirm = "auto"           # manual
/// soak = "1m"
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutdatedPolicy {
    /// How sure it must be that a process can go on with the functions of another file.
    pub accept: Option<Accept>,
    pub promote: Promotion,
    pub confirm: Confirmation,
    /// As `--soak` takes it.
    pub soak: Option<String>,
}

impl Default for OutdatedPolicy {
    /// Whoever lets processes be updated one after the other does not stand beside them.
    fn default() -> Self {
        OutdatedPolicy { accept: None, promote: Promotion::Auto, confirm: Confirmation::Auto, soak: None }
    }
}

/// The users who may do something, by name or by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    #[serde(default)]
    observe: Vec<UserName>,
    #[serde(default)]
    update: Vec<UserName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum UserName {
    Uid(u32),
    Name(String),
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration {path} cannot be read: {source}")]
    Read { path: String, source: std::io::Error },
    #[error(
        "the configuration {path} may be written by others (owner {uid}, mode {mode:o}); make it root's, and writable by root alone"
    )]
    Writable { path: String, uid: u32, mode: u32 },
    #[error("the configuration {path} is wrong: {source}")]
    Syntax { path: String, source: Box<toml::de::Error> },
    #[error("the configuration is wrong: {0}")]
    Meaning(String),
}

impl Config {
    /// Reads the configuration, and the files `*.toml` of the directory `conf.d` beside it in the order of their names. Lists
    /// of all files count together; of anything else the last file's word counts. Where there is none, only root may do
    /// anything.
    ///
    /// # Errors
    ///
    /// Where a file cannot be read, does not parse, or others could have written it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut whole = toml::Table::new();
        for path in [path.to_owned()].into_iter().chain(parts(&path.with_file_name("conf.d"))?) {
            let Some(text) = read(&path)? else { continue };
            let wrong = |source| ConfigError::Syntax { path: path.display().to_string(), source: Box::new(source) };
            // Each must be right by itself, so that an error names the file and the line.
            toml::from_str::<Config>(&text).map_err(wrong)?;
            join(&mut whole, toml::from_str(&text).map_err(wrong)?);
        }
        let wrong = |source| ConfigError::Syntax { path: path.display().to_string(), source: Box::new(source) };
        let config: Config = whole.try_into().map_err(wrong)?;
        config.gate.iter().try_for_each(|gate| config.gates.check(gate)).map_err(ConfigError::Meaning)?;
        Ok(config)
    }
}

/// Returns the files of a directory that belong to the configuration, in order.
fn parts(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let unread = |source| ConfigError::Read { path: dir.display().to_string(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(vec![]),
        Err(e) => return Err(unread(e)),
    };
    trusted(dir, &fs::metadata(dir).map_err(unread)?)?;
    let mut found = vec![];
    for entry in entries {
        let path = entry.map_err(unread)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Reads one file, if it is there.
fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    let unread = |source| ConfigError::Read { path: path.display().to_string(), source };
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unread(e)),
    };
    trusted(path, &meta)?;
    fs::read_to_string(path).map(Some).map_err(unread)
}

/// Refuses what others than the daemon's user and root could have written.
fn trusted(path: &Path, meta: &fs::Metadata) -> Result<(), ConfigError> {
    let own = nix::unistd::geteuid().as_raw();
    if (meta.uid() != 0 && meta.uid() != own) || meta.mode() & 0o022 != 0 {
        let mode = meta.mode() & 0o7777;
        return Err(ConfigError::Writable { path: path.display().to_string(), uid: meta.uid(), mode });
    }
    Ok(())
}

/// Adds what one more file says.
fn join(whole: &mut toml::Table, part: toml::Table) {
    for (key, value) in part {
        match (whole.get_mut(&key), value) {
            (Some(toml::Value::Table(known)), toml::Value::Table(more)) => join(known, more),
            (Some(toml::Value::Array(known)), toml::Value::Array(more)) => known.extend(more),
            (_, value) => drop(whole.insert(key, value)),
        }
    }
}

impl UserName {
    fn is(&self, uid: u32) -> bool {
        match self {
            UserName::Uid(own) => *own == uid,
            UserName::Name(name) => {
                matches!(nix::unistd::User::from_name(name), Ok(Some(user)) if user.uid.as_raw() == uid)
            }
        }
    }
}

impl Access {
    /// Returns whether anybody but root may do anything, so that the socket has to be open to them.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !(self.observe.is_empty() && self.update.is_empty())
    }

    /// Says why a user may not do something, or nothing.
    ///
    /// # Errors
    ///
    /// The reason, for the user.
    pub fn check(&self, uid: u32, need: Need, pid: Option<i32>) -> Result<(), String> {
        if uid == 0 {
            return Ok(());
        }
        let listed = |list: &[UserName]| list.iter().any(|name| name.is(uid));
        let may = match need {
            Need::Observe => listed(&self.observe) || listed(&self.update),
            Need::Update => listed(&self.update),
            Need::Administer => false,
        };
        if !may {
            let list = match need {
                Need::Observe => "an administrator can list the user under access.observe in the configuration",
                Need::Update => "an administrator can list the user under access.update in the configuration",
                Need::Administer => "only root may do that",
            };
            return Err(format!("user {uid} may not do that; {list}"));
        }
        let Some(pid) = pid else { return Ok(()) };
        match process::uids_of(pid) {
            Ok(uids) if uids.iter().all(|owner| *owner == uid) => Ok(()),
            // Whether a process of somebody else exists is none of the user's business.
            Ok(_) | Err(_) => Err(format!("process {pid} is not one of user {uid}'s own")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn config(text: &str) -> Config {
        toml::from_str(text).expect("the text is a configuration")
    }

    #[test]
    fn root_may_do_everything_and_others_nothing_by_default() {
        let access = Access::default();
        assert!(access.check(0, Need::Administer, Some(1)).is_ok());
        assert!(access.check(1000, Need::Observe, None).is_err());
        assert!(!access.is_open());
    }

    #[test]
    fn a_listed_user_may_touch_only_their_own_processes() {
        let access = config("[access]\nobserve = [4242]\nupdate = [\"nobody\"]").access;
        assert!(access.check(4242, Need::Observe, None).is_ok());
        assert!(access.check(4242, Need::Update, None).is_err());
        let why = access.check(4242, Need::Observe, Some(1)).expect_err("process 1 is root's");
        assert!(why.contains("not one of user 4242's own"), "{why}");
        let nobody = nix::unistd::User::from_name("nobody").ok().flatten().expect("there is a nobody");
        assert!(access.check(nobody.uid.as_raw(), Need::Update, None).is_ok());
        assert!(access.check(nobody.uid.as_raw(), Need::Administer, None).is_err());
    }

    #[test]
    fn nothing_is_updated_by_the_way_unless_the_configuration_says_so() {
        assert_eq!(config("").outdated.accept, None);
        assert_eq!(config("[outdated]\nconfirm = \"manual\"").outdated.accept, None);
        let outdated = config("[outdated]\naccept = \"inferred\"\nsoak = \"1m\"").outdated;
        assert_eq!((outdated.accept, outdated.promote), (Some(Accept::Inferred), Promotion::Auto));
        assert!(toml::from_str::<Config>("[outdated]\naccept = \"all\"").is_err());
    }

    #[test]
    fn a_configuration_that_others_may_write_is_not_used() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("mvedsuad.toml");
        assert_eq!(Config::load(&path).expect("none is fine"), Config::default());
        fs::write(&path, "[access]\nobserve = [\"bob\"]\n").expect("it is writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("it is ours");
        assert!(matches!(Config::load(&path), Err(ConfigError::Writable { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
        assert!(Config::load(&path).expect("it is fine now").access.is_open());
        fs::write(&path, "[acess]\n").expect("it is writable");
        let why = Config::load(&path).expect_err("it is misspelt").to_string();
        assert!(why.contains("acess"), "{why}");
    }

    #[test]
    fn the_configuration_that_is_shipped_is_right_where_its_comments_are_taken_away() {
        let shipped = include_str!("../../../dist/etc/mvedsuad.toml");
        assert_eq!(config(shipped), Config::default(), "it says nothing by itself");
        // What is meant to be taken has no space behind its mark.
        let taken: Vec<&str> =
            shipped.lines().filter_map(|line| line.strip_prefix('#')).filter(|line| !line.starts_with(' ')).collect();
        let config = config(&taken.join("\n"));
        assert_eq!((config.gate.len(), config.webhook.len()), (1, 1));
        let default = HttpConfig::default();
        assert!(config.http.listen.is_some() && default.listen.is_none());
        assert_eq!((config.http.socket_mode, config.http.max_series), (default.socket_mode, default.max_series));
        assert_eq!(config.gates, GatesConfig::default());
        let gate = Gate::new(&config.gate[0].name, config.gate[0].judge.clone());
        assert_eq!(config.gate[0], gate, "the values that are shown are those that hold");
    }

    #[test]
    fn files_of_conf_d_add_to_the_configuration() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("it is writable");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
        };
        let load = || Config::load(&dir.path().join("mvedsuad.toml"));
        fs::create_dir(dir.path().join("conf.d")).expect("it is writable");
        write("conf.d/50-bob.toml", "[access]\nobserve = [4243]\n[outdated]\nsoak = \"2m\"\n");
        assert!(load().expect("the main file may be missing").access.check(4243, Need::Observe, None).is_ok());
        write("mvedsuad.toml", "[access]\nobserve = [4242]\n[outdated]\naccept = \"inferred\"\nsoak = \"1m\"\n");
        write("conf.d/README", "no configuration");
        let config = load().expect("both are right");
        assert!([4242, 4243].iter().all(|uid| config.access.check(*uid, Need::Observe, None).is_ok()));
        assert_eq!(config.outdated.accept, Some(Accept::Inferred));
        assert_eq!(config.outdated.soak.as_deref(), Some("2m"), "the last file counts");
        write("conf.d/60-wrong.toml", "[acess]\n");
        let why = load().expect_err("it is misspelt").to_string();
        assert!(why.contains("conf.d/60-wrong.toml") && why.contains("acess"), "{why}");
        write("conf.d/60-wrong.toml", "");
        fs::set_permissions(dir.path().join("conf.d"), fs::Permissions::from_mode(0o777)).expect("it is ours");
        assert!(matches!(load(), Err(ConfigError::Writable { .. })), "anybody could add a file");
    }
}
