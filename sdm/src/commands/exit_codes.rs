//! `sdm exit-codes`: what they mean.

use crate::cli::exit_codes_text;
use crate::context::Context;
use crate::output::EXIT_CODES;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use clap::Args;
use serde::Serialize;

/// It has no options.
#[derive(Args, Debug)]
pub struct ExitCodesCommand {}

#[derive(Serialize)]
struct Codes {
    items: Vec<Code>,
}

#[derive(Serialize)]
struct Code {
    code: u8,
    meaning: &'static str,
}

impl Report for Codes {
    fn text(&self) -> String {
        exit_codes_text() + "\n"
    }
}

impl ExitCodesCommand {
    /// Prints them.
    ///
    /// # Errors
    /// Stdout takes nothing.
    pub fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let items = EXIT_CODES.iter().map(|(_, code, meaning)| Code { code: *code, meaning }).collect();
        context.printer.print(&Codes { items })
    }
}
