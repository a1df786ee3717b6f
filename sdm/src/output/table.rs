//! Tables without borders: columns two spaces apart, headings in capitals, numbers to the right.

use super::one_line;
use comfy_table::CellAlignment;
use comfy_table::ContentArrangement;
use comfy_table::presets::NOTHING;

/// A table under construction.
pub struct Table {
    table: comfy_table::Table,
    indent: usize,
}

/// Spaces between two columns.
const GAP: u16 = 2;

impl Table {
    /// With these headings; one that begins with '>' stands over numbers, which go to the right.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        // Width and colour must not depend on what stdout is: scripts cut tables, too.
        table.load_style(NOTHING).force_no_tty().set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(headings.iter().map(|heading| heading.trim_start_matches('>')));
        for (column, heading) in table.column_iter_mut().zip(headings) {
            column.set_padding((0, GAP));
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { table, indent: 0 }
    }

    /// The same, each line this far to the right.
    #[must_use]
    pub fn indented(mut self, spaces: usize) -> Self {
        self.indent = spaces;
        self
    }

    /// Adds a line.
    pub fn row<I, S>(&mut self, cells: I)
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        self.table.add_row(cells.into_iter().map(|cell| one_line(cell.as_ref())));
    }

    /// The table with a line feed after each line.
    #[must_use]
    pub fn render(&self) -> String {
        let lines = self.table.lines().map(|line| {
            let line = format!("{:indent$}{line}", "", indent = self.indent);
            line.trim_end().to_owned() + "\n"
        });
        lines.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_borders_and_without_spaces_at_the_end() {
        let mut table = Table::new(&["NAME", ">SIZE", "STATE"]).indented(2);
        table.row(["web-01", "4.0 GiB", "ok"]);
        table.row(["b", "1 B", ""]);
        assert_eq!(table.render(), "  NAME       SIZE  STATE\n  web-01  4.0 GiB  ok\n  b           1 B\n");
    }

    #[test]
    fn a_table_without_lines_is_its_headings() {
        assert_eq!(Table::new(&["A", "B"]).render(), "A  B\n");
    }
}
