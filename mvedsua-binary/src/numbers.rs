//! Numbers that a function passes to others, and what they are.
//!
//! A number that changed may be a size, and then a structure changed, or the number of a source line, and then
//! nothing did. It is a line number if the same function is called, it gets the name of the same source file too, and
//! it gets numbers that moved in the same order in several places.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};

use crate::align::{Line, is_immediate};
use crate::normalise::Way;
use crate::side::{Side, Target};
use crate::texts::is_source_file;

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
    /// Which argument: 0 to 5 in registers, 6 on the stack.
    pub argument: u8,
    pub value: u64,
    /// The name of a source file that is passed too.
    pub file: Option<String>,
    /// The argument before this one is that name.
    pub behind_file: bool,
    /// The instruction that holds the number.
    pub at: u64,
}

const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// Stands for all arguments that are pushed.
const ON_STACK: u8 = 6;

#[derive(Clone, Debug, Default)]
struct State {
    /// Numbers in the argument registers, then on the stack: the value, and the instruction it is from.
    numbers: BTreeMap<u8, (u64, u64)>,
    /// Names of source files in registers, by the register's number.
    files: BTreeMap<u32, String>,
}

impl State {
    /// Forgets what a call, or a jump from elsewhere, may have overwritten.
    fn forget(&mut self) {
        const KEPT: [Register; 6] =
            [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15];
        self.numbers.clear();
        self.files.retain(|register, _| KEPT.iter().any(|kept| *kept as u32 == *register));
    }
}

/// Returns the numbers that a function passes in its calls. `translate` gives the index in the new file for a function.
pub fn passed(side: &Side<'_>, lines: &[Line], translate: &dyn Fn(usize) -> Option<usize>) -> Vec<Passed> {
    let places: BTreeMap<u64, usize> =
        lines.iter().enumerate().map(|(index, line)| (line.instruction.ip(), index)).collect();
    let mut found = vec![];
    let mut state = State::default();
    for line in lines {
        let flow = line.instruction.flow_control();
        let jump = matches!(flow, FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch);
        if jump
            && line.refs.is_empty()
            && line.instruction.op0_kind() == OpKind::NearBranch64
            && !state.numbers.is_empty()
        {
            // Several paths share the call behind the jump.
            let mut ahead = state.clone();
            if flow == FlowControl::UnconditionalBranch {
                state.forget();
            }
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
            state.forget();
            return Flow::Ends;
        }
    }
    if instruction.mnemonic() == Mnemonic::Push {
        if is_immediate(instruction.op0_kind()) && line.refs.is_empty() {
            state.numbers.insert(ON_STACK, (instruction.immediate(0), instruction.ip()));
        }
        return Flow::Goes;
    }
    let Some(register) = written(instruction) else { return Flow::Goes };
    let argument =
        ARGUMENTS.iter().position(|argument| *argument == register).and_then(|index| u8::try_from(index).ok());
    if let Some(argument) = argument {
        state.numbers.remove(&argument);
        if instruction.mnemonic() == Mnemonic::Mov && is_immediate(instruction.op1_kind()) && line.refs.is_empty() {
            state.numbers.insert(argument, (instruction.immediate(1), instruction.ip()));
        }
    }
    let file = match (instruction.mnemonic(), line.refs.first()) {
        (Mnemonic::Lea | Mnemonic::Mov, Some(reference)) => {
            side.text_at(reference.target).filter(|text| is_source_file(text)).map(str::to_owned)
        }
        (Mnemonic::Mov, None) if instruction.op1_kind() == OpKind::Register => {
            state.files.get(&(instruction.op1_register().full_register() as u32)).cloned()
        }
        _ => None,
    };
    match file {
        Some(file) => state.files.insert(register as u32, file),
        None => state.files.remove(&(register as u32)),
    };
    Flow::Goes
}

fn tell(state: &State, callee: &Callee, found: &mut Vec<Passed>) {
    let file_in = |argument: &Register| state.files.get(&(*argument as u32));
    let file = ARGUMENTS.iter().find_map(file_in);
    for (argument, (value, at)) in &state.numbers {
        found.push(Passed {
            callee: callee.clone(),
            argument: *argument,
            value: *value,
            file: file.cloned(),
            behind_file: argument
                .checked_sub(1)
                .and_then(|before| ARGUMENTS.get(usize::from(before)))
                .and_then(file_in)
                .is_some(),
            at: *at,
        });
    }
}

fn written(instruction: &Instruction) -> Option<Register> {
    if instruction.op0_kind() != OpKind::Register
        || matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Push)
    {
        return None;
    }
    Some(instruction.op0_register().full_register())
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
    /// The argument before this one is that name.
    pub behind_file: bool,
}

/// Returns the numbers that two versions of a function pass to the same function as the same argument and that differ.
#[must_use]
pub fn changed(function: usize, old: &[Passed], new: &[Passed]) -> Vec<ChangedNumber> {
    type Key = (Callee, u8, Option<String>);
    let behind: BTreeSet<u64> = old.iter().filter(|one| one.behind_file).map(|one| one.at).collect();
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
        before.sort_unstable();
        after.sort_unstable();
        if file.is_some() && before.len() != after.len() {
            keep_commonest_move(&mut before, &mut after);
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
            behind_file: behind.contains(&old_at),
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

/// What an argument of a function is, as all calls show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It is odd as often as even, and takes many values: the number of a line, or of an error, but no size.
    Identifier,
    /// It is never large: a level or a choice.
    Choice,
}

/// What is known of arguments.
pub type Meanings = BTreeMap<(Callee, u8), Meaning>;

/// What became of the numbers that changed.
#[derive(Debug, Default)]
pub struct Judged {
    /// Numbers of source lines.
    pub lines: Vec<ChangedNumber>,
    /// Numbers of something else that is no size.
    pub others: Vec<ChangedNumber>,
    /// Numbers that may be sizes.
    pub suspects: Vec<ChangedNumber>,
}

/// Judges numbers that changed.
///
/// A number is a line number if it is passed as an argument that is an identifier, moved no farther than a patch
/// moves code, and if most of those that come with the name of the same source file moved in order.
#[must_use]
pub fn judge(changes: Vec<ChangedNumber>, meanings: &Meanings) -> Judged {
    let mut files: BTreeMap<(String, Callee, u8), BTreeSet<(usize, usize)>> = BTreeMap::new();
    let place = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    for change in &changes {
        let Some(file) = &change.file else { continue };
        let key = (file.clone(), change.callee.clone(), change.argument);
        files.entry(key).or_default().insert((place(change.old), place(change.new)));
    }
    let ordered: BTreeSet<_> = files
        .into_iter()
        .filter(|(_, moves)| {
            let moves: Vec<_> = moves.iter().copied().collect();
            crate::align::rising(&moves).len() * 10 >= moves.len() * 7
        })
        .map(|(key, _)| key)
        .collect();
    // An argument that comes with names of files is a line number in calls whose file does not show, too.
    let mut with_files: BTreeMap<(Callee, u8), u32> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.file.is_some()) {
        *with_files.entry((change.callee.clone(), change.argument)).or_default() += 1;
    }
    let mut judged = Judged::default();
    for change in changes {
        let shown = with_files.get(&(change.callee.clone(), change.argument)).is_some_and(|count| *count >= 2);
        let meaning = meanings.get(&(change.callee.clone(), change.argument));
        let known = change
            .file
            .as_ref()
            .is_none_or(|file| ordered.contains(&(file.clone(), change.callee.clone(), change.argument)));
        let near = change.old.abs_diff(change.new) <= FARTHEST && change.old < 1_000_000 && change.old > 0;
        let small = change.old <= 8 && change.new <= 8;
        match meaning {
            Some(Meaning::Identifier) if known && near && (shown || !is_memory(&change.callee)) => {
                judged.lines.push(change);
            }
            Some(Meaning::Identifier | Meaning::Choice) if !is_memory(&change.callee) => judged.others.push(change),
            _ if small => judged.others.push(change),
            _ => judged.suspects.push(change),
        }
    }
    // A number directly behind the name of a file is a line number if others of that file moved by the same distance.
    let moves: BTreeSet<(&String, u64)> =
        judged.lines.iter().filter_map(|line| Some((line.file.as_ref()?, line.new.wrapping_sub(line.old)))).collect();
    let (alike, suspects): (Vec<_>, Vec<_>) = judged.suspects.iter().cloned().partition(|change| {
        change.behind_file
            && change.file.as_ref().is_some_and(|file| moves.contains(&(file, change.new.wrapping_sub(change.old))))
    });
    judged.suspects = suspects;
    judged.lines.extend(alike);
    // One instruction may stand before several calls; what is a line number for one is none for the others.
    let explained: BTreeSet<(u64, u64)> = judged.lines.iter().map(|line| (line.old_at, line.new_at)).collect();
    judged.suspects.retain(|change| !explained.contains(&(change.old_at, change.new_at)));
    judged
}

/// Says whether a function of this name allocates, frees, copies or compares memory.
fn is_memory(callee: &Callee) -> bool {
    const PARTS: [&str; 14] = [
        "alloc", "cpy", "memmove", "memset", "memcmp", "memdup", "strndup", "strnc", "printf", "_Znw", "_Zna", "_Zdl",
        "_Zda", "bzero",
    ];
    match callee {
        Callee::Import(name) => PARTS.iter().any(|part| name.contains(part)),
        Callee::Function(_) => false,
    }
}

/// The fewest calls that show what an argument is.
const LEAST_CALLS: usize = 8;
/// The most functions that are looked at for that.
const MOST_CALLERS: usize = 3000;

/// Finds out what arguments are, from all calls in a file.
///
/// Line numbers and numbers of errors are odd as often as even. Sizes are even.
#[must_use]
pub fn meanings(
    side: &Side<'_>,
    candidates: &BTreeSet<(Callee, u8)>,
    translate: &dyn Fn(usize) -> Option<usize>,
) -> Meanings {
    let callees: BTreeSet<&Callee> = candidates.iter().map(|(callee, _)| callee).collect();
    let mut callers = vec![];
    for index in 0..side.functions.len() {
        let calls = side.bodies.refs(index).iter().any(|reference| {
            let callee = match side.resolve(reference.target).target {
                Target::Import(name, _) => Callee::Import(name.to_owned()),
                Target::Code(callee, 0) => match translate(callee as usize) {
                    Some(callee) => Callee::Function(callee),
                    None => return false,
                },
                _ => return false,
            };
            callees.contains(&callee)
        });
        if calls {
            callers.push(index);
        }
    }
    let mut values: BTreeMap<(Callee, u8), Vec<u64>> = BTreeMap::new();
    let mut behind_files: BTreeMap<(Callee, u8), usize> = BTreeMap::new();
    for index in callers.into_iter().take(MOST_CALLERS) {
        for one in passed(side, &crate::align::listing(side, index), translate) {
            let key = (one.callee, one.argument);
            if candidates.contains(&key) {
                *behind_files.entry(key.clone()).or_default() += usize::from(one.behind_file);
                values.entry(key).or_default().push(one.value);
            }
        }
    }
    let of = |(key, values): ((Callee, u8), Vec<u64>)| {
        // Where the name of a source file stands before it in most calls, few calls are enough.
        let behind_file = behind_files.get(&key).is_some_and(|count| *count >= 2 && count * 2 > values.len());
        let sizes = values.iter().all(|value| value % 8 == 0);
        let meaning = if behind_file && !sizes { Some(Meaning::Identifier) } else { meaning(&values) };
        Some((key, meaning?))
    };
    values.into_iter().filter_map(of).collect()
}

fn meaning(values: &[u64]) -> Option<Meaning> {
    let different: BTreeSet<_> = values.iter().collect();
    let odd = different.iter().filter(|value| **value % 2 == 1).count();
    let believable = values.iter().filter(|value| (2..100_000).contains(*value)).count();
    let share = if different.len() < 20 { 25..=75 } else { 35..=65 };
    if different.len() >= LEAST_CALLS
        && share.contains(&(odd * 100 / different.len()))
        && believable * 2 >= values.len()
        && values.iter().max() > Some(&LARGEST_CHOICE)
    {
        return Some(Meaning::Identifier);
    }
    (values.len() >= LEAST_CALLS && different.len() >= 2 && values.iter().max() <= Some(&LARGEST_CHOICE))
        .then_some(Meaning::Choice)
}

/// Levels and choices are not larger than this.
const LARGEST_CHOICE: u64 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn change(callee: &str, file: &str, old: u64, new: u64) -> ChangedNumber {
        let callee = Callee::Import(callee.to_owned());
        let file = (!file.is_empty()).then(|| file.to_owned());
        ChangedNumber { function: 0, callee, argument: 2, old, new, old_at: old, new_at: new, file, behind_file: false }
    }

    fn lines_of(callee: &str) -> Meanings {
        [((Callee::Import(callee.to_owned()), 2), Meaning::Identifier)].into()
    }

    #[test]
    fn lines_move_together() {
        let changes = vec![change("fail", "a.c", 10, 13), change("fail", "a.c", 50, 53), change("malloc", "", 24, 32)];
        let judged = judge(changes, &lines_of("fail"));
        assert_eq!(judged.lines.len(), 2);
        assert_eq!(judged.suspects, [change("malloc", "", 24, 32)]);
    }

    #[test]
    fn a_wrong_order_or_an_unknown_argument_proves_nothing() {
        let crossed = vec![change("fail", "a.c", 10, 90), change("fail", "a.c", 50, 53)];
        assert_eq!(judge(crossed, &lines_of("fail")).lines, []);
        assert_eq!(judge(vec![change("fail", "a.c", 10, 13)], &Meanings::new()).suspects.len(), 1);
    }

    #[test]
    fn a_size_stays_a_suspect_whatever_the_statistics_say() {
        let judged = judge(vec![change("memcpy", "", 24, 33)], &lines_of("memcpy"));
        assert_eq!(judged.suspects.len(), 1, "{judged:?}");
    }

    #[test]
    fn lines_are_odd_and_differ() {
        assert_eq!(meaning(&[10, 15, 23, 28, 101, 230, 231, 400]), Some(Meaning::Identifier));
        assert_eq!(meaning(&[10, 15, 23, 28]), None, "too few");
        assert_eq!(meaning(&[8, 16, 24, 32, 40, 48, 56, 64, 72]), None, "sizes are even");
        assert_eq!(meaning(&[1, 2, 3, 1, 2, 3, 1, 2, 3, 1]), Some(Meaning::Choice));
    }
}
