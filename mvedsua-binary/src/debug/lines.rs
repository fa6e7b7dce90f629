//! From which source line an instruction comes.

use gimli::Reader;

use super::DebugError;

/// Addresses from which on instructions come from a line; zero where nothing is known.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<(u64, u64)>);

impl Lines {
    pub(super) fn read<R: Reader>(dwarf: &gimli::Dwarf<R>) -> Result<Lines, DebugError> {
        let mut rows = vec![];
        let mut units = dwarf.units();
        while let Some(header) = units.next()? {
            let unit = dwarf.unit(header)?;
            let Some(program) = unit.line_program.clone() else { continue };
            let mut all = program.rows();
            while let Some((_, row)) = all.next_row()? {
                // The end of one piece of code may be the start of another.
                let line = if row.end_sequence() { 0 } else { row.line().map_or(0, std::num::NonZero::get) };
                rows.push((row.address(), !row.end_sequence(), line));
            }
        }
        // Of several lines at one address the last one is that of the instruction.
        rows.sort_by_key(|(address, begins, _)| (*address, *begins));
        Ok(Lines(rows.into_iter().map(|(address, _, line)| (address, line)).collect()))
    }

    pub(super) fn at(&self, address: u64) -> Option<u64> {
        let end = self.0.partition_point(|(start, _)| *start <= address);
        let (_, line) = self.0.get(end.checked_sub(1)?)?;
        (*line > 0).then_some(*line)
    }
}
