//! Tables of text, as narrow as their contents.

/// Which side of a column its contents lean to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lean {
    Left,
    Right,
}

/// Renders rows under their heads; the first row has to have as many cells as there are heads, and so all others.
pub(super) fn render(heads: &[(&str, Lean)], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].0.chars().count()]).max().unwrap_or(0)
    };
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(heads).enumerate().map(|(column, (cell, (_, lean)))| match lean {
            Lean::Left => format!("{cell:<0$}", width(column)),
            Lean::Right => format!("{cell:>0$}", width(column)),
        });
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = line(&mut heads.iter().map(|(head, _)| *head));
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Shows microseconds as milliseconds.
pub(super) fn ms(us: u64) -> String {
    format!("{}.{}", us / 1000, us % 1000 / 100)
}

/// Breaks a text at spaces into lines of at most `width`, each with `indent` before it.
pub(super) fn wrap(text: &str, width: usize, indent: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent.len() + line.chars().count() + 1 + word.chars().count() > width {
            lines.push_str(&format!("{indent}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push_str(&format!("{indent}{line}\n"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_contents() {
        let rows = [vec!["a".to_owned(), "100".to_owned()], vec!["long".to_owned(), "2".to_owned()]];
        let text = render(&[("name", Lean::Left), ("n", Lean::Right)], &rows);
        assert_eq!(text, "name    n\na     100\nlong    2\n");
    }

    #[test]
    fn long_texts_are_broken_at_spaces() {
        assert_eq!(wrap("one two three", 9, "  "), "  one two\n  three\n");
    }
}
