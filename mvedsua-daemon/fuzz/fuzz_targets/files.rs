#![no_main]
//! Two versions of a program, of which one is damaged: whatever is in a file, a comparison ends with an answer.
//!
//! The input is a list of edits, four bytes each: where, in three bytes, and what. Its first byte chooses the file. The files are
//! those of `MVEDSUA_FUZZ_OLD` and `MVEDSUA_FUZZ_NEW`.

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mvedsua_binary::patch::Patch;
use mvedsua_binary::{Report, compare};

static FILES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    ["MVEDSUA_FUZZ_OLD", "MVEDSUA_FUZZ_NEW"].map(|name| {
        let path = std::env::var_os(name).expect("it names a file");
        std::fs::read(path).expect("the file is there")
    })
});

fuzz_target!(|input: &[u8]| {
    let Some((which, edits)) = input.split_first() else { return };
    let mut files = FILES.clone();
    let file = &mut files[usize::from(which & 1)];
    for edit in edits.chunks_exact(4) {
        let at = u32::from_le_bytes([edit[0], edit[1], edit[2], 0]) as usize % file.len();
        file[at] = edit[3];
    }
    let Ok(comparison) = compare(&files[0], &files[1]) else { return };
    let _ = Report::of(&comparison).text();
    if let Some(patch) = &comparison.patch {
        for fixup in &patch.fixups {
            let _ = Patch::resolve(fixup, 1 << 40, 1 << 41);
        }
    }
});
