//! The stack of a live process, and names for addresses in it.
//!
//! The executable's and its libraries' own symbol tables and DWARF are used, through `/proc/<pid>`, so the process must
//! still be there; it may be stopped.

mod unwind;

use std::path::Path;

use blazesym::Pid;
use blazesym::symbolize::source::{Process, Source};
use blazesym::symbolize::{Input, Symbolized, Symbolizer};

use crate::compare::Frame;
use crate::tracee::loaded::{self, Loaded};

pub use unwind::{Frames, Registers, Tables, unwind};

/// Returns one frame for each address, in the same order; where nothing is known of an address its symbol is `None`.
#[must_use]
pub fn symbolize(pid: i32, addresses: &[u64]) -> Vec<Frame> {
    let mut frames = of_files(pid, addresses);
    let mut unknown = frames.iter_mut().filter(|frame| frame.symbol.is_none()).peekable();
    if unknown.peek().is_some() {
        let all = loaded::of(crate::ptrace::Pid(pid));
        unknown.for_each(|frame| frame.symbol = in_loaded(&all, frame.address));
    }
    frames
}

/// Names what updates have loaded: by the function, and the file whose version it is.
fn in_loaded(all: &[Loaded], address: u64) -> Option<String> {
    all.iter().find_map(|loaded| {
        let function = loaded.functions.iter().find(|one| (one.start..one.end).contains(&address))?;
        Some(format!("{}+{:#x} (next version of {})", function.name, address - function.start, loaded.name))
    })
}

fn of_files(pid: i32, addresses: &[u64]) -> Vec<Frame> {
    let unknown = || addresses.iter().map(|address| Frame { address: *address, symbol: None }).collect();
    let Ok(pid) = u32::try_from(pid) else { return unknown() };
    let source = Source::Process(Process::new(Pid::from(pid)));
    let symbolizer = Symbolizer::new();
    let Ok(symbols) = symbolizer.symbolize(&source, Input::AbsAddr(addresses)) else { return unknown() };
    addresses.iter().zip(&symbols).map(|(address, symbol)| frame(*address, symbol)).collect()
}

/// Returns where an ELF file has a function that other files may call, as a distance from the file's first mapping.
#[must_use]
pub(crate) fn exported(path: &str, name: &str) -> Option<u64> {
    use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};
    let bytes = std::fs::read(path).ok()?;
    let file = object::File::parse(&*bytes).ok()?;
    let first = file.segments().map(|segment| segment.address()).min()? & !0xfff;
    let symbol = file.dynamic_symbols().find(|symbol| symbol.is_definition() && symbol.name() == Ok(name))?;
    Some(symbol.address() - first)
}

fn frame(address: u64, symbolized: &Symbolized<'_>) -> Frame {
    let symbol = symbolized.as_sym().map(|sym| {
        let object = sym.module.as_ref().and_then(|module| Path::new(module).file_name());
        // With debug information the line says more, and the offset is not always that from the function.
        let place = match sym.code_info.as_ref().and_then(|code| Some((code, code.line?))) {
            Some((code, line)) => format!("{} {}:{line}", sym.name, Path::new(&code.file).display()),
            None => format!("{}+{:#x}", sym.name, sym.offset),
        };
        match object {
            Some(object) => format!("{place} ({})", object.display()),
            None => place,
        }
    });
    Frame { address, symbol }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn a_function_with_a_name() -> u64 {
        std::hint::black_box(7)
    }

    #[test]
    fn own_functions_have_names_and_nonsense_has_none() {
        let address = a_function_with_a_name as *const () as u64;
        let frames = symbolize(std::process::id() as i32, &[address, 1]);
        assert_eq!(a_function_with_a_name(), 7);
        let symbol = frames[0].symbol.as_deref().unwrap_or_default();
        assert!(symbol.contains("a_function_with_a_name"), "{symbol}");
        assert_eq!(frames[1], Frame { address: 1, symbol: None });
    }
}
