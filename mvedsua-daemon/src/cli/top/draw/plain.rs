//! What is drawn, for a terminal that can show less.

use ratatui::buffer::Buffer;
use ratatui::style::Color;

use super::{Colour, Glyphs, Look};

/// Takes from what is drawn what the terminal cannot show.
pub(super) fn adapt(buffer: &mut Buffer, look: Look) {
    for cell in &mut buffer.content {
        if look.colour == Colour::No {
            cell.fg = Color::Reset;
            cell.bg = Color::Reset;
        }
        if look.glyphs == Glyphs::Ascii && !cell.symbol().is_ascii() {
            let symbol = ascii(cell.symbol());
            cell.set_symbol(symbol);
        }
    }
}

fn ascii(symbol: &str) -> &'static str {
    match symbol {
        "▁" => "_",
        "▂" => ".",
        "▃" | "▄" => "-",
        "▅" => "=",
        "▆" => "+",
        "▇" => "*",
        "█" => "#",
        "░" | "·" => ".",
        "─" | "…" => "-",
        "│" => "|",
        "┌" | "┐" | "└" | "┘" => "+",
        "µ" => "u",
        "±" => "~",
        "✓" => "x",
        "●" | "▶" => ">",
        "✗" => "!",
        _ => "?",
    }
}
