//! Says of each function what became of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::binding::{Bindings, What};
use crate::constants;
use crate::data::Data;
use crate::layout::{self, Shift};
use crate::matching::{Alignment, MatchedBy, Matching};
use crate::numbers::{self, ChangedNumber};
use crate::side::{Side, Target};
use crate::texts;

/// What became of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    Unchanged,
    /// Only numbers of source lines differ, as numbers or in texts.
    LineNumbers,
    /// Only texts differ.
    Texts,
    /// It does something else.
    Body,
    /// It does something else, and seems to take other arguments.
    Signature,
    New,
    Gone,
}

impl Class {
    /// All classes.
    pub const ALL: [Class; 7] =
        [Class::Unchanged, Class::LineNumbers, Class::Texts, Class::Body, Class::Signature, Class::New, Class::Gone];

    /// Says whether the function behaves differently.
    #[must_use]
    pub fn is_change(self) -> bool {
        matches!(self, Class::Body | Class::Signature)
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Class::Unchanged => "unchanged",
            Class::LineNumbers => "line numbers only",
            Class::Texts => "texts only",
            Class::Body => "changed body",
            Class::Signature => "changed signature (suspected)",
            Class::New => "new",
            Class::Gone => "gone",
        })
    }
}

/// A function that is not the same in both files.
#[derive(Clone, Debug)]
pub struct Fate {
    /// Its index in the old file, unless it is new.
    pub old: Option<usize>,
    /// Its index in the new file, unless it is gone.
    pub new: Option<usize>,
    pub by: Option<MatchedBy>,
    pub class: Class,
    /// In words, what differs.
    pub why: Vec<String>,
}

/// What became of all functions.
#[derive(Debug)]
pub struct Fates {
    /// Those that are not unchanged: by their place in the old file, then the new ones.
    pub changed: Vec<Fate>,
    pub unchanged: usize,
    /// Distances and numbers of instructions that stand beside each other, by the old function.
    pub shifts: Vec<(usize, Shift)>,
    /// Numbers that are passed to other functions and may be sizes.
    pub numbers: Vec<ChangedNumber>,
    /// Numbers that were shown to be line numbers.
    pub lines: Vec<ChangedNumber>,
}

/// Says what became of the functions of two files.
#[must_use]
pub fn classify(old: &Side<'_>, new: &Side<'_>, matching: &Matching, bindings: &Bindings, data: &Data) -> Fates {
    let mut changes = vec![];
    let before = |index: usize| matching.old.get(index).copied().flatten().map(|found| found.new);
    for (f, alignment) in &matching.alignments {
        let passed = numbers::passed(old, &alignment.old, &before);
        changes.extend(numbers::changed(*f, &passed, &numbers::passed(new, &alignment.new, &Some)));
    }
    let candidates = changes.iter().map(|change| (change.callee.clone(), change.argument)).collect();
    let judged = numbers::judge(changes, &numbers::meanings(old, &candidates, &before));
    // Where an instruction holds a line number its difference is explained.
    let explained: BTreeSet<u64> = judged.lines.iter().map(|line| line.old_at).collect();
    let told: BTreeSet<u64> =
        judged.suspects.iter().map(|number| number.old_at).chain(explained.iter().copied()).collect();
    let context = Context { old, new, matching, bindings, explained };
    let mut fates =
        Fates { changed: vec![], unchanged: 0, shifts: vec![], numbers: judged.suspects, lines: judged.lines };
    let mut elsewhere: BTreeMap<usize, Vec<(u64, What)>> = BTreeMap::new();
    for one in &bindings.elsewhere {
        elsewhere.entry(one.function).or_default().push((one.at, one.what));
    }
    for (f, found) in matching.old.iter().enumerate() {
        let Some(found) = found else {
            fates.changed.push(Fate { old: Some(f), new: None, by: None, class: Class::Gone, why: vec![] });
            continue;
        };
        let (mut class, mut why) = if let Some(alignment) = matching.alignments.get(&f) {
            let shifts = layout::shifts(alignment);
            fates.shifts.extend(shifts.iter().filter(|shift| !told.contains(&shift.old_at)).map(|shift| (f, *shift)));
            context.with_other_body((f, found.new), alignment)
        } else if let Some(differences) = elsewhere.get(&f) {
            context.with_equal_body(f, found.new, differences)
        } else {
            (Class::Unchanged, vec![])
        };
        if !matches!(class, Class::Body | Class::Signature)
            && let Some(what) = uses_other(old, f, new, found.new, data)
        {
            class = Class::Body;
            why.push(what);
        }
        if class == Class::Unchanged {
            fates.unchanged += 1;
            continue;
        }
        fates.changed.push(Fate { old: Some(f), new: Some(found.new), by: Some(found.by), class, why });
    }
    let fresh = matching.new.iter().enumerate().filter(|(_, found)| found.is_none());
    let fresh = fresh.map(|(g, _)| Fate { old: None, new: Some(g), by: None, class: Class::New, why: vec![] });
    fates.changed.extend(fresh);
    fates
}

/// Says which object of a function another one takes the place of.
fn uses_other(old: &Side<'_>, f: usize, new: &Side<'_>, g: usize, data: &Data) -> Option<String> {
    if data.replaced.is_empty() && data.moved.is_empty() {
        return None;
    }
    let before = old.bodies.refs(f).iter().map(|reference| reference.target);
    let mut after = new.bodies.refs(g).iter().map(|reference| reference.target);
    before
        .clone()
        .find(|target| data.replaced.contains(*target))
        .map(|table| format!("it uses the table at {table:#x}, which differs"))
        .or_else(|| {
            let moved = before.clone().find(|target| data.moved.contains(*target));
            moved
                .or_else(|| after.find(|target| data.moved_to.contains(*target)))
                .map(|object| format!("it uses the object at {object:#x}, which a hook converts"))
        })
}

struct Context<'a, 'd> {
    old: &'a Side<'d>,
    new: &'a Side<'d>,
    matching: &'a Matching,
    bindings: &'a Bindings,
    explained: BTreeSet<u64>,
}

impl Context<'_, '_> {
    /// Judges a function whose body is equal and whose references differ.
    fn with_equal_body(&self, f: usize, g: usize, differences: &[(u64, What)]) -> (Class, Vec<String>) {
        let start = self.old.functions.get(f).map_or(0, |function| function.start);
        let mut class = Class::LineNumbers;
        let mut why = vec![];
        for (at, what) in differences {
            let mut texts = self
                .old
                .bodies
                .refs(f)
                .iter()
                .zip(self.new.bodies.refs(g))
                .filter(|(a, _)| start + u64::from(a.at) == *at)
                .map(|(a, b)| self.text_difference(a.target, b.target));
            let found = if *what == What::Constant { texts.find(Option::is_some).flatten() } else { None };
            class = class.max(found.unwrap_or(Class::Body));
            match (found, what) {
                (Some(_), _) => {}
                (None, What::Function) => why.push(format!("{at:#x} leads to another function")),
                (None, What::Import) => why.push(format!("{at:#x} uses another symbol")),
                (None, What::Constant) => why.push(format!("{at:#x} uses a constant that differs")),
                (None, What::Object) => why.push(format!("{at:#x} uses another object")),
                (None, What::Exceptions) => {
                    why.push("it catches other exceptions, or they are not understood".to_owned())
                }
                (None, What::Kind | What::Unknown) => why.push(format!("{at:#x} uses something else")),
            }
        }
        (class, why)
    }

    /// Says whether two addresses in tables lead to the same code or the same text.
    fn same_place(&self, old: u64, new: u64) -> bool {
        match (self.old.resolve(old).target, self.new.resolve(new).target) {
            (old @ Target::Code(..), new @ Target::Code(..)) => self.matching.corresponds(old, new),
            (Target::Constant(a), Target::Constant(b)) => {
                self.old.text_at(a).is_some_and(|text| Some(text) == self.new.text_at(b))
            }
            (Target::Object(a), Target::Object(b)) => self.bindings.old.get(&a).is_some_and(|bound| bound.new == b),
            _ => false,
        }
    }

    fn text_difference(&self, old: u64, new: u64) -> Option<Class> {
        let (old, new) = (self.old.text_at(old)?, self.new.text_at(new)?);
        if old == new {
            return None;
        }
        Some(if texts::differ_in_lines(old, new) { Class::LineNumbers } else { Class::Texts })
    }

    fn with_other_body(&self, pair: (usize, usize), alignment: &Alignment) -> (Class, Vec<String>) {
        let (before, after) = (alignment.old.len(), alignment.new.len());
        let beside = alignment.pairs.len();
        if before == beside && after == beside {
            let mut class = Class::LineNumbers;
            for beside in &alignment.pairs {
                class = class.max(self.line_difference(pair, alignment, beside.old, beside.new));
            }
            if !class.is_change() {
                return (class, vec![]);
            }
        }
        let mut why = vec![format!("{before} instructions before, {after} now, {beside} beside each other")];
        let (old, new) = (layout::arguments(&alignment.old), layout::arguments(&alignment.new));
        if new.difference(&old).next().is_some() || (old.len() > new.len() && new.len() + 1 < old.len()) {
            let list = |registers: &BTreeSet<&str>| registers.iter().copied().collect::<Vec<_>>().join(", ");
            why.push(format!("it reads {} at its start, and read {}", list(&new), list(&old)));
            return (Class::Signature, why);
        }
        (Class::Body, why)
    }

    /// Says in what two instructions that stand beside each other differ.
    fn line_difference(&self, (f, g): (usize, usize), alignment: &Alignment, i: usize, j: usize) -> Class {
        let (Some(a), Some(b)) = (alignment.old.get(i), alignment.new.get(j)) else { return Class::Body };
        let mut class = Class::Unchanged;
        for (x, y) in a.refs.iter().zip(&b.refs) {
            let (left, right) = (self.old.resolve(x.target), self.new.resolve(y.target));
            let same = left.through_slot == right.through_slot
                && match (left.target, right.target) {
                    (Target::Object(x), Target::Object(y)) => {
                        self.bindings.old.get(&x).is_some_and(|bound| bound.new == y)
                    }
                    (Target::Code(..), Target::Code(..)) => self.matching.corresponds(left.target, right.target),
                    (Target::Constant(p), Target::Constant(q)) => {
                        self.old.text_at(p).is_some_and(|text| Some(text) == self.new.text_at(q))
                            || constants::compare((self.old, f, p), (self.new, g, q), x.way)
                                .is_some_and(|places| places.iter().all(|(x, y)| self.same_place(*x, *y)))
                    }
                    (Target::Unknown(_) | Target::StrayCode(_), _) => false,
                    (left, right) => left == right,
                };
            if !same {
                class = class.max(self.text_difference(x.target, y.target).unwrap_or(Class::Body));
            }
        }
        if !a.refs.is_empty() {
            return class;
        }
        if a.exact != b.exact {
            let explained = self.explained.contains(&a.instruction.ip());
            class = class.max(if explained { Class::LineNumbers } else { Class::Body });
        }
        // Jumps must lead to instructions that stand beside each other.
        let target = |lines: &[crate::align::Line], index: usize| {
            let instruction = &lines.get(index)?.instruction;
            let place = instruction.near_branch_target();
            if place == 0 {
                return None;
            }
            lines.binary_search_by_key(&place, |line| line.instruction.ip()).ok()
        };
        if target(&alignment.old, i) != target(&alignment.new, j) {
            class = class.max(Class::Body);
        }
        class
    }
}
