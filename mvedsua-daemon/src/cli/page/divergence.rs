//! One divergence: the two calls, their bytes side by side, what came before, and the follower's stack.

use maud::{Markup, html};

use super::{facts, wide};
use crate::compare::{CallView, Divergence, DivergenceKind};
use crate::report::hex::{self, HexRow, ROW};
use crate::report::{self, Group, Payloads};
use crate::rules;

pub(super) fn divergence(number: usize, group: &Group<'_>, payloads: Payloads) -> Markup {
    let divergence = group.example;
    let id = format!("difference-{number}");
    html! {
        article aria-labelledby=(id) {
            h3 #(id) { "Difference " (number) ": " (report::headline(divergence)) }
            @if group.count > 1 { p { "It came " (group.count) " times alike; this is the first." } }
            (calls(divergence))
            @if divergence.raced {
                p { "Threads had run beside each other before this, and it may come of that." }
            }
            @if divergence.unrecorded_clock {
                p {
                    "The program reads the processor's counter (RDTSC), which is not recorded, and it may come of that."
                }
            }
            @if divergence.half_read {
                p {
                    "It answers a line of which a part was perhaps read before any rule was applied, and it may come of that."
                }
            }
            @if let Some(rule) = &divergence.nearest_rule { p { "The nearest rule: " code { (rule) } } }
            (payload(number, divergence, payloads))
            (before(number, divergence))
            (stack(number, divergence))
            // A rule quotes payloads.
            @if let (Payloads::Shown, Some(rule)) = (payloads, rules::propose(divergence)) {
                h4 { "If this is meant" }
                p { "This rule allows for it, with " code { "mvedsuad update … --rules FILE" } ":" }
                pre tabindex="0" { code { (rule) } }
            }
        }
    }
}

fn calls(divergence: &Divergence) -> Markup {
    let line = |call: &CallView| html! { code { (report::call_line(call.nr, &call.args, call.ret)) } };
    let mut rows = vec![];
    if let Some(call) = &divergence.expected {
        rows.push(("Leader (expected)", line(call)));
    }
    if let Some(call) = &divergence.actual {
        rows.push(("Follower (actual)", line(call)));
    }
    rows.push(("Thread slot", html! { (divergence.slot.0) }));
    if let Some(seq) = divergence.seq {
        rows.push(("Record", html! { (seq.0) }));
    }
    facts("The calls", &rows)
}

fn payload(number: usize, divergence: &Divergence, payloads: Payloads) -> Markup {
    let DivergenceKind::Payload { offset, expected_len, actual_len, .. } = divergence.kind else { return html! {} };
    let bytes = match (payloads, report::windows(divergence)) {
        (Payloads::Redacted, _) => html! {
            p.redacted {
                "The bytes are left out: they may hold secrets. " code { "mvedsuad report --html FILE --payloads" }
                " shows those around the first difference."
            }
        },
        (Payloads::Shown, None) => html! { p { "No bytes were kept." } },
        (Payloads::Shown, Some((expected, actual, base))) => {
            let rows = hex::rows(&expected, &actual, base);
            wide(&format!("Bytes of difference {number}"), table(&rows))
        }
    };
    html! {
        h4 { "The bytes" }
        p {
            "The leader's payload has " (expected_len) " bytes, the follower's " (actual_len) "; the first difference is at byte "
            (offset) "."
        }
        (bytes)
    }
}

fn table(rows: &[HexRow]) -> Markup {
    html! {
        table.hex {
            caption { "Around the first difference; what differs is underlined" }
            thead {
                tr {
                    th scope="col" rowspan="2" { "Byte" }
                    th scope="colgroup" colspan="2" { "Leader (expected)" }
                    th scope="colgroup" colspan="2" { "Follower (actual)" }
                }
                tr {
                    @for _ in 0..2 {
                        th scope="col" { "hexadecimal" }
                        th scope="col" { "text" }
                    }
                }
            }
            tbody {
                @for row in rows {
                    tr {
                        th scope="row" { (format!("{:08x}", row.offset)) }
                        @for (mine, other) in [(&row.expected, &row.actual), (&row.actual, &row.expected)] {
                            td { (bytes(mine, other, |byte| format!("{byte:02x} "))) }
                            td { (bytes(mine, other, |byte| hex::letter(byte).to_string())) }
                        }
                    }
                }
            }
        }
    }
}

/// Returns the bytes of a row; those that differ from the other's are marked.
fn bytes(mine: &[u8], other: &[u8], show: impl Fn(u8) -> String) -> Markup {
    html! {
        @for (index, byte) in mine.iter().enumerate() {
            @let text = show(*byte);
            @if other.get(index) == Some(byte) { (text) } @else { mark { (text) } }
            @if index + 1 == ROW / 2 && text.len() > 1 { " " }
        }
    }
}

fn before(number: usize, divergence: &Divergence) -> Markup {
    if divergence.last_matched.is_empty() {
        return html! {};
    }
    let table = html! {
        table {
            caption { "What matched just before, oldest first" }
            thead { tr { th scope="col" { "Record" } th scope="col" { "Slot" } th scope="col" { "Call" } } }
            tbody {
                @for call in &divergence.last_matched {
                    tr {
                        th scope="row" { (call.seq.0) }
                        td { (call.slot.0) }
                        td { code { (report::call_line(call.nr, &call.args, Some(call.ret))) } }
                    }
                }
            }
        }
    };
    wide(&format!("Calls before difference {number}"), table)
}

fn stack(number: usize, divergence: &Divergence) -> Markup {
    if divergence.backtrace.is_empty() {
        return html! {};
    }
    let table = html! {
        table {
            caption { "The follower's stack, innermost first" }
            thead { tr { th scope="col" { "Frame" } th scope="col" { "Address" } th scope="col" { "Function" } } }
            tbody {
                @for (index, frame) in divergence.backtrace.iter().enumerate() {
                    tr {
                        th scope="row" { (index) }
                        td { code { (format!("{:#014x}", frame.address)) } }
                        td { code { (frame.symbol.as_deref().unwrap_or("not known")) } }
                    }
                }
            }
        }
    };
    wide(&format!("Stack of difference {number}"), table)
}
