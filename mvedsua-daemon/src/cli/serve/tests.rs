//! The live page as a parser and a reader find it.

use std::collections::BTreeSet;

use super::page::{Seen, live, unreachable, whole};
use crate::cli::page::tests::{EVIL, elements, led, past, value};
use crate::cli::top::tests::world;
use crate::control::Code;
use crate::control::led::Period;
use crate::control::protocol::Problem;
use crate::control::status::TargetStatus;

fn seen(targets: Vec<TargetStatus>) -> Seen {
    let led = vec![(1234, vec![led(Period::Before, 1), led(Period::OldLeads, 4)])];
    Seen { status: world::status(targets), past: vec![past()], led, at_ms: world::NOW_MS }
}

/// What the page must be for a reader of any kind.
fn check(page: &str) {
    let elements = elements(page);
    let count = |wanted: &str| elements.iter().filter(|(name, _)| name == wanted).count();
    for landmark in ["header", "main", "footer", "h1", "script"] {
        assert_eq!(count(landmark), 1, "{landmark}");
    }
    assert_eq!(count("table"), count("caption"));
    let ids: Vec<&str> = elements.iter().filter_map(|(_, attributes)| value(attributes, "id")).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "ids are unlike each other: {ids:?}");
    let mut level = 0;
    for (name, attributes) in &elements {
        match name.as_str() {
            "th" => assert!(value(attributes, "scope").is_some()),
            "section" | "article" => assert!(value(attributes, "aria-labelledby").is_some_and(|id| ids.contains(&id))),
            "script" => assert_eq!(value(attributes, "src"), Some("/live.js")),
            "label" => assert!(value(attributes, "for").is_some_and(|id| ids.contains(&id))),
            "h1" | "h2" | "h3" => {
                let found = name.as_bytes()[1] - b'0';
                assert!(found <= level + 1, "{name} after a heading of level {level}");
                level = found;
            }
            _ => {}
        }
        let speaks = attributes.iter().find(|(name, _)| name.starts_with("on") || name == "style");
        assert_eq!(speaks, None, "{name}");
    }
    assert!(page.contains("role=\"status\""), "what changes is said aloud");
}

#[test]
fn every_page_is_well_formed_and_can_be_read_by_anybody() {
    let targets = [
        vec![],
        vec![world::observed(7)],
        vec![world::validating(150), world::observed(7)],
        vec![world::promoted()],
        vec![world::undone()],
    ];
    for targets in targets {
        check(&whole(&live(&seen(targets))));
    }
    let problem = Problem::new(Code::Unreachable, "connecting", EVIL, "start it");
    check(&whole(&unreachable(&problem)));
}

#[test]
fn the_stages_are_told_and_what_comes_from_outside_is_text() {
    let mut target = world::validating(150);
    target.monitor.as_mut().expect("it is observed").name = EVIL.to_owned();
    target.update.as_mut().expect("there is one").alarm = Some(EVIL.to_owned());
    let page = live(&seen(vec![target]));
    assert!(page.contains("aria-current=\"step\">validating"), "{page}");
    assert!(page.contains("345 678") || page.contains("345678") || page.contains("345,678"), "{page}");
    assert!(page.contains("href=\"/updates/3\"") && page.contains("Calls and latencies"), "{page}");
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;"), "{page}");
    assert!(!page.contains("PONG"), "payloads are left out");
}
