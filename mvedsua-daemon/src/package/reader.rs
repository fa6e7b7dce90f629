//! Reads a table of a TOML file key by key, and says precisely what is wrong with it.
//!
//! Everything that is wrong is collected: whoever writes a package sees all of it at once. A key that is not known is
//! an error, since the check that somebody thinks they have asked for must not be left out silently.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::faults::{Fault, Kind, Place, list, meant};
use super::terms::MaxSlowdown;
use crate::units;

/// A value and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Why a value does not fit.
pub(super) enum Unfit {
    /// It is of another type.
    Type,
    /// It says something that is not possible.
    Content(String),
}

/// Reads one file.
pub(super) struct Reader<'t> {
    file: &'t str,
    text: &'t str,
    pub(super) faults: Vec<Fault>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Reader { file, text, faults: vec![] }
    }

    /// Parses the file; where it is no TOML, that is the only fault.
    pub(super) fn parse(&mut self) -> Option<Spanned<DeTable<'t>>> {
        match DeTable::parse(self.text) {
            Ok(table) => Some(table),
            Err(e) => {
                let span = e.span().unwrap_or(0..0);
                let fault = Fault::new(Kind::Manifest, self.file, e.message().replace('\n', ", "), "a file in TOML")
                    .at(Place::of(self.text, span))
                    .hint("strings stand in quotes: name = \"v2\"");
                self.faults.push(fault);
                None
            }
        }
    }

    pub(super) fn place(&self, span: Range<usize>) -> Place {
        Place::of(self.text, span)
    }

    pub(super) fn fault(&mut self, place: &Place, what: impl Into<String>, expected: impl Into<String>) -> &mut Fault {
        self.faults.push(Fault::new(Kind::Manifest, self.file, what, expected).at(place.clone()));
        let last = self.faults.len() - 1;
        &mut self.faults[last]
    }

    /// Says which keys of a table are none of `known`.
    pub(super) fn only(&mut self, table: &DeTable<'t>, known: &[&str], of: &str) {
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let name = key.get_ref();
            let place = self.place(key.span());
            let fault = self.fault(&place, format!("unknown key `{name}` in {of}"), format!("one of {}", list(known)));
            fault.hint = meant(name, known).map(|near| format!("did you mean `{near}`?"));
        }
    }

    /// Reads a value where there is one.
    pub(super) fn get<T>(
        &mut self,
        table: &DeTable<'t>,
        key: &str,
        expected: &str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, Unfit>,
    ) -> Option<At<T>> {
        let value = table.get(key)?;
        let place = self.place(value.span());
        match read(value.get_ref()) {
            Ok(value) => Some(At { value, place }),
            Err(unfit) => {
                let what = match unfit {
                    Unfit::Type => format!("`{key}` is {}", kind_of(value.get_ref())),
                    Unfit::Content(why) => format!("`{key}`: {why}"),
                };
                self.fault(&place, what, expected);
                None
            }
        }
    }

    /// Reads a value that must be there. `of` is the table, and where it is.
    pub(super) fn need<T>(
        &mut self,
        table: &DeTable<'t>,
        key: &str,
        expected: &str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, Unfit>,
    ) -> Option<At<T>> {
        if table.contains_key(key) {
            return self.get(table, key, expected, read);
        }
        let place = self.place(0..0);
        let fault = self.fault(&place, format!("`{key}` is missing"), format!("`{key}` = {expected}"));
        fault.place = None;
        None
    }

    /// Reads a list of texts, each with its place.
    pub(super) fn texts(&mut self, table: &DeTable<'t>, key: &str, expected: &str) -> Vec<At<String>> {
        let Some(value) = table.get(key) else { return vec![] };
        let Some(items) = value.get_ref().as_array() else {
            let place = self.place(value.span());
            let what = format!("`{key}` is {}", kind_of(value.get_ref()));
            let fault = self.fault(&place, what, expected);
            if value.get_ref().is_str() {
                fault.hint = Some(format!("write a list even of one: {key} = [\"…\"]"));
            }
            return vec![];
        };
        let mut texts = vec![];
        for item in items.iter() {
            let place = self.place(item.span());
            match item.get_ref().as_str() {
                Some(text) => texts.push(At { value: text.to_owned(), place }),
                None => {
                    let what = format!("an item of `{key}` is {}", kind_of(item.get_ref()));
                    self.fault(&place, what, expected);
                }
            }
        }
        texts
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "`true` or `false`",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Reads a text that is not empty.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, Unfit> {
    match value.as_str() {
        Some(text) if text.trim().is_empty() => Err(Unfit::Content("it is empty".to_owned())),
        Some(text) => Ok(text.to_owned()),
        None => Err(Unfit::Type),
    }
}

/// Reads a duration such as `"90s"`.
pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, Unfit> {
    let text = value.as_str().ok_or(Unfit::Type)?;
    humantime::parse_duration(text).map_err(|e| Unfit::Content(format!("`{text}` is no duration: {e}")))
}

/// Reads a size such as `"512M"`, or a number of bytes.
pub(super) fn size(value: &DeValue<'_>) -> Result<u64, Unfit> {
    match value.as_str() {
        Some(text) => units::parse_size(text).map_err(Unfit::Content),
        None => count(value),
    }
}

/// Reads a whole number from 0.
pub(super) fn count(value: &DeValue<'_>) -> Result<u64, Unfit> {
    let number = value.as_integer().ok_or(Unfit::Type)?;
    let digits = number.as_str();
    u64::from_str_radix(digits, number.radix()).map_err(|_| Unfit::Content(format!("`{digits}` is out of range")))
}

/// Reads a list of whole numbers.
pub(super) fn counts(value: &DeValue<'_>) -> Result<Vec<u64>, Unfit> {
    value.as_array().ok_or(Unfit::Type)?.iter().map(|item| count(item.get_ref())).collect()
}

/// Reads a list of pairs of whole numbers; `each` says what a pair is.
pub(super) fn pairs(value: &DeValue<'_>, each: &str) -> Result<Vec<(u64, u64)>, Unfit> {
    let pair = |item: &Spanned<DeValue<'_>>| match counts(item.get_ref())?.as_slice() {
        [one, other] => Ok((*one, *other)),
        _ => Err(Unfit::Content(format!("each is a list of two numbers: {each}"))),
    };
    value.as_array().ok_or(Unfit::Type)?.iter().map(pair).collect()
}

/// Reads a whole number from 0 that is not beyond 32 bits.
pub(super) fn small_count(value: &DeValue<'_>) -> Result<u32, Unfit> {
    let number = count(value)?;
    u32::try_from(number).map_err(|_| Unfit::Content(format!("`{number}` is out of range")))
}

pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Unfit> {
    value.as_bool().ok_or(Unfit::Type)
}

/// Reads one of the words that the command line takes too.
pub(super) fn choice<T: clap::ValueEnum>(value: &DeValue<'_>) -> Result<T, Unfit> {
    let word = value.as_str().ok_or(Unfit::Type)?;
    T::from_str(word, false).map_err(|_| Unfit::Content(format!("`{word}` is not one of the words for it")))
}

/// Reads how many times slower something may be: a whole number, or `"off"`.
pub(super) fn slowdown(value: &DeValue<'_>) -> Result<MaxSlowdown, Unfit> {
    match value.as_str() {
        Some(text) => text.parse().map_err(Unfit::Content),
        None => small_count(value)?.to_string().parse().map_err(Unfit::Content),
    }
}

/// Reads a percentage such as `"300%"`.
pub(super) fn percent(value: &DeValue<'_>) -> Result<u32, Unfit> {
    let text = value.as_str().ok_or(Unfit::Type)?;
    let number = text.strip_suffix('%').and_then(|digits| digits.trim().parse().ok());
    number.ok_or_else(|| Unfit::Content(format!("`{text}` is no percentage")))
}
