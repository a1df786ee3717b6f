//! Where results go: stdout, as text or as one JSON object.

use super::ExitCode;
use super::Failure;
use super::Format;
use super::human::sizes_told;
use super::one_line;
use sdm_proto::refusal::Class;
use serde::Serialize;
use std::io;
use std::io::Write;

/// A result that can be printed.
pub trait Report: Serialize {
    /// For people, with a line feed at the end of each line.
    fn text(&self) -> String;
}

/// Prints results in the format that the user asked for.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    /// That format.
    pub format: Format,
}

impl Printer {
    /// Prints a result.
    ///
    /// # Errors
    /// Stdout takes no more; a reader that went away (`| head`) is no error.
    pub fn print(self, report: &impl Report) -> Result<ExitCode, Failure> {
        let text = match self.format {
            Format::Table => sizes_told(&report.text()),
            Format::Json => json_of(report)?,
            Format::Jsonl => json_lines_of(report)?,
        };
        match write_all(&text) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let message = format!("the result cannot be written to stdout: {error}");
                Err(Failure::new(Class::Internal, "OUTPUT_FAILED", message))
            }
            _ => Ok(ExitCode::Done),
        }
    }

    /// Prints the next result of a stream: for programs each is a line. False when its reader went away.
    ///
    /// # Errors
    /// Stdout takes no more.
    pub fn print_next(self, report: &impl Report) -> Result<bool, Failure> {
        let text = match self.format {
            Format::Table => sizes_told(&report.text()),
            Format::Json | Format::Jsonl => line_of(&report)?,
        };
        match write_all(&text) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => {
                let message = format!("the result cannot be written to stdout: {error}");
                Err(Failure::new(Class::Internal, "OUTPUT_FAILED", message))
            }
        }
    }

    /// Warns on stderr: of what is done all the same and may not be meant. For programs one line of JSON,
    /// before any error.
    pub fn warn(self, message: &str, hint: &str) {
        let text = match self.format {
            Format::Table => {
                let hint = if hint.is_empty() { String::new() } else { format!("\nhint: {}", one_line(hint)) };
                format!("warning: {}{hint}\n", one_line(message))
            }
            Format::Json | Format::Jsonl => {
                format!("{}\n", serde_json::json!({"warning": {"message": message, "hint": hint}}))
            }
        };
        // Nobody can be told that nobody can be told.
        _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// Tells a failure on stderr. If that is gone too, the exit code is all that is left.
    pub fn fail(self, failure: &Failure) -> ExitCode {
        _ = io::stderr().lock().write_all(failure.render(self.format).as_bytes());
        failure.exit_code
    }
}

fn line_of(value: &impl Serialize) -> Result<String, Failure> {
    let line = serde_json::to_string(value).map_err(|error| {
        Failure::new(Class::Internal, "OUTPUT_FAILED", format!("the result cannot be written as JSON: {error}"))
    })?;
    Ok(line + "\n")
}

/// A line for each item of a list; one for anything else.
fn json_lines_of(report: &impl Report) -> Result<String, Failure> {
    let value = serde_json::to_value(report).map_err(|error| {
        Failure::new(Class::Internal, "OUTPUT_FAILED", format!("the result cannot be written as JSON: {error}"))
    })?;
    match value.get("items").and_then(serde_json::Value::as_array) {
        Some(items) => items.iter().map(line_of).collect(),
        None => line_of(&value),
    }
}

fn json_of(report: &impl Report) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(report).map_err(|error| {
        Failure::new(Class::Internal, "OUTPUT_FAILED", format!("the result cannot be written as JSON: {error}"))
    })?;
    Ok(text + "\n")
}

fn write_all(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
