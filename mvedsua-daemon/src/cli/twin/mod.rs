//! Twins: builds of the sources from which a distribution built its files, made for their symbols and types alone.
//!
//! A twin is worth something where all that is loaded of it is what the distribution ships, byte by byte, and then it is the
//! debug file that the distribution does not offer. It is built once: what it tells is kept under the build-id of the file.

mod source;
mod workshop;

use std::fs;
use std::path::{Path, PathBuf};

use mvedsua_binary::debug::DebugError;

pub(super) use self::source::Source;
use self::workshop::Workshop;
use super::debug_files::DebugFile;
use super::progress::Progress;
use super::versions::{self, Chosen};
use crate::control::Code;
use crate::control::protocol::Problem;

/// Where twins, and what they are built in, are kept.
pub(super) const PLACE: &str = "/var/cache/mvedsua/twins";

/// How twins are built.
pub(super) struct Twins<'a> {
    pub(super) place: &'a Path,
    pub(super) network: Network,
    pub(super) progress: &'a Progress,
}

/// What a build may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Network {
    /// Nothing.
    None,
    /// What this machine reaches, where it cannot be had otherwise.
    Host,
}

impl Twins<'_> {
    /// Returns the debug file of a version: one that was made before, or a new twin.
    ///
    /// # Errors
    ///
    /// It is not known from which sources it is, these cannot be had or built, or something else comes out.
    pub(super) fn debug_file(&self, version: &Chosen) -> Result<DebugFile, Problem> {
        let tried = format!("building a twin of {}", version.given.display());
        let refused = |why: String, remedy: &str| Problem::new(Code::Refused, tried.clone(), why, remedy);
        let id = version.build_id().ok_or_else(|| {
            refused("it has no build-id".to_owned(), "name its debug file with --debug-old or --debug-new")
        })?;
        let kept = self.place.join(format!("{id}.debug"));
        let name = |source: &str| format!("a twin of {source}");
        let source = version.source();
        let known = source.as_ref().map_or_else(|_| version.file_name.display().to_string(), Source::to_string);
        if let Ok(bytes) = fs::read(&kept)
            && let Ok(file) = DebugFile::of(&bytes, version, name(&known))
        {
            return Ok(file);
        }
        let source = source?;
        let workshop = Workshop::open(self.place, self.network, self.progress)?;
        let built = workshop.build(&source)?;
        let (bytes, file) = find(&built, version, &name(&source.to_string())).map_err(|why| {
            let remedy = "where another compiler or another library built what is shipped, only its own debug file helps: \
                          --debug-old and --debug-new";
            refused(format!("{source} was built, and {why}"), remedy)
        })?;
        fs::write(&kept, bytes).map_err(|e| refused(format!("{}: {e}", kept.display()), "see that there is room"))?;
        Ok(file)
    }
}

/// Finds what was built of a file: all that is loaded of it is the same.
fn find(built: &[PathBuf], version: &Chosen, name: &str) -> Result<(Vec<u8>, DebugFile), String> {
    let files = built.iter().flat_map(|root| versions::elf_files(root).into_iter().map(|path| root.join(path)));
    let (same_name, others): (Vec<_>, Vec<_>) =
        files.partition(|path| path.file_name() == Some(version.file_name.as_os_str()));
    let mut why = None;
    for path in same_name.iter().chain(&others) {
        let Ok(bytes) = fs::read(path) else { continue };
        match DebugFile::of(&bytes, version, name.to_owned()) {
            Ok(file) => return Ok((bytes, file)),
            Err(error) if same_name.contains(path) => {
                why.get_or_insert(match error {
                    DebugError::OtherBuild(what) => format!("what came out is not what is shipped: {what}"),
                    other => format!("what came out is of no use: {other}"),
                });
            }
            Err(_) => {}
        }
    }
    Err(why.unwrap_or_else(|| format!("no `{}` came out", version.file_name.display())))
}
