//! `update.toml`: what an update is, in the words of whoever made it.
//!
//! ```toml
//! name = "v2"
//! description = "typed values"
//! method = "in-place"
//! from = ["6f0c…"]           # build-ids that this updates; one of them must be mapped
//! to = "a914…"               # the build-id of the object
//! object = "kvstore-v2.so"
//! entry = "mvedsua_main"
//! rules = ["v1-v2.rules"]
//!
//! [policy]                   # each may be overruled on the command line
//! promote = "auto"
//! soak = "1m"
//! ```
//!
//! With `method = "binary"` there is one build-id in `from`, that of the file which was compared with the object, and no
//! `entry`: the changed functions are what goes over. `hooks` and `transforms` are for what they do not do ([`super::hooks`]).

use serde::Serialize;
use toml::de::DeTable;

use super::build_id::BuildId;
use super::faults::{Fault, Kind, Place, list, meant};
use super::gate::{Gate, Judge, OnFailure};
use super::hooks::{self, Hooks};
use super::reader::{self, At, Reader, Unfit};
use super::terms::{Lockstep, Wishes};
use crate::lifecycle::Moment;

/// The name of the file.
pub(super) const FILE: &str = "update.toml";

const KEYS: &[&str] =
    &["name", "description", "method", "from", "to", "object", "entry", "hooks", "transforms", "rules", "policy"];
pub(super) const POLICY_KEYS: &[&str] = &[
    "promote",
    "confirm",
    "soak",
    "min-calls",
    "min-outputs",
    "retries",
    "retry-after",
    "timeout",
    "hang-timeout",
    "log-memory",
    "log-disk",
    "on-full",
    "threads",
    "stops",
    "on-parting",
    "lockstep",
    "memory-limit",
    "latency-budget",
    "max-slowdown",
    "accept",
    "gate",
    "gate-before",
    "gate-timeout",
    "gate-again-after",
    "gate-on-failure",
];
const METHODS: &[&str] = &["in-place", "binary", "self"];
/// Methods that are designed and not built.
const PLANNED: &[&str] = &["exec", "objects"];
/// The longest name of a package.
pub(super) const LONGEST_NAME: usize = 64;
const BUILD_ID: &str = "a build-id in hexadecimal digits, as `file` or `readelf -n` shows it";

/// How the new version comes into the follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The program, which cooperates, loads a shared object and goes over to it (Kitsune's way).
    InPlace,
    /// The functions that changed between two files are loaded beside the old ones. The program knows nothing of it.
    Binary,
    /// Not at all: the same version again, a rehearsal.
    #[serde(rename = "self")]
    Itself,
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Method::InPlace => "in-place",
            Method::Binary => "binary",
            Method::Itself => "self",
        })
    }
}

/// What `update.toml` says; nothing of it has been compared with the files yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) name: String,
    pub(super) description: Option<String>,
    /// Build-ids that it updates; empty where it does not matter.
    pub(super) from: Vec<At<BuildId>>,
    /// `None` where the same version is rehearsed.
    pub(super) change: Option<Change>,
    pub(super) rules: Vec<At<String>>,
    pub(super) wishes: Wishes,
}

/// What the new version is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) to: At<BuildId>,
    pub(super) object: At<String>,
    pub(super) way: Way<At<String>>,
    pub(super) hooks: Option<Hooks>,
}

/// How the new version is applied. `Entry` is the name of a function, with its place while the manifest is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way<Entry = String> {
    /// The program loads the object and goes on at this exported function.
    InPlace { entry: Entry },
    /// The functions of the object that differ from the old file's are put in their place.
    Binary,
}

/// Reads `update.toml`.
pub(super) fn read(text: &str) -> Result<Manifest, Vec<Fault>> {
    let mut reader = Reader::new(FILE, text);
    let manifest = match reader.parse() {
        Some(table) => table_of(&mut reader, table.get_ref()),
        None => None,
    };
    match manifest {
        Some(manifest) if reader.faults.is_empty() => Ok(manifest),
        Some(_) | None => {
            reader.faults.sort_by_key(|fault| fault.place.as_ref().map(|place| (place.line, place.column)));
            Err(reader.faults)
        }
    }
}

/// Returns a manifest, which is worth something only where no fault was found.
fn table_of<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>) -> Option<Manifest> {
    reader.only(table, KEYS, "the package");
    let name = reader.need(table, "name", "a short name such as \"v2\"", name);
    let description = reader.get(table, "description", "a text", reader::text);
    let method = reader.need(table, "method", &format!("one of {}", list(METHODS)), method);
    let from = from(reader, table);
    let rules = reader.texts(table, "rules", "a list of the names of files in the package");
    for rule in rules.iter().filter(|rule| !rule.value.ends_with(".rules")) {
        reader.fault(&rule.place, format!("`{}` is not named like rules", rule.value), "a name that ends in `.rules`");
    }
    let wishes = policy(reader, table);
    let change = match method?.value {
        Method::InPlace => {
            need_from(reader, table, "a list of the build-ids that this updates");
            let object = object(reader, table, "the name of a shared object in the package");
            let expected = "the name of the function at which the new version goes on";
            let entry = reader.need(table, "entry", expected, symbol);
            unwanted(reader, table, &["hooks", "transforms"], "a program that cooperates transforms its data itself");
            object.zip(entry).map(|((to, object), entry)| Change {
                to,
                object,
                way: Way::InPlace { entry },
                hooks: None,
            })
        }
        Method::Binary => {
            need_from(reader, table, "the build-id of the file that this updates");
            if let Some(second) = from.get(1) {
                let expected = "one build-id, that of the file which was compared with the object";
                let fault = reader.fault(&second.place, "`from` names more than one file", expected);
                fault.hint = Some("make a package for each version with `mvedsuad package build`".to_owned());
            }
            unwanted(reader, table, &["entry"], "with `method = \"binary\"` every changed function goes over");
            let object = object(reader, table, "the name of the new version's file in the package");
            let hooks = hooks::read(reader, table);
            object.map(|(to, object)| Change { to, object, way: Way::Binary, hooks })
        }
        Method::Itself => {
            let hint = "with `method = \"self\"` the same version is rehearsed";
            unwanted(reader, table, &["to", "object", "entry", "hooks", "transforms"], hint);
            None
        }
    };
    Some(Manifest {
        name: name?.value,
        description: description.map(|description| description.value),
        from,
        change,
        rules,
        wishes,
    })
}

fn name(value: &toml::de::DeValue<'_>) -> Result<String, Unfit> {
    parse_name(&reader::text(value)?).map_err(Unfit::Content)
}

/// Reads the name of a package.
///
/// # Errors
///
/// Why it cannot be one.
pub fn parse_name(name: &str) -> Result<String, String> {
    let stranger = name.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c)));
    match stranger {
        Some(stranger) => Err(format!("{stranger:?} has no place in a name")),
        None if name.is_empty() => Err("it is empty".to_owned()),
        None if name.starts_with('.') => Err("it begins with a dot".to_owned()),
        None if name.len() > LONGEST_NAME => Err(format!("it is longer than {LONGEST_NAME}")),
        // It would be taken for the rehearsal on the command line.
        None if name == "self" => Err("`self` always means the version that runs".to_owned()),
        None => Ok(name.to_owned()),
    }
}

fn method(value: &toml::de::DeValue<'_>) -> Result<Method, Unfit> {
    let word = value.as_str().ok_or(Unfit::Type)?;
    match word {
        "in-place" => Ok(Method::InPlace),
        "binary" => Ok(Method::Binary),
        "self" => Ok(Method::Itself),
        planned if PLANNED.contains(&planned) => {
            Err(Unfit::Content(format!("`{planned}` is planned and not there yet")))
        }
        other => Err(Unfit::Content(match meant(other, METHODS) {
            Some(near) => format!("there is no method `{other}`; did you mean `{near}`?"),
            None => format!("there is no method `{other}`"),
        })),
    }
}

/// Reads the build-ids that the package updates: a list, or one.
fn from<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>) -> Vec<At<BuildId>> {
    if table.get("from").is_some_and(|value| value.get_ref().is_str()) {
        return reader.get(table, "from", BUILD_ID, build_id).into_iter().collect();
    }
    let texts = reader.texts(table, "from", &format!("a list, each {BUILD_ID}"));
    if table.contains_key("from") && texts.is_empty() && reader.faults.is_empty() {
        let place = reader.place(table.get("from").map_or(0..0, toml::Spanned::span));
        reader.fault(&place, "`from` is empty", format!("at least one item, each {BUILD_ID}"));
    }
    let mut ids: Vec<At<BuildId>> = vec![];
    for At { value, place } in texts {
        match BuildId::parse(&value) {
            Ok(id) if ids.iter().any(|known| known.value == id) => {
                reader.fault(&place, format!("`{id}` is listed twice"), "each build-id once");
            }
            Ok(id) => ids.push(At { value: id, place }),
            Err(why) => {
                reader.fault(&place, format!("`{value}` is no build-id: {why}"), BUILD_ID);
            }
        }
    }
    ids
}

fn build_id(value: &toml::de::DeValue<'_>) -> Result<BuildId, Unfit> {
    let text = value.as_str().ok_or(Unfit::Type)?;
    BuildId::parse(text).map_err(|why| Unfit::Content(format!("`{text}` is no build-id: {why}")))
}

/// Says that `from` is missing, where it is.
fn need_from<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>, expected: &str) {
    if !table.contains_key("from") {
        reader.need(table, "from", expected, reader::text);
    }
}

/// Says which keys are there that have no meaning with the method.
fn unwanted<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>, keys: &[&str], hint: &str) {
    for key in keys {
        let Some(value) = table.get(*key) else { continue };
        let place = reader.place(value.span());
        let fault = reader.fault(&place, format!("`{key}` goes with another method"), "no such key");
        fault.hint = Some(hint.to_owned());
    }
}

/// Reads the new version's build-id and the name of its file.
fn object<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>, expected: &str) -> Option<(At<BuildId>, At<String>)> {
    let to = reader.need(table, "to", BUILD_ID, build_id);
    let object = reader.need(table, "object", expected, reader::text);
    to.zip(object)
}

pub(super) fn symbol(value: &toml::de::DeValue<'_>) -> Result<String, Unfit> {
    let name = reader::text(value)?;
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || "_.$@".contains(*c))) {
        Some(stranger) => Err(Unfit::Content(format!("{stranger:?} has no place in the name of a symbol"))),
        None => Ok(name),
    }
}

fn policy<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>) -> Wishes {
    const DURATION: &str = "a duration such as \"90s\" or \"5m\"";
    const SIZE: &str = "a size such as \"512M\", or a number of bytes";
    const COUNT: &str = "a whole number from 0";
    const SLOWDOWN: &str = "a whole number from 2, or \"off\"";
    const BY_WHOM: &str = "`manual` or `auto`";
    let Some(value) = table.get("policy") else { return Wishes::default() };
    let Some(policy) = value.get_ref().as_table() else {
        let place = reader.place(value.span());
        reader.fault(&place, "`policy` is no table", "a table: a line `[policy]`, and its keys below");
        return Wishes::default();
    };
    reader.only(policy, POLICY_KEYS, "`policy`");
    let wishes = Wishes {
        promote: reader.get(policy, "promote", BY_WHOM, reader::choice).map(value_of),
        confirm: reader.get(policy, "confirm", BY_WHOM, reader::choice).map(value_of),
        soak: reader.get(policy, "soak", DURATION, reader::duration).map(value_of),
        min_calls: reader.get(policy, "min-calls", COUNT, reader::count).map(value_of),
        min_outputs: reader.get(policy, "min-outputs", COUNT, reader::count).map(value_of),
        retries: reader.get(policy, "retries", COUNT, reader::small_count).map(value_of),
        retry_after: reader.get(policy, "retry-after", DURATION, reader::duration).map(value_of),
        timeout: reader.get(policy, "timeout", DURATION, reader::duration).map(value_of),
        hang_timeout: reader.get(policy, "hang-timeout", DURATION, reader::duration).map(value_of),
        log_memory: reader.get(policy, "log-memory", SIZE, reader::size).map(value_of),
        log_disk: reader.get(policy, "log-disk", SIZE, reader::size).map(value_of),
        on_full: reader.get(policy, "on-full", "`rollback` or `block`", reader::choice).map(value_of),
        threads: reader.get(policy, "threads", "`one-by-one` or `free`", reader::choice).map(value_of),
        stops: reader.get(policy, "stops", "`where-needed` or `each-call`", reader::choice).map(value_of),
        on_parting: reader.get(policy, "on-parting", "`rollback` or `keep`", reader::choice).map(value_of),
        lockstep: reader
            .get(policy, "lockstep", "`true` or `false`", reader::boolean)
            .map(|at| if at.value { Lockstep::On } else { Lockstep::Off }),
        memory_limit: reader.get(policy, "memory-limit", SIZE, reader::size).map(value_of),
        latency_budget_percent: latency_budget(reader, policy),
        max_slowdown: reader.get(policy, "max-slowdown", SLOWDOWN, reader::slowdown).map(value_of),
        accept: reader.get(policy, "accept", "`proved` or `inferred`", reader::choice).map(value_of),
        gate: gate(reader, policy),
    };
    if let Err(contradiction) = wishes.terms().check() {
        let place = reader.place(value.span());
        let fault = reader.fault(&Place { width: 1, ..place }, contradiction.why, "a policy that can be met");
        fault.hint = Some(contradiction.remedy.replace("--", ""));
    }
    wishes
}

fn latency_budget<'t>(reader: &mut Reader<'t>, policy: &DeTable<'t>) -> Option<u32> {
    const PERCENT: &str = "a percentage of the old version's time, at least \"100%\"";
    let budget = reader.get(policy, "latency-budget", PERCENT, reader::percent)?;
    if budget.value < 100 {
        let what = format!("`latency-budget` is {} %, so the same version would fail", budget.value);
        reader.fault(&budget.place, what, PERCENT);
    }
    Some(budget.value)
}

/// Reads who is asked whether the update may go on.
fn gate<'t>(reader: &mut Reader<'t>, policy: &DeTable<'t>) -> Option<Gate> {
    const DURATION: &str = "a duration such as \"10s\"";
    const JUDGE: &str = "an address such as \"http://127.0.0.1:8080/judge\", or a list: a program and its arguments";
    const MOMENTS: &str = "a list of `promotion` and `confirmation`";
    let key = ["gate", "gate-before", "gate-timeout", "gate-again-after", "gate-on-failure"]
        .into_iter()
        .find(|key| policy.contains_key(*key))?;
    let place = reader.place(policy.get(key).map_or(0..0, toml::Spanned::span));
    let is_list = policy.get("gate").is_some_and(|gate| gate.get_ref().as_array().is_some());
    let (url, command) = if is_list {
        let words = reader.texts(policy, "gate", JUDGE);
        (None, Some(words.into_iter().map(value_of).collect()))
    } else {
        (reader.get(policy, "gate", JUDGE, reader::text), None)
    };
    let before = reader.texts(policy, "gate-before", MOMENTS);
    let timeout = reader.get(policy, "gate-timeout", DURATION, reader::duration).map(value_of);
    let again_after = reader.get(policy, "gate-again-after", DURATION, reader::duration).map(value_of);
    let on_failure = reader.get(policy, "gate-on-failure", "`deny` or `wait`", on_failure).map(value_of);
    let mut moments = vec![];
    for At { value, place } in before {
        match value.as_str() {
            "promotion" => moments.push(Moment::Promotion),
            "confirmation" => moments.push(Moment::Confirmation),
            other => {
                reader.fault(&place, format!("there is no `{other}` before which a gate could be"), MOMENTS);
            }
        }
    }
    let made = Judge::new(url.as_ref().map(|url| url.value.as_str()), command).and_then(|judge| {
        let gate = Gate::new("package", judge);
        let before = if policy.contains_key("gate-before") { moments } else { gate.before.clone() };
        let timeout = timeout.unwrap_or(gate.timeout);
        let again_after = again_after.unwrap_or(gate.again_after);
        Gate { before, timeout, again_after, on_failure: on_failure.unwrap_or_default(), ..gate }.checked()
    });
    match made {
        Ok(gate) => Some(gate),
        Err(why) => {
            reader.fault(&place, why, "a gate that can be asked");
            None
        }
    }
}

fn on_failure(value: &toml::de::DeValue<'_>) -> Result<OnFailure, Unfit> {
    match value.as_str().ok_or(Unfit::Type)? {
        "deny" => Ok(OnFailure::Deny),
        "wait" => Ok(OnFailure::Wait),
        "allow" => Err(Unfit::Content("a gate that cannot be asked is never taken to allow".to_owned())),
        other => Err(Unfit::Content(format!("there is no `{other}`"))),
    }
}

fn value_of<T>(at: At<T>) -> T {
    at.value
}

impl Manifest {
    pub(super) fn method(&self) -> Method {
        match &self.change {
            Some(Change { way: Way::InPlace { .. }, .. }) => Method::InPlace,
            Some(Change { way: Way::Binary, .. }) => Method::Binary,
            None => Method::Itself,
        }
    }

    /// Returns a fault about something that the manifest says.
    pub(super) fn fault(kind: Kind, place: &Place, what: impl Into<String>, expected: impl Into<String>) -> Fault {
        Fault::new(kind, FILE, what, expected).at(place.clone())
    }
}
