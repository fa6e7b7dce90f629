//! What Redis's suite says of its tests.

use std::collections::{BTreeMap, BTreeSet};

/// What the suite said of the tests of one unit.
#[derive(Debug, Default)]
pub(super) struct Results {
    pub(super) passed: BTreeSet<String>,
    /// The others, and why.
    pub(super) failed: BTreeMap<String, String>,
    /// Whether the unit came to its end.
    pub(super) ended: bool,
    /// What it said last.
    pub(super) last: String,
}

impl Results {
    /// Reads what the suite prints, in the colours in which it does. Tests of the same name are told apart by a number.
    pub(super) fn parse(output: &str) -> Results {
        let mut results = Results::default();
        let mut names: BTreeMap<String, u32> = BTreeMap::new();
        let mut failing = None;
        for line in output.lines() {
            let plain = without_colours(line);
            if !plain.trim().is_empty() {
                results.last.clone_from(&plain);
            }
            // "[1/1 done]: unit/type/list (14 seconds)"
            results.ended |= plain.starts_with('[') && plain.contains(" done]: ");
            if let Some(test) = plain.strip_prefix("[ok]: ") {
                // "name (12 ms)"
                let name = test.rsplit_once(" (").map_or(test, |(name, _)| name);
                results.passed.insert(numbered(&mut names, name));
                failing = None;
            } else if let Some(test) = plain.strip_prefix("[err]: ") {
                let (name, file) = test.split_once(" in tests/").unwrap_or((test, ""));
                let name = numbered(&mut names, name);
                results.failed.insert(name.clone(), file.to_owned());
                failing = Some(name);
            } else if plain.starts_with('[') {
                failing = None;
            } else if let Some(why) = failing.take().and_then(|name| results.failed.get_mut(&name)) {
                // The line after it says what was expected.
                *why = format!("{why}: {plain}");
            }
        }
        results
    }
}

/// Returns the name, with its number where there was one like it.
fn numbered(names: &mut BTreeMap<String, u32>, name: &str) -> String {
    let count = names.entry(name.to_owned()).or_default();
    *count += 1;
    if *count == 1 { name.to_owned() } else { format!("{name} #{count}") }
}

fn without_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut escaped = false;
    for char in line.chars() {
        match char {
            '\u{1b}' => escaped = true,
            'm' if escaped => escaped = false,
            _ if escaped => {}
            _ => plain.push(char),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_suite_prints_is_read() {
        let text = "[ready]: 10\n[\u{1b}[0;32mok\u{1b}[0m]: SET and GET (x) (3 ms)\n\
                    [\u{1b}[0;31merr\u{1b}[0m]: APPEND in tests/unit/a.tcl\nExpected 1\nmore\n[ok]: SET and GET (x) (1 ms)\n\
                    [1/1 \u{1b}[0;33mdone\u{1b}[0m]: unit/a (1 seconds)\n";
        let results = Results::parse(text);
        assert_eq!(results.passed.into_iter().collect::<Vec<_>>(), ["SET and GET (x)", "SET and GET (x) #2"]);
        assert_eq!(results.failed["APPEND"], "unit/a.tcl: Expected 1");
        assert_eq!(results.last, "[1/1 done]: unit/a (1 seconds)");
        assert!(results.ended);
    }
}
