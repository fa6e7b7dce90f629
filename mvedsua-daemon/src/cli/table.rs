//! Aligned columns.

use std::fmt::Write as _;

/// Says to which side a column leans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lean {
    Left,
    Right,
}

/// Rows of cells that are printed in columns, each as wide as its widest cell.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Lean>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Begins a table with its headings.
    pub(super) fn new(headings: &[(&str, Lean)]) -> Self {
        let columns = headings.iter().map(|(_, lean)| *lean).collect();
        Table { columns, rows: vec![headings.iter().map(|(name, _)| (*name).to_owned()).collect()] }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Returns the lines, each behind `indent`.
    pub(super) fn render(&self, indent: &str) -> String {
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = indent.to_owned();
            for ((cell, lean), width) in row.iter().zip(&self.columns).zip(&widths) {
                let _ = match lean {
                    Lean::Left => write!(line, "{cell:<width$}  "),
                    Lean::Right => write!(line, "{cell:>width$}  "),
                };
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&[("call", Lean::Left), ("count", Lean::Right)]);
        table.row(["read".to_owned(), "1".to_owned()]);
        table.row(["epoll_wait".to_owned(), "12,345".to_owned()]);
        assert_eq!(table.render("  "), "  call         count\n  read             1\n  epoll_wait  12,345\n");
    }
}
