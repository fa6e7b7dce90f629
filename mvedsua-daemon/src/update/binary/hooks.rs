//! Hooks: functions that a package brings and that run once in the follower, where the old version becomes the new one.
//!
//! They are loaded by the daemon, into memory of their own with a stack of their own; the dynamic loader may be in any state
//! there, and takes locks. What they use of other files is looked up as for new code. They run in the main thread, between two of
//! the program's calls, and no other thread runs meanwhile. A system call would take something from the world that the original
//! does not know of, so none is made; a hook that begins one fails, like one that crashes or does not return, and the update with
//! it. Afterwards they are gone, and nothing may point to them, nor to an object that they moved ([`super::scan`]).

use std::time::Duration;

use mvedsua_binary::hooks::{AFTER, BEFORE, Holds, HookFile};
use mvedsua_binary::patch::{PAGE, Protection};
use mvedsua_binary::transform::Transform;

use super::names::Names;
use super::{calls, scan};
use crate::ptrace::Result;
use crate::ptrace::inject::{FunctionCall, Ran};
use crate::ptrace::memory::Span;
use crate::ptrace::procfs;
use crate::ptrace::sys;
use crate::replay::following::applying::{Again, Applying};
use crate::update::method::Follower;

/// The layout of what a hook is given: `MVEDSUA_HOOKS_VERSION` in mvedsua-sdk/include/mvedsua_hooks.h.
const VERSION: u32 = 1;
/// Bytes of `struct mvedsua_hooks`, of `struct mvedsua_object`, and of the room for a reason.
const HEAD: u64 = 32;
const OBJECT: u64 = 40;
const REASON: u64 = 512;
const STACK: u64 = 256 << 10;
/// How long a hook may take.
const WITHIN: Duration = Duration::from_secs(5);

/// The hooks of a package, and what they convert.
#[derive(Debug)]
pub struct Hooks {
    /// The file's name, for people.
    pub name: String,
    pub file: HookFile,
    pub objects: Vec<Transform>,
}

impl Hooks {
    /// Returns the objects in whose place the new version has others.
    pub(super) fn moved(&self) -> impl Iterator<Item = &Transform> {
        self.objects.iter().filter(|object| object.moves())
    }
}

/// How a hook ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Well,
    /// Why, in words.
    Failed(String),
    /// Something leads to what is over; at another time nothing may.
    Left(String),
}

impl Ended {
    /// Returns why the new version is not applied, if so.
    pub(super) fn stops(self) -> Option<Applying> {
        match self {
            Ended::Well => None,
            Ended::Failed(why) => Some(Applying::not(why, Again::No)),
            Ended::Left(what) => Some(Applying::not(what, Again::Perhaps)),
        }
    }
}

/// Hooks that are loaded into a follower.
#[derive(Debug)]
pub(super) struct Ready<'h> {
    hooks: &'h Hooks,
    /// All that was mapped for them.
    span: Span,
    table: u64,
    reason: u64,
    /// The old places of objects that move, with their names.
    moved: Vec<(Span, String)>,
}

impl<'h> Ready<'h> {
    /// Loads them. `base` and `new_base` are what is added to addresses of the old and the new file.
    pub(super) fn load(follower: &Follower<'_>, hooks: &'h Hooks, base: u64, new_base: u64) -> Result<Ready<'h>> {
        let process = follower.process;
        let names = Names::look_up(follower, &procfs::maps(process.pid)?, hooks.file.symbols())?;
        let text: u64 = hooks.objects.iter().map(|object| object.name.len() as u64 + 1).sum();
        let tables = (HEAD + OBJECT * hooks.objects.len() as u64 + text + REASON).next_multiple_of(PAGE);
        let len = hooks.file.len + tables + PAGE + STACK;
        let main = process.pid.main();
        let mut remote = process.remote(follower.inbox, main, sys::get_regs(main)?)?;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as u64;
        let at = remote.call("mmap", libc::SYS_mmap, [0, len, libc::PROT_NONE as u64, flags, u64::MAX, 0])?;
        let mut protect = |start: u64, len: u64, protection: i32| {
            let (start, end) = (start / PAGE * PAGE, (start + len).next_multiple_of(PAGE));
            remote.call("mprotect", libc::SYS_mprotect, [start, end - start, protection as u64, 0, 0, 0])
        };
        for segment in &hooks.file.segments {
            process.memory.force(at + segment.start, &segment.bytes)?;
            let protection = match segment.protection {
                Protection::Code => libc::PROT_READ | libc::PROT_EXEC,
                Protection::Constant => libc::PROT_READ,
                Protection::Data => libc::PROT_READ | libc::PROT_WRITE,
            };
            protect(at + segment.start, segment.bytes.len() as u64, protection)?;
        }
        let (table, stack) = (at + hooks.file.len, at + len - STACK);
        protect(table, tables, libc::PROT_READ | libc::PROT_WRITE)?;
        protect(stack, STACK, libc::PROT_READ | libc::PROT_WRITE)?;
        remote.finish()?;
        for word in &hooks.file.words {
            let value = match &word.holds {
                Holds::Own(address) => at.wrapping_add(*address),
                Holds::Symbol(name, added) => names.of(name)?.wrapping_add_signed(*added),
            };
            process.memory.force(at + word.at, &value.to_le_bytes())?;
        }
        let (bytes, reason) = table_of(&hooks.objects, table, base, new_base);
        process.memory.force(table, &bytes)?;
        let old = |object: &Transform| Span {
            start: object.old.start.wrapping_add(base),
            end: object.old.end.wrapping_add(base),
        };
        let moved = hooks.moved().map(|object| (old(object), format!("the old `{}`", object.name))).collect();
        Ok(Ready { hooks, span: Span { start: at, end: at + len }, table, reason, moved })
    }

    /// Runs what is to run before the new version is there.
    pub(super) fn before(&self, follower: &Follower<'_>) -> Result<Ended> {
        self.run(follower, BEFORE, self.hooks.file.before)
    }

    /// Runs what is to run when the new version is there, and sees that nothing leads to what is over then.
    pub(super) fn after(&self, follower: &Follower<'_>) -> Result<Ended> {
        let ended = self.run(follower, AFTER, self.hooks.file.after)?;
        if ended != Ended::Well {
            return Ok(ended);
        }
        let mut over = self.moved.clone();
        over.push((self.span, self.hooks.name.clone()));
        if let Some(what) = scan::leads_to(follower, &over)? {
            return Ok(Ended::Left(format!("{}: after `{AFTER}` {what}", self.hooks.name)));
        }
        let main = follower.process.pid.main();
        let mut remote = follower.process.remote(follower.inbox, main, sys::get_regs(main)?)?;
        remote.call("munmap", libc::SYS_munmap, [self.span.start, self.span.len(), 0, 0, 0, 0])?;
        remote.finish()?;
        Ok(Ended::Well)
    }

    fn run(&self, follower: &Follower<'_>, name: &str, function: Option<u64>) -> Result<Ended> {
        let Some(function) = function else { return Ok(Ended::Well) };
        let function = self.span.start + function;
        let call = FunctionCall { function, args: [self.table, 0], stack: self.span.end, within: Some(WITHIN) };
        let ran = calls::run(follower, &call)?;
        let file = &self.hooks.name;
        let what = match ran {
            // It returns an `int`.
            Ran::Returned(value) if value as u32 == 0 => return Ok(Ended::Well),
            Ran::Returned(value) => {
                let text = follower.process.memory.read_vec(self.reason, REASON as usize)?;
                let text: Vec<u8> = text.into_iter().take_while(|byte| *byte != 0).collect();
                let text = String::from_utf8_lossy(&text).replace(char::is_control, " ");
                let colon = if text.is_empty() { "" } else { ": " };
                format!("`{name}` returned {}{colon}{text}", value as u32 as i32)
            }
            other @ (Ran::Crashed { .. } | Ran::MadeCall { .. } | Ran::Late { .. }) => {
                let at = other.at().unwrap_or(function);
                let place = match self.span.contains(at) {
                    true => format!("{file}+{:#x}", at - self.span.start),
                    false => format!("{at:#x}"),
                };
                format!("`{name}` {other}, at {place}")
            }
        };
        Ok(Ended::Failed(format!("{file}: {what}")))
    }
}

/// Returns what a hook is given, which lies at `table`, and where the room for a reason is.
fn table_of(objects: &[Transform], table: u64, base: u64, new_base: u64) -> (Vec<u8>, u64) {
    let places = table + HEAD;
    let mut text = places + OBJECT * objects.len() as u64;
    let texts_len: u64 = objects.iter().map(|object| object.name.len() as u64 + 1).sum();
    let reason = text + texts_len;
    let mut bytes = vec![];
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(objects.len()).unwrap_or(0).to_le_bytes());
    for word in [places, reason, REASON] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for object in objects {
        let old = object.old.start.wrapping_add(base);
        let new = if object.moves() { object.new.start.wrapping_add(new_base) } else { old };
        let (old_len, new_len) = (object.old.end - object.old.start, object.new.end - object.new.start);
        for word in [text, old, old_len, new, new_len] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        text += object.name.len() as u64 + 1;
    }
    for object in objects {
        bytes.extend_from_slice(object.name.as_bytes());
        bytes.push(0);
    }
    (bytes, reason)
}
