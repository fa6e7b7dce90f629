//! A comparison in words, and as data for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::Comparison;
use crate::classes::Class;
use crate::image::Area;
use crate::proof::Proof;
use crate::verdict::{Certainty, Verdict};

/// What is told of one file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FileFacts {
    pub kind: String,
    pub build_id: Option<String>,
    pub soname: Option<String>,
    pub functions: usize,
    /// Addresses of writable data that something refers to.
    pub objects: usize,
}

/// What is told of one function that is not the same in both files.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FunctionFacts {
    pub name: String,
    /// Its address in the old file, unless it is new.
    pub old: Option<u64>,
    /// Its address in the new file, unless it is gone.
    pub new: Option<u64>,
    pub class: Class,
    pub matched_by: Option<crate::matching::MatchedBy>,
    pub why: Vec<String>,
}

/// What is told of a comparison.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Report {
    pub old: FileFacts,
    pub new: FileFacts,
    pub matched: usize,
    pub unchanged: usize,
    /// How many functions became what.
    pub classes: BTreeMap<Class, usize>,
    pub functions: Vec<FunctionFacts>,
    /// Writable addresses of the old file that are bound.
    pub bound: usize,
    pub contradictions: usize,
    /// Numbers that were shown to be line numbers.
    pub line_numbers: usize,
    /// What an operator should know though nothing speaks against the update.
    pub notes: Vec<String>,
    /// What debug files say, where there were some.
    pub proof: Option<Proof>,
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl Report {
    /// Collects what is told of a comparison.
    #[must_use]
    pub fn of(comparison: &Comparison<'_>) -> Report {
        let Comparison { old, new, matching, bindings, fates, verdict, .. } = comparison;
        let facts = |side: &crate::side::Side<'_>| FileFacts {
            kind: side.image.kind.to_string(),
            build_id: side.image.build_id.clone(),
            soname: side.image.soname.map(str::to_owned),
            functions: side.functions.len(),
            objects: side
                .objects
                .iter()
                .filter(|a| side.image.area_at(a.address).is_some_and(Area::is_writable))
                .count(),
        };
        let mut classes = BTreeMap::new();
        classes.insert(Class::Unchanged, fates.unchanged);
        let mut functions = vec![];
        for fate in &fates.changed {
            *classes.entry(fate.class).or_default() += 1;
            let start = |side: &crate::side::Side<'_>, index: Option<usize>| {
                index.and_then(|index| side.functions.get(index)).map(|function| function.start)
            };
            functions.push(FunctionFacts {
                name: match (fate.old, fate.new) {
                    (Some(index), _) => old.function_name(index),
                    (None, Some(index)) => new.function_name(index),
                    (None, None) => String::new(),
                },
                old: start(old, fate.old),
                new: start(new, fate.new),
                class: fate.class,
                matched_by: fate.by,
                why: fate.why.clone(),
            });
        }
        let writable = |address: u64| old.image.area_at(address).is_some_and(Area::is_writable);
        let anchors = old.objects.iter().filter(|anchor| writable(anchor.address));
        Report {
            old: facts(old),
            new: facts(new),
            matched: matching.old.iter().flatten().count(),
            unchanged: fates.unchanged,
            classes,
            functions,
            bound: anchors.filter(|anchor| bindings.old.contains_key(&anchor.address)).count(),
            contradictions: bindings.contradictions.len(),
            line_numbers: fates.lines.len(),
            notes: notes(comparison),
            proof: comparison.proof.clone(),
            verdict: verdict.clone(),
        }
    }

    /// Says the same in words, in lines of at most 100 columns where nothing in them is longer.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        match &self.verdict {
            Verdict::Updatable { certainty } => text.push_str(match (certainty, &self.proof) {
                (Certainty::Proved, _) => "can be updated in place (proved with the debug files of both)\n",
                (Certainty::Inferred, None) => "can be updated in place (inferred from the two files alone)\n",
                (Certainty::Inferred, Some(_)) => {
                    "can be updated in place (inferred; the debug files do not prove it)\n"
                }
            }),
            Verdict::Refused { reasons } => {
                let count = reasons.len();
                let _ = writeln!(text, "refused, for {count} {}:", if count == 1 { "reason" } else { "reasons" });
                for reason in reasons {
                    wrap(&mut text, "  - ", &reason.to_string());
                }
            }
        }
        let id = |facts: &FileFacts| facts.build_id.clone().unwrap_or_else(|| "without build-id".to_owned());
        let _ = writeln!(text, "\n  old        {}, {}", self.old.kind, id(&self.old));
        let _ = writeln!(text, "  new        {}, {}", self.new.kind, id(&self.new));
        let _ = writeln!(
            text,
            "  functions  {} and {}, {} matched, {} unchanged",
            self.old.functions, self.new.functions, self.matched, self.unchanged
        );
        let others: Vec<_> = self
            .classes
            .iter()
            .filter(|(class, count)| **class != Class::Unchanged && **count > 0)
            .map(|(class, count)| format!("{count} {class}"))
            .collect();
        if !others.is_empty() {
            wrap(&mut text, "             ", &others.join(", "));
        }
        let _ = writeln!(
            text,
            "  data       {} and {} writable addresses in use, {} bound, {} contradictions",
            self.old.objects, self.new.objects, self.bound, self.contradictions
        );
        if let Some(proof) = &self.proof {
            tell_proof(&mut text, proof);
        }
        for note in &self.notes {
            wrap(&mut text, "  note       ", note);
        }
        if !self.functions.is_empty() {
            text.push('\n');
        }
        for function in &self.functions {
            let address =
                |address: Option<u64>| address.map_or_else(|| "-".to_owned(), |address| format!("{address:#x}"));
            let _ = writeln!(
                text,
                "  {:<28} {:>10} {:>10}  {}",
                function.class.to_string(),
                address(function.old),
                address(function.new),
                function.name
            );
            for why in &function.why {
                wrap(&mut text, "        ", why);
            }
        }
        text
    }
}

/// Says what debug files say.
fn tell_proof(text: &mut String, proof: &Proof) {
    let told = format!(
        "{} objects and {} functions have the same names in both; {} types, the types of {} variables, what {} changed \
         functions take, and {} numbers of lines were compared",
        proof.objects, proof.functions, proof.types, proof.variables, proof.signatures, proof.line_numbers
    );
    let (wrong, lacking) = (proof.wrong.len(), proof.lacking.len());
    let told = if wrong + lacking == 0 {
        told
    } else {
        format!("{told}; {wrong} differ or are wrong, {lacking} could not be compared")
    };
    wrap(text, "  proof      ", &told);
    if proof.shown > 0 {
        let what = "objects are shown to have their size, or to be new, which the two files do not tell";
        wrap(text, "             ", &format!("{} {what}", proof.shown));
    }
    for what in proof.wrong.iter().chain(&proof.lacking).take(MOST_TOLD) {
        wrap(text, "             - ", what);
    }
    let more = (wrong + lacking).saturating_sub(MOST_TOLD);
    if more > 0 {
        wrap(text, "             - ", &format!("and {more} more"));
    }
}

/// So much of what debug files do not say is told in words.
const MOST_TOLD: usize = 12;

fn notes(comparison: &Comparison<'_>) -> Vec<String> {
    let Comparison { old, new, matching, bindings, data, fates, .. } = comparison;
    let mut notes = vec![];
    if fates.changed.is_empty() {
        notes.push("no function differs: there is nothing to update in this file".to_owned());
    }
    if !fates.lines.is_empty() {
        notes.push(format!("{} numbers that changed are numbers of source lines", fates.lines.len()));
    }
    if data.line_texts > 0 {
        notes.push(format!("{} texts in data keep the old numbers of source lines", data.line_texts));
    }
    if !data.version_texts.is_empty() {
        let shown = |text: &String| format!("{:?}", text.chars().take(60).collect::<String>());
        let texts: Vec<_> = data.version_texts.values().take(4).map(shown).collect();
        notes.push(format!("data goes on to name the old version or date: {}", texts.join(", ")));
    }
    for one in &comparison.transforms {
        let (from, to) = (&one.old, &one.new);
        notes.push(if one.moves() {
            let (before, after) = (from.end - from.start, to.end - to.start);
            format!(
                "`{}` had {before} bytes at {:#x} and has {after} at {:#x}; a hook converts it",
                one.name, from.start, to.start
            )
        } else {
            format!("a hook answers for what `{}` at {:#x} holds", one.name, from.start)
        });
    }
    if !data.replaced.is_empty() {
        notes.push(format!(
            "{} read-only tables differ; the functions that use them count as changed",
            data.replaced.len()
        ));
    }
    let moved = data.gaps.iter().filter(|gap| gap.because != crate::data::Because::Unknown).count();
    if moved > 0 {
        notes.push(format!("{moved} distances between objects differ, by padding or by objects that came or went"));
    }
    let unbound = old.objects.iter().filter(|anchor| {
        old.image.area_at(anchor.address).is_some_and(Area::is_writable) && !bindings.old.contains_key(&anchor.address)
    });
    let unbound = unbound.count();
    if unbound > 0 {
        notes.push(format!("{unbound} writable addresses of the old file are not bound; no new code needs them"));
    }
    let imports = |side: &crate::side::Side<'_>| -> std::collections::BTreeSet<String> {
        let relocations = side.image.relocations.iter();
        relocations
            .filter_map(|relocation| match relocation.written {
                crate::image::Written::Symbol(name, _) => Some(name.to_owned()),
                _ => None,
            })
            .collect()
    };
    let before = imports(old);
    let fresh: Vec<_> = imports(new).into_iter().filter(|name| !before.contains(name)).collect();
    if !fresh.is_empty() {
        notes.push(format!("the new version uses symbols that the old one did not: {}", fresh.join(", ")));
    }
    let fields: usize = matching.alignments.values().map(|alignment| crate::layout::new_fields(alignment).len()).sum();
    if fields > 0 {
        notes.push(format!(
            "changed functions reach fields at {fields} distances that their old versions do not reach; what old \
             objects hold there is not known from the files"
        ));
    }
    let places = fates.shifts.iter().filter(|(_, shift)| !shift.supported).count();
    if places > 0 {
        notes.push(format!("{places} numbers stand in code that changed too much around them to compare them"));
    }
    notes
}

/// Adds text in lines of at most 100 columns; those behind the first are indented as far as its text.
fn wrap(out: &mut String, head: &str, text: &str) {
    let indent = " ".repeat(head.len());
    let mut line = head.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > 100 {
            out.push_str(line.trim_end());
            out.push('\n');
            line.clone_from(&indent);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}
