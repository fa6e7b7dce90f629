//! What a session needs for rules and recordings.

use std::fs::OpenOptions;
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::replay::following::reconcile::{Reconcile, Recording};
use crate::rules::recording::{Header, Writer};
use crate::rules::{Descriptors, Direction};
use crate::update::descriptors::open_in;

/// Begins the recording that is asked for. The file must not be there yet: nothing is written over.
pub(super) fn record(pid: Pid, options: &Options) -> Result<Option<Recording>> {
    let Some(path) = &options.record else { return Ok(None) };
    let failed = |source| Error::Own { doing: format!("making the recording {}", path.display()), source };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let header = Header {
        program: exe.display().to_string(),
        pid: pid.0,
        descriptors: open_in(pid),
        interleaving: options.interleaving,
        start: None,
    };
    let writer = Writer::begin(BufWriter::new(file), &header, options.log_disk).map_err(failed)?;
    Ok(Some(Arc::new(Mutex::new(writer))))
}

/// Ends the recording, with the reason.
pub(super) fn end_recording(recording: &Recording, path: Option<&Path>) {
    let ended = recording.lock().unwrap_or_else(std::sync::PoisonError::into_inner).end("the update is over");
    if let Err(error) = ended {
        tracing::warn!(path = ?path, %error, "the recording may be torn");
    }
}

/// What the follower of `leader` is to be reconciled by.
pub(super) fn reconcile(
    leader: Pid,
    options: &Options,
    recording: Option<&Recording>,
    direction: Direction,
) -> Reconcile {
    let with_descriptors = |counts: &Arc<_>| (Arc::clone(counts), Descriptors::new(open_in(leader)));
    Reconcile {
        rules: options.rules.as_ref().map(with_descriptors),
        recording: recording.cloned(),
        direction: Some(direction),
        inside: Vec::new(),
    }
}
