//! Numbers that a function passes to others, and what they are.
//!
//! A number that changed may be a size, and then a structure changed, or the number of a source line, and then nothing did.
//! It is a line number if the same function is called, it gets the name of the same source file too, and it gets numbers that
//! moved in the same order in several places.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};

use crate::align::{Line, is_immediate};
use crate::normalise::Way;
use crate::side::{Side, Target};

/// Whom a function calls.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Callee {
    Import(String),
    /// A function, by its index in the new file.
    Function(usize),
}

/// One number that is passed in one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    pub callee: Callee,
    /// Which argument: 0 to 5 in registers, from 6 on the stack.
    pub argument: u8,
    pub value: u64,
    /// The name of a source file that is passed too.
    pub file: Option<String>,
    /// The instruction that holds the number.
    pub at: u64,
}

const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

#[derive(Clone, Debug, Default)]
struct State {
    /// Numbers in the argument registers, then on the stack: the value, and the instruction it is from.
    numbers: BTreeMap<u8, (u64, u64)>,
    files: BTreeMap<u8, String>,
}

/// Returns the numbers that a function passes in its calls. `translate` gives the index in the new file for a function.
pub fn passed(side: &Side<'_>, lines: &[Line], translate: &dyn Fn(usize) -> Option<usize>) -> Vec<Passed> {
    let places: BTreeMap<u64, usize> =
        lines.iter().enumerate().map(|(index, line)| (line.instruction.ip(), index)).collect();
    let mut found = vec![];
    let mut state = State::default();
    for line in lines {
        let jump = line.instruction.flow_control() == FlowControl::UnconditionalBranch;
        if jump && line.refs.is_empty() && line.instruction.op0_kind() == OpKind::NearBranch64 {
            // Several paths share the call behind the jump.
            let mut ahead = std::mem::take(&mut state);
            let from = places.get(&line.instruction.near_branch_target()).copied().unwrap_or(lines.len());
            for line in lines.iter().skip(from).take(12) {
                if step(side, line, &mut ahead, translate, &mut found) == Flow::Ends {
                    break;
                }
            }
            continue;
        }
        step(side, line, &mut state, translate, &mut found);
    }
    found.sort_by(|a, b| (a.at, &a.callee, a.argument).cmp(&(b.at, &b.callee, b.argument)));
    found.dedup();
    found
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Goes,
    Ends,
}

fn step(
    side: &Side<'_>,
    line: &Line,
    state: &mut State,
    translate: &dyn Fn(usize) -> Option<usize>,
    found: &mut Vec<Passed>,
) -> Flow {
    let instruction = &line.instruction;
    let calls = line.refs.iter().find(|reference| matches!(reference.way, Way::Call | Way::Jump));
    if let Some(reference) = calls {
        let callee = match side.resolve(reference.target).target {
            Target::Import(name, _) => Some(Callee::Import(name.to_owned())),
            Target::Code(index, 0) => translate(index as usize).map(Callee::Function),
            _ => None,
        };
        if let Some(callee) = callee {
            tell(state, &callee, found);
        }
    }
    match instruction.flow_control() {
        FlowControl::Next => {}
        FlowControl::ConditionalBranch => return Flow::Goes,
        _ => {
            // Through slots too: what a call leaves in the registers is not known.
            if let Some(reference) = line.refs.first().filter(|_| calls.is_none())
                && let Target::Import(name, _) = side.resolve(reference.target).target
            {
                tell(state, &Callee::Import(name.to_owned()), found);
            }
            *state = State::default();
            return Flow::Ends;
        }
    }
    if let Some(argument) = argument_on_stack(instruction) {
        let index = instruction.op_count() - 1;
        if is_immediate(instruction.op_kind(index)) && line.refs.is_empty() {
            state.numbers.insert(argument, (instruction.immediate(index), instruction.ip()));
        }
        return Flow::Goes;
    }
    let Some(argument) = written(instruction) else { return Flow::Goes };
    state.numbers.remove(&argument);
    state.files.remove(&argument);
    match instruction.mnemonic() {
        Mnemonic::Mov if is_immediate(instruction.op1_kind()) && line.refs.is_empty() => {
            state.numbers.insert(argument, (instruction.immediate(1), instruction.ip()));
        }
        Mnemonic::Lea | Mnemonic::Mov => {
            let text = line.refs.first().and_then(|reference| side.text_at(reference.target));
            if let Some(text) = text.filter(|text| is_source_file(text)) {
                state.files.insert(argument, text.to_owned());
            }
        }
        _ => {}
    }
    Flow::Goes
}

fn tell(state: &State, callee: &Callee, found: &mut Vec<Passed>) {
    for (argument, (value, at)) in &state.numbers {
        found.push(Passed {
            callee: callee.clone(),
            argument: *argument,
            value: *value,
            file: state.files.values().next().cloned(),
            at: *at,
        });
    }
}

fn written(instruction: &Instruction) -> Option<u8> {
    if instruction.op0_kind() != OpKind::Register || matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Push) {
        return None;
    }
    let register = instruction.op0_register().full_register();
    ARGUMENTS.iter().position(|argument| *argument == register).and_then(|index| u8::try_from(index).ok())
}

fn argument_on_stack(instruction: &Instruction) -> Option<u8> {
    if instruction.mnemonic() == Mnemonic::Push {
        return Some(6);
    }
    let stores = instruction.mnemonic() == Mnemonic::Mov
        && instruction.op0_kind() == OpKind::Memory
        && instruction.memory_base() == Register::RSP
        && instruction.memory_index() == Register::None
        && instruction.memory_displacement64() < 128;
    stores.then(|| u8::try_from(7 + instruction.memory_displacement64() / 8).unwrap_or(u8::MAX))
}

/// Says whether a text is the name of a source file.
#[must_use]
pub fn is_source_file(text: &str) -> bool {
    let ending = text.rsplit_once('.').map(|(_, ending)| ending);
    ending.is_some_and(is_source_ending) && !text.contains([' ', '%', '\n'])
}

fn is_source_ending(ending: &str) -> bool {
    matches!(ending, "c" | "h" | "cc" | "hh" | "cpp" | "hpp" | "cxx" | "C" | "inc" | "ipp" | "l" | "y" | "rl" | "tcc" | "rs")
}

/// Says whether two texts are equal apart from line numbers behind the names of source files (`src/stream.c:1234`).
#[must_use]
pub fn differ_in_lines(old: &str, new: &str) -> bool {
    without_lines(old).is_some_and(|text| Some(text) == without_lines(new))
}

fn without_lines(text: &str) -> Option<String> {
    let (mut kept, mut rest, mut any) = (String::new(), text, false);
    while let Some((before, after)) = rest.split_once(':') {
        kept.push_str(before);
        kept.push(':');
        let ending = kept.trim_end_matches(':').rsplit('.').next().unwrap_or("");
        rest = after;
        if is_source_ending(ending) {
            let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            any |= digits > 0;
            rest = after.get(digits..).unwrap_or("");
        }
    }
    kept.push_str(rest);
    any.then_some(kept)
}

/// A number that the new version of a function passes instead of another.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ChangedNumber {
    /// The function of the old file, by index.
    #[serde(skip)]
    pub function: usize,
    #[serde(skip)]
    pub callee: Callee,
    pub argument: u8,
    pub old: u64,
    pub new: u64,
    /// The instructions that hold the numbers.
    pub old_at: u64,
    pub new_at: u64,
    /// The name of a source file that is passed too.
    pub file: Option<String>,
}

/// Returns the numbers that two versions of a function pass to the same function as the same argument and that differ.
#[must_use]
pub fn changed(function: usize, old: &[Passed], new: &[Passed]) -> Vec<ChangedNumber> {
    type Key = (Callee, u8, Option<String>);
    let group = |passed: &[Passed]| {
        let mut groups: BTreeMap<Key, Vec<(u64, u64)>> = BTreeMap::new();
        for one in passed {
            let key = (one.callee.clone(), one.argument, one.file.clone());
            groups.entry(key).or_default().push((one.value, one.at));
        }
        groups
    };
    let (old, mut new) = (group(old), group(new));
    let mut changes = vec![];
    for ((callee, argument, file), mut before) in old {
        let Some(mut after) = new.remove(&(callee.clone(), argument, file.clone())) else { continue };
        // What is passed in both versions is no change, in whatever order.
        before.retain(|(value, _)| match after.iter().position(|(other, _)| other == value) {
            Some(index) => {
                after.remove(index);
                false
            }
            None => true,
        });
        if file.is_some() {
            before.sort_unstable();
            after.sort_unstable();
            if before.len() != after.len() {
                keep_commonest_move(&mut before, &mut after);
            }
        }
        changes.extend(before.into_iter().zip(after).map(|((old, old_at), (new, new_at))| ChangedNumber {
            function,
            callee: callee.clone(),
            argument,
            old,
            new,
            old_at,
            new_at,
            file: file.clone(),
        }));
    }
    changes
}

/// Leaves those line numbers that moved by what most moved; the others have come or gone.
fn keep_commonest_move(before: &mut Vec<(u64, u64)>, after: &mut Vec<(u64, u64)>) {
    let mut moves: BTreeMap<u64, u32> = BTreeMap::new();
    for (old, _) in before.iter() {
        for (new, _) in after.iter() {
            *moves.entry(new.wrapping_sub(*old)).or_default() += 1;
        }
    }
    let Some((by, _)) = moves.into_iter().max_by_key(|(by, count)| (*count, std::cmp::Reverse(*by))) else { return };
    before.retain(|(old, _)| after.iter().any(|(new, _)| *new == old.wrapping_add(by)));
    after.retain(|(new, _)| before.iter().any(|(old, _)| *new == old.wrapping_add(by)));
    before.dedup_by_key(|(old, _)| *old);
    after.dedup_by_key(|(new, _)| *new);
}

/// The largest distance, in lines, by which a patch is believed to move code.
const FARTHEST: u64 = 5000;

/// Splits changed numbers into line numbers and others.
#[must_use]
pub fn lines(changes: Vec<ChangedNumber>) -> (Vec<ChangedNumber>, Vec<ChangedNumber>) {
    // Arguments that are line numbers: they come with the name of a source file in several places.
    let mut places: BTreeMap<(Callee, u8), BTreeSet<(u64, u64)>> = BTreeMap::new();
    let mut files: BTreeMap<(String, Callee, u8), BTreeSet<(u64, u64)>> = BTreeMap::new();
    for change in &changes {
        let Some(file) = &change.file else { continue };
        places.entry((change.callee.clone(), change.argument)).or_default().insert((change.old, change.new));
        let key = (file.clone(), change.callee.clone(), change.argument);
        files.entry(key).or_default().insert((change.old, change.new));
    }
    let several = |change: &ChangedNumber| {
        places.get(&(change.callee.clone(), change.argument)).is_some_and(|places| places.len() >= 2)
    };
    let ordered = |change: &ChangedNumber| {
        let Some(file) = &change.file else { return false };
        let Some(moves) = files.get(&(file.clone(), change.callee.clone(), change.argument)) else { return false };
        let moves: Vec<_> = moves.iter().collect();
        moves.windows(2).all(|pair| matches!(pair, [(a, x), (b, y)] if a < b && x < y))
    };
    let near = |change: &ChangedNumber| {
        change.old.abs_diff(change.new) <= FARTHEST && change.old < 1_000_000 && change.old > 0
    };
    changes.into_iter().partition(|change| several(change) && ordered(change) && near(change))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(callee: &str, file: &str, old: u64, new: u64) -> ChangedNumber {
        let callee = Callee::Import(callee.to_owned());
        let file = (!file.is_empty()).then(|| file.to_owned());
        ChangedNumber { function: 0, callee, argument: 2, old, new, old_at: 0, new_at: 0, file }
    }

    #[test]
    fn lines_move_together() {
        let (lines, others) = lines(vec![
            change("fail", "a.c", 10, 13),
            change("fail", "a.c", 50, 53),
            change("malloc", "", 24, 32),
        ]);
        assert_eq!(lines.len(), 2);
        assert_eq!(others, [change("malloc", "", 24, 32)]);
    }

    #[test]
    fn one_place_or_a_wrong_order_proves_nothing() {
        assert_eq!(lines(vec![change("fail", "a.c", 10, 13)]).0, []);
        let crossed = vec![change("fail", "a.c", 10, 90), change("fail", "a.c", 50, 53)];
        assert_eq!(lines(crossed).0, []);
    }

    #[test]
    fn texts_differ_in_lines_only_behind_file_names() {
        assert!(differ_in_lines("bug at src/mux_h2.c:6589\n", "bug at src/mux_h2.c:6595\n"));
        assert!(!differ_in_lines("port:6589", "port:6595"));
        assert!(!differ_in_lines("src/a.c:1", "src/b.c:1"));
        assert!(!differ_in_lines("2.6.12", "2.6.13"));
    }

    #[test]
    fn names_of_source_files_end_like_that() {
        assert!(is_source_file("src/t_zset.c") && is_source_file("../crypto/x509/v3_san.c"));
        assert!(!is_source_file("%s.c") && !is_source_file("libssl.so") && !is_source_file("a sentence.c"));
    }
}
