//! Draws the model. Nothing here asks anybody, and nothing is remembered.
//!
//! ```text
//!  title          who answers, and since when nobody does
//!  targets        a line for each process, the selected one marked
//!  pane           the calls of the selected process, or its update
//!  keys           the last line
//! ```

mod calls;
mod overlay;
mod plain;
mod targets;
mod text;
mod update;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use self::text::clock;
use super::model::{Display, Focus, Link, Model, Pane};
use super::question::Verb;

/// The smallest terminal in which something can be told.
const SMALLEST: (u16, u16) = (40, 10);
/// The most lines that the targets take of the terminal: one part in this.
const TARGETS_SHARE: u16 = 4;

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli::top) struct Look {
    pub(in crate::cli::top) colour: Colour,
    pub(in crate::cli::top) glyphs: Glyphs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli::top) enum Colour {
    Yes,
    /// Bold, dim and reversed text say the same.
    No,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli::top) enum Glyphs {
    Unicode,
    Ascii,
}

impl Look {
    /// Reads what the terminal can show: NO_COLOR, TERM and the locale say so.
    pub(in crate::cli::top) fn of_environment(get: impl Fn(&str) -> Option<String>) -> Look {
        let set = |name: &str| get(name).filter(|value| !value.is_empty());
        let colour = if set("NO_COLOR").is_some() || set("TERM").is_none_or(|term| term == "dumb") {
            Colour::No
        } else {
            Colour::Yes
        };
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        let is_unicode = locale.contains("utf-8") || locale.contains("utf8");
        Look { colour, glyphs: if is_unicode { Glyphs::Unicode } else { Glyphs::Ascii } }
    }
}

pub(super) const fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

pub(super) const fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

pub(super) const fn bar() -> Style {
    Style::new().fg(Color::Cyan)
}

pub(super) const fn good() -> Style {
    Style::new().fg(Color::Green)
}

pub(super) const fn warning() -> Style {
    Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD)
}

pub(super) const fn bad() -> Style {
    Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
}

/// Draws everything.
pub(in crate::cli::top) fn draw(model: &Model, frame: &mut Frame<'_>, look: Look) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!("{}x{} is too small; {}x{} is enough", area.width, area.height, SMALLEST.0, SMALLEST.1);
        frame.render_widget(ratatui::widgets::Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true }), area);
        return plain::adapt(frame.buffer_mut(), look);
    }
    let room = (area.height / TARGETS_SHARE).max(2);
    let wanted = u16::try_from(model.targets().len()).unwrap_or(u16::MAX).max(1).saturating_add(1);
    let [title, targets, pane, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(wanted.min(room)),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_title(model, frame, title);
    targets::draw(model, frame, targets);
    match model.pane() {
        Pane::Calls => calls::draw(model, frame, pane),
        Pane::Update => update::draw(model, frame, pane),
    }
    draw_keys(model, frame, keys);
    overlay::draw(model, frame, area);
    plain::adapt(frame.buffer_mut(), look);
}

fn draw_title(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let style = Style::new().add_modifier(Modifier::REVERSED);
    let said = match (&model.link, &model.status) {
        (Link::Gone { since_ms, why }, _) => {
            let style = bad().add_modifier(Modifier::REVERSED);
            let text = format!(" DAEMON GONE since {}, trying again; {why}", clock(*since_ms));
            return frame.render_widget(Line::styled(text::padded(&text, area.width), style), area);
        }
        (Link::Up, None) => "asking the daemon".to_owned(),
        (Link::Up, Some(status)) => {
            let troubles = match status.daemon.troubles.len() {
                0 => String::new(),
                count => format!("  TROUBLES: {count}, see `mvedsuad status`"),
            };
            format!("daemon {}{troubles}", status.daemon.pid)
        }
    };
    let held = if model.display == Display::Paused { "  HELD: Space goes on" } else { "" };
    let waits = model.waits_for.map_or(String::new(), |verb| format!("  asked for the {}", verb.noun()));
    let left = format!(" mvedsuad top  {said}{held}{waits}");
    let right = format!("{} UTC ", clock(model.now_ms));
    frame.render_widget(Line::styled(text::apart(&left, &right, area.width), style), area);
}

fn draw_keys(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    if model.focus == Focus::Filter {
        let text = format!(" only calls with: {}_   Enter keeps it, Esc shows all", model.filter.0);
        return frame.render_widget(Line::styled(text::padded(&text, area.width), bold()), area);
    }
    let mut keys = vec![("q", "end"), ("?", "help"), ("Tab", "next"), ("v", "view"), ("/", "filter"), ("s", "sort")];
    for (verb, key) in
        [(Verb::Promote, ("P", "promote")), (Verb::Confirm, ("C", "confirm")), (Verb::RollBack, ("R", "roll back"))]
    {
        if verb.fits(model.target()).is_ok() {
            keys.push(key);
        }
    }
    let mut line = Line::default();
    for (key, what) in keys {
        line.push_span(Span::styled(format!(" {key}"), bold()));
        line.push_span(Span::styled(format!(" {what} "), dim()));
    }
    frame.render_widget(line, area);
}
