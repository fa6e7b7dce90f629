//! What keys do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::calls::{self, CallKey};
use super::model::{Display, Focus, Link, Model, Notice, Pane};
use super::question::{Question, Verb};

/// How far a page is.
const PAGE: isize = 8;

/// What is to be done outside of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Quit,
    /// Stop as a job of the shell does.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Another process is looked at.
    Look,
    /// Ask the daemon for something.
    Ask(Verb, i32),
}

/// The keys and what they do, for the help.
pub(super) const HELP: &[(&str, &str)] = &[
    ("Tab, Shift-Tab", "the next process, the one before"),
    ("Up, Down, PgUp, PgDn", "choose the call that is drawn (j, k, too)"),
    ("v", "the calls, or the update"),
    ("/", "show calls with this in their name; Esc: all"),
    ("s", "order: time, calls/s, p99, max, errors, name"),
    ("Space", "hold the display; the daemon goes on"),
    ("P", "promote: the new version leads"),
    ("C", "confirm: the old version ends"),
    ("R", "roll back: the old version leads alone"),
    ("Ctrl-L", "draw everything anew"),
    ("q, Ctrl-C", "end; nothing changes for any process"),
];

impl Model {
    /// Takes a key.
    pub(super) fn press(&mut self, key: KeyEvent) -> Option<Effect> {
        let held = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if held => return Some(Effect::Quit),
            KeyCode::Char('z') if held => return Some(Effect::Suspend),
            KeyCode::Char('l') if held => return Some(Effect::Redraw),
            KeyCode::Char(_) if held => return None,
            _ => {}
        }
        match self.focus.clone() {
            Focus::Main => self.press_main(key.code),
            Focus::Filter => {
                self.press_filter(key.code);
                None
            }
            Focus::Help | Focus::Notice(_) => {
                self.focus = Focus::Main;
                None
            }
            Focus::Asking(question) => self.press_answer(key.code, &question),
        }
    }

    fn press_main(&mut self, code: KeyCode) -> Option<Effect> {
        match code {
            KeyCode::Char('q') => return Some(Effect::Quit),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.focus = Focus::Help,
            KeyCode::Char(' ') => {
                self.display = match self.display {
                    Display::Live => Display::Paused,
                    Display::Paused => Display::Live,
                };
                return Some(Effect::Look);
            }
            KeyCode::Char('/') => {
                if self.pane() == Pane::Update {
                    self.wanted = Some(Pane::Calls);
                }
                self.focus = Focus::Filter;
            }
            KeyCode::Esc => self.filter.0.clear(),
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('v') | KeyCode::Enter => self.turn_pane(),
            KeyCode::Tab => return self.step(1),
            KeyCode::BackTab => return self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_cursor(1),
            KeyCode::Up | KeyCode::Char('k') => self.move_cursor(-1),
            KeyCode::PageDown => self.move_cursor(PAGE),
            KeyCode::PageUp => self.move_cursor(-PAGE),
            KeyCode::Home => self.cursor = None,
            KeyCode::End => self.move_cursor(isize::MAX),
            KeyCode::Char('P') => self.put(Verb::Promote),
            KeyCode::Char('C') => self.put(Verb::Confirm),
            KeyCode::Char('R') => self.put(Verb::RollBack),
            _ => {}
        }
        None
    }

    fn press_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(c) => self.filter.0.push(c),
            KeyCode::Backspace => drop(self.filter.0.pop()),
            KeyCode::Enter => self.focus = Focus::Main,
            KeyCode::Esc => {
                self.filter.0.clear();
                self.focus = Focus::Main;
            }
            KeyCode::Down => self.move_cursor(1),
            KeyCode::Up => self.move_cursor(-1),
            _ => {}
        }
    }

    fn press_answer(&mut self, code: KeyCode, question: &Question) -> Option<Effect> {
        match code {
            KeyCode::Char('y' | 'Y') => {
                self.focus = Focus::Main;
                self.waits_for = Some(question.verb);
                Some(Effect::Ask(question.verb, question.pid))
            }
            KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => {
                self.focus = Focus::Main;
                None
            }
            _ => None,
        }
    }

    /// Puts a question, or says why it makes no sense now.
    fn put(&mut self, verb: Verb) {
        let refuse = |why: &str| Err(why.to_owned());
        let question = match (self.display, &self.link, self.waits_for) {
            (Display::Paused, _, _) => refuse("the display is held, and things may have changed; Space lets it go on"),
            (_, Link::Gone { .. }, _) => refuse("the daemon cannot be reached; `mvedsuad daemon` starts one"),
            (_, _, Some(earlier)) => {
                Err(format!("the {} that was asked for is not answered yet; wait for it", earlier.noun()))
            }
            (Display::Live, Link::Up, None) => Question::of(verb, self.target()),
        };
        self.focus = match question {
            Ok(question) => Focus::Asking(question),
            Err(text) => Focus::Notice(Notice { title: format!("no {} now", verb.noun()), text }),
        };
    }

    fn turn_pane(&mut self) {
        match (self.pane(), self.update()) {
            (Pane::Update, _) => self.wanted = Some(Pane::Calls),
            (Pane::Calls, Some(_)) => self.wanted = Some(Pane::Update),
            (Pane::Calls, None) => {
                let text = "no update of this process is known; `mvedsuad update PID --to …` starts one".to_owned();
                self.focus = Focus::Notice(Notice { title: "no update".to_owned(), text });
            }
        }
    }

    fn step(&mut self, by: isize) -> Option<Effect> {
        let targets = self.targets();
        let count = isize::try_from(targets.len()).ok().filter(|count| *count > 0)?;
        let at = self.selected.and_then(|pid| targets.iter().position(|target| target.concerns(pid)));
        let next = match at.and_then(|at| isize::try_from(at).ok()) {
            Some(at) => (at + by).rem_euclid(count),
            None => 0,
        };
        let pid = targets.get(usize::try_from(next).ok()?)?.pid;
        self.select(pid);
        Some(Effect::Look)
    }

    fn move_cursor(&mut self, by: isize) {
        let Some(stats) = &self.stats else { return };
        let rows = calls::rows(stats, &self.filter, self.sort, &self.rates);
        let moved: Option<CallKey> = calls::moved(&rows, self.cursor, by);
        self.cursor = moved;
    }
}
