//! A complete list of one noun, and one of it with all its fields.

use crate::output::Report;
use crate::output::Table;
use serde::Serialize;

/// A noun that can stand in a table.
pub trait Row: Serialize {
    /// Headings; one with '>' in front stands over numbers.
    const HEADINGS: &'static [&'static str];
    /// What an empty list says besides that there is none: the command that makes the first.
    const FIRST: &'static str = "";
    /// Its line.
    fn cells(&self) -> Vec<String>;
}

/// All items of a noun.
#[derive(Serialize)]
pub struct List<T> {
    /// They, over all pages.
    pub items: Vec<T>,
    /// Log index of the view that the first page showed; later pages show that or a newer one.
    pub revision: u64,
}

impl<T> List<T> {
    /// The same in the order of what `name` says.
    #[must_use]
    pub fn sorted_by(mut self, name: impl Fn(&T) -> &String) -> Self {
        self.items.sort_by(|a, b| name(a).cmp(name(b)));
        self
    }
}

impl<T: Row> Report for List<T> {
    fn text(&self) -> String {
        if self.items.is_empty() {
            return if T::FIRST.is_empty() { "none\n".to_owned() } else { format!("none; {}\n", T::FIRST) };
        }
        let mut table = Table::new(T::HEADINGS);
        for item in &self.items {
            table.row(item.cells());
        }
        table.render()
    }
}

/// One item: as text its fields, each on a line.
#[derive(Serialize)]
#[serde(transparent)]
pub struct Shown<T>(pub T);

impl<T: Fields> Report for Shown<T> {
    fn text(&self) -> String {
        fields_text(&self.0.fields())
    }
}

/// A noun that tells its fields one by one.
pub trait Fields: Serialize {
    /// Name and value, in the order to show them.
    fn fields(&self) -> Vec<(&'static str, String)>;
}

/// Fields with their values lined up.
pub fn fields_text(fields: &[(&'static str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): &(&'static str, String)| {
        let line = format!("{name:width$}  {}", crate::output::one_line(value));
        line.trim_end().to_owned() + "\n"
    };
    fields.iter().map(line).collect()
}
