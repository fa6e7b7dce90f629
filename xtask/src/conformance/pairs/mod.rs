//! `cargo xtask conformance pairs`: two versions of files as Debian ships them, compared, and what must come out.
//!
//! For each pair of the list the two newest versions that the archive has are fetched and compared. The comparison must
//! say what the list says, where the versions are those of the list; a second one must say the same; each file must be
//! updatable to itself with nothing to do; and each operand of a patch must lead where it must.
//!
//! `--symbols` builds packages from their sources instead, with symbols, and checks against these what the comparison
//! of the stripped files has inferred.

pub(super) mod archive;
mod list;
mod symbols;
mod trial;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use self::archive::{Archive, Offer};
use self::list::{Expected, PAIRS, Pair};
pub(crate) use self::trial::{Files, run_one};
use self::trial::{Outcome, Said};
use super::table::{self, Lean};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these packages or files
    #[arg(long, num_args = 1.., value_name = "NAME")]
    only: Vec<String>,
    /// Build these source packages in both versions with symbols, and check what is inferred against them; takes long.
    /// Without names: Redis, HAProxy and unbound
    #[arg(long, num_args = 0.., value_name = "PACKAGE", conflicts_with_all = ["only", "markdown"])]
    symbols: Option<Vec<String>>,
    /// Print the table as in `docs/binary.md`
    #[arg(long)]
    markdown: bool,
    /// Print the result as one line of JSON too
    #[arg(long)]
    json: bool,
}

/// What came of one pair.
#[derive(Debug, Serialize)]
struct Row {
    package: &'static str,
    file: &'static str,
    /// The older one first; one alone where the archive has no other.
    versions: Vec<String>,
    /// The versions are those for which the list says what must come out.
    judged: bool,
    #[serde(flatten)]
    outcome: Option<Outcome>,
    /// Why it is not as it should be; empty where it is.
    faults: Vec<String>,
    #[serde(skip)]
    pair: &'static Pair,
}

#[derive(Serialize)]
struct Report<'a> {
    conformance: &'static str,
    rows: &'a [Row],
}

/// Compares the pairs and prints the table; fails where something is not as it must be.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(packages) = &args.symbols {
        return symbols::run(packages, args.json);
    }
    let chosen = |pair: &&Pair| args.only.is_empty() || args.only.iter().any(|name| is_meant(pair, name));
    let wanted: Vec<&'static Pair> = PAIRS.iter().filter(chosen).collect();
    ensure!(!wanted.is_empty(), "no pair is meant by these arguments");
    let archive = Archive::open(Offer::Packages)?;
    let mut rows = vec![];
    for pair in wanted {
        eprintln!("{} ...", pair.name());
        rows.push(try_one(&archive, pair));
    }
    print!("{}", if args.markdown { markdown(&rows) } else { text(&rows) });
    if args.json {
        let report = Report { conformance: "pairs", rows: &rows };
        println!("{}", serde_json::to_string(&report).context("the report as JSON")?);
    }
    let failing: Vec<&str> = rows.iter().filter(|row| !row.faults.is_empty()).map(|row| row.pair.name()).collect();
    ensure!(failing.is_empty(), "not as they should be: {}", failing.join(", "));
    Ok(())
}

fn is_meant(pair: &Pair, name: &str) -> bool {
    pair.package == name || pair.name() == name
}

fn try_one(archive: &Archive, pair: &'static Pair) -> Row {
    let mut row = Row {
        package: pair.package,
        file: pair.file,
        versions: vec![],
        judged: false,
        outcome: None,
        faults: vec![],
        pair,
    };
    if let Err(error) = fill(archive, &mut row) {
        row.faults.push(format!("{error:#}"));
    }
    row
}

fn fill(archive: &Archive, row: &mut Row) -> Result<()> {
    let mut versions = archive.versions(row.package)?;
    ensure!(!versions.is_empty(), "the archive does not have {}", row.package);
    versions.truncate(2);
    versions.reverse();
    row.versions = versions;
    let [old, new] = row.versions.as_slice() else { return Ok(()) };
    row.judged = (old.as_str(), new.as_str()) == row.pair.versions;
    let read = |version: &str| archive::read_file(&archive.package(row.package, version)?, row.file);
    let (old, new) = (read(old)?, read(new)?);
    let mut outcome = trial::run(&old, &new)?;
    row.faults.append(&mut outcome.faults);
    let known = |kind: &&String| row.pair.not_itself != Some(kind.as_str());
    let strange = outcome.not_itself.iter().filter(known).map(|kind| format!("an update to itself is refused: {kind}"));
    row.faults.extend(strange);
    if row.judged && row.pair.not_itself.is_some() && outcome.not_itself.is_empty() {
        row.faults.push("it is listed as not updatable to itself, and is".to_owned());
    }
    if row.judged && !is_as_expected(row.pair.expected, &outcome.said) {
        row.faults.push(format!("expected: {:?}", row.pair.expected));
    }
    row.outcome = Some(outcome);
    Ok(())
}

fn is_as_expected(expected: Expected, said: &Said) -> bool {
    match (expected, said) {
        (Expected::Updatable, Said::Updatable) | (Expected::Incomparable, Said::Incomparable { .. }) => true,
        (Expected::Refused(kind), Said::Refused { kinds, .. }) => kinds.iter().any(|one| one == kind),
        _ => false,
    }
}

impl Row {
    /// Returns what both versions have in common, and in what they differ.
    fn versions(&self) -> (String, String) {
        match self.versions.as_slice() {
            [old, new] => {
                let (common, old, new) = difference(old, new);
                (common, format!("{old} → {new}"))
            }
            [only] => (String::new(), format!("only {only} is left")),
            _ => (String::new(), String::new()),
        }
    }

    fn name(&self) -> String {
        let (common, _) = self.versions();
        format!("{} {common}", self.pair.name()).trim_end().to_owned()
    }

    fn verdict(&self) -> &'static str {
        match self.outcome.as_ref().map(|outcome| &outcome.said) {
            Some(Said::Updatable) => "can be updated",
            Some(Said::Refused { .. }) => "refused",
            Some(Said::Incomparable { .. }) => "cannot be compared",
            None => "",
        }
    }

    /// Says what the verdict is worth.
    fn judgement(&self) -> &'static str {
        match (self.faults.is_empty(), self.outcome.is_some(), self.judged) {
            (false, ..) => "FAILS",
            (true, false, _) => "",
            (true, true, true) => "as expected",
            (true, true, false) => "not judged",
        }
    }

    /// Returns the first reason in short, or why the files cannot be compared.
    fn reason(&self) -> Option<String> {
        match &self.outcome.as_ref()?.said {
            Said::Updatable => None,
            Said::Refused { first, .. } => first.split("; ").next().map(shortened),
            Said::Incomparable { because } => Some(shortened(because)),
        }
    }
}

/// Leaves out the end of a list that is long.
fn shortened(text: &str) -> String {
    const MOST: usize = 120;
    let cut = text.match_indices(", ").map(|(at, _)| at).take_while(|at| *at <= MOST).last();
    match cut {
        Some(at) if text.len() > MOST => format!("{}, …", &text[..at]),
        _ => text.to_owned(),
    }
}

/// Splits two versions into what they have in common at their start, without epoch and revision, and in what they differ.
fn difference<'a>(old: &'a str, new: &'a str) -> (String, &'a str, &'a str) {
    let epoch = |version: &'a str| version.split_once(':').map_or(version, |(_, rest)| rest);
    let (old, new) = (epoch(old), epoch(new));
    let ends = |version: &str, at: usize| version[..at].ends_with(['-', '+', '~']);
    let same = old.bytes().zip(new.bytes()).take_while(|(a, b)| a == b).count();
    let is_end = |at: &usize| old.is_char_boundary(*at) && new.is_char_boundary(*at) && ends(old, *at);
    let head = (0..=same).rev().find(is_end).unwrap_or(0);
    let common = old[..head].split(['-', '+', '~']).next().unwrap_or_default().to_owned();
    let (old, new) = (&old[head..], &new[head..]);
    let same = old.bytes().rev().zip(new.bytes().rev()).take_while(|(a, b)| a == b).count();
    let starts = |at: &usize| {
        let from = |version: &str| version.get(version.len() - at..).map(|end| end.starts_with(['-', '+', '~']));
        from(old) == Some(true) && from(new) == Some(true)
    };
    let tail = (1..=same).rev().find(starts).filter(|tail| *tail < old.len() && *tail < new.len()).unwrap_or(0);
    (common, &old[..old.len() - tail], &new[..new.len() - tail])
}

fn text(rows: &[Row]) -> String {
    let heads = [
        ("file", Lean::Left),
        ("functions", Lean::Right),
        ("changed", Lean::Right),
        ("ms", Lean::Right),
        ("MiB", Lean::Right),
        ("loaded", Lean::Right),
        ("corrected", Lean::Right),
        ("jumps", Lean::Right),
        ("", Lean::Left),
    ];
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let mut cells = vec![row.name()];
            match &row.outcome {
                Some(outcome) => {
                    let patch = |of: fn(&trial::Size) -> usize| {
                        outcome.patch.as_ref().map_or_else(|| "-".to_owned(), |patch| of(patch).to_string())
                    };
                    cells.extend([
                        outcome.functions.to_string(),
                        format!("{} ({})", outcome.changed, outcome.lines_and_texts),
                        outcome.took_ms.to_string(),
                        outcome.peak_mib.to_string(),
                        patch(|patch| patch.functions),
                        patch(|patch| patch.corrected),
                        patch(|patch| patch.jumps),
                    ]);
                }
                None => cells.extend(std::iter::repeat_n(String::new(), 7)),
            }
            cells.push(if row.judgement() == "as expected" { String::new() } else { row.judgement().to_owned() });
            cells
        })
        .collect();
    let mut text = table::render(&heads, &cells);
    // Versions and reasons are too long for a table.
    for row in rows {
        let said = [row.verdict().to_owned(), row.reason().unwrap_or_default()];
        let parts: Vec<String> =
            [row.name(), row.versions().1].into_iter().chain(said).filter(|part| !part.is_empty()).collect();
        text.push_str(&table::wrap(&parts.join(": "), 100, "  "));
    }
    for row in rows {
        for fault in &row.faults {
            text.push_str(&table::wrap(&format!("{}: {fault}", row.pair.name()), 100, "! "));
        }
    }
    text.push_str(&table::wrap(&summary(rows), 100, ""));
    text
}

fn summary(rows: &[Row]) -> String {
    let said = |verdict: &str| rows.iter().filter(|row| row.verdict() == verdict).count();
    let verified: usize =
        rows.iter().filter_map(|row| row.outcome.as_ref()?.patch.as_ref()).map(|patch| patch.verified).sum();
    let judged = |what: &str| rows.iter().filter(|row| row.judgement() == what).count();
    format!(
        "{} pairs: {} can be updated, {} refused, {} cannot be compared, {} without a second version; {} as expected, {} \
         not judged, {} not as they should be; {verified} operands and pointers of patches checked",
        rows.len(),
        said("can be updated"),
        said("refused"),
        said("cannot be compared"),
        rows.iter().filter(|row| row.versions.len() == 1).count(),
        judged("as expected"),
        judged("not judged"),
        judged("FAILS"),
    )
}

fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| file | versions | functions | changed (line numbers and texts only) | verdict | loaded, corrected, jumps |\n\
         |---|---|---|---|---|---|\n",
    );
    for row in rows {
        let Some(outcome) = &row.outcome else { continue };
        let reason = row.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
        let patch = outcome.patch.as_ref().map_or_else(String::new, |patch| {
            format!("{}, {}, {}", thousands(patch.functions), thousands(patch.corrected), thousands(patch.jumps))
        });
        text.push_str(&format!(
            "| {} | {} | {} | {} ({}) | {}{} | {patch} |\n",
            row.name(),
            row.versions().1,
            thousands(outcome.functions),
            thousands(outcome.changed),
            thousands(outcome.lines_and_texts),
            row.verdict(),
            reason.replace('|', "\\|"),
        ));
    }
    text
}

fn thousands(number: usize) -> String {
    crate::demo::count(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_by_what_differs() {
        let told = |old, new| {
            let (common, old, new) = difference(old, new);
            format!("{common}: {old} → {new}")
        };
        assert_eq!(told("5:7.0.15-1~deb12u7", "5:7.0.15-1~deb12u10"), "7.0.15: deb12u7 → deb12u10");
        assert_eq!(told("2.4.68-1~deb12u1", "2.4.71-1~deb12u1"), ": 2.4.68 → 2.4.71");
        assert_eq!(told("2.1.12-stable-8", "2.1.12-stable-8+deb12u1"), "2.1.12: 8 → 8+deb12u1");
        assert_eq!(told("10.42-1", "10.42-1+deb12u2"), "10.42: 1 → 1+deb12u2");
        assert_eq!(told("1.0.11-1+b1", "1.0.11-2+b1"), "1.0.11: 1 → 2");
    }

    fn row(versions: &[&str], outcome: Option<Outcome>) -> Row {
        let pair = &PAIRS[0];
        let versions = versions.iter().map(|version| (*version).to_owned()).collect();
        Row { package: pair.package, file: pair.file, versions, judged: false, outcome, faults: vec![], pair }
    }

    #[test]
    fn a_pair_without_a_second_version_is_named_and_no_failure() {
        let rows = [row(&["7.0-1"], None)];
        let shown = text(&rows);
        assert!(shown.contains("only 7.0-1 is left") && shown.contains("1 without"), "{shown}");
        assert_eq!(rows[0].judgement(), "");
    }

    #[test]
    fn other_versions_are_shown_and_not_judged() {
        let outcome = Outcome {
            said: Said::Refused { kinds: vec!["grown".to_owned()], first: "an object grew; at 0x1".to_owned() },
            functions: 9,
            changed: 3,
            lines_and_texts: 2,
            took_ms: 1,
            peak_mib: 2,
            patch: None,
            not_itself: vec![],
            faults: vec![],
        };
        let shown = text(&[row(&["7.0-1", "7.0-2"], Some(outcome))]);
        assert!(shown.contains("not judged") && shown.contains("refused: an object grew\n"), "{shown}");
    }

    #[test]
    fn long_lists_are_cut() {
        let libraries = "it needs libraries: ".to_owned() + &["library"; 20].join(", ");
        assert!(shortened(&libraries).ends_with("library, …") && shortened(&libraries).len() < 126);
        assert_eq!(shortened("a, b"), "a, b");
    }

    #[test]
    fn a_refusal_is_expected_by_the_kind_of_a_reason() {
        let said = Said::Refused { kinds: vec!["grown".to_owned(), "start-up".to_owned()], first: String::new() };
        assert!(is_as_expected(Expected::Refused("start-up"), &said));
        assert!(!is_as_expected(Expected::Refused("shifted-fields"), &said));
        assert!(!is_as_expected(Expected::Updatable, &said));
        assert!(!is_as_expected(Expected::Incomparable, &Said::Updatable));
    }

    #[test]
    fn large_numbers_are_told_in_groups() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
