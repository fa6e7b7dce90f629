//! Build-ids: what a file, or what is mapped of it, really is.
//!
//! The linker writes a hash of what it has linked into a note of the file (`ld --build-id`). Unlike a path or a version
//! number it cannot be out of date.

use std::fmt;
use std::fs::File;
use std::path::Path;

use object::Object as _;
use object::read::ReadCache;
use serde::{Deserialize, Serialize};

/// The build-id of a file, in lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BuildId(String);

/// The shortest and the longest that linkers make, digits.
const SHORTEST: usize = 16;
const LONGEST: usize = 128;

impl BuildId {
    /// Reads a build-id as people write it.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<BuildId, String> {
        if let Some(stranger) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(format!("`{stranger}` is no hexadecimal digit"));
        }
        if text.len() % 2 == 1 || !(SHORTEST..=LONGEST).contains(&text.len()) {
            return Err(format!("it has {} digits", text.len()));
        }
        Ok(BuildId(text.to_ascii_lowercase()))
    }

    /// Returns the build-id of a file, where it has one.
    #[must_use]
    pub fn of_file(path: &Path) -> Option<BuildId> {
        let cache = ReadCache::new(File::open(path).ok()?);
        let elf = object::File::parse(&cache).ok()?;
        elf.build_id().ok()?.map(BuildId::of_bytes)
    }

    /// Returns the build-id that these bytes of a note are.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> BuildId {
        BuildId(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Returns the digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_ids_are_hexadecimal_and_of_a_certain_length() {
        assert_eq!(BuildId::parse("00112233AABBccdd").map(|id| id.to_string()), Ok("00112233aabbccdd".to_owned()));
        assert_eq!(BuildId::parse("00112233aabbccxx"), Err("`x` is no hexadecimal digit".to_owned()));
        assert_eq!(BuildId::parse("00112233"), Err("it has 8 digits".to_owned()));
        assert_eq!(BuildId::parse("00112233aabbccdde"), Err("it has 17 digits".to_owned()));
    }

    #[test]
    fn this_very_program_has_one_or_says_so() {
        assert_eq!(BuildId::of_file(Path::new("/etc/passwd")), None);
        assert!(BuildId::of_file(Path::new("/bin/sleep")).is_some_and(|id| BuildId::parse(id.as_str()).is_ok()));
    }
}
