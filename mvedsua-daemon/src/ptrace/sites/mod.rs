//! Call sites of a process that follows, rewritten so that the agent ([`mvedsua_agent`]) answers there without a stop.
//!
//! ```text
//!   site:  jmp stub                 was: syscall
//!          nop nop nop                   cmp rax, -4096 or -4095
//!          ...                           ...
//!   stub:  does this thread have words of the agent's? -> the agent's entry
//!   call:  syscall                  what the agent does not answer: a stop as ever
//!          cmp rax, ...             where an answered call goes on
//!          jmp site + 8
//! ```
//!
//! Nearly every library and runtime looks at the result of a call right behind it (glibc, Go). Where it does not, or where
//! somebody jumps in between, the site stays as it is ([`inspect`]). The stub's last part is as long as what it stands for, so a
//! thread in it is moved to the site, or from there, by one addition.
//!
//! Everything of the agent's lies in one area of the follower: the code with the stubs, the threads' words and their answers,
//! which are mapped without write permission. It is never part of an image: a site gets its bytes back before an image is looked
//! at ([`Sites::take_out`]).
//!
//! # Giving back
//!
//! A signal frame must not lead into a stub, and a thread that makes a call for real must not sleep in one. So a site at which
//! either comes up is given back for good ([`Sites::give_back`]). The stubs stay: a thread in one goes on.

mod area;
mod inspect;
mod words;

use std::collections::{BTreeMap, HashMap, HashSet};

pub(crate) use area::{Area, Mapped};
pub(crate) use words::{Answers, Part, Prepared, Progress};

use mvedsua_agent::layout::MISSES;

use self::inspect::Functions;
use super::inject::Remote;
use super::memory::Memory;
use super::sys::Regs;
use super::{Pid, Result, Tid, ring};

/// Bytes of a site: the call and the comparison behind it.
const SITE: usize = 8;
/// Bytes of the call alone.
const CALL: u64 = 2;
/// `int3`
const TRAP: u8 = 0xcc;
/// Bytes of a stub, and where in it the call stands.
const STUB: u64 = 80;
const STUB_CALL: u64 = 56;

/// The agent, as `build.rs` has compiled it.
static AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent.bin"));

#[derive(Debug)]
struct Site {
    bytes: [u8; SITE],
    /// What stands there when it is rewritten.
    jump: [u8; SITE],
    /// Where in the stub the call stands.
    call: u64,
    is_rewritten: bool,
}

/// Where a thread stands, as far as the agent is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Elsewhere,
    /// On the way to the agent, in a stub of this call.
    Arriving(u64),
    /// In the agent.
    Inside,
    /// At or behind a stub's call: so many bytes from the site.
    AtSite(u64),
}

/// The rewritten call sites of a process.
#[derive(Debug)]
pub(crate) struct Sites {
    mapped: Mapped,
    /// By address.
    sites: BTreeMap<u64, Site>,
    stops: HashMap<u64, u8>,
    /// Sites that stay as they are, with those that were given back.
    refused: HashSet<u64>,
    functions: Functions,
    answers: BTreeMap<Tid, Answers>,
    /// What those threads missed that have ended.
    missed_before: [u64; MISSES],
}

impl Sites {
    /// Maps the agent's area near an address, by calls that `remote` executes.
    pub(crate) fn create(
        remote: &mut Remote<'_>,
        pid: Pid,
        memory: &Memory,
        near: u64,
        rings: ring::Area,
    ) -> Result<Sites> {
        let mapped = Mapped::create(remote, pid, memory, near, (AGENT, rings))?;
        Ok(Sites {
            mapped,
            sites: BTreeMap::new(),
            stops: HashMap::new(),
            refused: HashSet::new(),
            functions: Functions::default(),
            answers: BTreeMap::new(),
            missed_before: [0; MISSES],
        })
    }

    /// Returns what is mapped.
    pub(crate) fn area(&self) -> Area {
        self.mapped.area()
    }

    /// Gives a thread its words and returns where they are; nothing where too many have some.
    pub(crate) fn give(&mut self, tid: Tid, times: u64) -> Option<u64> {
        if let Some(answers) = self.answers.get(&tid) {
            return Some(answers.words());
        }
        let answers = self.mapped.give(times)?;
        let place = answers.words();
        self.answers.insert(tid, answers);
        Some(place)
    }

    /// A thread has ended.
    pub(crate) fn forget(&mut self, tid: Tid) {
        if let Some(answers) = self.answers.remove(&tid) {
            let missed = answers.missed(&self.mapped);
            self.missed_before.iter_mut().zip(missed).for_each(|(sum, missed)| *sum += missed);
            self.mapped.take_back(&answers);
        }
    }

    /// Returns the answers of a thread that has some.
    pub(crate) fn answers(&mut self, tid: Tid) -> Option<(&mut Answers, &Mapped)> {
        Some((self.answers.get_mut(&tid)?, &self.mapped))
    }

    /// Returns how many calls at rewritten sites were not answered, by [`mvedsua_agent::layout::Miss`].
    pub(crate) fn missed(&self) -> [u64; MISSES] {
        let all = self.answers.values().map(|answers| answers.missed(&self.mapped));
        all.fold(self.missed_before, |sum, missed| std::array::from_fn(|miss| sum[miss] + missed[miss]))
    }

    /// Counts a stop at the call at `site`; says whether it was the `hot`-th, and the site is to be rewritten now.
    pub(crate) fn is_hot(&mut self, site: u64, hot: u8) -> bool {
        if self.refused.contains(&site) || self.sites.get(&site).is_some_and(|site| site.is_rewritten) {
            return false;
        }
        let stops = self.stops.entry(site).or_insert(0);
        *stops = stops.saturating_add(1);
        *stops >= hot
    }

    /// Rewrites a site if it can be. No thread of the process may run in its own code meanwhile, or stand within the site. Returns
    /// the stub's call, where a thread belongs that stands at the site's.
    pub(crate) fn rewrite(&mut self, pid: Pid, memory: &Memory, site: u64) -> Result<Option<u64>> {
        self.stops.remove(&site);
        if let Some(known) = self.sites.get_mut(&site) {
            memory.force(site, &known.jump)?;
            known.is_rewritten = true;
            return Ok(Some(known.call));
        }
        let bytes = match self.functions.inspect(pid, memory, site) {
            Ok(bytes) => bytes,
            Err(unfit) => {
                tracing::debug!(site = format_args!("{site:#x}"), %unfit, "a call site stays as it is");
                self.refused.insert(site);
                return Ok(None);
            }
        };
        let Some(stub) = self.mapped.room_for_stub(site, STUB) else {
            self.refused.insert(site);
            return Ok(None);
        };
        let call = stub + STUB_CALL;
        let Some((code, jump)) = self.assemble(site, stub, &bytes) else {
            self.refused.insert(site);
            return Ok(None);
        };
        memory.force(stub, &code)?;
        memory.force(site, &jump)?;
        self.sites.insert(site, Site { bytes, jump, call, is_rewritten: true });
        tracing::debug!(site = format_args!("{site:#x}"), "a call site was rewritten");
        Ok(Some(call))
    }

    /// Returns the code of a stub and what leads there.
    fn assemble(&self, site: u64, stub: u64, bytes: &[u8; SITE]) -> Option<(Vec<u8>, [u8; SITE])> {
        let near = |from: u64, to: u64| i32::try_from(to.wrapping_sub(from) as i64).ok().map(i32::to_le_bytes);
        let short = |at: usize| u8::try_from(STUB_CALL as usize - at - 2).ok();
        let rings = self.mapped.rings();
        let mut code = vec![0xf3, 0x48, 0x0f, 0xae, 0xc9]; // rdgsbase rcx
        for (bound, branch) in [(rings.start, 0x72), (rings.end, 0x73)] {
            code.extend([0x49, 0xbb]); // mov r11, bound
            code.extend(bound.to_le_bytes());
            code.extend([0x4c, 0x39, 0xd9]); // cmp rcx, r11
            code.extend([branch, short(code.len())?]); // jb, jae call
        }
        code.extend([0x48, 0x8b, 0x49, ring::WORDS_AT]); // mov rcx, [rcx + ..]
        code.extend([0x48, 0x85, 0xc9]); // test rcx, rcx
        code.extend([0x74, short(code.len())?]); // jz call
        code.extend([0x4c, 0x8d, 0x1d]); // lea r11, [call]
        let behind = stub + code.len() as u64 + 4;
        code.extend(near(behind, stub + STUB_CALL)?);
        code.push(0xe9); // jmp entry
        let behind = stub + code.len() as u64 + 4;
        code.extend(near(behind, self.mapped.entry())?);
        debug_assert_eq!(code.len() as u64, STUB_CALL);
        code.extend(bytes);
        code.push(0xe9); // jmp site + 8
        let behind = stub + code.len() as u64 + 4;
        code.extend(near(behind, site + SITE as u64)?);
        let to = near(site + 5, stub)?;
        Some((code, [0xe9, to[0], to[1], to[2], to[3], 0x90, 0x90, 0x90]))
    }

    /// Returns the place of a thread, and the site that it has to do with.
    fn place(&self, rip: u64) -> (Place, Option<u64>) {
        if !self.mapped.has_code(rip) {
            return (Place::Elsewhere, None);
        }
        let stub = |site: &Site| site.call - STUB_CALL;
        let Some((at, site)) = self.sites.iter().find(|(_, site)| (stub(site)..stub(site) + STUB).contains(&rip))
        else {
            return (Place::Inside, None);
        };
        match rip.checked_sub(site.call) {
            Some(offset) => (Place::AtSite(offset.min(SITE as u64)), Some(*at)),
            None => (Place::Arriving(site.call), Some(*at)),
        }
    }

    /// Says whether an address lies in the agent or a stub.
    pub(crate) fn contains(&self, rip: u64) -> bool {
        self.mapped.has_code(rip)
    }

    /// Moves a stopped thread out of the agent, with the registers of the program: to the stub's call, or behind it if it was
    /// answered. Says whether anything was changed.
    pub(crate) fn leave_agent(&mut self, tid: Tid, regs: &mut Regs) -> bool {
        match self.place(regs.rip).0 {
            Place::Elsewhere | Place::AtSite(_) => false,
            Place::Arriving(call) => {
                regs.rip = call;
                true
            }
            Place::Inside => match self.answers.get(&tid) {
                Some(answers) => {
                    let is_at_site = |rip: u64| matches!(self.place(rip).0, Place::AtSite(_));
                    answers.leave(&self.mapped, regs, is_at_site);
                    true
                }
                None => false,
            },
        }
    }

    /// Gives the site in whose stub a thread stands back for good, and moves the thread there. Says whether it stood in one.
    pub(crate) fn give_back(&mut self, memory: &Memory, regs: &mut Regs) -> Result<bool> {
        let (Place::AtSite(offset), Some(at)) = self.place(regs.rip) else { return Ok(false) };
        self.restore(memory, at)?;
        self.refused.insert(at);
        regs.rip = at + offset;
        Ok(true)
    }

    /// Moves a thread that stands in the stub of a site which has its bytes back to the site. Says whether it stood in one.
    pub(crate) fn move_out(&self, regs: &mut Regs) -> bool {
        let (Place::AtSite(offset), Some(at)) = self.place(regs.rip) else { return false };
        let is_restored = self.sites.get(&at).is_some_and(|site| !site.is_rewritten);
        if is_restored {
            regs.rip = at + offset;
        }
        is_restored
    }

    /// A thread has run into a site while it got its bytes back: it makes its call there. Says whether it was so.
    pub(crate) fn leave_trap(&self, regs: &mut Regs) -> bool {
        let site = regs.rip - 1;
        let is_site = self.sites.get(&site).is_some_and(|site| !site.is_rewritten);
        if is_site {
            regs.rip = site;
        }
        is_site
    }

    /// Returns where a thread would stand without the agent, for those who only look.
    pub(crate) fn original(&self, rip: u64) -> u64 {
        match self.place(rip) {
            (Place::AtSite(offset), Some(site)) => site + offset,
            (Place::Arriving(_), Some(site)) => site,
            _ => rip,
        }
    }

    /// Says whether a thread stands within a site, where nobody may when it is rewritten.
    pub(crate) fn is_within(site: u64, rip: u64) -> bool {
        (site + 1..site + SITE as u64).contains(&rip)
    }

    fn restore(&mut self, memory: &Memory, at: u64) -> Result<()> {
        let Some(site) = self.sites.get_mut(&at).filter(|site| site.is_rewritten) else { return Ok(()) };
        // A thread may run meanwhile: it finds the jump, or a trap, or all of the call.
        memory.force(at, &[TRAP])?;
        memory.force(at + 1, &site.bytes[1..])?;
        memory.force(at, &site.bytes[..1])?;
        site.is_rewritten = false;
        Ok(())
    }

    /// Gives all sites their bytes back. They are rewritten again when they are hot again.
    pub(crate) fn take_out(&mut self, memory: &Memory) -> Result<()> {
        let all: Vec<u64> = self.sites.keys().copied().collect();
        all.into_iter().try_for_each(|at| self.restore(memory, at))
    }
}

#[cfg(test)]
mod tests;
