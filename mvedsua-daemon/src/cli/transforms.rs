//! Which objects of a program the hooks of a package convert: named on the command line, found in both versions.
//!
//! A name is one that the stripped files have, or a separate debug file, or an address of the old file. What the manifest gets is
//! where the object lies in both files and how long it is there: the daemon has no debug files.

use mvedsua_binary::Comparison;
use mvedsua_binary::image::SymbolKind;
use mvedsua_binary::side::Side;
use mvedsua_binary::transform::Transform;

use super::debug_files::{DebugFile, DebugFiles};
use crate::control::Code;
use crate::control::protocol::Problem;

/// An object that is named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    name: String,
    /// Its sizes in the old and the new file, if they were given.
    sizes: Option<(u64, u64)>,
}

/// Reads `NAME` or `NAME+OLD:NEW`, where the numbers are sizes in bytes.
///
/// # Errors
///
/// Why it is none, in words.
pub(super) fn parse(text: &str) -> Result<Wanted, String> {
    let Some((name, sizes)) = text.split_once('+') else {
        return Ok(Wanted { name: text.to_owned(), sizes: None });
    };
    let sizes = pair(sizes)?;
    if sizes.0 == 0 || sizes.1 == 0 {
        return Err("an object has at least one byte".to_owned());
    }
    Ok(Wanted { name: name.to_owned(), sizes: Some(sizes) })
}

/// Reads `OLD:NEW`, two numbers.
///
/// # Errors
///
/// Why it is none, in words.
pub(super) fn pair(text: &str) -> Result<(u64, u64), String> {
    let (old, new) = text.split_once(':').ok_or_else(|| format!("`{text}` is not two numbers such as `128:256`"))?;
    Ok((number(old)?, number(new)?))
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|e| format!("`{text}`: {e}"))
}

/// Names of objects of one version, each with its place and size.
#[derive(Debug, Default)]
struct Names(Vec<(String, u64, u64)>);

impl Names {
    /// Takes those of the file, and of its debug file.
    fn of(side: &Side<'_>, debug: Option<&DebugFile>) -> Names {
        let objects = side.image.symbols.iter().filter(|symbol| symbol.kind == SymbolKind::Object);
        let mut names: Vec<_> = objects.map(|symbol| (symbol.name.to_owned(), symbol.address, symbol.size)).collect();
        if let Some(file) = debug {
            names.extend(file.debug.names.objects().map(|(name, at, size)| (name.to_owned(), at, size)));
        }
        names.sort();
        names.dedup();
        Names(names)
    }

    fn find(&self, name: &str) -> Result<Option<(u64, u64)>, String> {
        let mut found = self.0.iter().filter(|(known, ..)| known == name);
        match (found.next(), found.next()) {
            (Some((_, at, size)), None) => Ok(Some((*at, *size))),
            (Some(_), Some(_)) => Err(format!("several objects are called `{name}`; name one by its address")),
            (None, _) => Ok(None),
        }
    }
}

/// Finds the objects in both versions. `numbers` follow the sizes of those that move.
///
/// # Errors
///
/// One is not found in one of the versions.
pub(super) fn find(
    wanted: &[Wanted],
    comparison: &Comparison<'_>,
    debug: &DebugFiles,
    numbers: &[(u64, u64)],
) -> Result<Vec<Transform>, Problem> {
    let names = (Names::of(&comparison.old, debug.old.as_ref()), Names::of(&comparison.new, debug.new.as_ref()));
    let found = wanted.iter().map(|one| find_one(one, comparison, &names, numbers).map_err(|why| (one, why)));
    found.collect::<Result<_, _>>().map_err(|(one, why): (&Wanted, String)| {
        let tried = format!("looking for the object `{}`, which the hooks convert", one.name);
        let remedy = "stripped files have few names: name debug files with --debug-old and --debug-new, or the address in the \
                      old file, such as 0x4060 or 0x4060+128:256";
        Problem::new(Code::Refused, tried, why, remedy)
    })
}

fn find_one(
    wanted: &Wanted,
    comparison: &Comparison<'_>,
    (old_names, new_names): &(Names, Names),
    numbers: &[(u64, u64)],
) -> Result<Transform, String> {
    let (old, new) = (&comparison.old, &comparison.new);
    let name = wanted.name.as_str();
    let address = name.strip_prefix("0x").map(|_| number(name)).transpose()?;
    let (old_at, old_size) = match address {
        Some(address) => (address, old.object_extent(address)),
        None => old_names.find(name)?.ok_or("there is no such object in the old file")?,
    };
    let named = if address.is_none() { new_names.find(name)? } else { None };
    let (new_at, new_size) = match named {
        Some(found) => found,
        None => {
            let bound = comparison.bindings.old.get(&old_at);
            let bound = bound.ok_or("nothing shows where the new file has it")?.new;
            (bound, new.object_extent(bound))
        }
    };
    let (old_size, new_size) = wanted.sizes.unwrap_or((old_size, new_size));
    let (old, new) = (old_at..old_at.saturating_add(old_size), new_at..new_at.saturating_add(new_size));
    let mut found = Transform { name: name.to_owned(), old, new, numbers: vec![] };
    if found.moves() {
        found.numbers = numbers.to_vec();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_with_or_without_sizes() {
        assert_eq!(parse("entries"), Ok(Wanted { name: "entries".to_owned(), sizes: None }));
        assert_eq!(parse("0x4060+128:0x100"), Ok(Wanted { name: "0x4060".to_owned(), sizes: Some((128, 256)) }));
        assert!(parse("a+1").is_err_and(|why| why.contains("two numbers")));
        assert!(parse("a+0:1").is_err());
        assert_eq!(pair("15:31"), Ok((15, 31)));
    }
}
