//! Proves what was inferred from two stripped files, with the debug files of both builds.
//!
//! An update is *proved* where nothing speaks against any of these, and nothing is lacking for it:
//!
//! - each object that is bound, and each function that is matched, has the same name in both builds, and each that the loaded
//!   code uses has one;
//! - what is loaded as a new object is none that the old build has;
//! - each structure, union and enumeration that both builds have is laid out in the same way (an enumeration may get more
//!   enumerators), and each variable that is bound has the same type;
//! - a changed function that other files may call takes and returns what it did;
//! - each number that was taken for that of a source line is as far from the line of its instruction as before.
//!
//! What a value means, and what a function makes for another, no type says.
//!
//! Where two stripped files do not tell whether an object grew, or whether one is new, the update is refused. Symbols tell, and
//! then it is not refused, if all the rest is proved, too ([`Shown`]).

use std::collections::{BTreeMap, BTreeSet};

use crate::Comparison;
use crate::debug::{Debug, Shape};
use crate::image::{Scope, Written};
use crate::patch::Form;
use crate::reason::Reason;
use crate::shown::{self, Shown};
use crate::side::Target;
use crate::symbols::{self, Said};
use crate::verdict::{Certainty, Verdict};

/// What the debug files say of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Proof {
    /// Bindings of objects and matches of functions whose names were compared.
    pub objects: usize,
    pub functions: usize,
    /// Structures, unions and enumerations that both builds have.
    pub types: usize,
    /// Variables whose types were compared, and functions what they take.
    pub variables: usize,
    pub signatures: usize,
    /// Numbers that are shown to be those of source lines.
    pub line_numbers: usize,
    /// Objects that are shown to have their size, or to be new, where the two files do not tell.
    pub shown: usize,
    /// What could not be compared.
    pub lacking: Vec<String>,
    /// What is not true, or not the same.
    pub wrong: Vec<String>,
}

/// So many lines from its statement the number of a line may be: a statement may be long.
const LONGEST_STATEMENT: u64 = 200;

/// Proves a comparison, or shows that it is wrong; the verdict becomes what is known then.
pub fn prove(comparison: &mut Comparison<'_>, old: &Debug, new: &Debug) {
    let refused = lift(comparison, old, new);
    let mut prover = Prover { comparison, old, new, proof: Proof::default() };
    prover.names();
    prover.used();
    prover.types();
    prover.variables();
    prover.signatures();
    prover.line_numbers();
    let mut proof = prover.proof;
    if let Verdict::Updatable { certainty } = &mut comparison.verdict {
        if !proof.wrong.is_empty() {
            let disproved = Reason::Disproved { what: proof.wrong.clone() };
            let reasons = refused.into_iter().flatten().chain([disproved]).collect();
            comparison.refuse(reasons);
        } else if proof.lacking.is_empty() {
            *certainty = Certainty::Proved;
            proof.shown = comparison.shown.kept.len() + comparison.shown.fresh.len();
        } else if let Some(reasons) = refused {
            comparison.refuse(reasons);
        }
    }
    comparison.proof = Some(proof);
}

/// Lets a comparison pass for now that is refused for nothing but what symbols show not to be so; returns why it was refused.
fn lift(comparison: &mut Comparison<'_>, old: &Debug, new: &Debug) -> Option<Vec<Reason>> {
    let Verdict::Refused { reasons } = &comparison.verdict else { return None };
    if !reasons.iter().all(Reason::may_be_disproved) {
        return None;
    }
    let reasons = reasons.clone();
    comparison.shown = Shown::by_names(comparison, &old.names, &new.names);
    comparison.judge();
    if let Verdict::Refused { .. } = comparison.verdict {
        comparison.refuse(reasons);
        return None;
    }
    Some(reasons)
}

struct Prover<'c, 'd> {
    comparison: &'c Comparison<'d>,
    old: &'c Debug,
    new: &'c Debug,
    proof: Proof,
}

impl Prover<'_, '_> {
    fn names(&mut self) {
        let checked = symbols::check(self.comparison, &self.old.names, &self.new.names);
        (self.proof.objects, self.proof.functions) = (checked.objects, checked.functions);
        self.proof.wrong.extend(checked.wrong);
    }

    /// Sees that all that is loaded uses is known by name.
    fn used(&mut self) {
        let Some(patch) = &self.comparison.patch else { return };
        let new = &self.comparison.new;
        let mut used = BTreeSet::new();
        for loaded in &patch.functions {
            used.insert(loaded.range.start);
            let index = new.functions.partition_point(|function| function.start < loaded.range.start);
            used.extend(new.bodies.refs(index).iter().map(|reference| reference.target));
        }
        for fixup in patch.fixups.iter().filter(|fixup| fixup.form == Form::Address) {
            if let Some(Written::Address(address)) = new.image.pointer_at(fixup.at) {
                used.insert(address);
            }
        }
        for address in used {
            match new.resolve(address).target {
                Target::Code(function, offset) => self.used_function(function as usize, u64::from(offset)),
                Target::Object(address) => self.used_object(address),
                _ => {}
            }
        }
    }

    fn used_function(&mut self, function: usize, offset: u64) {
        let Comparison { old, new, matching, .. } = self.comparison;
        let Some(from) = matching.new.get(function).copied().flatten().and_then(|old_one| old.functions.get(old_one))
        else {
            return;
        };
        let Some(to) = new.functions.get(function) else { return };
        let places = ((&self.old.names, from.start + offset), (&self.new.names, to.start + offset));
        // Where the bodies differ only their starts are the same place.
        let starts = ((&self.old.names, from.start), (&self.new.names, to.start));
        if symbols::functions(starts.0, starts.1) == Said::Nothing
            && symbols::functions(places.0, places.1) == Said::Nothing
        {
            let (a, b) = (from.start, to.start);
            self.proof.lacking.push(format!("no symbol names the function at {a:#x}, which is used at {b:#x}"));
        }
    }

    fn used_object(&mut self, address: u64) {
        let Comparison { old, new, bindings, .. } = self.comparison;
        if let Some((before, _)) = bindings.old_of(old, new, address) {
            match symbols::objects((&self.old.names, before), (&self.new.names, address)) {
                Said::Same => {}
                Said::Different => {
                    self.proof
                        .wrong
                        .push(format!("{before:#x} and {address:#x} have different names and are taken for one"));
                }
                Said::Nothing => {
                    self.proof.lacking.push(format!("no symbol names the object at {before:#x}, now at {address:#x}"));
                }
            }
            return;
        }
        let names = self.new.names.objects_around(address);
        if names.is_empty() {
            self.proof.lacking.push(format!("no symbol names the new object at {address:#x}"));
        }
        for (name, offset) in names {
            // Of several objects with that name each one may be another one's.
            if !shown::is_new(self.comparison, &self.old.names, &name, offset) {
                self.proof.wrong.push(format!("`{name}` at {address:#x} is taken for new, and the old build has one"));
            }
            if let Some(gone) = self.renamed(address) {
                let why = format!("`{gone}` is gone and `{name}` is new: one may have become the other");
                self.proof.lacking.push(why);
            }
        }
    }

    /// Returns an object of the old build that is not bound to any and has the type of a new one, which may be its new name.
    fn renamed(&self, address: u64) -> Option<&str> {
        let (_, fresh) = self.new.variable_around(address)?;
        let mut gone = self.old.variables.iter().filter(|(start, before)| {
            let end = self.old.names.end_of(**start).unwrap_or(**start).max(*start + 1);
            before.kind == fresh.kind && self.comparison.bindings.old.range(**start..end).next().is_none()
        });
        let is_gone = |address: u64| {
            let names = self.old.names.objects_around(address);
            !names.is_empty() && names.iter().all(|(name, _)| self.new.names.places_of(name).next().is_none())
        };
        gone.find(|(start, _)| is_gone(**start)).map(|(_, before)| before.name.as_str())
    }

    fn types(&mut self) {
        let (before, after) = (&self.old.types, &self.new.types);
        let converted = self.converted();
        let mut gone = vec![];
        for (name, shapes) in before {
            let Some(now) = after.get(name) else {
                gone.push(name.as_str());
                continue;
            };
            if converted.contains(name.as_str()) {
                continue;
            }
            self.proof.types += 1;
            if let Some(what) = changed(shapes, now) {
                self.proof.wrong.push(format!("`{name}` changed: {what}"));
            }
        }
        let fresh = after.keys().filter(|name| !before.contains_key(*name));
        if let (Some(one), Some(other)) = (gone.first(), fresh.into_iter().next()) {
            let why = format!("`{one}` is gone and `{other}` is new: one may have become the other");
            self.proof.lacking.push(why);
        }
        for (name, values) in &self.old.enumerators {
            if let Some(now) = self.new.enumerators.get(name).filter(|now| *now != values) {
                self.proof.wrong.push(format!("`{name}` was {} and is {}", list(values), list(now)));
            }
        }
    }

    /// Returns the types of what hooks convert: they answer for these, and not for what such an object points to.
    fn converted(&self) -> BTreeSet<String> {
        let kinds = self.comparison.transforms.iter().filter_map(|transform| {
            let (start, variable) = self.old.variable_around(transform.old.start)?;
            (start == transform.old.start).then_some(variable.kind.as_str())
        });
        kinds.map(|kind| kind.rsplit_once("] of ").map_or(kind, |(_, element)| element).to_owned()).collect()
    }

    fn variables(&mut self) {
        let is_converted =
            |address: u64| self.comparison.transforms.iter().any(|transform| transform.old.contains(&address));
        let mut seen = BTreeSet::new();
        for bound in self.comparison.bindings.old.values().filter(|bound| !is_converted(bound.old)) {
            let (Some((a, before)), Some((b, after))) =
                (self.old.variable_around(bound.old), self.new.variable_around(bound.new))
            else {
                continue;
            };
            if !seen.insert((a, b)) {
                continue;
            }
            self.proof.variables += 1;
            let is_refused = matches!(self.comparison.verdict, Verdict::Refused { .. });
            if bound.old - a != bound.new - b && !is_refused {
                let (from, to) = (bound.old, bound.new);
                self.proof.wrong.push(format!("{from:#x} and {to:#x} are different places of `{}`", before.name));
            } else if before.kind != after.kind {
                let (was, is) = (&before.kind, &after.kind);
                self.proof.wrong.push(format!("`{}` was {was}, and is {is}", before.name));
            }
        }
    }

    /// Sees that other files, which go on as they are, give a function that changed what it takes.
    ///
    /// What goes on in this file needs no such look: its code is the same in the new build, where it gives what is right.
    fn signatures(&mut self) {
        let Comparison { old, new, fates, .. } = self.comparison;
        let mut exported: BTreeSet<usize> = BTreeSet::new();
        for symbol in old.image.symbols.iter().filter(|symbol| symbol.scope == Scope::Dynamic) {
            if let Target::Code(function, 0) = old.resolve(symbol.address).target {
                exported.insert(function as usize);
            }
        }
        for fate in fates.changed.iter().filter(|fate| fate.class.is_change()) {
            let (Some(f), Some(g)) = (fate.old, fate.new) else { continue };
            let (Some(from), Some(to)) = (old.functions.get(f), new.functions.get(g)) else { continue };
            let told = (self.old.functions.get(&from.start), self.new.functions.get(&to.start));
            let (Some(before), Some(after)) = told else {
                // Pieces that the compiler moved away, and assembler, take nothing of their own.
                continue;
            };
            self.proof.signatures += 1;
            if exported.contains(&f) && before.kind != after.kind {
                let (name, was, is) = (&before.name, &before.kind, &after.kind);
                self.proof.wrong.push(format!("`{name}` was {was}, and is {is}, and other files may use it"));
            }
        }
    }

    fn line_numbers(&mut self) {
        for number in &self.comparison.fates.lines {
            let lines = (self.old.line_at(number.old_at), self.new.line_at(number.new_at));
            let (Some(before), Some(after)) = lines else {
                self.proof.lacking.push(format!("nothing says from which line {:#x} comes", number.old_at));
                continue;
            };
            let away = |number: u64, line: u64| number.cast_signed().wrapping_sub(line.cast_signed());
            let (was, is) = (away(number.old, before), away(number.new, after));
            if was == is && was.unsigned_abs() <= LONGEST_STATEMENT {
                self.proof.line_numbers += 1;
            } else {
                self.proof.lacking.push(format!(
                    "{} at {:#x}, now {} at {:#x}, is not shown to be the number of a line: the lines are {before} and {after}",
                    number.old, number.old_at, number.new, number.new_at
                ));
            }
        }
    }
}

fn list(values: &BTreeSet<i64>) -> String {
    values.iter().map(i64::to_string).collect::<Vec<_>>().join(" or ")
}

/// Says in what the types of one name differ, if so.
fn changed(before: &BTreeSet<Shape>, after: &BTreeSet<Shape>) -> Option<String> {
    let gone = before.iter().find(|shape| !after.iter().any(|now| is_kept(shape, now)))?;
    let Some(fresh) = after.iter().find(|shape| !before.contains(*shape)) else {
        // One of several is not used any more, and none came.
        return None;
    };
    if gone.size != fresh.size {
        let size = |shape: &Shape| shape.size.map_or_else(|| "no size".to_owned(), |size| format!("{size} bytes"));
        return Some(format!("it had {}, and has {}", size(gone), size(fresh)));
    }
    let now: BTreeMap<_, _> = fresh.parts.iter().map(|(name, what)| (name, what)).collect();
    let part = gone.parts.iter().find(|(name, what)| now.get(name) != Some(&what));
    Some(match part {
        Some((name, what)) => match now.get(name) {
            Some(now) => format!("`{name}` was {what}, and is {now}"),
            None => format!("`{name}` is gone"),
        },
        None => {
            let was: BTreeSet<_> = gone.parts.iter().collect();
            match fresh.parts.iter().find(|part| !was.contains(part)) {
                Some((name, what)) => format!("`{name}` is new, {what}"),
                None => "the order of its members".to_owned(),
            }
        }
    })
}

/// Says whether values of a type are values of a later one.
fn is_kept(before: &Shape, after: &Shape) -> bool {
    before == after
        || (before.is_enumeration
            && after.is_enumeration
            && before.size == after.size
            && before.parts.iter().all(|part| after.parts.contains(part)))
}
