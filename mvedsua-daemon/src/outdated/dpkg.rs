//! Which package a file belongs to, which version is installed and which one was before.
//!
//! dpkg's files are read and not `dpkg-query` asked: it may be a container's database, which nobody should give to a program
//! that trusts it, and the lists of all packages are read once for all files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::read::MultiGzDecoder;
use serde::Serialize;

use super::changelog::{self, Security};
use super::maps::twin;
use super::root::Root;

/// Lists, logs and changelogs are not read any further than so many bytes.
const LONGEST: u64 = 64 << 20;

/// What is known of the package that a file belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Package {
    pub name: String,
    /// The version that the process runs, where the log of dpkg tells.
    pub running: Option<String>,
    pub installed: String,
    pub security: Option<Security>,
}

/// A package as dpkg's status has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Installed {
    pub(super) name: String,
    architecture: String,
    version: String,
    /// The version of the source that it was built from.
    source: String,
}

/// A line of dpkg's log about an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Upgrade {
    /// `2026-11-30 11:06:59`, local time.
    at: String,
    from: String,
    to: String,
}

/// When a process came to run a file, and when the file lost its name; seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) started: Option<u64>,
    pub(super) gone: Option<u64>,
}

/// What dpkg knows of the files that were asked for.
#[derive(Debug, Default)]
pub(super) struct Database {
    owners: HashMap<PathBuf, Installed>,
    upgrades: Option<HashMap<String, Vec<Upgrade>>>,
    notices: HashMap<(String, Option<String>), Option<Security>>,
}

impl Database {
    /// Looks up who owns the files.
    pub(super) fn read(root: &Root, paths: impl Iterator<Item = PathBuf>) -> Database {
        let info = Path::new("/var/lib/dpkg/info");
        let mut asked: HashMap<String, Vec<PathBuf>> = HashMap::new();
        for path in paths {
            for name in [Some(path.clone()), twin(&path)].into_iter().flatten() {
                if let Some(name) = name.to_str() {
                    asked.entry(name.to_owned()).or_default().push(path.clone());
                }
            }
        }
        let mut found: Vec<(PathBuf, String)> = vec![];
        for name in root.names(info) {
            let Some(package) = name.strip_suffix(".list") else { continue };
            let list = root.read(&info.join(&name), LONGEST).unwrap_or_default();
            for line in list.split(|byte| *byte == b'\n') {
                let paths = std::str::from_utf8(line).ok().and_then(|line| asked.get(line));
                found.extend(paths.into_iter().flatten().map(|path| (path.clone(), package.to_owned())));
            }
        }
        let wanted: HashSet<&str> = found.iter().map(|(_, package)| package.as_str()).collect();
        let status = root.read(Path::new("/var/lib/dpkg/status"), LONGEST).unwrap_or_default();
        let installed = parse_status(&String::from_utf8_lossy(&status), &wanted);
        let owners = found.iter().filter_map(|(path, package)| Some((path.clone(), installed.get(package)?.clone())));
        Database { owners: owners.collect(), ..Database::default() }
    }

    /// Returns what is known of the package of a file.
    pub(super) fn package_of(&mut self, root: &Root, path: &Path, times: Times) -> Option<Package> {
        let owner = self.owners.get(path)?.clone();
        let upgrades = self.upgrades.get_or_insert_with(|| read_logs(root));
        let zone = if root.is_own() { Zone::Local } else { Zone::Utc };
        let running = upgrades
            .get(&format!("{}:{}", owner.name, owner.architecture))
            .and_then(|upgrades| running(upgrades, &owner.version, |unix| stamp(unix, zone), times));
        // Where package and source are numbered differently, the changelog does not know the package's old version.
        let known = running.clone().filter(|_| changelog::without_rebuild(&owner.version) == owner.source);
        let security = self
            .notices
            .entry((owner.name.clone(), known.clone()))
            .or_insert_with(|| read_changelog(root, &owner.name, known.as_deref()))
            .clone();
        Some(Package { name: owner.name, running, installed: owner.version, security })
    }
}

/// Returns the packages of dpkg's status that are wanted; the key is the name of a package's list.
fn parse_status(status: &str, wanted: &HashSet<&str>) -> HashMap<String, Installed> {
    let mut found = HashMap::new();
    for stanza in status.split("\n\n") {
        let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
        fields.extend(stanza.lines().filter(|line| !line.starts_with(' ')).filter_map(|line| line.split_once(": ")));
        let field = |name: &str| fields.get(name).map(|value| value.trim());
        let (Some(name), Some(version)) = (field("Package"), field("Version")) else { continue };
        let architecture = field("Architecture").unwrap_or_default();
        let key = [name.to_owned(), format!("{name}:{architecture}")].into_iter().find(|key| wanted.contains(&**key));
        let Some(key) = key else { continue };
        // `Source: openssl (3.0.20-1)` where the versions differ.
        let source = field("Source").and_then(|source| source.split_once('(')?.1.strip_suffix(')'));
        let package = Installed {
            name: name.to_owned(),
            architecture: architecture.to_owned(),
            version: version.to_owned(),
            source: source.unwrap_or(version).to_owned(),
        };
        found.insert(key, Installed { source: changelog::without_rebuild(&package.source).to_owned(), ..package });
    }
    found
}

/// Returns the upgrades of each package, `name:architecture`, the oldest first.
fn read_logs(root: &Root) -> HashMap<String, Vec<Upgrade>> {
    let folder = Path::new("/var/log");
    let mut upgrades: HashMap<String, Vec<Upgrade>> = HashMap::new();
    for name in root.names(folder) {
        if name != "dpkg.log" && !name.starts_with("dpkg.log.") {
            continue;
        }
        let Ok((file, _)) = root.open(&folder.join(&name)) else { continue };
        for line in BufReader::new(unpacked(file, &name)).split(b'\n') {
            // A log that ends in the middle has told what it could.
            let Ok(line) = line else { break };
            if let Some((package, upgrade)) = std::str::from_utf8(&line).ok().and_then(parse_upgrade) {
                upgrades.entry(package.to_owned()).or_default().push(upgrade);
            }
        }
    }
    upgrades.values_mut().for_each(|upgrades| upgrades.sort_by(|a, b| a.at.cmp(&b.at)));
    upgrades
}

fn unpacked(file: impl Read + 'static, name: &str) -> Box<dyn Read> {
    if name.ends_with(".gz") { Box::new(MultiGzDecoder::new(file).take(LONGEST)) } else { Box::new(file.take(LONGEST)) }
}

/// Reads `2026-11-30 11:06:59 upgrade libssl3:amd64 3.0.20-1~deb12u1 3.0.22-1~deb12u1`.
fn parse_upgrade(line: &str) -> Option<(&str, Upgrade)> {
    let mut words = line.split(' ');
    let (day, time) = (words.next()?, words.next()?);
    if words.next()? != "upgrade" {
        return None;
    }
    let (package, from, to) = (words.next()?, words.next()?, words.next()?);
    Some((package, Upgrade { at: format!("{day} {time}"), from: from.to_owned(), to: to.to_owned() }))
}

/// Returns the version that a process runs: the one before the upgrade at which its file lost its name, or else before the first
/// upgrade since its start.
fn running(
    upgrades: &[Upgrade],
    installed: &str,
    stamp: impl Fn(u64) -> Option<String>,
    times: Times,
) -> Option<String> {
    // The log is no witness where it does not lead to what is installed.
    let _ = upgrades.last().filter(|last| last.to == installed)?;
    let started = stamp(times.started?)?;
    let since: Vec<&Upgrade> = upgrades.iter().filter(|upgrade| upgrade.at >= started).collect();
    let gone = times.gone.and_then(&stamp);
    let at_its_end = gone.and_then(|gone| since.iter().rfind(|upgrade| upgrade.at <= gone).copied());
    at_its_end.or(since.first().copied()).map(|upgrade| upgrade.from.clone())
}

/// Says in which time a log was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zone {
    Local,
    /// That of a container is not known; most have none.
    Utc,
}

/// Returns a time as dpkg's log has it.
fn stamp(unix: u64, zone: Zone) -> Option<String> {
    let mut command = Command::new("date");
    if zone == Zone::Utc {
        command.arg("--utc");
    }
    let output = command.arg(format!("--date=@{unix}")).arg("+%F %T").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Returns what a package's changelog says of security since a version.
fn read_changelog(root: &Root, package: &str, old: Option<&str>) -> Option<Security> {
    const NAMES: &[&str] = &["changelog.Debian.gz", "changelog.Debian", "changelog.gz", "changelog"];
    let folder = Path::new("/usr/share/doc").join(package);
    let (name, file) = NAMES.iter().find_map(|name| Some((name, root.open(&folder.join(name)).ok()?.0)))?;
    let found = changelog::read(BufReader::new(unpacked(file, name)), old).ok()?;
    (found.entries > 0).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_tells_versions_of_package_and_source() {
        let status = "\
Package: libssl3
Status: install ok installed
Architecture: amd64
Source: openssl
Version: 3.0.22-1~deb12u1+b2
Description: x
 Version: 0

Package: libfoo
Architecture: amd64
Source: foo (2.0-1)
Version: 1:1.0-1

Package: other
Architecture: all
Version: 1
";
        let found = parse_status(status, &HashSet::from(["libssl3:amd64", "libfoo"]));
        assert_eq!(found.len(), 2);
        assert_eq!(found["libssl3:amd64"].version, "3.0.22-1~deb12u1+b2");
        assert_eq!(found["libssl3:amd64"].source, "3.0.22-1~deb12u1");
        assert_eq!((&*found["libfoo"].version, &*found["libfoo"].source), ("1:1.0-1", "2.0-1"));
    }

    #[test]
    fn upgrades_are_read_from_the_log() {
        let line = "2026-11-30 11:06:59 upgrade libssl3:amd64 3.0.20-1 3.0.22-1";
        let (package, upgrade) = parse_upgrade(line).expect("it is an upgrade");
        assert_eq!((package, &*upgrade.at, &*upgrade.from), ("libssl3:amd64", "2026-11-30 11:06:59", "3.0.20-1"));
        assert_eq!(parse_upgrade("2026-11-30 11:06:59 status installed libc-bin:amd64 2.36"), None);
        assert_eq!(parse_upgrade(""), None);
    }

    #[test]
    fn the_running_version_is_the_one_before_the_upgrade_that_took_its_file() {
        let upgrade = |at: &str, from: &str, to: &str| Upgrade { at: at.into(), from: from.into(), to: to.into() };
        let log = [upgrade("10", "a", "b"), upgrade("20", "b", "c"), upgrade("30", "c", "d")];
        let stamp = |unix: u64| Some(unix.to_string());
        let of = |started, gone| running(&log, "d", stamp, Times { started, gone });
        assert_eq!(of(Some(15), None).as_deref(), Some("b"));
        assert_eq!(of(Some(15), Some(31)).as_deref(), Some("c"));
        // A container's lower layer does not notice that its file was replaced.
        assert_eq!(of(Some(15), Some(11)).as_deref(), Some("b"));
        assert_eq!(of(Some(35), Some(36)), None);
        assert_eq!(of(None, Some(36)), None);
        assert_eq!(running(&log, "e", stamp, Times { started: Some(15), gone: None }), None);
    }

    #[test]
    fn times_are_written_as_in_the_log() {
        assert_eq!(stamp(0, Zone::Utc).as_deref(), Some("1970-01-01 00:00:00"));
        assert_eq!(stamp(0, Zone::Local).map(|text| text.len()), Some(19));
    }

    #[test]
    fn the_packages_of_this_machine_are_found() {
        let root = Root::of(std::process::id().cast_signed()).expect("this process runs");
        let paths = ["/bin/sleep", "/usr/bin/sleep", "/no/such/file"].map(PathBuf::from);
        let mut database = Database::read(&root, paths.iter().cloned());
        for path in &paths[..2] {
            let package = database.package_of(&root, path, Times::default()).expect("dpkg has installed it");
            assert_eq!((&*package.name, package.running), ("coreutils", None));
            assert!(package.security.is_some_and(|security| security.entries == 1));
        }
        assert_eq!(database.package_of(&root, &paths[2], Times::default()), None);
    }
}
