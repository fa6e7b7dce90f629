//! Registered state, and how the new version's is made out of the old one's.

use std::cell::RefCell;
use std::ffi::{CString, c_void};
use std::sync::{Mutex, PoisonError};

use crate::object::{Transform, Version};
use crate::update;

/// A registered local variable of a thread.
#[derive(Clone, Debug)]
struct Local {
    /// `function.variable`.
    name: String,
    address: usize,
    size: usize,
}

thread_local! {
    static LOCALS: RefCell<Vec<Local>> = const { RefCell::new(Vec::new()) };
    /// Those of the old version, while this thread is on its way into the new one.
    static OLD_LOCALS: RefCell<Vec<Local>> = const { RefCell::new(Vec::new()) };
    /// What a transformer says about itself.
    static REASON: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What the new version has asked for of the old one's variables, by their names.
static ASKED: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub(crate) fn set_reason(reason: String) {
    REASON.with_borrow_mut(|kept| *kept = reason);
}

/// The thread enters the new version: its locals are now the old version's.
pub(crate) fn hand_over_locals() {
    OLD_LOCALS.set(LOCALS.take());
}

/// The update was given up: the locals are what they were.
pub(crate) fn take_locals_back() {
    LOCALS.set(OLD_LOCALS.take());
}

/// The thread is there: nobody needs the old ones any more.
pub(crate) fn forget_old_locals() {
    OLD_LOCALS.take();
}

pub(crate) fn forget_local(address: usize) {
    LOCALS.with_borrow_mut(|locals| {
        if let Some(at) = locals.iter().rposition(|local| local.address == address) {
            locals.remove(at);
        }
    });
}

/// Registers a local; while an update is under way it gets its value.
pub(crate) fn note_local(name: String, address: usize, size: usize, to: Option<&Version>) -> Result<(), String> {
    let made = match to {
        Some(version) => {
            let old = |name: &str| {
                OLD_LOCALS.with_borrow(|locals| {
                    locals.iter().rfind(|local| local.name == name).map(|local| (local.address, local.size))
                })
            };
            make(&name, address, size, version.transforms(), old)
        }
        None => Ok(()),
    };
    LOCALS.with_borrow_mut(|locals| locals.push(Local { name, address, size }));
    made
}

/// Makes every registered global of the new version.
pub(crate) fn make_globals(old: &Version, new: &Version) -> Result<(), String> {
    ASKED.lock().unwrap_or_else(PoisonError::into_inner).clear();
    check_transforms(new)?;
    check_registered(old, new)?;
    let known = |name: &str| find(old, name);
    for variable in new.variables() {
        make(variable.name(), variable.address as usize, variable.size, new.transforms(), known)?;
    }
    for transform in new.transforms().iter().filter(|transform| transform.name().is_none()) {
        run(transform, "the transformer that runs last", 0, 0)?;
    }
    Ok(())
}

/// Every transformer must be of something that the new version registers. Which locals there are only shows as they are
/// registered; theirs have a dot in their names.
fn check_transforms(new: &Version) -> Result<(), String> {
    let mut names: Vec<String> = new.variables().iter().map(|variable| variable.name().to_owned()).collect();
    names.extend(new.threads().iter().map(|thread| format!("{}()", thread.name())));
    let named = new.transforms().iter().filter_map(Transform::name);
    match named.filter(|name| !name.contains('.')).find(|name| !names.iter().any(|known| known == name)) {
        None => Ok(()),
        Some(name) if names.is_empty() => {
            Err(format!("there is a transformer of `{name}`, but the new version registers no variable"))
        }
        Some(name) => Err(format!(
            "there is a transformer of `{name}`, which the new version does not register; it registers {}",
            names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        )),
    }
}

/// A variable that the old version has and does not register is not taken over: the new version's would begin anew, unnoticed. Of
/// those that the old version exports it is known.
fn check_registered(old: &Version, new: &Version) -> Result<(), String> {
    let is_made = |name: &str| new.transforms().iter().any(|transform| transform.name() == Some(name));
    let is_there = |name: &str| CString::new(name).is_ok_and(|name| old.contains(old.symbol(&name)));
    let names = new.variables().iter().map(|variable| variable.name());
    match names.filter(|name| find(old, name).is_none() && !is_made(name)).find(|name| is_there(name)) {
        None => Ok(()),
        Some(name) => Err(format!(
            "the new version registers `{name}`, and the running one has it without registering it, so its value would be \
             lost: add MVEDSUA_TRANSFORM(\"{name}\", …), in which mvedsua_old(\"{name}\") leads to it"
        )),
    }
}

/// Looks for registered variables of the old version that go nowhere: they are not registered again, nothing is made of them, the
/// new version has not asked for them, and does not say that it drops them. Where another one comes from nowhere that could be the
/// same under another name, the value would be lost by a slip; else this is said of them, and may explain a difference later on.
pub(crate) fn check_left(old: &Version, new: &Version) -> Result<Option<String>, String> {
    let asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
    let goes_on = |name: &str| {
        find(new, name).is_some()
            || new.transforms().iter().any(|transform| transform.old_name() == name)
            || asked.iter().any(|asked| asked == name)
    };
    let comes_from_nowhere = |name: &str| {
        find(old, name).is_none() && !new.transforms().iter().any(|transform| transform.name() == Some(name))
    };
    let left: Vec<_> = old.variables().iter().filter(|variable| !goes_on(variable.name())).collect();
    for variable in &left {
        let alike = new.variables().iter().filter(|fresh| fresh.size == variable.size);
        if let Some(fresh) = alike.map(|fresh| fresh.name()).find(|name| comes_from_nowhere(name)) {
            let name = variable.name();
            return Err(format!(
                "`{name}` of the running version would be lost, and `{fresh}` of the new one begins anew: if that is its new \
                 name, add MVEDSUA_TRANSFORM_FROM(\"{fresh}\", \"{name}\", NULL), else MVEDSUA_DROPPED(\"{name}\")"
            ));
        }
    }
    let names: Vec<String> = left.iter().map(|variable| format!("`{}`", variable.name())).collect();
    Ok((!names.is_empty()).then(|| {
        format!(
            "the new version does not register {}, which the running one registers: its value is lost (MVEDSUA_REGISTER keeps \
             it, MVEDSUA_DROPPED says that it is not needed)",
            names.join(", ")
        )
    }))
}

/// Returns address and size of a registered global.
fn find(version: &Version, name: &str) -> Option<(usize, usize)> {
    let found = version.variables().iter().find(|variable| variable.name() == name);
    found.map(|variable| (variable.address as usize, variable.size))
}

/// Makes one variable: by its transformer, as a copy, or not at all where the old version has none.
fn make(
    name: &str,
    address: usize,
    size: usize,
    transforms: &[Transform],
    old: impl Fn(&str) -> Option<(usize, usize)>,
) -> Result<(), String> {
    let transform = transforms.iter().find(|transform| transform.name() == Some(name));
    let old_name = transform.map_or(name, |transform| transform.old_name());
    match (transform, old(old_name)) {
        (Some(transform), old) if transform.run.is_some() => {
            run(transform, &format!("the transformer of `{name}`"), old.map_or(0, |(old, _)| old), address)
        }
        (_, Some((old, old_size))) if old_size == size => {
            // SAFETY: both are registered variables of this size; nobody else uses them while the update is under way.
            unsafe { std::ptr::copy(old as *const u8, address as *mut u8, size) };
            Ok(())
        }
        (_, Some((_, old_size))) => Err(format!(
            "`{name}` has {size} bytes, had {old_size}, and no transformer: add MVEDSUA_TRANSFORM(\"{name}\", …)"
        )),
        (Some(_), None) => {
            Err(format!("`{name}` is to be made of `{old_name}`, which the running version has not registered"))
        }
        (None, None) => Ok(()),
    }
}

fn run(transform: &Transform, what: &str, old: usize, new: usize) -> Result<(), String> {
    let Some(function) = transform.run else { return Ok(()) };
    set_reason(String::new());
    update::doing(&format!("{what} ran"));
    // SAFETY: the new version's function, with the arguments that the header promises it.
    let code = unsafe { function(old as *const c_void, new as *mut c_void) };
    match (code, REASON.take()) {
        (0, _) => Ok(()),
        (code, reason) if reason.is_empty() => Err(format!("{what} failed (it returned {code})")),
        (_, reason) => Err(format!("{what} failed: {reason}")),
    }
}

/// Returns the value that a thread function's argument has in the new version.
pub(crate) fn make_argument(function: &str, argument: usize, new: &Version) -> Result<usize, String> {
    let name = format!("{function}()");
    let mut made = argument;
    let old = argument;
    let find = |_: &str| Some((&raw const old as usize, size_of::<usize>()));
    make(&name, &raw mut made as usize, size_of::<usize>(), new.transforms(), find)?;
    Ok(made)
}

/// Returns the address of a variable of the old version: a local of this thread, a registered global, an exported symbol.
pub(crate) fn old_address(old: &Version, name: &str) -> usize {
    ASKED.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
    let local =
        OLD_LOCALS.with_borrow(|locals| locals.iter().rfind(|local| local.name == name).map(|local| local.address));
    let known = local.or_else(|| find(old, name).map(|(address, _)| address));
    known.unwrap_or_else(|| CString::new(name).map_or(0, |name| old.symbol(&name)))
}

/// Returns what a pointer of the old version is in the new one; 0 where nothing says it.
pub(crate) fn translate(old: &Version, new: &Version, pointer: usize) -> usize {
    if let Some(function) = old.functions().iter().find(|function| function.address as usize == pointer) {
        let same = new.functions().iter().find(|candidate| candidate.old_name() == function.name());
        return same.map_or(0, |function| function.address as usize);
    }
    let inside = old.variables().iter().find(|variable| {
        let begin = variable.address as usize;
        (begin..begin + variable.size).contains(&pointer)
    });
    if let Some(variable) = inside {
        let renamed = new.transforms().iter().find(|transform| transform.old_name() == variable.name());
        let name = renamed.and_then(Transform::name).unwrap_or(variable.name());
        let offset = pointer - variable.address as usize;
        return match find(new, name) {
            Some((address, size)) if offset == 0 || size == variable.size => address + offset,
            _ => 0,
        };
    }
    if old.contains(pointer) { 0 } else { pointer }
}
