//! What is drawn, line by line, and what keys do.

pub(in crate::cli) mod world;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use self::world::{NOW_MS, observed, promoted, snapshot, stats_of, status, undone, validating};
use super::draw::{Colour, Glyphs, Look, draw};
use super::keys::Effect;
use super::model::{Focus, Heard, Link, Model, Pane};
use super::question::Verb;
use crate::control::Code;
use crate::control::protocol::Problem;
use crate::control::status::{Status, TargetStatus};
use crate::lifecycle::Stage;

const PLAIN: Look = Look { colour: Colour::No, glyphs: Glyphs::Unicode };

fn terminal(model: &Model, (width, height): (u16, u16), look: Look) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("it is in memory");
    terminal.draw(|frame| draw(model, frame, look)).expect("it is in memory");
    terminal
}

fn drawn_at(model: &Model, size: (u16, u16), look: Look) -> String {
    let terminal = terminal(model, size, look);
    let buffer = terminal.backend().buffer();
    let rows = buffer.content.chunks(usize::from(size.0));
    let lines = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

fn drawn(model: &Model) -> String {
    drawn_at(model, (80, 24), PLAIN)
}

/// A display that has heard of these processes.
fn model(targets: Vec<TargetStatus>) -> Model {
    let mut model = Model::new(None, NOW_MS);
    model.hear(Heard::Status(Box::new(status(targets))));
    model
}

fn hear(model: &mut Model, stats: crate::monitor::StatsSnapshot) {
    model.hear(Heard::Stats(stats.pid, Ok(Box::new(stats))));
}

fn press(model: &mut Model, code: KeyCode) -> Option<Effect> {
    model.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_in(model: &mut Model, text: &str) {
    for c in text.chars() {
        press(model, KeyCode::Char(c));
    }
}

/// A display of two processes, one of which is observed for a while.
fn watching() -> Model {
    let mut model = model(vec![observed(1234), observed(5678)]);
    for second in 1..=12 {
        hear(&mut model, stats_of(second));
    }
    model
}

#[test]
fn calls_with_sparklines_and_a_histogram() {
    insta::assert_snapshot!(drawn(&watching()));
}

#[test]
fn an_update_that_is_validated() {
    let mut model = model(vec![validating(30), observed(5678)]);
    for behind in [0, 10, 200, 40, 23] {
        model.hear(Heard::Status(Box::new(status(vec![validating(behind), observed(5678)]))));
    }
    hear(&mut model, snapshot());
    insta::assert_snapshot!(drawn(&model));
}

#[test]
fn an_update_that_is_promoted_shows_both_versions_beside_each_other() {
    let mut model = model(vec![promoted()]);
    hear(&mut model, world::snapshot_of_both());
    insta::assert_snapshot!(drawn(&model));
}

#[test]
fn an_update_that_was_undone_says_why() {
    let mut model = model(vec![undone()]);
    press(&mut model, KeyCode::Char('v'));
    insta::assert_snapshot!(drawn(&model));
}

#[test]
fn nothing_is_told_of_latencies_that_nobody_has_observed() {
    let text = drawn(&model(vec![TargetStatus { monitor: None, ..validating(3) }]));
    assert!(text.contains("latencies not known, nobody observes"), "{text}");
    let text = drawn(&model(vec![validating(3)]));
    assert!(text.contains("latencies not known yet"), "{text}");
    let mut model = model(vec![validating(3)]);
    hear(&mut model, stats_of(3));
    assert!(drawn(&model).contains("latencies not known, nobody observed the update from its start"));
    let [before, _] = snapshot().led.try_into().expect("two periods");
    hear(&mut model, crate::monitor::StatsSnapshot { led: vec![before], ..snapshot() });
    assert!(drawn(&model).contains("the old version leads: not known"));
}

#[test]
fn without_targets_it_says_what_to_do() {
    let text = drawn(&model(vec![]));
    assert!(text.contains("mvedsuad attach PID"), "{text}");
    let mut model = Model::new(Some(77), NOW_MS);
    model.hear(Heard::Status(Box::new(status(vec![]))));
    let text = drawn(&model);
    assert!(text.contains("process 77 is neither observed nor updated"), "{text}");
}

#[test]
fn a_daemon_that_is_gone_is_told_until_it_is_back() {
    let mut model = watching();
    let problem = Problem::new(Code::Unreachable, "connecting to /run/mvedsua/control.sock", "Connection refused", "");
    model.hear(Heard::Gone(problem.clone()));
    model.now_ms += 5000;
    model.hear(Heard::Gone(problem));
    assert_eq!(model.link, Link::Gone { since_ms: NOW_MS, why: model_why(&model) }, "it counts from the first time");
    let first = drawn(&model).lines().next().expect("a line").to_owned();
    assert!(first.contains("DAEMON GONE since 12:30:00") && first.contains("Connection refused"), "{first}");
    press(&mut model, KeyCode::Char('P'));
    assert!(drawn(&model).contains("the daemon cannot be reached"));
    press(&mut model, KeyCode::Esc);
    model.hear(Heard::Status(Box::new(status(vec![observed(1234)]))));
    assert!(!drawn(&model).contains("GONE"));
}

fn model_why(model: &Model) -> String {
    match &model.link {
        Link::Gone { why, .. } => why.clone(),
        Link::Up => String::new(),
    }
}

#[test]
fn nothing_is_asked_for_without_a_question_that_is_answered_with_y() {
    let mut model = model(vec![validating(0)]);
    for code in [KeyCode::Esc, KeyCode::Char('n'), KeyCode::Char('q')] {
        assert_eq!(press(&mut model, KeyCode::Char('P')), None);
        let text = drawn(&model);
        assert!(text.contains("Promote update 3 of process 1234?") && text.contains("y yes    n no"), "{text}");
        assert_eq!(press(&mut model, KeyCode::Enter), None, "that is no answer");
        assert_eq!(press(&mut model, code), None);
        assert_eq!(model.focus, Focus::Main);
    }
    press(&mut model, KeyCode::Char('P'));
    assert_eq!(press(&mut model, KeyCode::Char('y')), Some(Effect::Ask(Verb::Promote, 1234)));
    press(&mut model, KeyCode::Char('R'));
    assert!(drawn(&model).contains("not answered yet"), "one after the other");
    press(&mut model, KeyCode::Esc);
    model.hear(Heard::Answered(Verb::Promote, Ok(())));
    assert!(drawn(&model).contains("promotion done"));
    press(&mut model, KeyCode::Esc);
    press(&mut model, KeyCode::Char('R'));
    assert_eq!(press(&mut model, KeyCode::Char('y')), Some(Effect::Ask(Verb::RollBack, 1234)));
    let why = Problem::new(Code::Refused, "rolling back", "this user may not", "run it as root");
    model.hear(Heard::Answered(Verb::RollBack, Err(why)));
    let text = drawn(&model);
    assert!(text.contains("rollback not done") && text.contains("run it as root"), "{text}");
}

#[test]
fn what_does_not_fit_is_said_and_not_asked() {
    let mut model = model(vec![validating(0), observed(5678)]);
    press(&mut model, KeyCode::Char('C'));
    let text = drawn(&model);
    assert!(text.contains("no confirmation now") && text.contains("after the promotion"), "{text}");
    press(&mut model, KeyCode::Esc);
    assert_eq!(press(&mut model, KeyCode::Tab), Some(Effect::Look));
    assert_eq!(model.selected, Some(5678));
    press(&mut model, KeyCode::Char('R'));
    assert!(drawn(&model).contains("no update of process 5678 is under way"));
}

#[test]
fn a_question_ends_with_what_it_was_about() {
    let mut model = model(vec![validating(0)]);
    press(&mut model, KeyCode::Char('P'));
    model.hear(Heard::Status(Box::new(status(vec![undone()]))));
    assert!(drawn(&model).contains("nothing was asked for"));
    assert_eq!(press(&mut model, KeyCode::Char('y')), None);
}

#[test]
fn a_held_display_stays_and_asks_for_nothing() {
    let mut model = model(vec![validating(5)]);
    press(&mut model, KeyCode::Char(' '));
    let before = drawn(&model);
    assert!(before.contains("HELD"), "{before}");
    model.hear(Heard::Status(Box::new(status(vec![TargetStatus { stage: Stage::Promoting, ..validating(999) }]))));
    assert_eq!(drawn(&model), before);
    press(&mut model, KeyCode::Char('P'));
    assert!(drawn(&model).contains("the display is held"));
    press(&mut model, KeyCode::Esc);
    press(&mut model, KeyCode::Char(' '));
    model.hear(Heard::Status(Box::new(status(vec![TargetStatus { stage: Stage::Promoting, ..validating(999) }]))));
    assert!(drawn(&model).contains("promoting"));
}

#[test]
fn calls_are_filtered_and_sorted() {
    let mut model = watching();
    press(&mut model, KeyCode::Char('/'));
    type_in(&mut model, "wri");
    let text = drawn(&model);
    assert!(text.contains("only calls with: wri_") && text.contains("> write"), "{text}");
    assert!(!text.contains("epoll_wait"), "{text}");
    press(&mut model, KeyCode::Enter);
    assert!(drawn(&model).contains("with \"wri\""));
    press(&mut model, KeyCode::Char('/'));
    type_in(&mut model, "x");
    assert!(drawn(&model).contains("no call with that in its name"));
    press(&mut model, KeyCode::Esc);
    let names = |model: &Model| -> Vec<String> {
        let text = drawn(model);
        let lines = text.lines().skip(6).filter(|line| !line.contains("threads")).take(4);
        lines.map(|line| line.trim_start_matches(['>', ' ']).split(' ').next().unwrap_or("").to_owned()).collect()
    };
    let by_time = names(&model);
    for _ in 0..5 {
        press(&mut model, KeyCode::Char('s'));
    }
    let mut sorted = by_time.clone();
    sorted.sort();
    assert_eq!(names(&model), sorted, "by name");
    press(&mut model, KeyCode::Down);
    assert!(drawn(&model).contains(&format!("> {}", sorted[1])));
}

#[test]
fn help_tells_every_key() {
    let mut model = watching();
    press(&mut model, KeyCode::Char('?'));
    insta::assert_snapshot!(drawn(&model));
    press(&mut model, KeyCode::Char('q'));
    assert_eq!(model.focus, Focus::Main, "it closes the help only");
    assert_eq!(press(&mut model, KeyCode::Char('q')), Some(Effect::Quit));
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    press(&mut model, KeyCode::Char('/'));
    assert_eq!(model.press(interrupt), Some(Effect::Quit), "everywhere");
}

#[test]
fn the_pane_follows_what_happens_unless_another_is_wanted() {
    let mut model = model(vec![observed(1234)]);
    assert_eq!(model.pane(), Pane::Calls);
    press(&mut model, KeyCode::Char('v'));
    assert!(drawn(&model).contains("no update of this process is known"));
    press(&mut model, KeyCode::Esc);
    model.hear(Heard::Status(Box::new(status(vec![validating(1)]))));
    assert_eq!(model.pane(), Pane::Update);
    press(&mut model, KeyCode::Char('v'));
    assert_eq!(model.pane(), Pane::Calls);
}

#[test]
fn every_size_is_drawn() {
    let mut asking = model(vec![validating(1)]);
    press(&mut asking, KeyCode::Char('P'));
    let mut help = watching();
    press(&mut help, KeyCode::Char('?'));
    let mut both = model(vec![promoted()]);
    hear(&mut both, world::snapshot_of_both());
    for model in [watching(), asking, help, both, model(vec![])] {
        for width in [1, 2, 39, 40, 41, 60, 71, 80, 100, 250] {
            for height in [1, 2, 9, 10, 11, 12, 13, 24, 60] {
                let text = drawn_at(&model, (width, height), PLAIN);
                assert_eq!(text.lines().count().max(1), usize::from(height).min(text.lines().count().max(1)));
            }
        }
    }
}

#[test]
fn a_poor_terminal_is_given_what_it_can_show() {
    let model = watching();
    let poor = Look { colour: Colour::No, glyphs: Glyphs::Ascii };
    let terminal = terminal(&model, (80, 24), poor);
    for cell in &terminal.backend().buffer().content {
        assert!(cell.symbol().is_ascii(), "{:?}", cell.symbol());
        assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
    }
    let questions = |look| drawn_at(&model, (80, 24), look).matches('?').count();
    assert_eq!(questions(poor), questions(PLAIN), "everything has a stand-in");
    let look = |pairs: &'static [(&str, &str)]| {
        Look::of_environment(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    };
    let rich = look(&[("TERM", "xterm"), ("LANG", "de_DE.UTF-8")]);
    assert_eq!(rich, Look { colour: Colour::Yes, glyphs: Glyphs::Unicode });
    assert_eq!(look(&[("TERM", "xterm"), ("LANG", "C.utf8"), ("NO_COLOR", "1")]).colour, Colour::No);
    assert_eq!(look(&[("TERM", "xterm"), ("LANG", "C.utf8"), ("NO_COLOR", "")]).colour, Colour::Yes);
    assert_eq!(look(&[("TERM", "xterm"), ("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")]).glyphs, Glyphs::Ascii);
    assert_eq!(look(&[]), poor);
}

#[test]
fn names_cannot_write_to_the_terminal() {
    let mut target = observed(1234);
    target.versions[0].program.exe = "/tmp/\u{1b}[2Jx\n".to_owned();
    let status = Status { targets: vec![target], ..status(vec![]) };
    let mut model = Model::new(None, NOW_MS);
    model.hear(Heard::Status(Box::new(status)));
    let terminal = terminal(&model, (80, 24), PLAIN);
    let buffer = terminal.backend().buffer();
    assert!(buffer.content.iter().all(|cell| !cell.symbol().contains(char::is_control)));
}
