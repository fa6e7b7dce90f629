//! What was proved of a package with `method = "binary"` when it was made, and with what.
//!
//! ```toml
//! [proof]
//! patch = "5f2c…"             # a digest (SHA-256) of what is done to a process, which is what was proved
//! old = "redis.debug"         # where the names and types of the old version are from
//! new = "redis-new.debug"
//! objects = 1567              # how many were compared, and found to be the same
//! functions = 4303
//! types = 812
//! variables = 640
//! signatures = 9
//! line-numbers = 214
//! kept = [0x40a0]             # objects of the old file that have kept their size, which the two files do not tell
//! fresh = [[0x50c0, 0x5100]]  # where objects of the new file lie that the old one does not have; both may be left out
//! ```
//!
//! The daemon makes the comparison again. The proof holds where the same comes out as when it was made, and nowhere else.

use mvedsua_binary::Comparison;
use mvedsua_binary::patch::Patch;
use mvedsua_binary::shown::Shown;
use mvedsua_binary::verdict::{Certainty, Verdict};
use sha2::{Digest as _, Sha256};
use toml::de::{DeTable, DeValue};

use super::reader::{self, Reader, Unfit};

/// The counts, in their order.
const COUNTS: [&str; 6] = ["objects", "functions", "types", "variables", "signatures", "line-numbers"];
/// Digits of a digest.
const DIGITS: usize = 64;

/// That an update is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// A digest of the patch.
    patch: String,
    /// Where the names and types of the old and of the new version are from.
    from: (String, String),
    /// How many of [`COUNTS`] were compared.
    counts: [u64; COUNTS.len()],
    /// What names have shown and the two files do not tell.
    shown: Shown,
}

impl Proof {
    /// Returns what is proved of a comparison, if it is; `from` says where names and types of both versions are from.
    #[must_use]
    pub fn of(comparison: &Comparison<'_>, from: (String, String)) -> Option<Proof> {
        let Verdict::Updatable { certainty: Certainty::Proved } = comparison.verdict else { return None };
        let (patch, proof) = (comparison.patch.as_ref()?, comparison.proof.as_ref()?);
        let counts =
            [proof.objects, proof.functions, proof.types, proof.variables, proof.signatures, proof.line_numbers];
        Some(Proof {
            patch: digest(patch),
            from,
            counts: counts.map(|count| count as u64),
            shown: comparison.shown.clone(),
        })
    }

    /// Returns what a comparison has to take for given, to come to what was proved.
    #[must_use]
    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Says whether this is the patch that was proved.
    #[must_use]
    pub fn holds_for(&self, patch: &Patch) -> bool {
        self.patch == digest(patch)
    }
}

impl std::fmt::Display for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts: Vec<String> =
            COUNTS.iter().zip(self.counts).map(|(what, count)| format!("{count} {}", what.replace('-', " "))).collect();
        write!(f, "{}, compared with {} and {}", counts.join(", "), self.from.0, self.from.1)?;
        match self.shown.kept.len() + self.shown.fresh.len() {
            0 => Ok(()),
            count => write!(f, "; {count} objects are shown to have their size, or to be new"),
        }
    }
}

/// Returns a digest of all that is done to a process.
fn digest(patch: &Patch) -> String {
    let written = serde_json::to_vec(patch).unwrap_or_default();
    Sha256::digest(written).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads `proof`.
pub(super) fn read<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>) -> Option<Proof> {
    let value = table.get("proof")?;
    let Some(proof) = value.get_ref().as_table() else {
        let place = reader.place(value.span());
        reader.fault(&place, "`proof` is no table", "a table: a line `[proof]`, and its keys below");
        return None;
    };
    let known: Vec<&str> = ["patch", "old", "new", "kept", "fresh"].into_iter().chain(COUNTS).collect();
    reader.only(proof, &known, "`proof`");
    let patch = reader.need(proof, "patch", "64 hexadecimal digits, as `package build` writes them", sum);
    let old = reader.need(proof, "old", "where the names and types of the old version are from", reader::text);
    let new = reader.need(proof, "new", "where those of the new version are from", reader::text);
    let counts = COUNTS.map(|key| reader.need(proof, key, "how many were compared", reader::count));
    let counts = counts.into_iter().map(|count| Some(count?.value)).collect::<Option<Vec<u64>>>()?;
    let kept = reader.get(proof, "kept", "addresses of the old file, such as [0x40a0]", reader::counts);
    let fresh = reader.get(
        proof,
        "fresh",
        "where objects of the new file begin and end, such as [[0x50c0, 0x5100]]",
        |value| reader::pairs(value, "where it begins and where it ends"),
    );
    let shown = Shown {
        kept: kept.map(|at| at.value).unwrap_or_default().into_iter().collect(),
        fresh: fresh.map(|at| at.value).unwrap_or_default().into_iter().map(|(start, end)| start..end).collect(),
    };
    Some(Proof { patch: patch?.value, from: (old?.value, new?.value), counts: counts.try_into().ok()?, shown })
}

fn sum(value: &DeValue<'_>) -> Result<String, Unfit> {
    let text = reader::text(value)?;
    match text.len() == DIGITS && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')) {
        true => Ok(text),
        false => Err(Unfit::Content(format!("`{text}` is no digest"))),
    }
}

/// Writes the lines of the manifest.
pub(super) fn manifest(proof: &Proof) -> String {
    let text = |text: &str| serde_json::Value::from(text);
    let mut lines = format!(
        "\n[proof]\npatch = \"{}\"\nold = {}\nnew = {}\n",
        proof.patch,
        text(&proof.from.0),
        text(&proof.from.1)
    );
    lines.extend(COUNTS.iter().zip(proof.counts).map(|(key, count)| format!("{key} = {count}\n")));
    let mut list = |key: &str, items: Vec<String>| {
        if !items.is_empty() {
            lines.push_str(&format!("{key} = [{}]\n", items.join(", ")));
        }
    };
    list("kept", proof.shown.kept.iter().map(|address| format!("{address:#x}")).collect());
    list("fresh", proof.shown.fresh.iter().map(|one| format!("[{:#x}, {:#x}]", one.start, one.end)).collect());
    lines
}

#[cfg(test)]
mod tests {
    use super::super::manifest;
    use super::*;

    const PACKAGE: &str =
        "name = \"fix\"\nmethod = \"binary\"\nfrom = \"00112233aabbccdd\"\nto = \"00112233aabbccde\"\nobject = \"a\"\n";

    fn read(proof: &str) -> Result<Option<Proof>, String> {
        let read = manifest::read(&format!("{PACKAGE}{proof}"));
        let faults = |faults: Vec<_>| super::super::Faults(faults).to_string();
        read.map(|manifest| manifest.change.and_then(|change| change.proof)).map_err(faults)
    }

    #[test]
    fn what_is_written_is_read() {
        let from = ("old \"file\"".to_owned(), "new".to_owned());
        let shown = Shown { kept: [0x40a0, 0x40b0].into(), fresh: std::iter::once(0x50c0..0x5100).collect() };
        let patch = "5f".repeat(DIGITS / 2);
        let proof = Proof { patch, from, counts: [1, 2, 3, 4, 5, 6], shown: Shown::default() };
        assert_eq!(read(&manifest(&proof)), Ok(Some(proof.clone())));
        assert!(!manifest(&proof).contains("kept") && !proof.to_string().contains("shown"));
        let proof = Proof { shown, ..proof };
        assert_eq!(read(&manifest(&proof)), Ok(Some(proof.clone())));
        assert!(proof.to_string().contains("3 objects are shown"), "{proof}");
        let torn = manifest(&proof).replace("0x5100", "0x5100, 1");
        assert!(read(&torn).is_err_and(|said| said.contains("a list of two numbers: where it begins")));
        assert_eq!(read(""), Ok(None));
        assert!(proof.to_string().contains("6 line numbers"), "{proof}");
        let short = manifest(&Proof { patch: "5f".to_owned(), ..proof });
        assert!(read(&short).is_err_and(|said| said.contains("`5f` is no digest")));
        assert!(read("proof = 1\n").is_err_and(|said| said.contains("`proof` is no table")));
        assert!(read("[proof]\nsurely = 1\n").is_err_and(|said| said.contains("surely")));
    }
}
