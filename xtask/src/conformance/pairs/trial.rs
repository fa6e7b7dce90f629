//! One pair: compared, compared again, each file with itself, and the patch checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use mvedsua_binary::classes::Class;
use mvedsua_binary::reason::Reason;
use mvedsua_binary::verdict::Verdict;
use mvedsua_binary::{CompareError, Comparison, Report, compare, patch};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// The most faults of one patch that are told.
const MOST: usize = 4;

/// What is said of two files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub(super) enum Said {
    Updatable,
    /// The kinds of all reasons, in their order, and the first one in words.
    Refused {
        kinds: Vec<String>,
        first: String,
    },
    /// The files cannot be read as far as a comparison needs.
    Incomparable {
        because: String,
    },
}

/// How much of a new file is loaded, and what is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Size {
    pub(super) functions: usize,
    pub(super) corrected: usize,
    pub(super) jumps: usize,
    /// Operands and pointers that were followed to see whether they lead where they must.
    pub(super) verified: usize,
}

/// What came of one pair.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    #[serde(flatten)]
    pub(super) said: Said,
    /// Of the old file.
    pub(super) functions: usize,
    pub(super) changed: usize,
    pub(super) lines_and_texts: usize,
    pub(super) took_ms: u64,
    /// The most memory that it took, with both files.
    pub(super) peak_mib: u64,
    pub(super) patch: Option<Size>,
    /// The first reasons for which the old and the new file cannot be updated to themselves, by their kinds.
    pub(super) not_itself: Vec<String>,
    /// What is wrong, whatever was expected.
    pub(super) faults: Vec<String>,
}

/// Compares two files in all manners, in a process of its own: so its memory can be told.
pub(super) fn run(old: &[u8], new: &[u8]) -> Result<Outcome> {
    let place = TempDir::new().context("making a folder for the files")?;
    let files = [("old", old), ("new", new)].map(|(name, bytes)| (place.path().join(name), bytes));
    for (path, bytes) in &files {
        fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    let own = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(own);
    command.args(["conformance", "pair"]).args(files.iter().map(|(path, _)| path)).stderr(Stdio::inherit());
    let output = command.output().context("running the comparison")?;
    ensure!(output.status.success(), "the comparison ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("reading what the comparison says")
}

/// The two files of one comparison.
#[derive(clap::Args)]
pub(crate) struct Files {
    old: PathBuf,
    new: PathBuf,
}

/// Compares two files, and says what came of it as JSON.
pub(crate) fn run_one(files: &Files) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let outcome = try_all(&read(&files.old)?, &read(&files.new)?)?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

fn try_all(old: &[u8], new: &[u8]) -> Result<Outcome> {
    let begun = Instant::now();
    let compared = compare(old, new);
    let took_ms = u64::try_from(begun.elapsed().as_millis())?;
    let peak_mib = peak()?;
    let mut outcome = Outcome {
        said: Said::Incomparable { because: String::new() },
        functions: 0,
        changed: 0,
        lines_and_texts: 0,
        took_ms,
        peak_mib,
        patch: None,
        not_itself: vec![],
        faults: vec![],
    };
    match compared {
        Ok(comparison) => {
            outcome.tell(&comparison);
            check_again(&comparison, old, new, &mut outcome.faults);
        }
        Err(CompareError::Old(error) | CompareError::New(error)) => {
            outcome.said = Said::Incomparable { because: error.to_string() };
        }
    }
    let comparable = !matches!(outcome.said, Said::Incomparable { .. });
    for (which, file) in [("old", old), ("new", new)] {
        match check_alone(file, comparable) {
            Ok(kind) => outcome.not_itself.extend(kind),
            Err(fault) => outcome.faults.push(format!("the {which} file: {fault}")),
        }
    }
    Ok(outcome)
}

impl Outcome {
    fn tell(&mut self, comparison: &Comparison<'_>) {
        self.functions = comparison.old.functions.len();
        self.changed = comparison.fates.changed.len();
        let small = |class| matches!(class, Class::LineNumbers | Class::Texts);
        self.lines_and_texts = comparison.fates.changed.iter().filter(|fate| small(fate.class)).count();
        self.said = match &comparison.verdict {
            Verdict::Updatable { .. } => Said::Updatable,
            Verdict::Refused { reasons } => Said::Refused {
                kinds: reasons.iter().map(kind).collect(),
                first: reasons.first().map(ToString::to_string).unwrap_or_default(),
            },
        };
        let Some(built) = &comparison.patch else { return };
        let verified = patch::verify(comparison, built);
        self.patch = Some(Size {
            functions: built.functions.len(),
            corrected: built.fixups.len(),
            jumps: built.jumps.len(),
            verified: verified.operands + verified.pointers,
        });
        let told = verified.faults.iter().take(MOST);
        self.faults.extend(told.map(|fault| format!("the patch, at {:#x}: {}", fault.at, fault.why)));
        if verified.faults.len() > MOST {
            self.faults.push(format!("the patch: {} more faults", verified.faults.len() - MOST));
        }
    }
}

/// Returns the word for the kind of a reason that its JSON has.
fn kind(reason: &Reason) -> String {
    let value = serde_json::to_value(reason).ok();
    value.and_then(|value| Some(value.get("reason")?.as_str()?.to_owned())).unwrap_or_default()
}

/// A second comparison gives the same.
fn check_again(first: &Comparison<'_>, old: &[u8], new: &[u8], faults: &mut Vec<String>) {
    let Ok(second) = compare(old, new) else {
        return faults.push("a second comparison fails".to_owned());
    };
    if Report::of(first) != Report::of(&second) {
        faults.push("a second comparison gives another report".to_owned());
    }
    if first.patch != second.patch {
        faults.push("a second comparison gives another patch".to_owned());
    }
}

/// A file can be updated to itself with nothing to do; or that is refused, for the reason that is returned; or it cannot
/// be compared with any other.
fn check_alone(file: &[u8], comparable: bool) -> Result<Option<String>, String> {
    match compare(file, file) {
        Err(_) if !comparable => Ok(None),
        Err(error) => Err(format!("with itself: {error}")),
        Ok(own) => match &own.verdict {
            Verdict::Refused { reasons } => Ok(reasons.first().map(kind)),
            Verdict::Updatable { .. }
                if own.fates.changed.is_empty() && own.patch.is_some_and(|one| one.is_empty()) =>
            {
                Ok(None)
            }
            Verdict::Updatable { .. } => Err("an update to itself changes something".to_owned()),
        },
    }
}

fn peak() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("reading the highest use of memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("the kernel does not tell the highest use of memory")? / 1024)
}
