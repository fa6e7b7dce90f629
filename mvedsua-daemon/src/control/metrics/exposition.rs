//! The text that is scraped: OpenMetrics where it is asked for, and else the older text format of Prometheus.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::family::{Family, Kind, Value};

/// Which text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// Returns the one that a client asks for (its header `Accept`).
    pub(crate) fn wanted(accept: &str) -> Format {
        if accept.contains("application/openmetrics-text") { Format::OpenMetrics } else { Format::Prometheus }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Writes everything down.
pub(super) fn write(families: Vec<Family>, format: Format) -> Result<String, std::fmt::Error> {
    let counters: Vec<&'static str> =
        families.iter().filter(|family| family.kind == Kind::Counter).map(|family| family.name).collect();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scraped(families)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Prometheus => older(&text, &counters),
    })
}

#[derive(Debug)]
struct Scraped(Vec<Family>);

impl Collector for Scraped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for family in self.0.iter().filter(|family| !family.series.is_empty()) {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in &family.series {
                if labels.is_empty() {
                    encode(&mut metric, family.kind, value)?;
                } else {
                    encode(&mut metric.encode_family(labels)?, family.kind, value)?;
                }
            }
        }
        Ok(())
    }
}

fn encode(metric: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> Result<(), std::fmt::Error> {
    match (kind, value) {
        (Kind::Counter, Value::Count(count)) => metric.encode_counter::<NoLabelSet, _, u64>(count, None),
        (Kind::Counter, Value::Number(number)) => metric.encode_counter::<NoLabelSet, _, f64>(number, None),
        #[expect(clippy::cast_precision_loss, reason = "every value of a gauge is a float where it is read")]
        (Kind::Gauge, Value::Count(count)) => metric.encode_gauge(&(*count as f64)),
        (Kind::Gauge, Value::Number(number)) => metric.encode_gauge(number),
        (Kind::Histogram, Value::Classes { bounds, sum }) => {
            let count = bounds.iter().map(|(_, count)| count).sum();
            metric.encode_histogram::<NoLabelSet>(*sum, count, bounds, None)
        }
        // A family is made with values of its kind.
        (Kind::Counter | Kind::Gauge, Value::Classes { .. }) | (Kind::Histogram, _) => Err(std::fmt::Error),
    }
}

/// Returns the same in the older format: there a counter's name ends in `_total` in the lines that describe it too, and neither
/// units nor an end are told.
fn older(text: &str, counters: &[&str]) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let described = ["# HELP ", "# TYPE "].iter().find_map(|prefix| Some((*prefix, line.strip_prefix(prefix)?)));
        match described.and_then(|(prefix, rest)| Some((prefix, rest.split_once(' ')?))) {
            Some((prefix, (name, rest))) if counters.contains(&name) => {
                out.extend([prefix, name, "_total ", rest]);
            }
            Some(_) | None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::family::labels;
    use super::*;

    fn families() -> Vec<Family> {
        let mut calls = Family::new("mvedsua_calls", "Calls", Kind::Counter);
        calls.add(labels([("target", "a\"b\\"), ("call", "read")]), Value::Count(7));
        let mut pauses = Family::new("mvedsua_pause_seconds", "Pauses", Kind::Histogram);
        let bounds = vec![(0.5, 2), (f64::INFINITY, 1)];
        pauses.add(labels([("target", "a")]), Value::Classes { bounds, sum: 1.5 });
        let none = Family::new("mvedsua_none", "None", Kind::Gauge);
        let one = Family::single("mvedsua_one", "One", Kind::Gauge, Value::Count(1));
        vec![calls, pauses, none, one]
    }

    #[test]
    fn both_formats_say_the_same() {
        let new = write(families(), Format::OpenMetrics).expect("it is written");
        assert_eq!(
            new,
            "# HELP mvedsua_calls Calls\n# TYPE mvedsua_calls counter\n\
             mvedsua_calls_total{target=\"a\\\"b\\\\\",call=\"read\"} 7\n\
             # HELP mvedsua_pause_seconds Pauses\n# TYPE mvedsua_pause_seconds histogram\n\
             mvedsua_pause_seconds_sum{target=\"a\"} 1.5\nmvedsua_pause_seconds_count{target=\"a\"} 3\n\
             mvedsua_pause_seconds_bucket{le=\"0.5\",target=\"a\"} 2\n\
             mvedsua_pause_seconds_bucket{le=\"+Inf\",target=\"a\"} 3\n\
             # HELP mvedsua_one One\n# TYPE mvedsua_one gauge\nmvedsua_one 1.0\n# EOF\n"
        );
        let old = write(families(), Format::Prometheus).expect("it is written");
        assert!(old.starts_with("# HELP mvedsua_calls_total Calls\n# TYPE mvedsua_calls_total counter\n"), "{old}");
        assert!(!old.contains("EOF") && old.contains("# TYPE mvedsua_one gauge"), "{old}");
        let values =
            |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(values(&old), values(&new));
    }

    #[test]
    fn the_client_says_which() {
        assert_eq!(Format::wanted("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"), Format::OpenMetrics);
        assert_eq!(Format::wanted("text/plain"), Format::Prometheus);
        assert_eq!(Format::wanted(""), Format::Prometheus);
    }

    #[test]
    fn series_are_counted_as_a_database_does() {
        assert_eq!(families().iter().map(Family::series).collect::<Vec<_>>(), [1, 4, 0, 1]);
    }
}
