//! What is not run, and what cannot be the same under updates; each with its reason.

/// Units that are not run unless they are named.
pub(super) const LEFT_OUT: &[(&str, &str)] = &[
    ("unit/printver", "it prints the version and tests nothing"),
    ("unit/tls", "Debian's server is built with TLS, the suite's client needs certificates that are made by hand"),
];

/// Units that take longest: they are begun first, so that no runner is left with one at the end.
pub(super) const LONGEST: [&str; 10] = [
    "integration/replication",
    "integration/replication-psync",
    "unit/memefficiency",
    "unit/type/list-3",
    "unit/type/list-2",
    "unit/hyperloglog",
    "integration/replication-4",
    "integration/psync2",
    "unit/maxmemory",
    "unit/dump",
];

/// Units whose tests are not the same ones each time, and why: there what counts is that all of those pass that are run.
const BY_LOT: &[(&str, &str)] = &[
    (
        "integration/psync2",
        "it draws layouts of masters and replicas by lot, for as many rounds as 20 s give, and names its tests by them",
    ),
    ("integration/psync2-reg", "it kills a replica again and again for 20 s"),
];

/// Tests that are about the process itself or its speed: unit, how the test's name begins, and why.
const EXPECTED: &[(&str, &str, &str)] = &[
    (
        "unit/client-eviction",
        "client evicted due to percentage of maxmemory",
        "it asks on one connection for what the server has read from another, and does not wait until it has read all of it",
    ),
    (
        "unit/client-eviction",
        "client evicted due to large multi buf",
        "it fails by the limit that the one before it leaves behind when it fails",
    ),
];

/// Returns why a unit is left out.
pub(super) fn left_out(unit: &str) -> Option<&'static str> {
    LEFT_OUT.iter().find(|(name, _)| *name == unit).map(|(_, reason)| *reason)
}

/// Returns why a unit's tests differ from one run to the next.
pub(super) fn by_lot(unit: &str) -> Option<&'static str> {
    BY_LOT.iter().find(|(name, _)| *name == unit).map(|(_, reason)| *reason)
}

/// Returns why a test cannot pass under updates.
pub(super) fn expected(unit: &str, test: &str) -> Option<&'static str> {
    let found = EXPECTED.iter().find(|(name, begins, _)| *name == unit && test.starts_with(begins));
    found.map(|(_, _, reason)| *reason)
}
