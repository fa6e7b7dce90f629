//! What lies over everything else until it is answered: the help, questions, and what came of them.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

use super::super::keys::HELP;
use super::super::model::{Focus, Model};
use super::text::wrapped;
use super::{bold, warning};

/// The widest box.
const WIDEST: u16 = 72;

pub(super) fn draw(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    match &model.focus {
        Focus::Main | Focus::Filter => {}
        Focus::Help => {
            let lines = HELP.iter().map(|(key, what)| {
                Line::from(vec![Span::styled(format!("{key:<22} "), bold()), Span::raw((*what).to_owned())])
            });
            show(frame, area, "help; any key goes back", lines.collect(), Style::new());
        }
        Focus::Asking(question) => {
            let mut lines = text(&question.text, area);
            lines.push(Line::raw(""));
            lines.push(Line::styled("y yes    n no", bold()));
            show(frame, area, question.verb.noun(), lines, warning());
        }
        Focus::Notice(notice) => {
            let mut lines = text(&notice.text, area);
            lines.push(Line::raw(""));
            lines.push(Line::styled("any key goes on", bold()));
            show(frame, area, &notice.title, lines, warning());
        }
    }
}

fn text(text: &str, area: Rect) -> Vec<Line<'static>> {
    let width = usize::from(area.width.min(WIDEST).saturating_sub(4));
    wrapped(text, width).into_iter().map(Line::raw).collect()
}

fn show(frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<Line<'static>>, style: Style) {
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_add(2).min(area.height);
    let width = area.width.min(WIDEST);
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let block = Block::bordered().title(format!(" {title} ")).border_style(style).title_style(style);
    let inner = block.inner(place);
    frame.render_widget(block, place);
    let inside = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
    frame.render_widget(Paragraph::new(lines), inside);
}
