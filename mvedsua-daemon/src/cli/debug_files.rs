//! Debug files of the versions that are compared: what a distribution took out of its files, and keeps elsewhere.
//!
//! One may be named itself, by the Debian package that holds it (`redis-dbgsym_….deb`), or by a directory in which it lies under
//! its build-id, as such packages, `debuginfod` and its clients lay them down.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use mvedsua_binary::Comparison;
use mvedsua_binary::debug::{Debug, DebugError};
use mvedsua_binary::proof::prove;

use super::args::DebugArgs;
use super::twin::Twins;
use super::versions::{self, Chosen};
use crate::control::Code;
use crate::control::protocol::Problem;

/// Larger files are not read.
const LARGEST: u64 = 4 << 30;

/// What is known of both versions, as far as it was named.
#[derive(Default)]
pub(super) struct DebugFiles {
    pub(super) old: Option<DebugFile>,
    pub(super) new: Option<DebugFile>,
}

/// One debug file.
pub(super) struct DebugFile {
    pub(super) debug: Debug,
    /// What is told of where it is from.
    pub(super) name: String,
}

impl DebugFiles {
    /// Reads what was named for either version.
    ///
    /// # Errors
    ///
    /// One cannot be read, or is of another build.
    pub(super) fn read((old, new): (&Chosen, &Chosen), given: &DebugArgs) -> Result<DebugFiles, Problem> {
        let read =
            |version: &Chosen, given: Option<&Path>| given.map(|given| DebugFile::read(version, given)).transpose();
        Ok(DebugFiles { old: read(old, given.debug_old.as_deref())?, new: read(new, given.debug_new.as_deref())? })
    }

    /// Takes twins for those that were not named.
    ///
    /// # Errors
    ///
    /// One cannot be built, or is not what is shipped.
    pub(super) fn with_twins(self, (old, new): (&Chosen, &Chosen), twins: &Twins<'_>) -> Result<DebugFiles, Problem> {
        let or_twin = |file: Option<DebugFile>, version: &Chosen| match file {
            Some(file) => Ok(file),
            None => twins.debug_file(version),
        };
        Ok(DebugFiles { old: Some(or_twin(self.old, old)?), new: Some(or_twin(self.new, new)?) })
    }

    /// Proves a comparison, or shows that it is wrong, where both versions have one.
    pub(super) fn prove(&self, comparison: &mut Comparison<'_>) {
        if let (Some(old), Some(new)) = (&self.old, &self.new) {
            prove(comparison, &old.debug, &new.debug);
        }
    }

    /// Returns where they are from, if there are both.
    pub(super) fn names(&self) -> Option<(String, String)> {
        Some((self.old.as_ref()?.name.clone(), self.new.as_ref()?.name.clone()))
    }
}

impl DebugFile {
    fn read(version: &Chosen, given: &Path) -> Result<DebugFile, Problem> {
        let tried = format!("reading the debug file of {}", version.given.display());
        let usage = |why: String, remedy: &str| Problem::new(Code::Usage, tried.clone(), why, remedy);
        let unpacked = match given.extension() {
            Some(ending) if ending == OsStr::new("deb") => Some(versions::unpack(given)?),
            Some(_) | None => None,
        };
        let place = unpacked.as_ref().map_or(given, |dir| dir.path());
        let path = if place.is_dir() {
            let id = version.build_id().ok_or_else(|| {
                let why = format!("{} has no build-id, under which one could be found", version.file_name.display());
                usage(why, "name the debug file itself")
            })?;
            find(place, &id).ok_or_else(|| {
                let why = format!("{} has none for build-id {id}", given.display());
                usage(why, "take what is of this very build; see `readelf -n`")
            })?
        } else {
            place.to_owned()
        };
        let shown = if unpacked.is_some() { given } else { &path };
        let len = fs::metadata(&path).map(|meta| meta.len()).unwrap_or(0);
        if len > LARGEST {
            return Err(usage(format!("{} has {len} bytes", shown.display()), "files of up to 4 GiB are read"));
        }
        let bytes =
            fs::read(&path).map_err(|e| usage(format!("{}: {e}", shown.display()), "name a file that you may read"))?;
        let name = shown.file_name().unwrap_or_default().to_string_lossy().into_owned();
        DebugFile::of(&bytes, version, name).map_err(|error| {
            let why = format!("{}: {error}", shown.display());
            match error {
                DebugError::OtherBuild(_) => {
                    let remedy = "take the debug file of this build: its path holds the build-id";
                    Problem::new(Code::BuildId, tried.clone(), why, remedy)
                }
                _ => usage(why, "name what was stripped off the version: a file that ends in .debug as a rule"),
            }
        })
    }

    /// Takes what a file tells, if it is of this build.
    pub(super) fn of(bytes: &[u8], version: &Chosen, name: String) -> Result<DebugFile, DebugError> {
        let debug = Debug::read(bytes)?;
        debug.is_of(&version.bytes)?;
        Ok(DebugFile { debug, name })
    }
}

/// Finds a debug file by its build-id.
fn find(dir: &Path, id: &str) -> Option<PathBuf> {
    let (head, rest) = id.split_at_checked(2)?;
    let below = format!("{head}/{rest}.debug");
    let places = [
        format!(".build-id/{below}"),
        format!("usr/lib/debug/.build-id/{below}"),
        format!("lib/debug/.build-id/{below}"),
        below,
        format!("{id}/debuginfo"),
        format!("buildid/{id}/debuginfo"),
    ];
    places.iter().map(|place| dir.join(place)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_files_are_found_by_their_build_ids() {
        let dir = tempfile::tempdir().expect("there is room");
        let places = [".build-id/ab/cdef.debug", "usr/lib/debug/.build-id/12/3456.debug", "778899/debuginfo"];
        for place in places {
            let path = dir.path().join(place);
            fs::create_dir_all(path.parent().expect("it has one")).expect("the directory is ours");
            fs::write(path, "").expect("the directory is ours");
        }
        for (id, place) in ["abcdef", "123456", "778899"].into_iter().zip(places) {
            assert_eq!(find(dir.path(), id), Some(dir.path().join(place)));
        }
        assert_eq!((find(dir.path(), "abcd"), find(dir.path(), "")), (None, None));
    }
}
