//! Each construct, and the kinds of example of the ATC'17 paper.

use super::*;

const KV: &str = r#"
direction outdated-leader

rule typed-put       # the old version refuses it, so the new one must refuse it too
    read(client, /^put (string|int) \S+ \S+\n$/) => read(client, "invalid\n")

rule plain-put
    read(client, /^put (?<key>\S+) (?<value>\S+)\n$/) => read(client, "put string {key} {value}\n")

direction updated-leader

rule string-put
    read(client, /^put string (?<key>\S+) (?<value>\S+)\n$/) => read(client, "put {key} {value}\n")
"#;

#[test]
fn a_request_is_translated_forwards_and_backwards() {
    let story =
        || Story::default().read(5, "put k v\n").read(5, "put int k 1\n").read(5, "get k\n").read(7, "put k v\n");
    let forwards = [
        "read(5, put string k v\\n) = 15",
        "read(5, invalid\\n) = 8",
        "read(5, get k\\n) = 6",
        "read(7, put k v\\n) = 8",
    ];
    assert_eq!(run(KV, story()), forwards);
    let mut backwards = stage(KV, Direction::UpdatedLeader, Pace::Free);
    let story = Story::default().read(5, "put string k v\n").read(5, "put int k 1\n");
    assert_eq!(shown(&mut backwards, story), ["read(5, put k v\\n) = 8", "read(5, put int k 1\\n) = 12"]);
}

#[test]
fn several_requests_in_one_read_are_replaced_each() {
    let source = r#"rule puts
        read(c, /^put /m) => read(c, replace(
            /^put (string|int) \S+ \S+$/m -> "invalid",
            /^put (?<k>\S+) (?<v>\S+)$/m -> "put string {k} {v}"))"#;
    let story = Story::default().read(5, "put a 1\nget a\nput int b 2\nput c 3\n");
    assert_eq!(run(source, story), ["read(5, put string a 1\\nget a\\ninvalid\\nput string c 3\\n) = 44"]);
}

#[test]
fn one_call_is_replaced_by_two() {
    let source = r#"rule split
        write(fd, /^(?<head>HTTP[^\n]*\n)(?<body>.+)$/s) => write(fd, head), write(fd, body)"#;
    let story = Story::default().write(5, "HTTP ok\nbody\n").write(5, "other");
    assert_eq!(run(source, story), ["write(5, HTTP ok\\n) = 8", "write(5, body\\n) = 5", "write(5, other) = 5"]);
}

#[test]
fn two_calls_are_merged() {
    let source = r#"rule merge
        write(fd, a), write(fd, b) => write(fd, "{a}{b}")
        where len(a) < 10"#;
    let story = Story::default().write(5, "x: ").write(5, "1\n").write(5, "more than ten bytes").write(6, "end");
    assert_eq!(
        run(source, story),
        ["write(5, x: 1\\n) = 5", "write(5, more than ten bytes) = 19", "write(6, end) = 3"]
    );
}

#[test]
fn calls_are_reordered() {
    let source = r#"rule swap
        a: write(1, /log/), b: write(client, _) => b, a"#;
    let story = Story::default().write(1, "log 1").write(5, "answer").write(1, "log 2").read(5, "x");
    assert_eq!(
        run(source, story),
        ["write(5, answer) = 6", "write(1, log 1) = 5", "write(1, log 2) = 5", "read(5, x) = 1"]
    );
}

#[test]
fn calls_are_dropped_and_inserted() {
    let source = r#"
        rule quiet  write(2, /^debug/) => nothing
        rule keepalive
            a: accept4(listener, ..) = fd => a, setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, "\x01\x00\x00\x00", 4)"#;
    let story = Story::default().write(2, "debug: x").write(2, "error: x").call("accept4", &[3], 8);
    let out = run(source, story);
    assert_eq!(out[..2], ["write(2, error: x) = 8", "accept4(3) = 8"]);
    assert_eq!(out[2], "setsockopt(8, \u{1}) = 0");
    assert_eq!(out.len(), 3);
}

#[test]
fn a_group_is_wrapped_in_others() {
    let source = r#"rule locked
        work: (read(client, _), write(client, _))+ , end: epoll_wait(..)
     => flock(9, LOCK_EX) = 0, work, flock(9, LOCK_UN) = 0, end"#;
    let story = Story::default().read(5, "a").write(5, "b").read(6, "c").write(6, "d").call("epoll_wait", &[4], 1);
    let expected = [
        "flock(9) = 0",
        "read(5, a) = 1",
        "write(5, b) = 1",
        "read(6, c) = 1",
        "write(6, d) = 1",
        "flock(9) = 0",
        "epoll_wait(4) = 1",
    ];
    assert_eq!(run(source, story), expected);
}

#[test]
fn results_and_lengths_are_rewritten() {
    let source = r#"
        rule again    read(fd, _) = EAGAIN => read(fd, "", _) = 0
        rule shorter  write(fd, /^(?<text>.*[^ \n]) +\n$/) => write(fd, "{text}\n")
        rule longer   lseek(fd, 0, SEEK_END) = n => lseek(fd, 0, SEEK_END) = n + 10 where n > 100"#;
    let story = Story::default()
        .call("read", &[5, 0x1000, 10], -11)
        .write(5, "padded   \n")
        .call("lseek", &[7, 0, 2], 200)
        .call("lseek", &[7, 0, 2], 50);
    assert_eq!(run(source, story), ["read(5) = 0", "write(5, padded\\n) = 7", "lseek(7) = 210", "lseek(7) = 50"]);
}

#[test]
fn a_prefix_is_skipped_at_the_beginning() {
    let source = r#"rule start
        begin, any*, ready: write(1, "ready\n") => ready"#;
    let mut story = Story::default();
    for number in 0..1000 {
        story = story.open(&format!("/etc/conf.d/{number}"), 7).read(7, "x").call("close", &[7], 0);
    }
    let story = story.write(1, "ready\n").read(5, "a").write(1, "ready\n").open("/x", 7);
    let mut stage = stage(source, Direction::OutdatedLeader, Pace::Free);
    assert_eq!(
        shown(&mut stage, story),
        ["write(1, ready\\n) = 6", "read(5, a) = 1", "write(1, ready\\n) = 6", "openat(-100, /x) = 7"]
    );
    let counts = &stage_counts(&stage)[0];
    assert_eq!((counts.matched, counts.dropped), (1, 3000));
}

fn stage_counts(stage: &Stage) -> Vec<RuleCount> {
    stage.counts().read()
}

#[test]
fn a_descriptor_is_remembered_by_one_rule_and_used_by_others() {
    let source = r#"
        rule opened  openat(_, "/var/log/x.log", ..) = fd => nothing   remember fd as log
        rule line    write($log, _) => nothing
        rule closed  close(fd) => nothing   where fd >= 0 and fd == 12   forget fd from log"#;
    let story = Story::default()
        .open("/var/log/x.log", 12)
        .write(12, "line")
        .write(11, "other")
        .call("close", &[12], 0)
        .open("/data", 12)
        .write(12, "data");
    assert_eq!(run(source, story), ["write(11, other) = 5", "openat(-100, /data) = 12", "write(12, data) = 4"]);
}

#[test]
fn descriptors_are_known_by_kind() {
    let source = r#"
        rule a  write(file "/var/log/*.log", _) => nothing
        rule b  write(socket s, x) => write(s, "S{x}")
        rule c  write(pipe, _) => nothing"#;
    let story = Story::default().open("/var/log/a.log", 12).write(12, "1").call("accept", &[3], 13).write(13, "2");
    let pipe = Event::Call(entry("pipe2", &[0x1000], None), ret(0, Some((0, &[14, 0, 0, 0, 15, 0, 0, 0]))));
    let story = story.event(0, pipe).write(15, "3").call("dup2", &[13, 16], 16).write(16, "4").write(1, "5");
    let out = run(source, story);
    assert_eq!([&out[2], &out[5], &out[6]], ["write(13, S2) = 2", "write(16, S4) = 2", "write(1, 5) = 1"]);
    assert_eq!(out.len(), 7);
}

#[test]
fn the_first_rule_that_matches_counts() {
    let source = r#"
        rule pair    write(1, "a"), write(1, "b") => write(1, "ab")
        rule single  write(1, "a") => write(1, "A")"#;
    let story = Story::default().write(1, "a").write(1, "b").write(1, "a").write(1, "a").write(1, "b");
    assert_eq!(run(source, story), ["write(1, ab) = 2", "write(1, A) = 1", "write(1, ab) = 2"]);
}

#[test]
fn repetitions_and_alternatives() {
    let source = r#"
        rule a  all: (write(1, "x") | write(2, "x")){2,3} => write(1, "{n}") where len(n) == 0"#;
    assert!(check(source).rules.is_none(), "n has no value");
    let source = r#"
        rule many   write(1, "x"){2,3}, write(1, end) => write(1, "many {end}") where not end is "x"
        rule maybe  write(1, "?"), write(2, _)?, write(3, end) => write(3, end)
        rule lazy   write(7, "<"), any*?, write(7, ">") => write(7, "<>")"#;
    let story = Story::default()
        .write(1, "x")
        .write(1, "x")
        .write(1, "y")
        .write(1, "?")
        .write(3, "e")
        .write(1, "?")
        .write(2, "o")
        .write(3, "f")
        .write(7, "<")
        .write(1, "a")
        .write(2, "b")
        .write(7, ">")
        .write(7, ">");
    let expected =
        ["write(1, many y) = 6", "write(3, e) = 1", "write(3, f) = 1", "write(7, <>) = 2", "write(7, >) = 1"];
    assert_eq!(run(source, story), expected);
}

#[test]
fn a_left_side_that_breaks_off_lets_everything_through() {
    let source = "rule pair write(1, _), write(2, _), write(3, _) => write(1, \"joined\")";
    let story = Story::default().write(1, "a").write(2, "b").read(5, "x").write(1, "c").signal().write(2, "d");
    let expected =
        ["write(1, a) = 1", "write(2, b) = 1", "read(5, x) = 1", "write(1, c) = 1", "signal", "write(2, d) = 1"];
    assert_eq!(run(source, story), expected);
}

#[test]
fn the_time_is_let_through_unless_a_rule_names_it() {
    let source = "rule pair write(1, a), write(2, b) => write(2, \"{a}{b}\")";
    let story = || Story::default().write(1, "a").call("clock_gettime", &[1], 0).write(2, "b");
    assert_eq!(run(source, story()), ["write(2, ab) = 2", "clock_gettime(1) = 0"]);
    let named = "rule untimed clock_gettime(..) => nothing";
    assert_eq!(run(named, story()), ["write(1, a) = 1", "write(2, b) = 1"]);
}

#[test]
fn threads_are_matched_each_by_itself_and_stay_in_order() {
    let source = "rule pair write(1, a), write(2, b) => write(2, \"{a}{b}\")";
    let story = Story::default()
        .write_in(1, 1, "a")
        .write_in(2, 1, "A")
        .write_in(1, 2, "b")
        .read_in(3, 5, "x")
        .write_in(2, 2, "B");
    assert_eq!(run(source, story), ["write(2, ab) = 2", "write(2, AB) = 2", "read(5, x) = 1"]);
}

#[test]
fn an_output_in_two_parts_is_rewritten_and_its_result_follows() {
    let source = "rule longer write(fd, /^(?<t>ok)\\n$/) => write(fd, \"{t}, thanks\\n\")";
    let story =
        || Story::default().write_enter(5, "ok\n").read_in(1, 6, "x").returns(3).write_enter(5, "ok\n").returns(-32);
    let expected = ["write(5, ok, thanks\\n) …", "read(6, x) = 1", "… = 11", "write(5, ok, thanks\\n) …", "… = -32"];
    assert_eq!(run(source, story()), expected);
    let mut lockstep = stage(source, Direction::OutdatedLeader, Pace::Lockstep);
    assert_eq!(shown(&mut lockstep, story()), expected);
    let dropping = "rule quiet write(fd, \"ok\\n\") => nothing";
    assert_eq!(run(dropping, story()), ["read(6, x) = 1"]);
}

#[test]
fn a_condition_on_the_result_waits_for_it_unless_the_leader_waits_for_us() {
    let source = "rule failed write(fd, _) = EPIPE => write(fd, _) = EPIPE, shutdown(fd, SHUT_WR)";
    let story =
        || Story::default().write_enter(5, "ok").read_in(1, 6, "x").returns(-32).write_enter(5, "ok").returns(2);
    let expected = ["write(5, ok) = -32", "shutdown(5) = 0", "read(6, x) = 1", "write(5, ok) …", "… = 2"];
    assert_eq!(run(source, story()), expected);
    let mut lockstep = stage(source, Direction::OutdatedLeader, Pace::Lockstep);
    let expected = ["write(5, ok) …", "read(6, x) = 1", "… = -32", "write(5, ok) …", "… = 2"];
    assert_eq!(shown(&mut lockstep, story()), expected);
    let pair = "rule pair write(1, a), write(1, b) => write(1, \"{a}{b}\")";
    let mut lockstep = stage(pair, Direction::OutdatedLeader, Pace::Lockstep);
    let mut out = Vec::new();
    for record in Story::default().write_enter(1, "a").records {
        lockstep.push(record, &mut out);
    }
    assert_eq!((out.len(), lockstep.is_holding()), (1, false), "an output is not held while the leader waits for it");
}

#[test]
fn what_does_not_fit_is_a_gap() {
    let source = "rule long read(fd, _, n) => read(fd, \"0123456789\") where n < 10";
    let story = Story::default().event(0, Event::Call(entry("read", &[9, 0x1000, 4], None), ret(1, Some((1, b"x")))));
    assert_eq!(run(source, story), ["gap: rule `long`: 10 bytes do not fit into the 4 that the call has room for"]);
}

fn asked(name: &str, args: &[i64], input: Option<(u8, &[u8])>) -> CallEntry {
    entry(name, args, input)
}

#[test]
fn the_follower_may_make_calls_of_its_own() {
    let source = r#"
        rule warns   nothing => write(2, /^warning: /)
        rule config  nothing => openat(AT_FDCWD, "/etc/new.conf") = 900, read(900, "x=1\n"), close(900)
        rule never   nothing => write(2, "no")  "#;
    let mut stage = stage(source, Direction::OutdatedLeader, Pace::Free);
    let call = asked("write", &[2, 0x2000, 14], Some((1, b"warning: hot!\n")));
    let records = stage.extra(Slot(0), call.nr, &call.args, &call.inputs, Seq(7));
    assert_eq!(records.len(), 1);
    let (entry, ret) = stage.expected(&records[0], &call.args, &call.inputs).expect("it fits").expect("a rule's");
    assert_eq!((entry.args[2], ret.map(|ret| ret.ret)), (14, Some(14)));
    stage.answered(&records[0]);
    let call = asked("write", &[2, 0x2000, 5], Some((1, b"other")));
    assert!(stage.extra(Slot(0), call.nr, &call.args, &call.inputs, Seq(7)).is_empty());
    let call = asked("openat", &[-100, 0x2000, 0], Some((1, b"/etc/new.conf\0")));
    let records = stage.extra(Slot(0), call.nr, &call.args, &call.inputs, Seq(8));
    assert_eq!(
        records.iter().map(show).collect::<Vec<_>>(),
        ["openat(-100, /etc/new.conf) = 900", "read(900, x=1\\n) = 4", "close(900) = 0"]
    );
    stage.answered(&records[0]);
    let read = asked("read", &[900, 0x2000, 2], None);
    assert!(stage.expected(&records[1], &read.args, &[]).is_err(), "two bytes of room for four");
    let read = asked("read", &[900, 0x2000, 100], None);
    let (entry, ret) = stage.expected(&records[1], &read.args, &[]).expect("it fits").expect("a rule's");
    assert_eq!((entry.args, ret.map(|ret| ret.ret)), (read.args, Some(4)));
    assert_eq!(stage.counts().read()[0].added, 1);
}

#[test]
fn what_is_not_compared_is_filled_in_from_the_follower() {
    let source = "rule stamped write(2, /^\\[/) => write(2, /^\\[\\d+\\] /)";
    let mut stage = stage(source, Direction::OutdatedLeader, Pace::Free);
    let mut out = Vec::new();
    Story::default()
        .write(2, "[10] x\n")
        .write(2, "[11] x\n")
        .records
        .into_iter()
        .for_each(|r| stage.push(r, &mut out));
    let good = asked("write", &[2, 0x2000, 9], Some((1, b"[1234] x\n")));
    let (entry, ret) = stage.expected(&out[0], &good.args, &good.inputs).expect("it fits").expect("a rule's");
    assert_eq!((entry.args[2], text(&entry.inputs), ret.map(|ret| ret.ret)), (9, "[1234] x\\n".into(), Some(9)));
    stage.answered(&out[0]);
    let bad = asked("write", &[2, 0x2000, 5], Some((1, b"[x] x")));
    let (entry, _) = stage.expected(&out[1], &bad.args, &bad.inputs).expect("it fits").expect("a rule's");
    assert_eq!(text(&entry.inputs), "/^\\[\\d+\\] /");
    assert_eq!(stage.counts().read()[0].loosened, 2);
}

#[test]
fn the_nearest_rule_is_named() {
    let source = r#"
        rule far   write(9, "a") => nothing
        rule near  write(5, "b") => nothing"#;
    let stage = stage(source, Direction::OutdatedLeader, Pace::Free);
    assert_eq!(stage.nearest(&asked("write", &[5], Some((1, b"c")))), Some("near".to_owned()));
    assert_eq!(stage.nearest(&asked("read", &[5], None)), None);
}

#[test]
fn applications_are_traced() {
    let mut stage = stage(KV, Direction::OutdatedLeader, Pace::Free);
    stage.trace();
    shown(&mut stage, Story::default().read(5, "get\n").read(5, "put k v\n"));
    let [only] = stage.applications() else { panic!("one application") };
    assert_eq!(
        (only.rule.as_str(), only.from, only.to, &only.took[..], &only.gave[..]),
        ("plain-put", 1, 1, &["read"][..], &["read"][..])
    );
}

#[test]
fn lines_are_whole_before_they_are_looked_at() {
    let source = r#"rule puts
        read(client c, _) => read(c, lines(/^put (?<k>\S+) (?<v>\S+)\n/m -> "put string {k} {v}\n"), any)"#;
    let mut stage = stage(source, Direction::OutdatedLeader, Pace::Free);
    let mut say = |story: Story| {
        let mut out = Vec::new();
        story.records.into_iter().for_each(|record| stage.push(record, &mut out));
        (out.iter().map(show).collect::<Vec<_>>(), stage.kept().next().is_some())
    };
    assert_eq!(say(Story::default().read(5, "pu")), (vec!["read(5) = -11".into()], true));
    assert_eq!(say(Story::default().read(6, "put a 1\nput")), (vec!["read(6, put string a 1\\n) = 15".into()], true));
    assert_eq!(say(Story::default().read(5, "t b 2\n")), (vec!["read(5, put string b 2\\n) = 15".into()], true));
    assert_eq!(say(Story::default().call("close", &[6], 0)), (vec!["close(6) = 0".into()], false));
    assert_eq!(say(Story::default().read(5, "")), (vec!["read(5) = 0".into()], false));
    assert_eq!(say(Story::default().call("read", &[5, 0x1000, 9], -11)), (vec!["read(5) = -11".into()], false));
}

/// A stage of which the follower has read four of ten bytes that were made of one.
fn cut_stage(story: Story) -> (Stage, Vec<Record>) {
    let mut stage =
        stage(r#"rule long read(client c, _) => read(c, "0123456789")"#, Direction::OutdatedLeader, Pace::Free);
    let mut out = Vec::new();
    let read = Event::Call(entry("read", &[5, 0x1000, 4], None), ret(1, Some((1, b"x"))));
    let mut story =
        Story { records: Story::default().event(0, read).records.into_iter().chain(story.records).collect() };
    (0..).zip(&mut story.records).for_each(|(seq, record)| record.seq = Seq(seq));
    story.records.into_iter().for_each(|record| stage.push(record, &mut out));
    let read = asked("read", &[5, 0x2000, 4], None);
    let (_, first) = stage.expected(&out[0], &read.args, &[]).expect("it is cut").expect("a rule's");
    let first = first.expect("it has returned");
    assert_eq!((first.ret, &first.outputs[0].bytes[..], stage.carries()), (4, &b"0123"[..], false));
    stage.answered(&out[0]);
    assert!(stage.carries());
    (stage, out)
}

fn nobody(_: i32, _: i32) -> Option<u64> {
    None
}

#[test]
fn what_does_not_fit_is_read_later() {
    let (mut stage, out) = cut_stage(Story::default().write(5, "answers"));
    let place = (Slot(0), Seq(1));
    let carry = |stage: &mut Stage, call: &CallEntry, registered: &dyn Fn(i32, i32) -> Option<u64>| {
        stage.carry(place, (call.nr, &call.args), &call.inputs, registered)
    };
    let wait = asked("epoll_wait", &[4, 0x3000, 8, -1], None);
    assert_eq!(carry(&mut stage, &wait, &nobody), None, "it waits for others");
    let told = carry(&mut stage, &wait, &|epfd, fd| (epfd == 4).then_some(u64::from(fd as u32) + 100)).expect("more");
    let Event::Call(_, ret) = &told.event else { panic!("a whole call") };
    let event = [&1u32.to_ne_bytes()[..], &105u64.to_ne_bytes()].concat();
    assert_eq!((told.seq, ret.ret, &ret.outputs[0].bytes[..]), (Seq(1), 1, &event[..]));
    assert_eq!(carry(&mut stage, &wait, &|_, _| Some(1)), None, "it is answered first");
    assert_eq!(stage.expected(&told, &wait.args, &[]), Ok(None), "it is simply compared");
    stage.answered(&told);

    // It answers the beginning before.
    let begin = asked("write", &[5, 0x3000, 3], Some((1, b"ans")));
    let (own, left) = stage.begins(&out[1], begin.nr, &begin.args, &begin.inputs).expect("a beginning");
    assert_eq!([show(&own), show(&left)], ["write(5, ans) = 3", "write(5, wers) = 4"]);
    stage.answered(&own);
    let other = asked("write", &[5, 0x3000, 3], Some((1, b"xns")));
    assert!(stage.begins(&out[1], other.nr, &other.args, &other.inputs).is_none());
    assert!(stage.explains_difference(Seq(1), other.nr, &other.args));

    let read = asked("read", &[5, 0x2000, 100], None);
    let rest = carry(&mut stage, &read, &nobody).expect("the rest");
    assert_eq!((show(&rest), stage.carries()), ("read(5, 456789) = 6".to_owned(), false));
    stage.answered(&rest);
    assert!(!stage.explains_difference(Seq(1), read.nr, &read.args));
}

#[test]
fn an_output_that_is_not_over_returns_for_the_rest() {
    let (mut stage, out) = cut_stage(Story::default().write_enter(5, "answers"));
    let begin = asked("write", &[5, 0x3000, 3], Some((1, b"ans")));
    let (own, left) = stage.begins(&out[1], begin.nr, &begin.args, &begin.inputs).expect("a beginning");
    assert_eq!([show(&own), show(&left)], ["write(5, ans) = 3", "write(5, wers) …"]);
    stage.answered(&own);
    assert_eq!(stage.rest_of(Slot(0), &ret(7, None)).map(|rest| rest.map(|ret| ret.ret)), Ok(Some(4)));
    assert_eq!(stage.rest_of(Slot(0), &ret(7, None)), Ok(None), "it is told once");
    let (mut stage, out) = cut_stage(Story::default().write_enter(5, "answers"));
    stage.begins(&out[1], begin.nr, &begin.args, &begin.inputs).expect("a beginning");
    assert!(stage.rest_of(Slot(0), &ret(2, None)).is_err(), "the leader's was cut off before");
}

#[test]
fn what_the_leader_has_answered_waits_while_others_are_served() {
    let (mut stage, out) = cut_stage(Story::default().write_enter(5, "answers").returns(7).write(6, "others"));
    let others = asked("write", &[6, 0x3000, 6], Some((1, b"others")));
    assert!(stage.puts_off(&out[1], others.nr, &others.args) && stage.puts_return_off(&out[2]));
    assert!(!stage.puts_off(&out[3], others.nr, &others.args), "it is the call that is due");
    assert!(stage.brings_back(Slot(0), others.nr, &others.args).is_empty());
    let own = asked("write", &[5, 0x3000, 3], Some((1, b"ans")));
    assert_eq!(stage.brings_back(Slot(0), own.nr, &own.args), [out[1].clone(), out[2].clone()]);
    assert!(!stage.puts_off(&out[1], own.nr, &own.args));
    // What comes when all was read is looked at, whatever it is.
    assert!(stage.puts_off(&out[1], others.nr, &others.args));
    let read = asked("read", &[5, 0x2000, 100], None);
    let rest = stage.carry((Slot(0), Seq(3)), (read.nr, &read.args), &[], &nobody).expect("the rest");
    assert!(stage.brings_back(Slot(0), read.nr, &read.args).is_empty(), "it reads first");
    stage.answered(&rest);
    assert!(stage.carries() && stage.explains_difference(Seq(1), others.nr, &others.args));
    assert_eq!(stage.brings_back(Slot(0), others.nr, &others.args), [out[1].clone()]);
    assert!(!stage.carries());
}

#[test]
fn what_is_left_ends_with_its_descriptor() {
    let (mut stage, out) = cut_stage(Story::default().call("close", &[5], 0));
    stage.answered(&out[1]);
    assert!(!stage.carries());
}
