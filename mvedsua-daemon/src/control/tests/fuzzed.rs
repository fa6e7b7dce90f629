//! Requests that nobody would write: each gets one answer, and the daemon is as good as before.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::*;
use crate::control::protocol::{self, Envelope, VERSION};

/// Requests of every kind, as a client writes them.
fn requests() -> Vec<Vec<u8>> {
    let requests = [
        json!({"hello": {}}),
        json!({"attach": {"pid": 2_000_000_000, "options": AttachOptions::default(), "name": "x"}}),
        json!({"detach": {"pid": 2_000_000_000}}),
        json!({"mode": {"pid": 2_000_000_000, "mode": "exact"}}),
        json!({"stats": {"pid": 2_000_000_000}}),
        json!({"export": {"pid": 2_000_000_000}}),
        json!({"promote": {"pid": 2_000_000_000, "evidence": "required"}}),
        json!({"confirm": {"pid": 2_000_000_000}}),
        json!({"rollback": {"pid": 2_000_000_000, "reason": "x"}}),
        json!({"status": {"pid": null}}),
        json!({"history": {"pid": null, "limit": 3}}),
        json!({"report": {"pid": null, "update": 1}}),
        json!({"update": {"pid": 2_000_000_000, "ask": {"to": "self", "wishes": {"soak_ms": 1}}}}),
    ];
    requests.map(|request| json!({"v": VERSION, "request": request}).to_string().into_bytes()).to_vec()
}

/// A request of which some bytes are other ones, are missing, or are there twice; or anything else.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), any::<u8>(), 0..4_u8);
    let edited = (prop::sample::select(requests()), prop::collection::vec(edit, 0..4)).prop_map(|(mut line, edits)| {
        for (at, byte, how) in edits {
            let at = at.index(line.len());
            match how {
                0 => line[at] = byte,
                1 => line.insert(at, byte),
                2 => line.truncate(at.max(1)),
                _ => line.extend_from_within(at..),
            }
        }
        line
    });
    let deep = (1..2000_usize).prop_map(|depth| [vec![b'['; depth], vec![b']'; depth]].concat());
    let number =
        any::<f64>().prop_map(|pid| format!("{{\"v\":1,\"request\":{{\"stats\":{{\"pid\":{pid:e}}}}}}}").into_bytes());
    prop_oneof![6 => edited, 2 => prop::collection::vec(any::<u8>(), 0..200), 1 => deep, 1 => number]
}

proptest! {
    /// What is understood is understood again when it is written down, and what is not is answered with what to do.
    #[test]
    fn a_line_is_a_request_or_its_fault_is_named(line in lines()) {
        match protocol::parse(&line) {
            Ok(request) => {
                let again = serde_json::to_vec(&Envelope { v: VERSION, request: request.clone() }).expect("it is written");
                prop_assert_eq!(protocol::parse(&again), Ok(request));
            }
            Err(problem) => {
                prop_assert!(!problem.why.is_empty() && !problem.remedy.is_empty());
                prop_assert_eq!(problem.code, crate::control::Code::Usage);
            }
        }
    }
}

#[test]
fn whatever_is_asked_gets_one_answer_and_others_are_served() {
    let site = Site::new();
    let mut runner = TestRunner::deterministic();
    let strategy = lines();
    let mut next = || strategy.new_tree(&mut runner).expect("it makes lines").current();
    let (whole, cut): (Vec<_>, Vec<_>) = ((0..300).map(|_| next()).collect(), (0..50).map(|_| next()).collect());
    site.run(Script::Obedient, |_| async {
        let mut talk = site.connect().await;
        for line in &whole {
            let mut line = line.clone();
            line.retain(|byte| *byte != b'\n');
            // These are answered as long as something happens.
            let lasts = [&b"follow"[..], b"events"].iter().any(|verb| line.windows(6).any(|part| part == *verb));
            if lasts {
                continue;
            }
            line.push(b'\n');
            talk.send(&line).await;
            let answer = talk.hear().await.expect("an answer");
            assert!(
                answer["ok"].is_object() || answer["error"]["why"].is_string() || !answer["ok"].is_null(),
                "{answer}"
            );
        }
        assert!(site.connect().await.ask(json!({"hello": {}})).await["ok"].is_object());
        // One that leaves in the middle of a line, or before its answer, is missed by nobody.
        for line in &cut {
            let mut talk = site.connect().await;
            talk.send(&line[..line.len() / 2]).await;
        }
        assert!(site.connect().await.ask(json!({"status": {}})).await["ok"].is_object());
    });
}
