//! Where the symbols of other files are that new code uses.

use std::collections::BTreeMap;

use super::symbols::{self, Found};
use super::{calls, unfit};
use crate::ptrace::Result;
use crate::ptrace::procfs::Mapping;
use crate::update::method::Follower;

/// Symbols of a process, by name.
#[derive(Debug)]
pub(super) struct Names(BTreeMap<String, u64>);

impl Names {
    /// Looks them up. What others choose at the start (IFUNC) is chosen now, as the dynamic loader would: the functions that
    /// choose look at what the processor can do, and at nothing else.
    pub(super) fn look_up<'n>(
        follower: &Follower<'_>,
        maps: &[Mapping],
        names: impl Iterator<Item = &'n str>,
    ) -> Result<Names> {
        let mut known = BTreeMap::new();
        for name in names {
            if known.contains_key(name) {
                continue;
            }
            let place = match symbols::find(follower.process.pid, maps, name).map_err(unfit)? {
                Found::At(place) => place,
                Found::ChosenBy(chooser) => {
                    let chosen = calls::call(follower, chooser, [0, 0])?;
                    if !maps.iter().any(|area| area.executable && area.start <= chosen && chosen < area.end) {
                        return Err(unfit(format!("what chooses `{name}` says {chosen:#x}, where no code is")));
                    }
                    chosen
                }
            };
            known.insert(name.to_owned(), place);
        }
        Ok(Names(known))
    }

    pub(super) fn of(&self, name: &str) -> Result<u64> {
        self.0.get(name).copied().ok_or_else(|| unfit(format!("nobody looked for `{name}`")))
    }
}
