//! A metric with all its series.

/// The labels of a series.
pub(super) type Labels = Vec<(&'static str, String)>;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The value of a series.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Count(u64),
    Number(f64),
    /// Upper bounds with how many are up to each and above the one before; the last bound is infinite.
    Classes {
        bounds: Vec<(f64, u64)>,
        sum: f64,
    },
}

/// A metric with all its series.
#[derive(Clone, Debug)]
pub(super) struct Family {
    /// Counters without `_total`, which is added where they are written down.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) series: Vec<(Labels, Value)>,
}

impl Family {
    pub(super) fn new(name: &'static str, help: &'static str, kind: Kind) -> Family {
        Family { name, help, kind, series: vec![] }
    }

    pub(super) fn add(&mut self, labels: Labels, value: Value) {
        self.series.push((labels, value));
    }

    /// With one series and no labels.
    pub(super) fn single(name: &'static str, help: &'static str, kind: Kind, value: Value) -> Family {
        Family { name, help, kind, series: vec![(vec![], value)] }
    }

    /// Returns how many series a database makes of it.
    pub(super) fn series(&self) -> usize {
        let of = |value: &Value| match value {
            Value::Count(_) | Value::Number(_) => 1,
            Value::Classes { bounds, .. } => bounds.len() + 2,
        };
        self.series.iter().map(|(_, value)| of(value)).sum()
    }
}

/// Returns the labels with a value each.
pub(super) fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.into_iter().map(|(key, value)| (key, value.to_owned())).collect()
}
