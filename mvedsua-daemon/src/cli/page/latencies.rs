//! How often each call was made, and how long it took, while the old version led and while the new one did.

use maud::{Markup, html};

use super::chart::{Side, mirrored};
use super::wide;
use crate::cli::size::count;
use crate::control::led::{Led, LedCall, Period};
use crate::monitor::render::duration;

/// How many calls have a picture of their own.
const MOST_PICTURES: usize = 6;
/// A call that neither version made so often has numbers enough in the table.
const FEW: u64 = 20;

pub(super) fn latencies(led: &[Led]) -> Markup {
    if led.iter().all(|led| led.calls.is_empty()) {
        return html! {
            p {
                "Not known: nobody observed the process through the update. " code { "mvedsuad attach PID" }
                " before the next one begins to."
            }
        };
    }
    of_service(led, "latency")
}

/// Returns the same where something was observed; the ids of the pictures begin with `id`.
pub(in crate::cli) fn of_service(led: &[Led], id: &str) -> Markup {
    let names = names(led);
    let of = |period| led.iter().find(|led| led.period == period);
    let (above, below) = match of(Period::NewLeads) {
        Some(new) => ((Period::OldLeads, of(Period::OldLeads)), (Period::NewLeads, Some(new))),
        None => ((Period::Before, of(Period::Before)), (Period::OldLeads, of(Period::OldLeads))),
    };
    html! {
        p {
            "Calls of the process that serves, as the kernel timed them. While two versions run, the times hold what "
            "recording costs, so those before the update are no measure for the others."
        }
        div.charts {
            @for (index, name) in pictured(&names, [above.1, below.1]).enumerate() {
                figure {
                    figcaption { code { (name) } }
                    (mirrored(
                        &format!("{id}-{index}"),
                        &format!("How long {name} took"),
                        &Side { name: &above.0.to_string(), bins: above.1.and_then(|led| call(led, name)).map(|call| &call.durations) },
                        &Side { name: &below.0.to_string(), bins: below.1.and_then(|led| call(led, name)).map(|call| &call.durations) },
                    ))
                }
            }
        }
        (wide("Calls and latencies", table(led, &names)))
    }
}

/// Returns the calls, the busiest of the last period first.
fn names(led: &[Led]) -> Vec<&str> {
    let mut names = vec![];
    for call in led.iter().rev().flat_map(|led| &led.calls) {
        if !names.contains(&call.name.as_str()) {
            names.push(call.name.as_str());
        }
    }
    names
}

/// Returns the calls that have a picture.
fn pictured<'a>(names: &'a [&'a str], sides: [Option<&'a Led>; 2]) -> impl Iterator<Item = &'a str> {
    let many =
        move |name: &&str| sides.into_iter().flatten().filter_map(|led| call(led, name)).any(|call| call.count >= FEW);
    names.iter().copied().filter(many).take(MOST_PICTURES)
}

fn call<'a>(led: &'a Led, name: &str) -> Option<&'a LedCall> {
    led.calls.iter().find(|call| call.name == name)
}

fn table(led: &[Led], names: &[&str]) -> Markup {
    html! {
        table.numbers {
            caption { "Calls and latencies, each within an eighth" }
            thead {
                tr {
                    th scope="col" { "Call" }
                    th scope="col" { "While" }
                    th scope="col" { "Calls" }
                    th scope="col" { "a second" }
                    @for head in ["p50", "p90", "p99", "p99.9", "longest"] { th scope="col" { (head) } }
                }
            }
            @for name in names {
                @let lines: Vec<(&Led, &LedCall)> =
                    led.iter().filter_map(|led| call(led, name).map(|call| (led, call))).collect();
                tbody {
                    @for (index, (led, call)) in lines.iter().enumerate() {
                        tr {
                            @if index == 0 { th scope="rowgroup" rowspan=(lines.len()) { code { (name) } } }
                            th scope="row" { (led.period) }
                            td { (count(call.count)) }
                            td { (rate(led, call)) }
                            @for p in [0.5, 0.9, 0.99, 0.999] {
                                td { (call.durations.quantile(p).map_or("-".to_owned(), duration)) }
                            }
                            td { (call.durations.longest().map_or("-".to_owned(), duration)) }
                        }
                    }
                }
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn rate(led: &Led, call: &LedCall) -> String {
    if led.observed_ns == 0 {
        return "-".to_owned();
    }
    crate::monitor::render::rate(call.count as f64 * 1e9 / led.observed_ns as f64)
}
