//! Rules on a recording, without any process.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use serde::Serialize;

use super::recording::{Frame, Reader};
use super::stage::{Application, Counts, Pace, RuleCount, Stage};
use super::{Descriptors, Direction, RuleSet};
use crate::record::{Event, Record, StreamId};

/// What rules made of a recording.
#[derive(Clone, Debug, Serialize)]
pub struct DryRun {
    pub program: String,
    pub records: u64,
    /// Records that the follower would have lived through.
    pub expected: u64,
    pub rules: Vec<RuleCount>,
    /// The first matches, in order.
    pub applications: Vec<Application>,
    /// What a rule could not do.
    pub failures: Vec<String>,
    /// Why the recording ends, or where it is torn.
    pub end: String,
    pub torn: bool,
}

/// Runs the rules over a recording; `direction` is for one that does not say.
#[must_use]
pub fn dry_run<R: Read>(
    rules: Arc<RuleSet>,
    recording: &mut Reader<R>,
    direction: Option<Direction>,
    transparent: fn(u32) -> bool,
) -> DryRun {
    let counts = Arc::new(Counts::new(rules));
    let open = recording.header().descriptors.clone();
    let program = recording.header().program.clone();
    let make = |known, direction| {
        let mut stage = Stage::new(Arc::clone(&counts), direction, Pace::Free, transparent, known);
        stage.trace();
        stage
    };
    let mut led = direction.unwrap_or(Direction::OutdatedLeader);
    // A child's descriptors are those of the first process, as far as that is known: what was open from the beginning.
    let first = |led| make(Descriptors::new(open.iter().cloned()), led);
    let mut stages = BTreeMap::from([(StreamId(0), first(led))]);
    let mut process = StreamId(0);
    let (mut records, mut expected, mut end) = (0, 0, String::new());
    let (mut applications, mut failures) = (Vec::new(), Vec::new());
    let mut out: Vec<Record> = Vec::new();
    for frame in recording.by_ref() {
        match frame {
            Frame::Record(record) => {
                records += 1;
                stages.entry(process).or_insert_with(|| first(led)).push(record, &mut out);
            }
            Frame::Process(next) => process = next,
            Frame::Direction(_) if direction.is_some() => {}
            Frame::Direction(next) => {
                led = next;
                for (of, mut stage) in std::mem::take(&mut stages) {
                    stage.flush(&mut out);
                    applications.extend_from_slice(stage.applications());
                    stages.insert(of, make(stage.into_descriptors(), led));
                }
            }
            Frame::End(reason) => end = reason,
        }
        expected += out.len() as u64;
        failures.extend(out.drain(..).filter_map(|record| match record.event {
            Event::Gap(gap) => Some(gap.reason),
            _ => None,
        }));
    }
    for stage in stages.values_mut() {
        stage.flush(&mut out);
        applications.extend_from_slice(stage.applications());
    }
    expected += out.len() as u64;
    let torn = recording.torn().map(str::to_owned);
    DryRun {
        program,
        records,
        expected,
        rules: counts.read(),
        applications,
        failures,
        torn: torn.is_some(),
        end: torn.unwrap_or(end),
    }
}
