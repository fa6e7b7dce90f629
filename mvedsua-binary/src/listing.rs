//! Both versions of a function side by side.

use std::fmt::Write as _;

use iced_x86::{Formatter as _, GasFormatter};

use crate::Comparison;
use crate::align::{self, Line};
use crate::classes::Fate;
use crate::side::{Side, Target};

/// The width of one side.
const WIDTH: usize = 60;

/// Returns both versions of a function, an instruction a line. `!` marks instructions that stand beside each other
/// and differ, `-` those that are gone, `+` those that are new.
#[must_use]
pub fn side_by_side(comparison: &Comparison<'_>, fate: &Fate) -> String {
    let lines =
        |side: &Side<'_>, index: Option<usize>| index.map(|index| align::listing(side, index)).unwrap_or_default();
    let (old, new) = (lines(&comparison.old, fate.old), lines(&comparison.new, fate.new));
    let pairs = align::align(&old, &new);
    let mut formatter = GasFormatter::new();
    let mut text = String::new();
    let (mut i, mut j) = (0, 0);
    let ends = align::Pair { old: old.len(), new: new.len(), exact: true };
    for pair in pairs.into_iter().chain([ends]) {
        while i < pair.old {
            row(&mut text, '-', &show(&comparison.old, &mut formatter, old.get(i)), "");
            i += 1;
        }
        while j < pair.new {
            row(&mut text, '+', "", &show(&comparison.new, &mut formatter, new.get(j)));
            j += 1;
        }
        if let (Some(a), Some(b)) = (old.get(i), new.get(j)) {
            let left = show(&comparison.old, &mut formatter, Some(a));
            let right = show(&comparison.new, &mut formatter, Some(b));
            row(&mut text, if pair.exact { ' ' } else { '!' }, &left, &right);
        }
        (i, j) = (pair.old + 1, pair.new + 1);
    }
    text
}

fn row(text: &mut String, mark: char, left: &str, right: &str) {
    let cut = |side: &str| side.chars().take(WIDTH).collect::<String>();
    let line = format!("{mark} {:<WIDTH$} {}", cut(left), cut(right));
    let _ = writeln!(text, "{}", line.trim_end());
}

fn show(side: &Side<'_>, formatter: &mut GasFormatter, line: Option<&Line>) -> String {
    let Some(line) = line else { return String::new() };
    let mut text = format!("{:x} ", line.instruction.ip());
    formatter.format(&line.instruction, &mut text);
    if let Some(reference) = line.refs.first() {
        let meant = match side.resolve(reference.target).target {
            Target::Import(name, _) => Some(name.to_owned()),
            Target::Code(index, 0) => side.functions.get(index as usize).and_then(|f| f.name).map(str::to_owned),
            Target::Constant(address) => side.text_at(address).map(|text| format!("{text:?}")),
            _ => None,
        };
        if let Some(meant) = meant {
            let _ = write!(text, " # {meant}");
        }
    }
    text
}
