//! Puts the new code into a follower, beside the old one. Nothing of it runs yet.

use mvedsua_binary::patch::{Fixup, Goal, PAGE, Patch, Protection};

use super::loaded::{Function, Loaded, Written};
use super::names::Names;
use super::{FileChange, calls, place, unfit};
use crate::ptrace::Result;
use crate::ptrace::inject::Remote;
use crate::ptrace::memory::{Memory, Span};
use crate::ptrace::procfs::{self, Mapping};
use crate::ptrace::sys;
use crate::update::method::Follower;

/// Room for what the unwinder notes about one set of tables (`struct object` in GCC's unwind-dw2-fde.h), bytes.
const NOTE: u64 = 256;

/// Loads what a patch needs into a follower whose threads are parked; `base` is where the old file lies, `known` what was
/// loaded for the same version before.
pub(super) fn load(
    follower: &Follower<'_>,
    file: &FileChange,
    patch: &Patch,
    base: u64,
    known: Option<Loaded>,
) -> Result<Loaded> {
    let process = follower.process;
    let maps = procfs::maps(process.pid)?;
    let names = Names::look_up(follower, &maps, patch.new_symbols())?;
    if let Some(known) = known {
        // The version was there before. Its own objects start anew.
        let written = contents(patch, base, known.new_base, &process.memory, &names)?;
        for (segment, bytes) in patch.segments.iter().zip(&written) {
            if segment.protection == Protection::Data {
                process.memory.force(segment.start.wrapping_add(known.new_base), bytes)?;
            }
        }
        return Ok(known);
    }
    let mut record = record(file, patch, base);
    // How long the record is depends on the addresses in it.
    let room = (record.to_bytes()?.len() as u64 + 64 * (patch.functions.len() + patch.jumps.len()) as u64 + 256)
        .next_multiple_of(PAGE);
    let len = room + (patch.new.end - patch.new.start) + PAGE;
    let old = Span { start: patch.old.start.wrapping_add(base), end: patch.old.end.wrapping_add(base) };
    let at = place::choose(&maps, old, len, patch.is_low)?;
    let new_base = at.wrapping_add(room).wrapping_sub(patch.new.start);
    let contents = contents(patch, base, new_base, &process.memory, &names)?;
    let note = Span { start: at + len - PAGE, end: at + len };
    complete(&mut record, patch, base, new_base, at)?;
    let head = record.to_bytes()?;
    if head.len() as u64 > room {
        return Err(unfit("the record of what is loaded is longer than was thought"));
    }
    let main = process.pid.main();
    let mut remote = process.remote(follower.inbox, main, sys::get_regs(main)?)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    remote.call("mmap", libc::SYS_mmap, [at, len, libc::PROT_NONE as u64, flags as u64, u64::MAX, 0])?;
    process.memory.force(at, &head)?;
    protect(&mut remote, Span { start: at, end: at + room }, libc::PROT_READ)?;
    for (segment, bytes) in patch.segments.iter().zip(&contents) {
        let start = segment.start.wrapping_add(new_base);
        process.memory.force(start, bytes)?;
        let protection = match segment.protection {
            Protection::Code => libc::PROT_READ | libc::PROT_EXEC,
            Protection::Constant => libc::PROT_READ,
            Protection::Data => libc::PROT_READ | libc::PROT_WRITE,
        };
        protect(&mut remote, Span { start, end: start + bytes.len() as u64 }, protection)?;
    }
    protect(&mut remote, note, libc::PROT_READ | libc::PROT_WRITE)?;
    remote.finish()?;
    if let Some((frames, _)) = record.frames {
        tell_unwinder(follower, &maps, frames, note.start)?;
    }
    Ok(record)
}

fn protect(remote: &mut Remote<'_>, span: Span, protection: i32) -> Result<()> {
    remote.call("mprotect", libc::SYS_mprotect, [span.start, span.len(), protection as u64, 0, 0, 0]).map(drop)
}

/// Returns the record without what depends on addresses.
fn record(file: &FileChange, patch: &Patch, base: u64) -> Loaded {
    Loaded {
        from: file.from.clone(),
        to: file.to.clone(),
        name: file.name.clone(),
        base,
        new_base: 0,
        jumps: vec![Written { at: u64::MAX, before: [0xff; 5], after: [0xff; 5] }; patch.jumps.len()],
        functions: patch
            .functions
            .iter()
            .map(|loaded| Function { name: loaded.name.clone(), start: u64::MAX, end: u64::MAX })
            .collect(),
        frames: patch.frames.map(|_| (u64::MAX, u64::MAX)),
        fresh: patch.fresh,
        moved: file.hooks.as_ref().map_or(0, |hooks| hooks.moved().count()),
        at: 0,
        is_active: false,
    }
}

fn complete(record: &mut Loaded, patch: &Patch, base: u64, new_base: u64, at: u64) -> Result<()> {
    record.new_base = new_base;
    record.at = at;
    record.jumps = patch
        .jumps
        .iter()
        .map(|jump| {
            let after = Patch::jump(jump, base, new_base).map_err(unfit)?;
            Ok(Written { at: jump.at.wrapping_add(base), before: jump.before, after })
        })
        .collect::<Result<_>>()?;
    for (function, loaded) in record.functions.iter_mut().zip(&patch.functions) {
        (function.start, function.end) =
            (loaded.range.start.wrapping_add(new_base), loaded.range.end.wrapping_add(new_base));
    }
    record.frames = patch.frames.map(|start| (start.wrapping_add(new_base), frames_len(patch, start)));
    Ok(())
}

/// Returns how long the unwind information is that starts somewhere in a segment, with its end.
fn frames_len(patch: &Patch, start: u64) -> u64 {
    let holds = |segment: &&mvedsua_binary::patch::Segment| {
        segment.start <= start && start < segment.start + segment.bytes.len() as u64
    };
    patch.segments.iter().find(holds).map_or(0, |segment| segment.start + segment.bytes.len() as u64 - start)
}

/// Returns the bytes of each segment, with all that depends on where the files lie.
fn contents(patch: &Patch, base: u64, new_base: u64, memory: &Memory, names: &Names) -> Result<Vec<Vec<u8>>> {
    let mut contents: Vec<Vec<u8>> = patch.segments.iter().map(|segment| segment.bytes.clone()).collect();
    let put = |contents: &mut Vec<Vec<u8>>, at: u64, bytes: &[u8]| {
        let index = patch.segments.partition_point(|segment| segment.start <= at).checked_sub(1);
        let place = index.and_then(|index| {
            let from = usize::try_from(at - patch.segments.get(index)?.start).ok()?;
            contents.get_mut(index)?.get_mut(from..from.checked_add(bytes.len())?)
        });
        match place {
            Some(place) => {
                place.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(unfit(format!("nothing is loaded at {at:#x}"))),
        }
    };
    for copied in &patch.copies {
        let from = names.of(&copied.symbol)?;
        let len = usize::try_from(copied.len).map_err(unfit)?;
        put(&mut contents, copied.at, &memory.read_vec(from, len)?)?;
    }
    for fixup in &patch.fixups {
        let goal = goal(fixup, base, new_base, memory, names)?;
        put(&mut contents, fixup.at, &Patch::resolve(fixup, new_base, goal).map_err(unfit)?)?;
    }
    Ok(contents)
}

fn goal(fixup: &Fixup, base: u64, new_base: u64, memory: &Memory, names: &Names) -> Result<u64> {
    match &fixup.goal {
        Goal::Old(address) => Ok(address.wrapping_add(base)),
        Goal::New(address) => Ok(address.wrapping_add(new_base)),
        Goal::Held(slot, added) => Ok(memory.read_u64(slot.wrapping_add(base))?.wrapping_add_signed(*added)),
        Goal::Symbol(name, added) => Ok(names.of(name)?.wrapping_add_signed(*added)),
    }
}

/// Tells the unwinder of GCC, where a program has it, of tables for the new code: exceptions pass through it then.
///
/// The dynamic loader knows only files that it has loaded itself, and the unwinder asks it. What is registered by hand is
/// looked at first (`_Unwind_Find_FDE` in GCC's unwind-dw2-fde-dip.c). Without that library nothing in the process unwinds.
fn tell_unwinder(follower: &Follower<'_>, maps: &[Mapping], frames: u64, note: u64) -> Result<()> {
    const NAME: &str = "libgcc_s.so.1";
    let Some(library) = maps.iter().find(|area| area.offset == 0 && area.inode != 0 && area.name.ends_with(NAME))
    else {
        return Ok(());
    };
    let process = follower.process;
    let path = format!("/proc/{}/map_files/{:x}-{:x}", process.pid, library.start, library.end);
    let Some(offset) = crate::symbols::exported(&path, "__register_frame_info") else {
        return Err(unfit(format!("{NAME} has no function `__register_frame_info`, so exceptions would not pass")));
    };
    const { assert!(NOTE <= PAGE) };
    calls::call(follower, library.start + offset, [frames, note]).map(drop)
}
