//! Rules on a recording, without any process.

use std::io::Read;
use std::sync::Arc;

use serde::Serialize;

use super::recording::{Frame, Reader};
use super::stage::{Application, Counts, Pace, RuleCount, Stage};
use super::{Descriptors, Direction, RuleSet};
use crate::record::{Event, Record};

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
    let mut known = Descriptors::new(recording.header().descriptors.iter().cloned());
    let program = recording.header().program.clone();
    let make = |known, direction| {
        let mut stage = Stage::new(Arc::clone(&counts), direction, Pace::Free, transparent, known);
        stage.trace();
        stage
    };
    let mut stage = make(known, direction.unwrap_or(Direction::OutdatedLeader));
    let (mut records, mut expected, mut end) = (0, 0, String::new());
    let (mut applications, mut failures) = (Vec::new(), Vec::new());
    let mut out: Vec<Record> = Vec::new();
    for frame in recording.by_ref() {
        match frame {
            Frame::Record(record) => {
                records += 1;
                stage.push(record, &mut out);
            }
            Frame::Direction(_) if direction.is_some() => {}
            Frame::Direction(led) => {
                stage.flush(&mut out);
                applications.extend_from_slice(stage.applications());
                known = stage.into_descriptors();
                stage = make(known, led);
            }
            Frame::End(reason) => end = reason,
        }
        expected += out.len() as u64;
        failures.extend(out.drain(..).filter_map(|record| match record.event {
            Event::Gap(gap) => Some(gap.reason),
            _ => None,
        }));
    }
    stage.flush(&mut out);
    expected += out.len() as u64;
    applications.extend_from_slice(stage.applications());
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
