//! Hooks of a package with `method = "binary"`: a shared object, and the objects of the program that it converts.
//!
//! ```toml
//! hooks = "hooks.so"
//!
//! [[transforms]]
//! name = "entries"            # what the hook calls it
//! old = 0x4060                # where it lies in the old file, and how long it is
//! old-size = 128
//! new = 0x5080                # the same of the new file; where the sizes differ the hook moves it
//! new-size = 256
//! numbers = [[15, 31]]        # numbers in the code that uses it which follow its size, before and now; may be left out
//! ```

use mvedsua_binary::transform::Transform;
use toml::de::DeTable;

use super::manifest::symbol;
use super::reader::{self, At, Reader};

/// The name that the file has in packages that are built here.
pub(super) const FILE: &str = "hooks.so";
const KEYS: &[&str] = &["name", "old", "old-size", "new", "new-size", "numbers"];

/// What a manifest says of hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hooks {
    pub(super) file: At<String>,
    pub(super) transforms: Vec<Transform>,
}

/// Reads `hooks` and `transforms`.
pub(super) fn read<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>) -> Option<Hooks> {
    let file = reader.get(table, "hooks", "the name of a shared object in the package", reader::text);
    let transforms = transforms(reader, table);
    if file.is_none()
        && let Some(value) = table.get("transforms")
        && !table.contains_key("hooks")
    {
        let place = reader.place(value.span());
        reader.fault(&place, "`transforms` says what hooks convert, and there are none", "`hooks`, too");
    }
    Some(Hooks { file: file?, transforms })
}

fn transforms<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>) -> Vec<Transform> {
    const LIST: &str = "a table for each object: a line `[[transforms]]`, and its keys below";
    let Some(value) = table.get("transforms") else { return vec![] };
    let place = reader.place(value.span());
    let Some(items) = value.get_ref().as_array() else {
        reader.fault(&place, "`transforms` is no list of tables", LIST);
        return vec![];
    };
    let mut found: Vec<Transform> = vec![];
    for item in items.iter() {
        let place = reader.place(item.span());
        let Some(table) = item.get_ref().as_table() else {
            reader.fault(&place, "an item of `transforms` is no table", LIST);
            continue;
        };
        let Some(one) = transform(reader, table) else { continue };
        if found.iter().any(|known| known.name == one.name) {
            reader.fault(&place, format!("`{}` is listed twice", one.name), "each object once");
        }
        found.push(one);
    }
    found
}

fn transform<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>) -> Option<Transform> {
    reader.only(table, KEYS, "`transforms`");
    let mut number = |key: &str, what: &str| reader.need(table, key, what, reader::count).map(|at| at.value);
    let old = number("old", "an address of the old file, such as 0x4060");
    let old_size = number("old-size", "how many bytes it has there");
    let new = number("new", "an address of the new file");
    let new_size = number("new-size", "how many bytes it has there");
    let numbers = reader
        .get(table, "numbers", "pairs of numbers, such as [[15, 31]]", |value| reader::pairs(value, "before and now"));
    let name = reader.need(table, "name", "what the hook calls it", symbol)?;
    let range = |start: Option<u64>, len: Option<u64>| Some(start?..start?.saturating_add(len?));
    Some(Transform {
        name: name.value,
        old: range(old, old_size)?,
        new: range(new, new_size)?,
        numbers: numbers.map(|at| at.value).unwrap_or_default(),
    })
}

/// Writes the lines of the manifest.
pub(super) fn manifest(transforms: &[Transform]) -> String {
    let one = |one: &Transform| {
        let sizes = (one.old.end - one.old.start, one.new.end - one.new.start);
        let numbers: Vec<String> = one.numbers.iter().map(|(old, new)| format!("[{old}, {new}]")).collect();
        let numbers = if numbers.is_empty() { String::new() } else { format!("numbers = [{}]\n", numbers.join(", ")) };
        format!(
            "\n[[transforms]]\nname = {}\nold = {:#x}\nold-size = {}\nnew = {:#x}\nnew-size = {}\n{numbers}",
            serde_json::Value::from(one.name.as_str()),
            one.old.start,
            sizes.0,
            one.new.start,
            sizes.1
        )
    };
    transforms.iter().map(one).collect()
}
