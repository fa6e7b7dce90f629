//! The named exceptions: what a row cannot say, because it depends on an argument or on memory.
//!
//! There are two kinds. Most exceptions are one call that is many: `ioctl`, `fcntl`, `prctl` and the like choose among
//! requests, and each request has a row of its own here ([`Variant`]); a request without one is refused. The rest is
//! [`treatment`]: the short list of conditions under which a call is taken differently from what its row says.

mod fcntl;
mod ioctl;
mod ipc;
mod order;
mod others;
mod paired;
mod prctl;

use super::columns::{Applying, Fds, Wait};
use super::model::{Irregular, Row};
use super::regions::{self, Memory};

pub(super) use order::futex_waits;
pub use order::{Ordering, in_order, locks_inheriting};
pub use others::MAX_MESSAGES;
pub use paired::{Pairing, treatment_of};

/// One request, command or option of a call, with the row that describes it.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// What selects it: the request of `ioctl`, the command of `fcntl`, …
    pub value: u64,
    pub row: Row,
}

impl Variant {
    /// Says what the request does to the numbers of descriptors.
    const fn numbers(mut self, fds: Fds) -> Variant {
        self.row = self.row.numbers(fds);
        self
    }

    /// Says what becomes of the request while the new version is applied.
    const fn applying(mut self, applying: Applying) -> Variant {
        self.row = self.row.applying(applying);
        self
    }

    /// Says what the request may wait for.
    const fn waits(mut self, wait: Wait) -> Variant {
        self.row = self.row.waits(wait);
        self
    }
}

/// What is done with one call at its entry. The row is the one that [`regions`] wants for it.
#[derive(Clone, Copy, Debug)]
pub enum Treatment {
    /// As the class of the row says.
    Row(&'static Row),
    /// A thread is born: both versions do it.
    ThreadClone(&'static Row),
    /// A process is forked: the leader does it, the follower gets a pid without a process.
    GhostFork(&'static Row),
    /// A process is forked: both versions do it ([`Pairing::Processes`] alone).
    Fork(&'static Row),
    /// The program is replaced by another: both versions do it ([`Pairing::Processes`] alone).
    Exec(&'static Row),
    /// Each version makes the call, and both get the leader's result ([`Pairing::Processes`] alone).
    Alike(&'static Row),
    /// Both versions are told that this kernel does not have the call ([`Pairing::Processes`] alone).
    Absent(&'static Row),
    /// A file is mapped: each version maps it, the follower from the leader's descriptor.
    MmapFile(&'static Row),
    /// `restart_syscall(2)`: the call that a stop interrupted goes on, and its row still holds.
    Restart(&'static Row),
    /// Not supported; the reason is for the operator.
    Refuse(&'static str),
}

impl Treatment {
    /// Returns the row of the call, where it is supported.
    #[must_use]
    pub const fn row(&self) -> Option<&'static Row> {
        match self {
            Treatment::Row(row)
            | Treatment::ThreadClone(row)
            | Treatment::GhostFork(row)
            | Treatment::Fork(row)
            | Treatment::Exec(row)
            | Treatment::Alike(row)
            | Treatment::Absent(row)
            | Treatment::MmapFile(row)
            | Treatment::Restart(row) => Some(row),
            Treatment::Refuse(_) => None,
        }
    }
}

impl Irregular {
    /// Tells whether the call is described by the rows of its requests alone and its own row never is.
    #[must_use]
    pub const fn is_many(self) -> bool {
        matches!(
            self,
            Irregular::Ioctl
                | Irregular::Fcntl
                | Irregular::Prctl
                | Irregular::ArchPrctl
                | Irregular::Clone
                | Irregular::Clone3
                | Irregular::Open { .. }
                | Irregular::SemCtl
                | Irregular::MsgCtl
                | Irregular::MqOpen
                | Irregular::LandlockRule
        )
    }
}

/// Returns the rows of single requests, commands and options.
pub fn variants() -> impl Iterator<Item = &'static Row> {
    let chosen = [
        ioctl::VARIANTS,
        fcntl::VARIANTS,
        prctl::VARIANTS,
        others::ARCH_PRCTL,
        others::LANDLOCK_RULES,
        ipc::SEMCTL,
        ipc::MSGCTL,
    ];
    chosen.into_iter().flatten().map(|variant| &variant.row).chain(others::ROWS).chain(ipc::ROWS).chain(order::ROWS)
}

/// Returns the name of an `ioctl` request, if there is a row or a reason for it.
#[must_use]
pub fn ioctl_name(request: u64) -> Option<&'static str> {
    ioctl::name(request)
}

/// Returns the row of the request, command or option that the arguments name, of a call that is described by those; without
/// memory, so that a row may be found of a request that is refused for what is there.
pub(super) fn chosen(nr: u32, args: &[u64; 6]) -> Option<&'static Row> {
    let (variants, value) = match super::row(nr)?.irregular? {
        Irregular::Ioctl => (ioctl::VARIANTS, args[1]),
        Irregular::Fcntl => (fcntl::VARIANTS, args[1]),
        Irregular::Prctl => (prctl::VARIANTS, args[0]),
        Irregular::ArchPrctl => (others::ARCH_PRCTL, args[0]),
        Irregular::MsgCtl => (ipc::MSGCTL, args[1]),
        Irregular::LandlockRule => (others::LANDLOCK_RULES, args[1]),
        _ => return None,
    };
    let at = variants.binary_search_by_key(&(value & 0xffff_ffff), |variant| variant.value).ok()?;
    Some(&variants[at].row)
}

fn find(variants: &'static [Variant], value: u64, unknown: &'static str) -> Treatment {
    match variants.binary_search_by_key(&value, |variant| variant.value) {
        Ok(at) => of(&variants[at].row),
        Err(_) => Treatment::Refuse(unknown),
    }
}

/// Wraps a row in what its class means.
fn of(row: &'static Row) -> Treatment {
    match row.class {
        super::Class::Refuse(reason) => Treatment::Refuse(reason),
        _ => Treatment::Row(row),
    }
}

/// Says what is done with a call that is about to be made with these arguments; `mem` is the memory of the caller.
#[must_use]
pub fn treatment<M: Memory + ?Sized>(nr: u32, args: &[u64; 6], mem: &M) -> Treatment {
    let Some(row) = super::row(nr) else {
        return Treatment::Refuse("the table has no row for it");
    };
    let Some(irregular) = row.irregular else {
        return of(row);
    };
    match irregular {
        Irregular::Ioctl => ioctl::request(args, mem),
        // The upper half of the register is not part of these: the kernel takes an unsigned int.
        Irregular::Fcntl => find(fcntl::VARIANTS, args[1] & 0xffff_ffff, "the table has no row for this fcntl command"),
        Irregular::Prctl => find(prctl::VARIANTS, args[0] & 0xffff_ffff, "the table has no row for this prctl option"),
        Irregular::ArchPrctl => {
            find(others::ARCH_PRCTL, args[0] & 0xffff_ffff, "the table has no row for this arch_prctl code")
        }
        Irregular::Clone => others::clone(args[0]),
        Irregular::Clone3 => others::clone3(regions::read_u64(mem, args[0])),
        Irregular::Fork => Treatment::GhostFork(row),
        Irregular::Futex => others::futex(row, args),
        Irregular::Mmap => others::mmap(row, args),
        Irregular::Open { flags } => others::open(row, args[flags as usize]),
        Irregular::SockOpt => others::sockopt(row, args),
        Irregular::ClockNanosleep => others::clock_nanosleep(row, args),
        Irregular::Myself { arg } => others::myself(row, args[arg as usize]),
        Irregular::Prlimit => others::prlimit(row, args),
        Irregular::Capabilities => others::capabilities(row, regions::read_u64(mem, args[0])),
        Irregular::MMsg { count } => others::mmsg(row, args[count as usize]),
        Irregular::Poll => others::poll(row, args[1]),
        Irregular::Priority => others::priority(row, args),
        Irregular::SemCtl => ipc::semctl(args, mem),
        Irregular::MsgCtl => find(ipc::MSGCTL, args[1] & 0xffff_ffff, "the table has no row for this msgctl command"),
        Irregular::MqOpen => ipc::mq_open(args[1]),
        Irregular::Kcmp => others::kcmp(row, args[2]),
        Irregular::LandlockRule => {
            find(others::LANDLOCK_RULES, args[1] & 0xffff_ffff, "the table has no row for this kind of landlock rule")
        }
        Irregular::Restart => Treatment::Restart(row),
        Irregular::EpollCtl | Irregular::EpollWait => Treatment::Row(row),
    }
}
