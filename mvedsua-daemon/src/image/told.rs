//! What the kernel tells of an address space: where a program's code, data, break, stack, arguments and environment are
//! (`/proc/<pid>/cmdline`, `environ`, `auxv`, `stat`). It is the process's in the kernel, and the version's by what it says.

use std::fs::File;

use crate::ptrace::{Error, Pid, Result, procfs};

/// What `prctl(PR_SET_MM_MAP)` sets, but for the file of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// `struct prctl_mm_map` of `include/uapi/linux/prctl.h` up to `env_end`.
    places: [u64; 11],
    /// The auxiliary vector, getauxval(3).
    pub(super) vector: Vec<u8>,
}

impl Told {
    /// Reads it of a process whose break is known.
    pub(crate) fn of(pid: Pid, break_at: u64) -> Result<Told> {
        let field = |number: usize| {
            let field = procfs::stat_field(pid, number)?.and_then(|text| text.parse().ok());
            let unknown = || Error::Unsupported(format!("/proc/{pid}/stat does not say where its memory begins"));
            field.filter(|place: &u64| *place > 1).ok_or_else(unknown)
        };
        // proc(5): code 26 and 27, stack 28, data 45 and 46, break 47, arguments 48 and 49, environment 50 and 51.
        let mut places = [0; 11];
        for (place, number) in places.iter_mut().zip([26, 27, 45, 46, 47, 0, 28, 48, 49, 50, 51]) {
            *place = if number == 0 { break_at } else { field(number)? };
        }
        let path = format!("/proc/{pid}/auxv");
        let vector = std::fs::read(&path).map_err(|source| Error::Proc { path, source })?;
        Ok(Told { places, vector })
    }

    /// Returns `struct prctl_mm_map`, with the vector at this address, and the descriptor of the program's file if that is to be
    /// named.
    pub(super) fn map(&self, vector: u64, file: Option<u64>) -> Vec<u8> {
        let file = file.map_or(u32::MAX, |fd| fd as u32);
        let mut bytes: Vec<u8> = self.places.iter().chain([&vector]).flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend((self.vector.len() as u32).to_ne_bytes());
        bytes.extend(file.to_ne_bytes());
        bytes
    }
}

/// Opens the file of a process's program, unless another process runs the same.
pub(crate) fn other_program(coming: Pid, service: Pid) -> Result<Option<File>> {
    use std::os::unix::fs::MetadataExt;
    let path = |pid: Pid| format!("/proc/{pid}/exe");
    let failed = |source| Error::Proc { path: path(coming), source };
    let file = File::open(path(coming)).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let is_same = std::fs::metadata(path(service))
        .is_ok_and(|service| (service.dev(), service.ino()) == (meta.dev(), meta.ino()));
    Ok((!is_same).then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_what_it_tells() {
        let told = Told::of(Pid(std::process::id() as i32), 0x5000).expect("our own");
        assert_eq!(told.map(0x1000, None).len(), 104, "the size of struct prctl_mm_map");
        assert_eq!((told.places[5], told.map(0x1000, Some(7))[100]), (0x5000, 7));
        let [code, code_end, .., arguments, arguments_end, environment, environment_end] = told.places;
        assert!(code < code_end && arguments < arguments_end && arguments_end <= environment);
        assert!(environment <= environment_end);
    }
}
