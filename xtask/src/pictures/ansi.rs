//! What a terminal shows, as a page.

use std::fmt::Write as _;

/// The colours of a terminal, as a page's.
const COLOURS: [&str; 8] = ["#2e3436", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d7dae0"];

/// How text looks.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Style {
    colour: Option<usize>,
    bold: bool,
    dim: bool,
    reversed: bool,
}

impl Style {
    fn take(&mut self, code: u32) {
        match code {
            0 => *self = Style::default(),
            1 => self.bold = true,
            2 => self.dim = true,
            7 => self.reversed = true,
            22 => (self.bold, self.dim) = (false, false),
            27 => self.reversed = false,
            30..=37 => self.colour = Some(code as usize - 30),
            39 => self.colour = None,
            _ => {}
        }
    }

    fn css(self) -> String {
        let ink = self.colour.map_or("#d7dae0", |colour| COLOURS[colour]);
        let (ink, paper) = if self.reversed { ("#1b1e23", ink) } else { (ink, "transparent") };
        let weight = if self.bold { ";font-weight:bold" } else { "" };
        let faint = if self.dim { ";opacity:.65" } else { "" };
        format!("color:{ink};background:{paper}{weight}{faint}")
    }
}

/// Returns a page of what tmux captured with its escape sequences.
pub(super) fn page(captured: &str) -> String {
    let mut body = String::new();
    let mut style = Style::default();
    let mut pieces = captured.trim_end().split("\u{1b}[");
    write_text(&mut body, style, pieces.next().unwrap_or_default());
    for piece in pieces {
        let (codes, text) = piece.split_once('m').unwrap_or(("", piece));
        let codes: Vec<u32> = codes.split(';').map(|code| code.parse().unwrap_or(0)).collect();
        match codes.as_slice() {
            // One of the eight colours by its number.
            [rest @ .., 38, 5, colour @ 0..=7] => {
                rest.iter().for_each(|code| style.take(*code));
                style.take(30 + colour);
            }
            codes => codes.iter().for_each(|code| style.take(*code)),
        }
        write_text(&mut body, style, text);
    }
    format!(
        "<!doctype html><meta charset=utf-8><style>html{{background:#1b1e23}}pre{{margin:14px;\
         font:15px/1.3 'DejaVu Sans Mono',monospace;color:#d7dae0}}</style><pre>{body}</pre>"
    )
}

fn write_text(body: &mut String, style: Style, text: &str) {
    if text.is_empty() {
        return;
    }
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = write!(body, "<span style=\"{}\">{escaped}</span>", style.css());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_follow_the_sequences() {
        let page = page("a<\u{1b}[1;31mred\u{1b}[0m plain\u{1b}[7mrev");
        assert!(page.contains("a&lt;</span>"), "{page}");
        assert!(page.contains("color:#e06c75;background:transparent;font-weight:bold\">red"), "{page}");
        assert!(page.contains("color:#1b1e23;background:#d7dae0\">rev"), "{page}");
    }
}
