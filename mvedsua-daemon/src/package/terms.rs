//! The terms of an update: what the operator and the package ask for, and what follows from both.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gate::{self, Gate};
use crate::lifecycle::{Confirmation, Policy, Promotion, Thresholds};
use crate::record::interleaving::Interleaving;
use crate::units::millis;
use crate::update::{OnFull, OnParting};

/// How long the default timeout is beyond the soak time.
const BEYOND_SOAK: Duration = Duration::from_mins(10);
/// The default budgets of the log, bytes.
pub const LOG_MEMORY: u64 = 512 << 20;
pub const LOG_DISK: u64 = 4 << 30;

/// Says whether the leader's outputs wait for the follower's agreement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lockstep {
    #[default]
    Off,
    On,
}

/// How sure it must be that a process can go on with the functions of another file; the stricter comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Accept {
    /// The types of both versions are known, and they agree.
    #[default]
    Proved,
    /// The two files alone speak for it.
    Inferred,
}

/// How many times less a service may get done while two versions run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenSlowdown", into = "WrittenSlowdown")]
pub enum MaxSlowdown {
    /// There is no limit.
    Off,
    Times(u32),
}

impl Default for MaxSlowdown {
    /// A busy server whose threads work at the same time keeps an eighth of its throughput; one whose threads wait for each other in
    /// loops a hundredth.
    fn default() -> Self {
        MaxSlowdown::Times(25)
    }
}

/// The same in JSON and TOML: a number, or `off`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenSlowdown {
    Times(u32),
    Word(String),
}

impl TryFrom<WrittenSlowdown> for MaxSlowdown {
    type Error = String;

    fn try_from(written: WrittenSlowdown) -> Result<Self, String> {
        match written {
            WrittenSlowdown::Times(times) => times.to_string().parse(),
            WrittenSlowdown::Word(word) => word.parse(),
        }
    }
}

impl From<MaxSlowdown> for WrittenSlowdown {
    fn from(max: MaxSlowdown) -> Self {
        match max {
            MaxSlowdown::Off => WrittenSlowdown::Word("off".to_owned()),
            MaxSlowdown::Times(times) => WrittenSlowdown::Times(times),
        }
    }
}

impl std::str::FromStr for MaxSlowdown {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("off", _) => Ok(MaxSlowdown::Off),
            (_, Ok(times)) if times >= 2 => Ok(MaxSlowdown::Times(times)),
            (_, Ok(_)) => Err(format!("`{text}` leaves a rehearsal nothing; write a number from 2, or `off`")),
            (_, Err(_)) => Err(format!("`{text}` is no factor; write a number from 2, or `off`")),
        }
    }
}

impl std::fmt::Display for MaxSlowdown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MaxSlowdown::Off => f.write_str("any slowdown"),
            MaxSlowdown::Times(times) => write!(f, "at most {times} times slower"),
        }
    }
}

/// What somebody asks for; what is left out is somebody else's to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wishes {
    pub promote: Option<Promotion>,
    pub confirm: Option<Confirmation>,
    #[serde(rename = "soak_ms", with = "millis::optional")]
    pub soak: Option<Duration>,
    pub min_calls: Option<u64>,
    pub min_outputs: Option<u64>,
    pub retries: Option<u32>,
    #[serde(rename = "retry_after_ms", with = "millis::optional")]
    pub retry_after: Option<Duration>,
    #[serde(rename = "timeout_ms", with = "millis::optional")]
    pub timeout: Option<Duration>,
    /// How long the follower may be silent although a record waits for it.
    #[serde(rename = "hang_timeout_ms", with = "millis::optional")]
    pub hang_timeout: Option<Duration>,
    /// Budgets of the log, bytes.
    pub log_memory: Option<u64>,
    pub log_disk: Option<u64>,
    pub on_full: Option<OnFull>,
    pub on_parting: Option<OnParting>,
    pub threads: Option<Interleaving>,
    pub stops: Option<StopAt>,
    pub lockstep: Option<Lockstep>,
    /// What the follower may take, bytes.
    pub memory_limit: Option<u64>,
    /// How long the new version may take for a request, in per cent of the old one's time.
    pub latency_budget_percent: Option<u32>,
    /// What the rehearsal may cost the service.
    pub max_slowdown: Option<MaxSlowdown>,
    pub accept: Option<Accept>,
    /// Who is asked before the promotion and before the old version ends; those of the configuration are asked too.
    pub gate: Option<Gate>,
}

impl Wishes {
    /// Puts these over others: what is asked for here counts, the rest is theirs.
    #[must_use]
    pub fn over(self, others: Wishes) -> Wishes {
        Wishes {
            promote: self.promote.or(others.promote),
            confirm: self.confirm.or(others.confirm),
            soak: self.soak.or(others.soak),
            min_calls: self.min_calls.or(others.min_calls),
            min_outputs: self.min_outputs.or(others.min_outputs),
            retries: self.retries.or(others.retries),
            retry_after: self.retry_after.or(others.retry_after),
            timeout: self.timeout.or(others.timeout),
            hang_timeout: self.hang_timeout.or(others.hang_timeout),
            log_memory: self.log_memory.or(others.log_memory),
            log_disk: self.log_disk.or(others.log_disk),
            on_full: self.on_full.or(others.on_full),
            on_parting: self.on_parting.or(others.on_parting),
            threads: self.threads.or(others.threads),
            stops: self.stops.or(others.stops),
            lockstep: self.lockstep.or(others.lockstep),
            memory_limit: self.memory_limit.or(others.memory_limit),
            latency_budget_percent: self.latency_budget_percent.or(others.latency_budget_percent),
            max_slowdown: self.max_slowdown.or(others.max_slowdown),
            accept: self.accept.or(others.accept),
            gate: self.gate.or(others.gate),
        }
    }

    /// Returns the terms: what is asked for, and the defaults for the rest.
    #[must_use]
    pub fn terms(&self) -> Terms {
        let default = Policy::default();
        let soak = self.soak.unwrap_or(default.soak);
        let policy = Policy {
            promote: self.promote.unwrap_or_default(),
            confirm: self.confirm.unwrap_or_default(),
            soak,
            thresholds: Thresholds {
                min_calls: self.min_calls.unwrap_or(default.thresholds.min_calls),
                min_outputs: self.min_outputs.unwrap_or(default.thresholds.min_outputs),
            },
            retries: self.retries.unwrap_or(default.retries),
            retry_after: self.retry_after.unwrap_or(default.retry_after),
            timeout: self.timeout.unwrap_or(soak.saturating_add(BEYOND_SOAK)),
            ..default
        };
        Terms {
            policy,
            hang_timeout: self.hang_timeout,
            log_memory: self.log_memory.unwrap_or(LOG_MEMORY),
            log_disk: self.log_disk.unwrap_or(LOG_DISK),
            on_full: self.on_full.unwrap_or_default(),
            on_parting: self.on_parting.unwrap_or_default(),
            threads: self.threads,
            stops: self.stops.unwrap_or_default(),
            lockstep: self.lockstep.unwrap_or_default(),
            memory_limit: self.memory_limit,
            latency_budget_percent: self.latency_budget_percent,
            max_slowdown: self.max_slowdown.unwrap_or_default(),
            accept: self.accept.unwrap_or_default(),
            gates: vec![],
        }
        .gated(self.gate.clone())
    }
}

/// Where the versions are stopped while two run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum StopAt {
    /// Where something must be looked at that cannot be seen or answered otherwise.
    #[default]
    WhereNeeded,
    /// At each call.
    EachCall,
}

/// What holds for one update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub policy: Policy,
    /// `None` is the engine's own.
    #[serde(rename = "hang_timeout_ms", with = "millis::optional", default)]
    pub hang_timeout: Option<Duration>,
    pub log_memory: u64,
    pub log_disk: u64,
    pub on_full: OnFull,
    #[serde(default)]
    pub on_parting: OnParting,
    /// How the program's threads run beside each other; `None` is one by one, and freely at every third attempt.
    #[serde(default)]
    pub threads: Option<Interleaving>,
    /// Where the two versions are stopped.
    #[serde(default)]
    pub stops: StopAt,
    pub lockstep: Lockstep,
    /// What the follower may take, bytes; `None` is no limit.
    pub memory_limit: Option<u64>,
    /// How long the new version may take for a request, in per cent of the old one's time; `None` is no limit.
    pub latency_budget_percent: Option<u32>,
    /// What the rehearsal may cost the service.
    #[serde(default)]
    pub max_slowdown: MaxSlowdown,
    /// How sure it must be that the functions of another file fit.
    #[serde(default)]
    pub accept: Accept,
    /// Who is asked whether the update may go on, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
}

/// Why terms can never end well, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction {
    pub why: &'static str,
    pub remedy: &'static str,
}

impl Terms {
    /// Puts gates before those that there are.
    #[must_use]
    pub fn gated(mut self, first: impl IntoIterator<Item = Gate>) -> Terms {
        self.gates.splice(0..0, first);
        self.policy.gates = gate::asked(&self.gates);
        self
    }

    /// Says where the terms contradict each other.
    ///
    /// # Errors
    ///
    /// The first contradiction.
    pub fn check(&self) -> Result<(), Contradiction> {
        let policy = &self.policy;
        if policy.timeout <= policy.soak {
            return Err(Contradiction {
                why: "the timeout is not longer than the soak time, so the update could never be promoted",
                remedy: "give a longer --timeout, or a shorter --soak",
            });
        }
        if policy.promote == Promotion::Auto && policy.thresholds.min_calls + policy.thresholds.min_outputs == 0 {
            return Err(Contradiction {
                why: "with both thresholds at 0 an update would be promoted on no evidence at all",
                remedy: "give --min-calls or --min-outputs a value of at least 1, or promote by hand",
            });
        }
        if self.memory_limit == Some(0) {
            return Err(Contradiction {
                why: "with a memory limit of 0 every update would end at once",
                remedy: "give --memory-limit a size such as 1G, or leave it out",
            });
        }
        Ok(())
    }
}

impl std::fmt::Display for Terms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Terms {
            policy,
            hang_timeout,
            on_full,
            on_parting,
            threads,
            stops,
            lockstep,
            memory_limit,
            latency_budget_percent,
            max_slowdown,
            accept,
            gates,
            ..
        } = self;
        let time = |duration: Duration| humantime::format_duration(duration).to_string();
        let (promote, confirm) = (policy.promote, policy.confirm);
        let promote = match promote {
            Promotion::Manual => "by hand",
            Promotion::Auto => "by itself",
        };
        let confirm = match confirm {
            Confirmation::Manual => "by hand",
            Confirmation::Auto => "by itself",
        };
        write!(f, "promoted {promote} after {}, confirmed {confirm}", time(policy.soak))?;
        write!(f, ", {} retries, timeout {}", policy.retries, time(policy.timeout))?;
        if let Some(limit) = hang_timeout {
            write!(f, ", hung after {}", time(*limit))?;
        }
        match on_full {
            OnFull::Rollback => write!(f, ", a full log rolls back")?,
            OnFull::Block => write!(f, ", a full log blocks")?,
        }
        if *on_parting == OnParting::Keep {
            write!(f, ", the new version keeps the service when they part")?;
        }
        match threads {
            Some(Interleaving::Free) => write!(f, ", threads run freely")?,
            Some(Interleaving::OneByOne) => write!(f, ", threads run one by one")?,
            None => {}
        }
        if *stops == StopAt::EachCall {
            write!(f, ", stopped at each call")?;
        }
        if *lockstep == Lockstep::On {
            write!(f, ", in lockstep")?;
        }
        if let Some(limit) = memory_limit {
            write!(f, ", memory up to {} MiB", limit >> 20)?;
        }
        if let Some(percent) = latency_budget_percent {
            write!(f, ", {percent} % of the time")?;
        }
        write!(f, ", {max_slowdown}")?;
        if *accept == Accept::Inferred {
            write!(f, ", accepted where it is inferred")?;
        }
        if !gates.is_empty() {
            let names: Vec<_> = gates.iter().map(|gate| format!("`{}`", gate.name)).collect();
            write!(f, ", asked: {}", names.join(" and "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_counts_before_the_package_and_the_package_before_the_default() {
        let operator = Wishes { soak: Some(Duration::from_secs(1)), min_calls: Some(7), ..Wishes::default() };
        let package = Wishes {
            soak: Some(Duration::from_secs(99)),
            promote: Some(Promotion::Auto),
            log_memory: Some(1 << 20),
            ..Wishes::default()
        };
        let terms = operator.over(package).terms();
        assert_eq!((terms.policy.soak, terms.policy.thresholds.min_calls), (Duration::from_secs(1), 7));
        assert_eq!((terms.policy.promote, terms.log_memory), (Promotion::Auto, 1 << 20));
        assert_eq!(terms.policy.thresholds.min_outputs, Thresholds::default().min_outputs);
        assert_eq!(terms.policy.timeout, Duration::from_secs(601), "it follows the soak time that holds");
    }

    #[test]
    fn what_is_only_inferred_is_accepted_where_somebody_asks_for_it() {
        let asks = |accept: Option<Accept>| Wishes { accept, ..Wishes::default() };
        assert!(Accept::Proved < Accept::Inferred, "the stricter comes first");
        for (operator, package, holds) in [
            (None, None, Accept::Proved),
            (None, Some(Accept::Inferred), Accept::Inferred),
            (Some(Accept::Proved), Some(Accept::Inferred), Accept::Proved),
            (Some(Accept::Inferred), None, Accept::Inferred),
        ] {
            let terms = asks(operator).over(asks(package)).terms();
            assert_eq!(terms.accept, holds, "{operator:?} over {package:?}");
            assert_eq!(terms.to_string().contains("inferred"), holds == Accept::Inferred, "{terms}");
        }
        let mut earlier = serde_json::to_value(Wishes::default().terms()).expect("it serialises");
        earlier.as_object_mut().expect("an object").remove("accept");
        let terms: Terms = serde_json::from_value(earlier).expect("what an earlier daemon wrote reads");
        assert_eq!(terms.accept, Accept::Proved);
    }

    #[test]
    fn a_slowdown_is_a_number_or_off() {
        assert_eq!("25".parse(), Ok(MaxSlowdown::Times(25)));
        assert_eq!("off".parse(), Ok(MaxSlowdown::Off));
        for text in ["0", "1", "-3", "2.5", "", "much"] {
            assert!(text.parse::<MaxSlowdown>().is_err(), "{text:?}");
        }
        let read = |json: &str| serde_json::from_str::<MaxSlowdown>(json).map_err(drop);
        assert_eq!((read("7"), read("\"off\"")), (Ok(MaxSlowdown::Times(7)), Ok(MaxSlowdown::Off)));
        assert_eq!((read("1"), read("\"on\""), read("null")), (Err(()), Err(()), Err(())));
        for max in [MaxSlowdown::Off, MaxSlowdown::Times(9)] {
            assert_eq!(read(&serde_json::to_string(&max).expect("it serialises")), Ok(max));
        }
        assert_eq!(Wishes::default().terms().max_slowdown, MaxSlowdown::Times(25), "there is a limit by default");
    }

    #[test]
    fn terms_that_cannot_end_well_are_named() {
        let check = |wishes: Wishes| wishes.terms().check().map_err(|contradiction| contradiction.remedy);
        assert_eq!(check(Wishes::default()), Ok(()));
        let hasty = Wishes { timeout: Some(Duration::from_secs(10)), ..Wishes::default() };
        assert_eq!(check(hasty), Err("give a longer --timeout, or a shorter --soak"));
        let blind =
            Wishes { promote: Some(Promotion::Auto), min_calls: Some(0), min_outputs: Some(0), ..Wishes::default() };
        assert!(check(blind).is_err());
        assert!(check(Wishes { memory_limit: Some(0), ..Wishes::default() }).is_err());
    }

    #[test]
    fn wishes_survive_the_wire_and_an_empty_object_asks_for_nothing() {
        assert_eq!(serde_json::from_str::<Wishes>("{}").expect("it reads"), Wishes::default());
        let wishes = Wishes { soak: Some(Duration::from_millis(1500)), retries: Some(1), ..Wishes::default() };
        let json = serde_json::to_value(&wishes).expect("it serialises");
        assert_eq!(json["soak_ms"], 1500);
        assert_eq!(serde_json::from_value::<Wishes>(json).expect("it reads"), wishes);
        assert!(serde_json::from_str::<Wishes>(r#"{"soka_ms":1}"#).is_err());
    }
}
