//! Just enough of the kernel's type information (`/sys/kernel/btf/vmlinux`) to place the programs' few offsets.
//!
//! The format is described in the kernel's `Documentation/bpf/btf.rst`. aya reads it too, but keeps what it read to
//! itself.

use std::path::Path;

use super::MonitorError;

const KERNEL: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xEB9F;

const KIND_PTR: u32 = 2;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC_PROTO: u32 = 13;

/// What the programs need to know of the running kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KernelFacts {
    /// Offset of `task_struct.pid`, bytes.
    pub(super) pid_offset: u32,
    /// Offset of `task_struct.tgid`, bytes.
    pub(super) tgid_offset: u32,
    /// Offset of `task_struct.exit_signal`, bytes.
    pub(super) exit_signal_offset: u32,
    /// Whether the exit tracepoint says that the last thread of a process ends.
    pub(super) group_dead: GroupDead,
}

/// Whether `sched_process_exit` has its second argument (Linux 6.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupDead {
    Told,
    NotTold,
}

/// Reads the facts from the running kernel.
pub(super) fn kernel_facts() -> Result<KernelFacts, MonitorError> {
    let bytes = std::fs::read(Path::new(KERNEL)).map_err(|source| MonitorError::NoTypeInformation { source })?;
    facts(&bytes).ok_or(MonitorError::StrangeTypeInformation)
}

/// Returns the offset of a member of the running kernel's `task_struct`, bytes.
pub(crate) fn task_offset(member: &str) -> Result<u32, MonitorError> {
    let bytes = std::fs::read(Path::new(KERNEL)).map_err(|source| MonitorError::NoTypeInformation { source })?;
    let found = Btf::parse(&bytes).and_then(|btf| btf.offset(btf.find(KIND_STRUCT, "task_struct")?, member));
    found.ok_or(MonitorError::StrangeTypeInformation)
}

fn facts(bytes: &[u8]) -> Option<KernelFacts> {
    let btf = Btf::parse(bytes)?;
    let task = btf.find(KIND_STRUCT, "task_struct")?;
    let exit_arguments = btf
        .find(KIND_TYPEDEF, "btf_trace_sched_process_exit")
        .and_then(|typedef| btf.types.get(typedef.of as usize))
        .filter(|pointer| pointer.kind() == KIND_PTR)
        .and_then(|pointer| btf.types.get(pointer.of as usize))
        .filter(|proto| proto.kind() == KIND_FUNC_PROTO)
        .map(|proto| proto.vlen());
    Some(KernelFacts {
        pid_offset: btf.offset(task, "pid")?,
        tgid_offset: btf.offset(task, "tgid")?,
        exit_signal_offset: btf.offset(task, "exit_signal")?,
        // The first argument is the program's data, the second the task.
        group_dead: if exit_arguments.is_some_and(|n| n >= 3) { GroupDead::Told } else { GroupDead::NotTold },
    })
}

#[derive(Clone, Copy)]
struct Type {
    name: u32,
    info: u32,
    /// Size or referenced type, by kind.
    of: u32,
    /// Where the members are, in the bytes of the types.
    members: usize,
}

impl Type {
    fn kind(&self) -> u32 {
        (self.info >> 24) & 0x1f
    }

    fn vlen(&self) -> usize {
        (self.info & 0xffff) as usize
    }
}

struct Btf<'a> {
    /// By type id; 0 is `void`.
    types: Vec<Type>,
    type_bytes: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Btf<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let header = word(bytes, 4)? as usize;
        let part = |offset: usize, length: usize| {
            let start = header.checked_add(word(bytes, offset)? as usize)?;
            bytes.get(start..start.checked_add(word(bytes, length)? as usize)?)
        };
        let (type_bytes, strings) = (part(8, 12)?, part(16, 20)?);
        let mut types = vec![Type { name: 0, info: 0, of: 0, members: 0 }];
        let mut at = 0;
        while at < type_bytes.len() {
            let one = Type {
                name: word(type_bytes, at)?,
                info: word(type_bytes, at + 4)?,
                of: word(type_bytes, at + 8)?,
                members: at + 12,
            };
            at = one.members + extra_bytes(one.kind(), one.vlen())?;
            types.push(one);
        }
        Some(Btf { types, type_bytes, strings })
    }

    fn name(&self, offset: u32) -> &'a [u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        &rest[..rest.iter().position(|&b| b == 0).unwrap_or(rest.len())]
    }

    fn find(&self, kind: u32, name: &str) -> Option<&Type> {
        self.types.iter().find(|t| t.kind() == kind && self.name(t.name) == name.as_bytes())
    }

    /// Returns the offset of a member in bytes, looking into unnamed members too.
    fn offset(&self, of: &Type, name: &str) -> Option<u32> {
        for member in 0..of.vlen() {
            let at = of.members + member * 12;
            let member_name = self.name(word(self.type_bytes, at)?);
            let bits = word(self.type_bytes, at + 8)? & if of.info >> 31 == 1 { 0x00ff_ffff } else { u32::MAX };
            if member_name == name.as_bytes() {
                return Some(bits / 8);
            }
            if member_name.is_empty() {
                let inner = self.types.get(word(self.type_bytes, at + 4)? as usize)?;
                let nested = matches!(inner.kind(), KIND_STRUCT | KIND_UNION);
                if let Some(offset) = nested.then(|| self.offset(inner, name)).flatten() {
                    return Some(bits / 8 + offset);
                }
            }
        }
        None
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// How many bytes follow a type's own 12, `Documentation/bpf/btf.rst`.
fn extra_bytes(kind: u32, vlen: usize) -> Option<usize> {
    Some(match kind {
        // Pointers, forward declarations, typedefs, qualifiers, functions, floats, type tags.
        2 | 7..=12 | 16 | 18 => 0,
        // Integers, variables, declaration tags.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Structures, unions, sections, 64-bit enumerations.
        4 | 5 | 15 | 19 => vlen * 12,
        // Enumerations, function prototypes.
        6 | 13 => vlen * 8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_the_facts() {
        let facts = kernel_facts().expect("this kernel has type information");
        assert_eq!(facts.tgid_offset, facts.pid_offset + 4, "pid and tgid are neighbours");
    }

    #[test]
    fn rubbish_is_refused() {
        assert_eq!(facts(b""), None);
        assert_eq!(facts(&[0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
