//! The page as a parser and a reader find it.

use std::collections::BTreeSet;

use html5gum::{Token, Tokenizer};

use super::page;
use crate::compare::{Divergence, DivergenceKind, Frame};
use crate::control::Code;
use crate::control::history::Past;
use crate::control::led::{Led, LedCall, Period};
use crate::control::process::Program;
use crate::control::status::Passed;
use crate::lifecycle::{Cause, Outcome, Stage};
use crate::monitor::Bins;
use crate::report::Payloads;
use crate::report::text::tests::payload_divergence;
use crate::rules::RuleCount;
use crate::update::{Counters, FailureKind};

/// Whatever comes from outside holds this.
pub(in crate::cli) const EVIL: &str = "<script>alert(1)</script>\"'&<b x=\"";

fn bins(durations: &[(u64, u64)]) -> Bins {
    let mut buckets = vec![0; mvedsua_common::histogram::BUCKETS];
    durations.iter().for_each(|&(ns, count)| buckets[mvedsua_common::histogram::bucket(ns)] += count);
    Bins::of(&buckets)
}

pub(in crate::cli) fn led(period: Period, factor: u64) -> Led {
    let call = |name: &str, ns: u64| {
        let durations = bins(&[(ns * factor, 900), (ns * factor * 3, 90), (ns * 200, 3)]);
        LedCall { name: name.to_owned(), count: durations.total(), durations }
    };
    Led { period, observed_ns: 9_000_000_000, calls: vec![call("epoll_wait", 40_000), call("write", 9_000)] }
}

pub(in crate::cli) fn past() -> Past {
    let cause = Cause::Failed(FailureKind::Diverged(Box::new(divergence())));
    let stages = [
        (Stage::Updating, 1, 0),
        (Stage::CatchingUp, 1, 120),
        (Stage::Validating, 1, 900),
        (Stage::RollingBack, 1, 9_000),
        (Stage::SingleLeader, 1, 9_020),
        (Stage::Updating, 2, 9_520),
        (Stage::RollingBack, 2, 9_700),
        (Stage::SingleLeader, 2, 9_710),
    ];
    Past {
        update: 3,
        pid: 1234,
        target: Some(EVIL.to_owned()),
        owner: 0,
        program: Program { exe: format!("/usr/bin/{EVIL}"), build_id: None, started_as: Some(EVIL.to_owned()) },
        to: EVIL.to_owned(),
        package: None,
        asked_by: 0,
        asked_ms: 1_800_000_000_000,
        ended_ms: 1_800_000_009_710,
        took_ms: None,
        attempts: 2,
        fork_pause_us: Some(12_345),
        promotion_pause_us: None,
        counters: Counters {
            recorded: 12_345,
            replayed: 12_000,
            compared_calls: 9_000,
            relaxed: 4,
            ..Counters::default()
        },
        slowdown: None,
        rules: vec![RuleCount { rule: EVIL.to_owned(), matched: 7, loosened: 2, ..RuleCount::default() }],
        failures: vec![
            FailureKind::Diverged(Box::new(divergence())),
            FailureKind::Diverged(Box::new(divergence())),
            FailureKind::NotApplied(EVIL.to_owned()),
        ],
        stages: stages.map(|(stage, attempt, after_ms)| Passed { stage, attempt, after_ms }).into(),
        led: vec![led(Period::Before, 1), led(Period::OldLeads, 4)],
        outcome: Outcome::RolledBack { leader: 1234, cause },
        code: Code::Diverged,
    }
}

fn divergence() -> Divergence {
    let mut divergence = payload_divergence();
    divergence.nearest_rule = Some(EVIL.to_owned());
    divergence.backtrace.push(Frame { address: 7, symbol: Some(EVIL.to_owned()) });
    divergence
}

const VOID: [&str; 4] = ["meta", "br", "hr", "link"];

/// Reads the page as a browser does; panics where it would have to guess, and returns its elements with their attributes.
pub(in crate::cli) fn elements(page: &str) -> Vec<(String, Vec<(String, String)>)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (mut open, mut all) = (vec![], vec![]);
    for token in Tokenizer::new(page).flatten() {
        match token {
            Token::StartTag(tag) => {
                let name = text(&tag.name);
                let attributes = tag.attributes.iter().map(|(name, value)| (text(name), text(value))).collect();
                if !tag.self_closing && !VOID.contains(&name.as_str()) {
                    open.push(name.clone());
                }
                all.push((name, attributes));
            }
            Token::EndTag(tag) => assert_eq!(open.pop(), Some(text(&tag.name)), "it closes another element"),
            Token::Error(error) => panic!("{error:?}"),
            Token::String(_) | Token::Comment(_) | Token::Doctype(_) => {}
        }
    }
    assert_eq!(open, Vec::<String>::new());
    all
}

pub(in crate::cli) fn value<'a>(attributes: &'a [(String, String)], name: &str) -> Option<&'a str> {
    attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// What every page must be for a reader of any kind.
fn check(page: &str) {
    let elements = elements(page);
    let names: Vec<&str> = elements.iter().map(|(name, _)| name.as_str()).collect();
    for landmark in ["header", "nav", "main", "footer"] {
        assert_eq!(names.iter().filter(|name| **name == landmark).count(), 1, "{landmark}");
    }
    for never in ["script", "link", "img", "iframe", "object", "b", "form"] {
        assert!(!names.contains(&never), "{never}");
    }
    let ids: Vec<&str> = elements.iter().filter_map(|(_, attributes)| value(attributes, "id")).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "ids are unlike each other: {ids:?}");
    let mut level = 0;
    for (name, attributes) in &elements {
        for (attribute, value) in attributes {
            match attribute.as_str() {
                "href" => assert!(value.strip_prefix('#').is_some_and(|id| ids.contains(&id)), "{value}"),
                "src" | "style" => panic!("{attribute} of {name}"),
                "aria-labelledby" => {
                    assert!(value.split(' ').all(|id| ids.contains(&id)), "{value} names what is there");
                }
                _ => assert!(!attribute.starts_with("on"), "{attribute} of {name}"),
            }
        }
        match name.as_str() {
            "th" => assert!(value(attributes, "scope").is_some(), "a heading says of what"),
            "svg" => {
                assert!(value(attributes, "role") == Some("img") && value(attributes, "aria-labelledby").is_some())
            }
            "section" | "article" => assert!(value(attributes, "aria-labelledby").is_some(), "{name} has a name"),
            "h1" | "h2" | "h3" | "h4" => {
                let found = name.as_bytes()[1] - b'0';
                assert!(found <= level + 1, "{name} after a heading of level {level}");
                level = found;
            }
            _ => {}
        }
    }
    assert_eq!(
        names.iter().filter(|name| **name == "caption").count(),
        names.iter().filter(|n| **n == "table").count()
    );
}

fn at(mut change: impl FnMut(&mut Past), payloads: Payloads) -> String {
    let mut past = past();
    change(&mut past);
    page(&past, payloads, 1_800_000_100_000)
}

#[test]
fn every_page_is_well_formed_and_can_be_read_by_anybody() {
    for payloads in [Payloads::Redacted, Payloads::Shown] {
        check(&at(|_| {}, payloads));
        check(&at(|past| past.led.push(led(Period::NewLeads, 5)), payloads));
        check(&at(|past| past.led.clear(), payloads));
        check(&at(|past| past.stages.clear(), payloads));
        check(&at(
            |past| {
                past.failures.clear();
                past.rules.clear();
                past.outcome = Outcome::Confirmed { leader: 1234 };
            },
            payloads,
        ));
    }
}

#[test]
fn what_comes_from_outside_is_text() {
    let page = at(|_| {}, Payloads::Shown);
    assert!(!page.contains("<script") && !page.contains("<b "), "{page}");
    assert!(page.matches("&lt;script&gt;alert(1)").count() >= 6, "it is there, as text");
}

#[test]
fn payloads_are_left_out_unless_asked_for() {
    let redacted = at(|_| {}, Payloads::Redacted);
    assert!(!redacted.contains("PONG") && !redacted.contains("68 65 6c 6c"), "{redacted}");
    assert!(!redacted.contains("If this is meant"), "a proposed rule quotes them");
    assert!(redacted.contains("33 bytes, the follower's 34") && redacted.contains("first difference is at byte 21"));
    let shown = at(|_| {}, Payloads::Shown);
    assert!(shown.contains("+PONG") && shown.contains("68 65 6c 6c"), "both views: {shown}");
    assert!(shown.contains("<mark>1</mark>"), "what differs is marked: {shown}");
    assert!(shown.contains("they may hold secrets"));
}

#[test]
fn what_is_known_is_told_and_nothing_else() {
    let page = at(|_| {}, Payloads::Redacted);
    for text in ["Rolled back", "345 records that the follower had not lived through", "It came 2 times alike", "12ms"]
    {
        assert!(page.contains(text), "{text}: {page}");
    }
    let page = at(
        |past| {
            past.led.clear();
            past.stages.clear();
            past.failures = vec![];
        },
        Payloads::Redacted,
    );
    for text in ["Not known: nobody observed", "was not kept", "no difference was found"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(!page.contains("<svg"));
}

#[test]
fn every_kind_of_divergence_has_a_page() {
    let kinds = [
        DivergenceKind::Call,
        DivergenceKind::End,
        DivergenceKind::Crash { signo: 11, address: 0 },
        DivergenceKind::Order { waiting: vec![EVIL.to_owned()] },
        DivergenceKind::Gap { reason: EVIL.to_owned() },
    ];
    for kind in kinds {
        let divergence = Divergence { kind, expected: None, backtrace: vec![], ..divergence() };
        let failure = FailureKind::Diverged(Box::new(divergence));
        check(&at(|past| past.failures = vec![failure.clone()], Payloads::Shown));
    }
}
