//! What a follower says, for the session that it belongs to.

use crossbeam_channel::Sender;

use super::session::Notice;
use crate::replay::{Listener, Message};

impl Listener for Sender<Notice> {
    fn hear(&self, message: Message) {
        let notice = match message {
            Message::Drained => Notice::Drained,
            Message::Faulted => Notice::Faulted,
            Message::CaughtUp => Notice::CaughtUp,
            Message::Applied => Notice::Applied,
            Message::NotApplied { reason, may_help_to_retry } => Notice::NotApplied { reason, may_help_to_retry },
            Message::Diverged(divergence) => Notice::Diverged(divergence),
            Message::FaultShared => Notice::FaultShared,
            Message::FaultAlone => Notice::FaultAlone,
            Message::EndAgreed => Notice::EndAgreed,
        };
        // The session outlives its tracer threads; if it is gone all the same nobody wants to know.
        let _ = self.send(notice);
    }
}
