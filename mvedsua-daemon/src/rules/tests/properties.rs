//! What holds for every file and every stream.

use proptest::prelude::*;

use super::*;
use crate::rules::ast::Piece;
use crate::rules::ast::*;

fn at<T>(is: T) -> At<T> {
    At { is, span: 0..0 }
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b1", "fd", "plain-put", "Key", "x_y"]).prop_map(str::to_owned)
}

fn template() -> impl Strategy<Value = Template> {
    let piece =
        prop_oneof![prop::collection::vec(any::<u8>(), 1..6).prop_map(Piece::Bytes), name().prop_map(Piece::Variable)];
    // Neighbouring bytes are one piece when they are read again.
    prop::collection::vec(piece, 0..4).prop_map(|pieces| {
        let mut joined: Vec<Piece> = Vec::new();
        for piece in pieces {
            match (joined.last_mut(), piece) {
                (Some(Piece::Bytes(last)), Piece::Bytes(more)) => last.extend(more),
                (_, piece) => joined.push(piece),
            }
        }
        Template(joined)
    })
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let texts = vec!["x", "^put (?<k>\\S+)$", "a/b", "\\d+\\\\", "[^/]*", "\\/"];
    // A slash is written escaped and read back bare.
    prop::sample::select(texts).prop_map(|text| Pattern { text: text.replace("\\/", "/"), flags: "ms".to_owned() })
}

fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Expr::Number),
        name().prop_map(|name| Expr::Name(at(name))),
        name().prop_map(|name| Expr::Len(at(name))),
    ];
    (leaf.clone(), prop::collection::vec((any::<bool>(), leaf), 0..3)).prop_map(|(first, rest)| {
        rest.into_iter().fold(first, |left, (add, right)| {
            let (left, right) = (Box::new(left), Box::new(right));
            if add { Expr::Add(left, right) } else { Expr::Sub(left, right) }
        })
    })
}

fn arg() -> impl Strategy<Value = Arg> {
    let kind = prop_oneof![
        Just(Kind::Client),
        Just(Kind::Listener),
        Just(Kind::File(None)),
        Just(Kind::File(Some("/var/log/*".to_owned())))
    ];
    prop_oneof![
        Just(Arg::Wild),
        Just(Arg::Any),
        expr().prop_map(Arg::Value),
        name().prop_map(Arg::Stored),
        (kind, prop::option::of(name())).prop_map(|(kind, name)| Arg::Kind(kind, name)),
        template().prop_map(Arg::Text),
        pattern().prop_map(Arg::Regex),
        prop::collection::vec((pattern(), template()), 1..3).prop_map(Arg::Replace),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let outcome =
        prop_oneof![Just(Outcome::Wild), Just(Outcome::Ok), Just(Outcome::Error), expr().prop_map(Outcome::Value)];
    let calls = prop::sample::select(vec!["read", "write", "close", "nonsense"]);
    (calls, prop::collection::vec(arg(), 0..4), prop::option::of(outcome)).prop_map(|(name, args, result)| Call {
        name: at(name.to_owned()),
        args: args.into_iter().map(at).collect(),
        result: result.map(at),
    })
}

fn item() -> impl Strategy<Value = Item> {
    let repeat =
        (0_u32..5, prop::option::of(0_u32..5), any::<bool>()).prop_map(|(min, max, lazy)| Repeat { min, max, lazy });
    let wrap = move |atom: BoxedStrategy<Atom>| {
        (prop::option::of(name()), atom, prop::option::of(repeat.clone())).prop_map(|(label, atom, repeat)| Item {
            label: label.map(at),
            atom: at(atom),
            repeat,
        })
    };
    let leaf = prop_oneof![Just(Atom::Any), call().prop_map(Atom::Call)].boxed();
    wrap(leaf).prop_recursive(3, 12, 3, move |inner| {
        let groups = prop::collection::vec(prop::collection::vec(inner, 1..3), 1..3);
        (prop::option::of(name()), groups).prop_map(|(label, groups)| Item {
            label: label.map(at),
            atom: at(Atom::Group(groups)),
            repeat: Some(Repeat { min: 0, max: None, lazy: false }),
        })
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    let leaf = prop_oneof![
        (expr(), expr()).prop_map(|(left, right)| Condition::Compare(left, Comparison::LessEqual, right)),
        (name(), template()).prop_map(|(name, text)| Condition::Is(at(name), text)),
        (name(), pattern()).prop_map(|(name, pattern)| Condition::Matches(at(name), at(pattern))),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Condition::Not(Box::new(inner))),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Condition::And(Box::new(a), Box::new(b))),
            (inner.clone(), inner).prop_map(|(a, b)| Condition::Or(Box::new(a), Box::new(b))),
        ]
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let direction =
        prop_oneof![Just(None), Just(Some(Direction::OutdatedLeader)), Just(Some(Direction::UpdatedLeader))];
    let left = prop_oneof![
        Just(Left::Nothing),
        (any::<bool>(), prop::collection::vec(item(), 1..4)).prop_map(|(begin, items)| Left::Calls { begin, items }),
    ];
    let right = prop_oneof![
        name().prop_map(|label| RightItem::Recorded(at(label))),
        (prop::option::of(name()), call()).prop_map(|(label, call)| RightItem::Call { label: label.map(at), call }),
    ];
    let clause = prop_oneof![
        condition().prop_map(|condition| Clause::Where(at(condition))),
        (name(), name()).prop_map(|(what, set)| Clause::Remember(at(what), set)),
        (name(), name()).prop_map(|(what, set)| Clause::Forget(at(what), set)),
    ];
    (name(), direction, left, prop::collection::vec(right, 0..4), prop::collection::vec(clause, 0..3)).prop_map(
        |(name, direction, left, right, clauses)| Rule {
            name: at(name),
            direction,
            left: at(left),
            right: at(right),
            clauses,
        },
    )
}

/// Rules that look like something, over a small alphabet of calls.
fn source() -> impl Strategy<Value = String> {
    let atom = prop::sample::select(vec![
        "read(5, _)",
        "write(1, \"x\")",
        "write(fd, /x+/)",
        "any",
        "(read(fd, _), write(fd, _))",
        "(write(1, \"x\")* | any)",
        "((any*)*)*",
        "(any?){8}",
        "read(5, v)+",
    ]);
    let rules = prop::collection::vec(
        prop::collection::vec((atom, prop::sample::select(vec!["", "*", "+", "?", "*?"])), 1..4),
        1..4,
    );
    rules.prop_map(|rules| {
        let rule = |(index, items): (usize, Vec<(&str, &str)>)| {
            let items: Vec<String> = items.iter().map(|(atom, repeat)| format!("({atom}){repeat}")).collect();
            format!("rule r{index} {}, close(7) => nothing\n", items.join(", "))
        };
        rules.into_iter().enumerate().map(rule).collect()
    })
}

fn story() -> impl Strategy<Value = Story> {
    let step = (0_u32..3, 0_u8..8);
    prop::collection::vec(step, 0..400).prop_map(|steps| {
        steps.into_iter().fold(Story::default(), |story, (slot, kind)| match kind {
            0 => story.read_in(slot, 5, "xx"),
            1 => story.write_in(slot, 1, "x"),
            2 => story.write_in(slot, 2, "y"),
            3 => story.write_enter(1, "x"),
            4 => story.returns(1),
            5 => story.signal(),
            6 => story.event(slot, Event::Call(entry("close", &[7], None), ret(0, None))),
            _ => story.call("clock_gettime", &[1], 0),
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_is_read_back(rules in prop::collection::vec(rule(), 0..4)) {
        let file = File { rules };
        let printed = file.to_string();
        let read = parse(&printed);
        prop_assert_eq!(read.as_ref(), Ok(&file), "{}", printed);
    }

    #[test]
    fn no_file_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let source = String::from_utf8_lossy(&bytes);
        for found in check(&source).diagnostics {
            prop_assert!(!found.render("x", &source).is_empty());
        }
    }

    #[test]
    fn no_jumble_of_tokens_makes_it_panic(words in prop::collection::vec(prop::sample::select(vec![
        "rule", "a", "read", "(", ")", ",", "=>", "nothing", "any", "*", "?", "{", "2", "}", "\"{x}\"", "/(?<x>a*)/", "$s",
        "where", "x", "==", "begin", "|", ":", "=", "EAGAIN", "replace", "->", "remember", "as", "direction", "both", "_",
        "not", "and", "len", "client", "file", "..", "-", "+",
    ]), 0..60)) {
        let source = words.join(" ");
        for found in check(&source).diagnostics {
            prop_assert!(!found.render("x", &source).is_empty());
        }
    }

    #[test]
    fn the_work_is_bounded_and_nothing_is_lost(source in source(), story in story()) {
        let Some(rules) = check(&source).rules else { return Ok(()) };
        let states = rules.states() as u64;
        let counts = Arc::new(Counts::new(Arc::new(rules)));
        let mut stage = Stage::new(Arc::clone(&counts), Direction::OutdatedLeader, Pace::Free, time, Descriptors::default());
        // An output may be recorded in two parts and be handed on in one.
        let calls = |records: &[Record]| {
            records.iter().filter(|record| !matches!(record.event, Event::Return(_))).count() as u64
        };
        let (records, recorded) = (story.records.len() as u64, calls(&story.records));
        let mut out = Vec::new();
        story.records.into_iter().for_each(|record| stage.push(record, &mut out));
        stage.flush(&mut out);
        prop_assert!(!stage.is_holding());
        prop_assert!(out.is_sorted_by_key(|record| record.seq));
        let per_call = 3 * states * stage::WINDOW as u64;
        prop_assert!(stage.work() <= (records + 1) * per_call, "{} of {}", stage.work(), records * per_call);
        let dropped: u64 = counts.read().iter().map(|count| count.dropped).sum();
        prop_assert!(calls(&out) + dropped >= recorded);
    }
}

#[test]
fn what_would_be_exponential_is_not() {
    let source =
        format!("rule evil ({}), write(9, \"never\") => nothing", vec!["(write(1, /(x*)*y/) | any)*"; 20].join(", "));
    let mut stage = stage(&source, Direction::OutdatedLeader, Pace::Free);
    let payload = "x".repeat(1000);
    let story = (0..600).fold(Story::default(), |story, _| story.write(1, &payload));
    assert_eq!(shown(&mut stage, story).len(), 600);
    assert!(stage.work() < 600 * stage::WINDOW as u64 * 300, "{}", stage.work());
}
