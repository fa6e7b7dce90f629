//! The new version's object, as far as it can be judged without running it.

use std::fs::File;
use std::path::Path;

use object::read::ReadCache;
use object::{Architecture, BinaryFormat, Object as _, ObjectKind, ObjectSymbol as _};

use super::build_id::BuildId;
use super::faults::{Fault, Kind, meant};
use super::manifest::{Change, Manifest, Way};
use super::reader::At;

/// Says what is wrong with the object, if anything.
pub(super) fn check(path: &Path, manifest: &Manifest, change: &Change) -> Vec<Fault> {
    let place = &change.object.place;
    let name = &change.object.value;
    let fault =
        |what: String, expected: &str| vec![Manifest::fault(Kind::File, place, format!("`{name}` {what}"), expected)];
    let expected = match &change.way {
        Way::InPlace { .. } => "a shared object for x86-64 (`cc -shared -fPIC`)",
        Way::Binary => "an executable or a shared library for x86-64",
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) => return fault(format!("cannot be read: {e}"), "a file that can be read"),
    };
    let cache = ReadCache::new(file);
    let elf = match object::File::parse(&cache) {
        Ok(elf) if elf.format() == BinaryFormat::Elf => elf,
        Ok(other) => return fault(format!("is no ELF file, it is {:?}", other.format()), expected),
        Err(e) => return fault(format!("is no ELF file: {e}"), expected),
    };
    if elf.architecture() != Architecture::X86_64 {
        return fault(format!("is for {:?}", elf.architecture()), expected);
    }
    let unfit = match (&change.way, elf.kind()) {
        (_, ObjectKind::Dynamic) | (Way::Binary, ObjectKind::Executable) => None,
        (Way::InPlace { .. }, other) => Some(format!("is no shared object, it is {other:?}")),
        (Way::Binary, other) => Some(format!("is neither an executable nor a shared library, it is {other:?}")),
    };
    if let Some(what) = unfit {
        return fault(what, expected);
    }
    let mut faults = vec![];
    faults.extend(check_build_id(elf.build_id().ok().flatten(), manifest, change));
    match &change.way {
        Way::InPlace { entry } => faults.extend(check_entry(&elf, name, entry)),
        Way::Binary => {}
    }
    faults
}

/// Sees that the object exports the function at which the new version goes on.
fn check_entry<'d>(elf: &impl object::Object<'d>, name: &str, entry: &At<String>) -> Option<Fault> {
    let exported: Vec<_> = elf.dynamic_symbols().filter(|symbol| symbol.is_definition()).collect();
    let names: Vec<&str> = exported.iter().filter_map(|symbol| symbol.name().ok()).collect();
    if names.contains(&entry.value.as_str()) {
        return None;
    }
    let what = format!("`{name}` exports no symbol `{}`", entry.value);
    let fault = Manifest::fault(Kind::File, &entry.place, what, "an exported function of the object");
    Some(fault.hint(match meant(&entry.value, &names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("`nm -D {name}` lists what it exports; a static function is not"),
    }))
}

fn check_build_id(note: Option<&[u8]>, manifest: &Manifest, change: &Change) -> Option<Fault> {
    let name = &change.object.value;
    let Some(found) = note.map(BuildId::of_bytes) else {
        let what = format!("`{name}` has no build-id");
        let fault = Manifest::fault(Kind::BuildId, &change.object.place, what, "an object with a build-id");
        return Some(fault.hint("link it with `-Wl,--build-id`"));
    };
    if found != change.to.value {
        let what = format!("`{name}` is another build: {found}");
        let fault = Manifest::fault(Kind::BuildId, &change.to.place, what, "the build-id of the object");
        return Some(fault.hint(format!("to = \"{found}\", if that is the build that was meant")));
    }
    let same = manifest.from.iter().find(|from| from.value == found)?;
    let what = format!("`{name}` is the version that it is to update");
    let fault = Manifest::fault(Kind::BuildId, &same.place, what, "the build-id of another version than the object's");
    Some(fault.hint("a rehearsal of the same version needs no package: `--to self`"))
}
