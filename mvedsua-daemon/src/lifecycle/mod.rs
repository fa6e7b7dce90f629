//! The life of an update, as a pure function.
//!
//! ```text
//!                 ask                 applied                    caught up
//!  single-leader ─────► updating ─────────────► catching-up ─────────────► validating
//!   (old version)          │                         │                      │      ▲
//!        ▲                 │                         │          promote, or │      │ promotion
//!        │                 │                         │           the policy ▼      │ abandoned
//!        │                 │ failure, time-out, rollback asked          promoting ─┘
//!        │ rolled back     ▼                         ▼                      │   │
//!        ├───────────── rolling-back ◄──────────────────────────────────────┘   │ promoted
//!        │                 │    ▲                                               ▼
//!        │   a matter of   │    └──────────────────────────────────────── updated-leader
//!        │   timing        ▼             failure, rollback asked                │
//!        └──────────── (pause) ──► updating again                               │ confirmed
//!                                                                               ▼
//!                                                                 single-leader (new version)
//! ```
//!
//! The happy path is the upper line and the right edge. Then the failures: from any stage between the fork and the
//! promotion, and from `updated-leader`, an error leads to `rolling-back` and to `single-leader` with the old version;
//! when the failure was a matter of timing, the update is tried again after a pause; what it saw is kept ([`Suspicions`]). A promotion that is
//! abandoned leaves everything as it was; it is tried again, and in the end given up, while the versions go on. When the *leader* crashes while
//! two versions run, the follower takes over and goes straight to `updated-leader` without an old version. When the
//! target ends by itself, everything ends. Where the policy names [gates], they are asked before the promotion and before
//! the old version ends; what they do not allow is undone.
//!
//! [`step()`] knows no clock, no descriptor and no await: time arrives as [`Event::Timer`], what is to be done leaves as
//! [`Effect`]s. What a state knows lives in its variant. Whoever drives it performs the effects in their order and
//! feeds back what comes of them. There is no wildcard arm: a new event must be given a meaning in every state.

mod effects;
mod gates;
mod moves;
mod next;
mod policy;
mod state;
mod step;
mod suspicion;
#[cfg(test)]
mod tests;

pub use effects::{Effect, Event, Recovery, Refusal, Timer, Verification, Waiver};
pub use gates::{GateAnswer, Gated, Gates, Moment};
pub use next::next;
pub use policy::{Confirmation, Evidence, Policy, Promotion, Thresholds};
pub use state::{Cause, Ending, Outcome, Overdue, Plan, Run, Soak, Stage, State};
pub use step::step;
pub use suspicion::{OUTWEIGHED_BY, Suspected, Suspicions};
