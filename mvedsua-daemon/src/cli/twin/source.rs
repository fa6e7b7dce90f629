//! From which source package a file is.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

/// A source package of Debian's, and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Source {
    pub(super) name: String,
    pub(super) version: String,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.version)
    }
}

impl Source {
    /// Returns what a Debian package is built from.
    pub(in crate::cli) fn of_package(package: &Path) -> Option<Source> {
        let field = |name: &str| output(Command::new("dpkg-deb").arg("--field").arg(package).arg(name));
        let (name, version) = (field("Package")?, field("Version")?);
        Source::of_fields(&name, &version, &field("Source").unwrap_or_default())
    }

    /// Returns what an installed file is built from.
    pub(in crate::cli) fn of_file(file: &Path) -> Option<Source> {
        let file = file.canonicalize().ok()?;
        let owner = output(Command::new("dpkg-query").arg("--search").arg(&file))?;
        let package = owner.lines().next()?.split_once(": ")?.0.split(',').next()?.trim().to_owned();
        let shown = "--showformat=${source:Package} ${source:Version}\n";
        let said = output(Command::new("dpkg-query").args(["--show", shown]).arg(package))?;
        let (name, version) = said.lines().next()?.split_once(' ')?;
        Source::new(name, version)
    }

    /// Takes what a package says: `Source` is there where name or version is another one than the package's.
    fn of_fields(package: &str, version: &str, source: &str) -> Option<Source> {
        let (name, other) = match source.split_once('(') {
            Some((name, version)) => (name.trim(), version.trim_end_matches(')').trim()),
            None => (source.trim(), ""),
        };
        let or = |one: &str, other: &str| if one.is_empty() { other.to_owned() } else { one.to_owned() };
        Source::new(&or(name, package), &or(other, version))
    }

    /// Sees that nothing of it can be taken for an option.
    fn new(name: &str, version: &str) -> Option<Source> {
        let fits = |text: &str, more: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        let fit = fits(name, "+-.") && fits(version, "+-.:~");
        fit.then(|| Source { name: name.to_owned(), version: version.to_owned() })
    }
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_name_their_sources_where_these_are_called_otherwise() {
        let of =
            |package, version, source| Source::of_fields(package, version, source).map(|source| source.to_string());
        assert_eq!(of("redis-tools", "5:7.0-1", "redis"), Some("redis=5:7.0-1".to_owned()));
        assert_eq!(of("libde265-0", "1.0.11-1+b1", "libde265 (1.0.11-1)"), Some("libde265=1.0.11-1".to_owned()));
        assert_eq!(of("unbound", "1.17.1-2", ""), Some("unbound=1.17.1-2".to_owned()));
        assert_eq!(of("--force", "1", ""), None);
        assert_eq!(of("a", "1 -o", ""), None);
    }
}
