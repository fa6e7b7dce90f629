//! Loaded versions: shared objects with a descriptor, `mvedsua_object` in the header.
//!
//! A version that was replaced stays mapped, because what the program's heap holds may point into it; but its code loses
//! the right to be executed ([`Version::retire`]), so that whatever still calls it is found out at once and nobody can say
//! that the old version runs. At the end of the process the right is given back, for its exit handlers.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::escape::Entry;

/// `MVEDSUA_ABI` of the header.
const ABI: c_uint = 1;

/// `struct mvedsua_variable`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Variable {
    name: *const c_char,
    pub(crate) address: *mut c_void,
    pub(crate) size: usize,
}

/// A function that makes a variable of the new version.
pub(crate) type Transformer = unsafe extern "C" fn(*const c_void, *mut c_void) -> c_int;

/// `struct mvedsua_transform`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Transform {
    name: *const c_char,
    old_name: *const c_char,
    pub(crate) run: Option<Transformer>,
}

/// `struct mvedsua_function`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Function {
    name: *const c_char,
    old_name: *const c_char,
    pub(crate) address: *mut c_void,
}

/// `struct mvedsua_object`.
#[repr(C)]
struct Descriptor {
    abi: c_uint,
    size: c_uint,
    pending: *mut c_int,
    entry: Option<Entry>,
    variables: Range2<Variable>,
    transforms: Range2<Transform>,
    functions: Range2<Function>,
    threads: Range2<Function>,
}

/// Begin and end of one of the linker's sections; both are null where the object has none.
#[repr(C)]
struct Range2<T> {
    begin: *const T,
    end: *const T,
}

impl<T> Range2<T> {
    /// # Safety
    ///
    /// The two must delimit an array that lives forever.
    unsafe fn slice(&self) -> &'static [T] {
        if self.begin.is_null() || self.end <= self.begin {
            return &[];
        }
        // SAFETY: not null and not empty; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.begin, self.end.offset_from(self.begin).unsigned_abs()) }
    }
}

/// # Safety
///
/// Null, or a string of an object that stays mapped.
unsafe fn text(string: *const c_char) -> Option<&'static str> {
    if string.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(string) }.to_str().ok()
}

impl Variable {
    pub(crate) fn name(&self) -> &'static str {
        // SAFETY: the header makes it from a string literal of the object.
        unsafe { text(self.name) }.unwrap_or_default()
    }
}

impl Transform {
    /// The variable that it makes; `None` for one that runs last.
    pub(crate) fn name(&self) -> Option<&'static str> {
        // SAFETY: the header makes it from a string literal of the object.
        unsafe { text(self.name) }
    }

    pub(crate) fn old_name(&self) -> &'static str {
        // SAFETY: the header makes it from a string literal of the object.
        unsafe { text(self.old_name) }.unwrap_or_default()
    }
}

impl Function {
    pub(crate) fn name(&self) -> &'static str {
        // SAFETY: the header makes it from a string literal of the object.
        unsafe { text(self.name) }.unwrap_or_default()
    }

    pub(crate) fn old_name(&self) -> &'static str {
        // SAFETY: the header makes it from a string literal of the object.
        unsafe { text(self.old_name) }.unwrap_or_default()
    }
}

/// A version that is mapped.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) path: PathBuf,
    handle: usize,
    descriptor: usize,
    /// Where its segments are, and those of them that hold code.
    mapped: Vec<Range<usize>>,
    code: Vec<Range<usize>>,
}

impl Version {
    /// Maps an object and looks whether it is a version.
    pub(crate) fn load(path: &Path) -> Result<Version, String> {
        let shown = path.display();
        let name = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| format!("the path {shown} has a zero byte in it"))?;
        // SAFETY: running the object's constructors is what was asked for.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(format!("{shown} cannot be loaded: {}", loader_error()));
        }
        let unload = |why: String| {
            // SAFETY: nothing of it is in use.
            unsafe { libc::dlclose(handle) };
            why
        };
        // SAFETY: the handle is open.
        let descriptor = unsafe { libc::dlsym(handle, c"mvedsua_object".as_ptr()) }.cast::<Descriptor>();
        if descriptor.is_null() {
            return Err(unload(format!("{shown} is no version: it does not include mvedsua.h")));
        }
        // SAFETY: the header defines it; `abi` and `size` come first in every layout.
        let (abi, size) = unsafe { ((*descriptor).abi, (*descriptor).size) };
        if abi != ABI || size as usize != size_of::<Descriptor>() {
            return Err(unload(format!(
                "{shown} was built with another mvedsua.h (ABI {abi}, this runtime has {ABI})"
            )));
        }
        let mut version = Version {
            path: path.to_owned(),
            handle: handle as usize,
            descriptor: descriptor as usize,
            mapped: vec![],
            code: vec![],
        };
        // SAFETY: `see_segments` takes what it is given here.
        unsafe { libc::dl_iterate_phdr(Some(see_segments), (&raw mut version).cast()) };
        Ok(version)
    }

    /// Unmaps it; nothing may use it any more.
    pub(crate) fn unload(self) {
        // SAFETY: the handle is open, and the caller's promise.
        unsafe { libc::dlclose(self.handle as *mut c_void) };
    }

    pub(crate) fn is_same_object(&self, other: &Version) -> bool {
        self.descriptor == other.descriptor
    }

    fn descriptor(&self) -> &'static Descriptor {
        // SAFETY: objects that were loaded stay mapped, but for those that `unload` consumed.
        unsafe { &*(self.descriptor as *const Descriptor) }
    }

    pub(crate) fn flag(&self) -> *mut c_int {
        self.descriptor().pending
    }

    /// Makes the update points of this version look, or not.
    pub(crate) fn set_flag(&self, value: c_int) {
        // SAFETY: the object's own variable; only whole `int`s are ever written to it.
        unsafe { self.flag().write_volatile(value) };
    }

    pub(crate) fn entry(&self) -> Option<Entry> {
        self.descriptor().entry
    }

    pub(crate) fn variables(&self) -> &'static [Variable] {
        // SAFETY: the linker's section; the object stays mapped.
        unsafe { self.descriptor().variables.slice() }
    }

    pub(crate) fn transforms(&self) -> &'static [Transform] {
        // SAFETY: as above.
        unsafe { self.descriptor().transforms.slice() }
    }

    pub(crate) fn functions(&self) -> &'static [Function] {
        // SAFETY: as above.
        unsafe { self.descriptor().functions.slice() }
    }

    pub(crate) fn threads(&self) -> &'static [Function] {
        // SAFETY: as above.
        unsafe { self.descriptor().threads.slice() }
    }

    /// Returns the address of an exported symbol, 0 where there is none.
    pub(crate) fn symbol(&self, name: &CStr) -> usize {
        // SAFETY: the handle is open.
        unsafe { libc::dlsym(self.handle as *mut c_void, name.as_ptr()) as usize }
    }

    pub(crate) fn contains(&self, address: usize) -> bool {
        self.mapped.iter().any(|range| range.contains(&address))
    }

    /// Takes the right to be executed from its code.
    pub(crate) fn retire(self) {
        protect(&self.code, libc::PROT_READ);
        let mut retired = RETIRED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        retired.extend(self.code);
        drop(retired);
        // Exit handlers run in reverse order: this one before those that the old version has registered.
        // SAFETY: the handler lives as long as the process.
        unsafe { libc::atexit(revive) };
    }
}

/// The code of versions that were replaced.
static RETIRED: Mutex<Vec<Range<usize>>> = Mutex::new(Vec::new());

extern "C" fn revive() {
    let retired = RETIRED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    protect(&retired, libc::PROT_READ | libc::PROT_EXEC);
}

fn protect(ranges: &[Range<usize>], protection: c_int) {
    for range in ranges {
        // SAFETY: whole pages of code that nobody is to execute, or that is there to be executed.
        unsafe { libc::mprotect(range.start as *mut c_void, range.len(), protection) };
    }
}

/// Fills in where a version's segments are.
///
/// # Safety
///
/// For `dl_iterate_phdr(3)`, with a [`Version`] as its argument.
unsafe extern "C" fn see_segments(info: *mut libc::dl_phdr_info, _size: usize, version: *mut c_void) -> c_int {
    const PAGE: usize = 4096;
    // SAFETY: the caller's promise.
    let (info, version) = unsafe { (&*info, &mut *version.cast::<Version>()) };
    if info.dlpi_phnum == 0 {
        return 0;
    }
    // SAFETY: the loader's own headers.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let base = info.dlpi_addr as usize;
    let loaded = |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_LOAD;
    let range = |header: &libc::Elf64_Phdr| {
        let begin = base + header.p_vaddr as usize;
        begin & !(PAGE - 1)..(begin + header.p_memsz as usize).next_multiple_of(PAGE)
    };
    let mapped: Vec<_> = headers.iter().filter(loaded).map(range).collect();
    if !mapped.iter().any(|range| range.contains(&version.descriptor)) {
        return 0;
    }
    version.mapped = mapped;
    version.code = headers.iter().filter(loaded).filter(|header| header.p_flags & libc::PF_X != 0).map(range).collect();
    1
}

fn loader_error() -> String {
    // SAFETY: returns a string of the loader's, or null.
    let message = unsafe { libc::dlerror() };
    if message.is_null() {
        return "the loader does not say why".to_owned();
    }
    // SAFETY: not null, and valid until the next call of the loader.
    unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()
}
