//! Divergences for programs.

use serde_json::{Value, json};

use super::{call_name, headline};
use crate::compare::{CallView, Divergence};

/// Says whether payloads leave the machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payloads {
    /// Only their lengths are told.
    Redacted,
    /// Their windows are told as hexadecimal digits.
    Shown,
}

/// Returns a divergence as JSON: what the text says, with every number.
#[must_use]
pub fn divergence_to_json(divergence: &Divergence, payloads: Payloads) -> Value {
    json!({
        "headline": headline(divergence),
        "kind": divergence.kind,
        "slot": divergence.slot,
        "seq": divergence.seq,
        "expected": divergence.expected.as_ref().map(|call| call_to_json(call, payloads)),
        "actual": divergence.actual.as_ref().map(|call| call_to_json(call, payloads)),
        "last_matched": divergence.last_matched.iter().map(|call| json!({
            "seq": call.seq, "slot": call.slot, "call": call_name(call.nr), "nr": call.nr,
            "args": call.args, "ret": call.ret,
        })).collect::<Vec<_>>(),
        "backtrace": divergence.backtrace,
        "raced": divergence.raced,
        "unrecorded_clock": divergence.unrecorded_clock,
        "half_read": divergence.half_read,
        "remark": divergence.remark,
        "nearest_rule": divergence.nearest_rule,
    })
}

fn call_to_json(call: &CallView, payloads: Payloads) -> Value {
    let inputs: Vec<Value> = call
        .inputs
        .iter()
        .map(|(arg, bytes)| match payloads {
            Payloads::Redacted => json!({"arg": arg, "window": bytes.len(), "redacted": true}),
            Payloads::Shown => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                json!({"arg": arg, "window": bytes.len(), "hex": hex})
            }
        })
        .collect();
    json!({"call": call_name(call.nr), "nr": call.nr, "args": call.args, "inputs": inputs, "ret": call.ret})
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::payload_divergence;
    use super::*;

    #[test]
    fn payloads_are_redacted_unless_asked_for() {
        let divergence = payload_divergence();
        let hidden = divergence_to_json(&divergence, Payloads::Redacted).to_string();
        assert!(!hidden.contains("2b4f4b") && !hidden.contains("OK"), "{hidden}");
        let shown = divergence_to_json(&divergence, Payloads::Shown).to_string();
        assert!(shown.contains("2b4f4b"), "{shown}");
    }
}
