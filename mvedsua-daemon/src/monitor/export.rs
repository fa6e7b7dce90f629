//! The standard HdrHistogram interval log, which the HdrHistogram tools read.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use mvedsua_common::histogram::{MAX_BITS, middle};

use super::MonitorError;
use super::batch::{Batch, CallKey};
use super::call_name;
use super::target::{OLDER, Observed, Target};

/// Significant digits: 2 keep the error of the buckets, about 3 %, without adding to it.
const DIGITS: u8 = 2;

/// Writes one line for each batch, process and call.
pub(super) fn interval_log<'a>(
    target: &Target,
    processes: impl Iterator<Item = &'a Observed>,
) -> Result<String, MonitorError> {
    let mut names: BTreeMap<u64, String> = processes.map(|p| (p.key, format!("{}-{}", p.name, p.pid))).collect();
    names.extend(target.ended.iter().map(|p| (p.key, format!("{}-{}", p.name, p.pid))));
    names.insert(OLDER, "older".to_owned());
    let batches: Vec<&Batch> =
        target.batches.iter().chain([&target.current]).filter(|batch| batch.observed_ns > 0).collect();
    let started = batches.first().map_or(UNIX_EPOCH, |batch| time(batch));

    let mut out = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("latencies of system calls in nanoseconds, tagged process-pid.call")
        .add_comment(&format!("target {} ({}), mode {}", target.pid, target.name, target.options.mode))
        .with_start_time(started)
        .with_base_time(UNIX_EPOCH)
        .with_max_value_divisor(1.0);
    let mut writer = builder.begin_log_with(&mut out, &mut serializer).map_err(failed)?;
    for batch in batches {
        let mut calls: Vec<_> = batch.calls.iter().collect();
        calls.sort_by_key(|(key, _)| **key);
        for (&CallKey { process, nr }, share) in calls {
            if share.buckets.is_empty() {
                continue;
            }
            let mut histogram = Histogram::<u64>::new_with_bounds(1, 1 << MAX_BITS, DIGITS).map_err(failed)?;
            for &(bucket, count) in &share.buckets {
                histogram.saturating_record_n(middle(usize::from(bucket)).max(1), u64::from(count));
            }
            let process = names.get(&process).map_or("unknown", String::as_str);
            let tag = tag_text(process, &call_name(nr));
            let tag = Tag::new(&tag).ok_or_else(|| failed(format!("`{tag}` is no tag")))?;
            let start = Duration::from_millis(batch.started_ms);
            writer
                .write_histogram(&histogram, start, Duration::from_nanos(batch.elapsed_ns), Some(tag))
                .map_err(failed)?;
        }
    }
    drop(writer);
    String::from_utf8(out).map_err(failed)
}

fn time(batch: &Batch) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(batch.started_ms)
}

/// Makes a tag; commas, spaces and line ends have a meaning in the log.
fn tag_text(process: &str, call: &str) -> String {
    let plain = |c: char| if c == ',' || c.is_whitespace() || c.is_control() { '_' } else { c };
    format!("{process}.{call}").chars().map(plain).collect()
}

fn failed(reason: impl std::fmt::Debug) -> MonitorError {
    MonitorError::Export { reason: format!("{reason:?}") }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::super::batch::Share;
    use super::super::types::AttachOptions;
    use super::*;

    #[test]
    fn the_log_reads_back() {
        let mut target = Target::new(17, "a, server".to_owned(), AttachOptions::default());
        for i in 0..3_u64 {
            let mut batch = Batch {
                started_ms: 1000 * i,
                elapsed_ns: 1_000_000_000,
                observed_ns: 1_000_000_000,
                ..Batch::default()
            };
            let share = Share { untimed: 0, unfinished: 0, buckets: vec![(100, 5), (200, 2)] };
            batch.calls.insert(CallKey { process: 1, nr: 39 }, share);
            target.batches.push(batch);
        }
        let process = Observed {
            key: 1,
            pid: 17,
            parent: None,
            name: "a, server".to_owned(),
            target: 17,
            calls: BTreeMap::new(),
        };
        let text = interval_log(&target, std::iter::once(&process)).expect("it can be written");
        let intervals: Vec<_> = IntervalLogIterator::new(text.as_bytes())
            .filter_map(|entry| match entry.expect("every line is well-formed") {
                LogEntry::Interval(interval) => Some(interval),
                LogEntry::StartTime(_) | LogEntry::BaseTime(_) => None,
            })
            .collect();
        assert_eq!(intervals.len(), 3);
        let tag = intervals[0].tag().expect("a tag").as_str().to_owned();
        assert!(tag.starts_with("a__server-17.") && !tag.contains(','), "{tag}");
        assert_eq!(intervals[2].start_timestamp(), Duration::from_secs(2));
        let bytes = base64_decode(intervals[1].encoded_histogram());
        let histogram: Histogram<u64> =
            Deserializer::new().deserialize(&mut bytes.as_slice()).expect("the histogram reads back");
        assert_eq!(histogram.len(), 7);
        assert!(histogram.value_at_quantile(0.5).abs_diff(middle(100)) * 16 <= middle(100));
    }

    fn base64_decode(text: &str) -> Vec<u8> {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let (mut bits, mut count, mut out) = (0_u32, 0, vec![]);
        for c in text.bytes().filter(|c| *c != b'=') {
            let digit = ALPHABET.iter().position(|a| *a == c).expect("base64");
            bits = bits << 6 | digit as u32;
            count += 6;
            if count >= 8 {
                count -= 8;
                out.push((bits >> count) as u8);
            }
        }
        out
    }
}
