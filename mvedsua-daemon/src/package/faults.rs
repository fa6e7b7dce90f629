//! What is wrong with a package, and where.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

/// Says what kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// What `update.toml` says.
    Manifest,
    /// A file of the package is missing, cannot be read, or is not what it should be.
    File,
    /// Somebody may write it who must not, or the program may not read it.
    Access,
    /// It has another build-id than was promised.
    BuildId,
}

/// A place in a text file, with the line that it is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Both are counted from 1; columns are characters.
    pub line: usize,
    pub column: usize,
    /// How many characters are meant, at least 1.
    pub width: usize,
    pub text: String,
}

impl Place {
    /// Finds the line of a range of bytes. A range over several lines is cut at the end of its first.
    #[must_use]
    pub fn of(text: &str, span: Range<usize>) -> Place {
        let at = floor(text, span.start);
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
        let meant = &text[at..floor(text, span.end).clamp(at, end)];
        Place {
            line: text[..start].matches('\n').count() + 1,
            column: text[start..at].chars().count() + 1,
            width: meant.chars().count().max(1),
            text: text[start..end].trim_end_matches('\r').to_owned(),
        }
    }
}

/// Returns the nearest boundary of a character at or before a byte.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    pub kind: Kind,
    /// The file, by its name in the package where it has one.
    pub file: String,
    pub place: Option<Place>,
    pub what: String,
    /// What was expected instead.
    pub expected: String,
    /// What is probably meant, or what to do.
    pub hint: Option<String>,
}

impl Fault {
    pub(super) fn new(
        kind: Kind,
        file: impl Into<String>,
        what: impl Into<String>,
        expected: impl Into<String>,
    ) -> Fault {
        Fault { kind, file: file.into(), place: None, what: what.into(), expected: expected.into(), hint: None }
    }

    pub(super) fn at(mut self, place: Place) -> Fault {
        self.place = Some(place);
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fault {
    /// Writes a line with the place and what is wrong, the line of the file with a mark under it, and what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(place) = &self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        write!(f, ": {}", self.what)?;
        if let Some(place) = &self.place {
            let number = place.line.to_string();
            // Tabs stay tabs, so that the mark stands under what it means.
            let before = place.text.chars().take(place.column - 1);
            let gap: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            write!(f, "\n  {number} | {}", place.text)?;
            write!(f, "\n  {} | {gap}{}", " ".repeat(number.len()), "^".repeat(place.width))?;
        }
        write!(f, "\n  expected: {}", self.expected)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a package; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// Returns whether nothing but build-ids is wrong: the package is sound, and it is another one than was promised.
    #[must_use]
    pub fn only_build_ids(&self) -> bool {
        self.0.iter().all(|fault| fault.kind == Kind::BuildId)
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Faults {
        Faults(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// What is wrong beyond that follows from the same mistake, most likely.
        const MOST: usize = 12;
        for (index, fault) in self.0.iter().take(MOST).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        match self.0.len().saturating_sub(MOST) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more like these"),
        }
    }
}

/// Returns the one of `known` that is probably meant by a word that is none of them.
pub(super) fn meant<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.to_lowercase().replace('_', "-");
    let near = known.iter().map(|name| (strsim::damerau_levenshtein(&word, name), *name));
    // A third of the letters may be wrong; more is a guess.
    near.filter(|(distance, name)| *distance <= name.len().max(3) / 3).min().map(|(_, name)| name)
}

/// Returns names as a list for people.
pub(super) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters_from_1() {
        let text = "a = 1\n\u{e9}t\u{e9} = 22\r\nend";
        let at = text.find("22").expect("it is there");
        assert_eq!(
            Place::of(text, at..at + 2),
            Place { line: 2, column: 7, width: 2, text: "\u{e9}t\u{e9} = 22".to_owned() }
        );
        assert_eq!(Place::of(text, text.len()..text.len()).column, 4);
        assert_eq!(Place::of("", 0..0), Place { line: 1, column: 1, width: 1, text: String::new() });
        // In the middle of a character, and beyond the end.
        assert_eq!(Place::of(text, 7..999).column, 1);
    }

    #[test]
    fn what_is_meant_is_near() {
        let known = ["method", "object", "entry", "min-calls"];
        assert_eq!(meant("metod", &known), Some("method"));
        assert_eq!(meant("min_calls", &known), Some("min-calls"));
        assert_eq!(meant("Entry", &known), Some("entry"));
        assert_eq!(meant("colour", &known), None);
    }
}
