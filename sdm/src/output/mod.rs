//! What a command says and how: results on stdout as a table or as one JSON object, errors and
//! progress on stderr, and the exit code. State is told by words, never by colour.

mod exit_code;
mod failure;
mod human;
mod printer;
mod progress;
mod table;

pub use exit_code::EXIT_CODES;
pub use exit_code::ExitCode;
pub use failure::Failure;
pub use failure::causes_text;
pub use human::age_text;
pub use human::bytes_text;
pub use human::clock_text;
pub use human::one_line;
pub use human::or_dash;
pub use human::percent_text;
pub use human::plural;
pub use human::utc_text;
pub use printer::Printer;
pub use printer::Report;
pub use progress::Progress;
pub use table::Table;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one object, no field omitted.
    Json,
    /// For programs: a line of JSON for each item of a list or stream.
    Jsonl,
}
