//! Symbols of other files that the new version uses and the old one did not.

use object::elf::{FileHeader64, STB_LOCAL, STT_FUNC, STT_GNU_IFUNC, STT_OBJECT};
use object::read::elf::{FileHeader as _, Sym as _};

use crate::ptrace::Pid;
use crate::ptrace::procfs::Mapping;

type Header = FileHeader64<object::LittleEndian>;

/// Where a symbol of another file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    At(u64),
    /// Where the function at this address says (IFUNC).
    ChosenBy(u64),
}

/// Returns where a process has a symbol of one of its libraries.
///
/// The dynamic loader looks through the libraries in their order, which is not known here, so a symbol is taken only where one
/// library alone defines it; of several versions of it the one that programs are linked with.
///
/// # Errors
///
/// Why it is not known where it is, for the operator.
pub(super) fn find(pid: Pid, maps: &[Mapping], name: &str) -> Result<Found, String> {
    let mut found = vec![];
    for area in maps.iter().filter(|area| area.offset == 0 && area.inode != 0 && !area.shared) {
        let has_code = |other: &Mapping| other.executable && (other.device, other.inode) == (area.device, area.inode);
        if !maps.iter().any(has_code) {
            continue;
        }
        let path = format!("/proc/{pid}/map_files/{:x}-{:x}", area.start, area.end);
        let Ok(bytes) = std::fs::read(path) else { continue };
        match defined_in(&bytes, name) {
            Defined::No => {}
            Defined::At(offset) => found.push(Found::At(area.start.wrapping_add(offset))),
            Defined::Chosen(offset) => found.push(Found::ChosenBy(area.start.wrapping_add(offset))),
            Defined::Strange => return Err(format!("`{name}` is neither a function nor an object")),
        }
    }
    match found.as_slice() {
        [only] => Ok(*only),
        [] => Err(format!("none of the libraries that it has mapped defines `{name}`")),
        _ => Err(format!("{} of the libraries that it has mapped define `{name}`", found.len())),
    }
}

enum Defined {
    No,
    /// So far behind the file's first mapping.
    At(u64),
    /// A function there, counted likewise, says where it is.
    Chosen(u64),
    Strange,
}

fn defined_in(bytes: &[u8], name: &str) -> Defined {
    let look = || -> Option<Defined> {
        let header = Header::parse(bytes).ok()?;
        let endian = header.endian().ok()?;
        let sections = header.sections(endian, bytes).ok()?;
        let symbols = sections.symbols(endian, bytes, object::elf::SHT_DYNSYM).ok()?;
        let segments = header.program_headers(endian, bytes).ok()?;
        let loads = segments.iter().filter(|segment| segment.p_type.get(endian) == object::elf::PT_LOAD);
        let first = loads.map(|segment| segment.p_vaddr.get(endian)).min()? & !0xfff;
        let base = if header.e_type.get(endian) == object::elf::ET_EXEC { first } else { 0 };
        let versions = sections.versions(endian, bytes).ok()?;
        let (_, symbol) = symbols.enumerate().find(|(index, symbol)| {
            // What is hidden is there for programs that were linked with an older library.
            let is_hidden = versions.as_ref().is_some_and(|all| all.version_index(endian, *index).is_hidden());
            !symbol.is_undefined(endian)
                && !is_hidden
                && symbol.st_bind() != STB_LOCAL
                && symbols.symbol_name(endian, symbol).is_ok_and(|known| known == name.as_bytes())
        })?;
        let offset = symbol.st_value(endian).wrapping_sub(first.max(base));
        Some(match symbol.st_type() {
            STT_FUNC | STT_OBJECT => Defined::At(offset),
            STT_GNU_IFUNC => Defined::Chosen(offset),
            _ => Defined::Strange,
        })
    };
    look().unwrap_or(Defined::No)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptrace::procfs;

    #[test]
    fn a_function_of_a_library_is_found_where_it_is() {
        let pid = Pid(std::process::id().cast_signed());
        let maps = procfs::maps(pid).expect("it runs");
        // It is in one library alone, and not chosen at the start.
        let version = Found::At(libc::gnu_get_libc_version as *const () as u64);
        assert_eq!(find(pid, &maps, "gnu_get_libc_version"), Ok(version));
        assert!(matches!(find(pid, &maps, "memcpy"), Ok(Found::ChosenBy(_))));
        assert!(find(pid, &maps, "no_such_function").is_err_and(|why| why.contains("none")));
    }
}
