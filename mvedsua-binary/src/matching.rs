//! Finds which function of the new file is which of the old one.
//!
//! In this order, each step until nothing more is found, and back to the first after every find: functions of the
//! same name; equal bodies that occur once on either side; what two matched functions with equal bodies call, or
//! point to through tables; equal bodies between two matched neighbours; functions that are alike between two matched
//! neighbours; what matched functions with other bodies call at instructions that stand beside each other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::align::{self, Line, Pair};
use crate::constants;
use crate::image::{Kind, SymbolKind, Written, words};
use crate::side::{Side, Target};

/// Why two functions were taken for versions of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatchedBy {
    Name,
    /// Its body occurs once in either file.
    Body,
    /// Matched functions or data with equal bodies refer to it at the same place.
    Reference,
    /// It has an equal body and stands between matched functions.
    Place,
    /// It is alike and stands between matched functions.
    Likeness,
    /// Matched functions call it at instructions that stand beside each other.
    Alignment,
}

/// One matched function of the old file.
#[derive(Clone, Copy, Debug)]
pub struct Match {
    pub new: usize,
    pub by: MatchedBy,
    /// The bodies are equal, apart from what they refer to.
    pub equal: bool,
}

/// Which function is which.
#[derive(Debug)]
pub struct Matching {
    /// For each old function.
    pub old: Vec<Option<Match>>,
    /// For each new function the old one.
    pub new: Vec<Option<usize>>,
    /// The instructions of changed functions beside each other, by the old function.
    pub alignments: BTreeMap<usize, Alignment>,
}

/// Two versions of a function beside each other.
#[derive(Debug)]
pub struct Alignment {
    pub old: Vec<Line>,
    pub new: Vec<Line>,
    pub pairs: Vec<Pair>,
}

impl Matching {
    /// Says whether two addresses of code are the same place.
    #[must_use]
    pub fn corresponds(&self, old: Target<'_>, new: Target<'_>) -> bool {
        match (old, new) {
            (Target::Code(f, at), Target::Code(g, to)) => {
                at == to && self.old.get(f as usize).copied().flatten().is_some_and(|found| found.new == g as usize)
            }
            _ => false,
        }
    }
}

/// Functions shorter than this are not matched by their body alone: many are equal by chance.
const LEAST_UNIQUE: usize = 16;
/// How alike, in per cent, two functions must be that stand alone between the same two neighbours.
const LEAST_ALONE: u32 = 30;
/// The most functions between two matched ones that are compared with each other.
const LONGEST_RUN: usize = 300;

/// Matches the functions of two files.
#[must_use]
pub fn run(old: &Side<'_>, new: &Side<'_>) -> Matching {
    let mut matcher = Matcher {
        old,
        new,
        found: Matching {
            old: vec![None; old.functions.len()],
            new: vec![None; new.functions.len()],
            alignments: BTreeMap::new(),
        },
        functions: vec![],
        objects: vec![],
        seen: HashSet::new(),
        by_code: Both::default(),
        looked_into: HashSet::new(),
    };
    matcher.by_name();
    matcher.by_body();
    loop {
        matcher.follow();
        if !(matcher.by_place() || matcher.by_likeness() || matcher.by_alignment()) {
            break;
        }
    }
    matcher.found
}

/// Who says that two things are the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    /// Operands at the same place of equal bodies.
    ByCode,
    /// Pointers at the same place of two tables.
    ByTable,
}

/// Pairs of addresses, to be found by either.
#[derive(Default)]
struct Both {
    old: HashMap<u64, u64>,
    new: HashMap<u64, u64>,
}

/// What is known of two pointers that stand at the same place of two tables.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// They lead to the same thing.
    Agrees,
    /// One of them leads to what is something else in the other file.
    Contradicts,
    Nothing,
}

struct Matcher<'a, 'd> {
    old: &'a Side<'d>,
    new: &'a Side<'d>,
    found: Matching,
    /// Pairs whose references were not followed yet.
    functions: Vec<(usize, usize)>,
    /// Pairs of objects whose pointers were not followed yet.
    objects: Vec<(u64, u64)>,
    /// Pairs of objects that were followed, or will be.
    seen: HashSet<(u64, u64)>,
    /// Objects of which code says which one is which.
    by_code: Both,
    /// Changed functions whose calls were looked at.
    looked_into: HashSet<usize>,
}

impl Matcher<'_, '_> {
    fn propose(&mut self, old: usize, new: usize, by: MatchedBy) -> bool {
        let (Some(left @ None), Some(right @ None)) = (self.found.old.get_mut(old), self.found.new.get_mut(new)) else {
            return false;
        };
        let equal = self.old.bodies.equal(old, &self.new.bodies, new);
        *left = Some(Match { new, by, equal });
        *right = Some(old);
        self.functions.push((old, new));
        true
    }

    /// Says whether the names of two functions do not speak against a match.
    fn names_agree(&self, old: usize, new: usize) -> bool {
        let name = |side: &Side<'_>, index: usize| side.functions.get(index).and_then(|f| f.name.map(str::to_owned));
        name(self.old, old) == name(self.new, new)
    }

    fn by_name(&mut self) {
        let names = |side: &Side<'_>| {
            let mut names: BTreeMap<String, Option<usize>> = BTreeMap::new();
            for (index, function) in side.functions.iter().enumerate() {
                if let Some(name) = function.name {
                    names.entry(name.to_owned()).and_modify(|place| *place = None).or_insert(Some(index));
                }
            }
            names
        };
        let new = names(self.new);
        for (name, old) in names(self.old) {
            if let (Some(old), Some(Some(new))) = (old, new.get(&name)) {
                self.propose(old, *new, MatchedBy::Name);
            }
        }
    }

    fn by_body(&mut self) {
        let once = |side: &Side<'_>, taken: &dyn Fn(usize) -> bool| {
            let mut places: BTreeMap<u64, Option<usize>> = BTreeMap::new();
            for (index, function) in side.functions.iter().enumerate() {
                if function.len() >= LEAST_UNIQUE && !taken(index) {
                    places.entry(side.rich_hash(index)).and_modify(|place| *place = None).or_insert(Some(index));
                }
            }
            places
        };
        let old = once(self.old, &|index| self.found.old.get(index).copied().flatten().is_some());
        let new = once(self.new, &|index| self.found.new.get(index).copied().flatten().is_some());
        for (hash, old) in old {
            if let (Some(old), Some(Some(new))) = (old, new.get(&hash))
                && self.names_agree(old, *new)
            {
                self.propose(old, *new, MatchedBy::Body);
            }
        }
    }

    /// Follows the references of matched functions with equal bodies, and the pointers of objects.
    fn follow(&mut self) {
        loop {
            if let Some((f, g)) = self.functions.pop() {
                if !self.old.bodies.equal(f, &self.new.bodies, g) {
                    continue;
                }
                for (a, b) in self.old.bodies.refs(f).iter().zip(self.new.bodies.refs(g)) {
                    let (x, y) = (self.old.resolve(a.target), self.new.resolve(b.target));
                    if let (Target::Constant(x), Target::Constant(y)) = (x.target, y.target) {
                        let places = constants::compare((self.old, f, x), (self.new, g, y), a.way);
                        for (x, y) in places.unwrap_or_default() {
                            self.same(self.old.resolve(x).target, self.new.resolve(y).target, Said::ByTable);
                        }
                    } else if x.through_slot == y.through_slot {
                        self.same(x.target, y.target, Said::ByCode);
                    }
                }
            } else if let Some((a, b)) = self.objects.pop() {
                let extent = self.old.object_extent(a).min(self.new.object_extent(b));
                let pairs = pointers(self.old, self.new, a, b, extent);
                let pairs: Vec<_> =
                    pairs.into_iter().map(|(x, y)| (self.old.pointee(x), self.new.pointee(y))).collect();
                for (x, y) in self.unshifted(&pairs) {
                    self.same(x, y, Said::ByTable);
                }
            } else {
                return;
            }
        }
    }

    /// Returns the pairs of pointers of two tables that may lead to the same things.
    ///
    /// An entry that came or went shifts those behind it, and what they lead to may look alike. Where it is known of one pair that
    /// it does not lead to the same thing, only what stands between two pairs that do is believed.
    fn unshifted<'t>(&self, pairs: &[(Target<'t>, Target<'t>)]) -> Vec<(Target<'t>, Target<'t>)> {
        let known: Vec<Known> = pairs.iter().map(|(x, y)| self.known(*x, *y)).collect();
        if !known.contains(&Known::Contradicts) {
            return pairs.to_vec();
        }
        // The nearest pair of which something is known, before each and behind it; the tables begin at the same entry.
        let before = known.iter().scan(Known::Agrees, |last, one| {
            if *one != Known::Nothing {
                *last = *one;
            }
            Some(*last)
        });
        let mut behind = Known::Nothing;
        let mut agrees: Vec<bool> = known
            .iter()
            .rev()
            .map(|one| {
                if *one != Known::Nothing {
                    behind = *one;
                }
                behind == Known::Agrees
            })
            .collect();
        agrees.reverse();
        let believed = before.zip(agrees).map(|(before, behind)| before == Known::Agrees && behind);
        pairs.iter().zip(believed).filter(|(_, believed)| *believed).map(|(pair, _)| *pair).collect()
    }

    /// Says what is known of two things.
    fn known(&self, old: Target<'_>, new: Target<'_>) -> Known {
        let compare = |forth: Option<bool>, back: Option<bool>| match (forth, back) {
            (Some(false), _) | (_, Some(false)) => Known::Contradicts,
            (Some(true), _) | (_, Some(true)) => Known::Agrees,
            (None, None) => Known::Nothing,
        };
        match (old, new) {
            (Target::Code(f, _), Target::Code(g, _)) => {
                let (f, g) = (f as usize, g as usize);
                let forth = self.found.old.get(f).copied().flatten().map(|found| found.new == g);
                compare(forth, self.found.new.get(g).copied().flatten().map(|found| found == f))
            }
            (Target::Object(a), Target::Object(b)) => {
                let names = |side: &Side<'_>, address: u64| -> BTreeSet<String> {
                    let symbols = side.image.symbols_at(address).filter(|symbol| symbol.kind == SymbolKind::Object);
                    symbols.map(|symbol| symbol.name.to_owned()).collect()
                };
                let (before, after) = (names(self.old, a), names(self.new, b));
                if !before.is_empty() && !after.is_empty() {
                    return if before.is_disjoint(&after) { Known::Contradicts } else { Known::Agrees };
                }
                let forth = self.by_code.old.get(&a).map(|known| *known == b);
                compare(forth, self.by_code.new.get(&b).map(|known| *known == a))
            }
            _ => Known::Nothing,
        }
    }

    /// Takes note that two things that matched code refers to are probably the same.
    fn same(&mut self, old: Target<'_>, new: Target<'_>, said: Said) {
        match (old, new) {
            (Target::Code(f, at), Target::Code(g, to)) if at == to && self.names_agree(f as usize, g as usize) => {
                let (f, g) = (f as usize, g as usize);
                let free = self.found.old.get(f).is_some_and(Option::is_none)
                    && self.found.new.get(g).is_some_and(Option::is_none);
                // An entry that was inserted into a table shifts those behind it.
                if free && (said == Said::ByCode || (self.alike(f, g) && !self.are_parted(f, g))) {
                    self.propose(f, g, MatchedBy::Reference);
                }
            }
            (Target::Object(a), Target::Object(b)) => {
                if said == Said::ByCode {
                    self.by_code.old.entry(a).or_insert(b);
                    self.by_code.new.entry(b).or_insert(a);
                }
                if self.seen.insert((a, b)) {
                    self.objects.push((a, b));
                }
            }
            (Target::Resolved(a), Target::Resolved(b)) => self.same(self.old.code(a), self.new.code(b), said),
            _ => {}
        }
    }

    /// Returns the stretches of functions without a match between two neighbours that have one.
    fn runs(&self) -> Vec<(std::ops::Range<usize>, std::ops::Range<usize>)> {
        let mut runs = vec![];
        let (mut from_old, mut from_new) = (0, Some(0));
        let ends = self.found.old.iter().enumerate().filter_map(|(index, found)| Some((index, found.as_ref()?.new)));
        for (old, new) in ends.chain([(self.old.functions.len(), self.new.functions.len())]) {
            let free = from_new.filter(|from| *from < new && old > from_old).map(|from| from..new);
            if let Some(range) = free
                && self.found.new.get(range.clone()).is_some_and(|run| run.iter().all(Option::is_none))
                && range.len() <= LONGEST_RUN
                && old - from_old <= LONGEST_RUN
            {
                runs.push((from_old..old, range));
            }
            (from_old, from_new) = (old + 1, Some(new + 1));
        }
        runs
    }

    fn by_place(&mut self) -> bool {
        let mut any = false;
        for (old, new) in self.runs() {
            let mut counts: HashMap<u64, (usize, usize)> = HashMap::new();
            let hash = |side: &Side<'_>, index| side.bodies.get(index).map_or(0, |body| body.hash);
            for index in old.clone() {
                counts.entry(hash(self.old, index)).or_default().0 += 1;
            }
            for index in new.clone() {
                counts.entry(hash(self.new, index)).or_default().1 += 1;
            }
            // Equal bodies stand for each other in order where there are as many before as after.
            let mut pairs = vec![];
            for (hash_of_body, _) in counts.iter().filter(|(_, (before, after))| before == after) {
                let before = old.clone().filter(|index| hash(self.old, *index) == *hash_of_body);
                let after = new.clone().filter(|index| hash(self.new, *index) == *hash_of_body);
                let both: Vec<_> = before.zip(after).collect();
                // Where several look alike what they refer to tells them apart.
                let is_alone = both.len() == 1;
                pairs.extend(both.into_iter().filter(|(f, g)| is_alone || !self.are_parted(*f, *g)));
            }
            pairs.sort_unstable();
            for (f, g) in align::rising(&pairs) {
                any |= self.names_agree(f, g) && self.propose(f, g, MatchedBy::Place);
            }
        }
        any
    }

    fn by_likeness(&mut self) -> bool {
        let mut any = false;
        for (old, new) in self.runs() {
            let left: Vec<_> = old.clone().map(|index| align::listing(self.old, index)).collect();
            let right: Vec<_> = new.clone().map(|index| align::listing(self.new, index)).collect();
            let mut best: Vec<(bool, u32, usize, usize)> = vec![];
            for (f, a) in old.clone().zip(&left) {
                for (g, b) in new.clone().zip(&right) {
                    let likely = a.len().min(b.len()) * 4 >= a.len().max(b.len());
                    // One function between two neighbours is hardly another one.
                    let alone = old.len() == 1 && new.len() == 1 && align::likeness(a, b) >= LEAST_ALONE;
                    if likely && self.names_agree(f, g) && (alone || align::are_alike(a, b)) {
                        best.push((self.are_parted(f, g), align::likeness(a, b), f, g));
                    }
                }
            }
            // The most alike first; of equals those that stand first. What refers to other things comes last.
            best.sort_by_key(|(are_parted, likeness, f, g)| (*are_parted, std::cmp::Reverse(*likeness), *f, *g));
            for (_, _, f, g) in best {
                any |= self.propose(f, g, MatchedBy::Likeness);
            }
        }
        any
    }

    fn by_alignment(&mut self) -> bool {
        let mut any = false;
        for f in 0..self.old.functions.len() {
            let Some(Match { new: g, equal: false, .. }) = self.found.old.get(f).copied().flatten() else { continue };
            if !self.looked_into.insert(f) {
                continue;
            }
            let (left, right) = (align::listing(self.old, f), align::listing(self.new, g));
            let pairs = align::align(&left, &right);
            for pair in &pairs {
                let refs =
                    |lines: &[Line], index: usize| lines.get(index).map(|line| line.refs.clone()).unwrap_or_default();
                for (a, b) in refs(&left, pair.old).iter().zip(&refs(&right, pair.new)) {
                    let (x, y) = (self.old.resolve(a.target).target, self.new.resolve(b.target).target);
                    if let (Target::Code(x, 0), Target::Code(y, 0)) = (x, y)
                        && self.names_agree(x as usize, y as usize)
                        && self.alike(x as usize, y as usize)
                    {
                        any |= self.propose(x as usize, y as usize, MatchedBy::Alignment);
                    }
                }
            }
            self.found.alignments.insert(f, Alignment { old: left, new: right, pairs });
        }
        any
    }

    /// Says whether two functions with equal bodies refer to things of which it is known that they are not the same.
    fn are_parted(&self, f: usize, g: usize) -> bool {
        let refs = self.old.bodies.refs(f).iter().zip(self.new.bodies.refs(g));
        self.old.bodies.equal(f, &self.new.bodies, g)
            && refs.into_iter().any(|(a, b)| {
                let (x, y) = (self.old.resolve(a.target).target, self.new.resolve(b.target).target);
                self.known(x, y) == Known::Contradicts
            })
    }

    fn alike(&self, f: usize, g: usize) -> bool {
        self.old.bodies.equal(f, &self.new.bodies, g)
            || align::are_alike(&align::listing(self.old, f), &align::listing(self.new, g))
    }
}

/// Returns what stands at the same places of two objects where both hold pointers.
pub(crate) fn pointers<'d>(
    old: &Side<'d>,
    new: &Side<'d>,
    a: u64,
    b: u64,
    extent: u64,
) -> Vec<(Written<'d>, Written<'d>)> {
    let end = a.saturating_add(extent);
    if old.image.kind == Kind::Fixed {
        let places = words(a..end.saturating_add(7)).take(1 << 17);
        return places
            .filter_map(|place| Some((old.image.pointer_at(place)?, new.image.pointer_at(b + (place - a))?)))
            .collect();
    }
    old.image
        .relocations_in(a..end)
        .iter()
        .filter_map(|relocation| Some((relocation.written, new.image.written_at(b + (relocation.place - a))?)))
        .collect()
}
