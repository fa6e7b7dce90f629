//! The result of a benchmark: a table for people, one line of JSON for programs.

use anyhow::{Context, Result};
use serde::Serialize;

/// What one case came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: String,
    /// Requests or calls a second.
    pub(crate) throughput: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
    /// Processor time of the server for each request, where it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) processor_us: Option<f64>,
    /// Throughput against the same work without mvedsuad, in the same run.
    pub(crate) ratio_to_native: f64,
}

#[derive(Serialize)]
struct Report<'a> {
    bench: &'a str,
    rows: &'a [Row],
}

/// Prints the table; with `json`, one line of JSON after it.
pub(crate) fn print(bench: &str, rows: &[Row], json: Json) -> Result<()> {
    println!("\n{:<40} {:>12} {:>10} {:>10} {:>10} {:>8}", bench, "per second", "p50 µs", "p99 µs", "max µs", "ratio");
    for row in rows {
        println!(
            "{:<40} {:>12.0} {:>10} {:>10} {:>10} {:>7.1}%",
            row.case,
            row.throughput,
            us(row.p50_us),
            us(row.p99_us),
            us(row.max_us),
            row.ratio_to_native * 100.0
        );
    }
    if json == Json::Yes {
        println!("{}", serde_json::to_string(&Report { bench, rows }).context("the report as JSON")?);
    }
    Ok(())
}

/// Shows microseconds; parts of one only where they matter.
fn us(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

/// Says whether programs read along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    Yes,
    No,
}

impl From<bool> for Json {
    fn from(flag: bool) -> Json {
        if flag { Json::Yes } else { Json::No }
    }
}
