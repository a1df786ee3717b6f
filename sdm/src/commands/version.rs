//! `sdm version`: this binary's release. What the members run stands in `sdm member list`.

use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use clap::Args;
use serde::Serialize;

/// It has no options.
#[derive(Args, Debug)]
pub struct VersionCommand {}

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

impl Report for Version {
    fn text(&self) -> String {
        format!("sdm {}\n", self.version)
    }
}

impl VersionCommand {
    /// Prints it.
    ///
    /// # Errors
    /// Stdout takes nothing.
    pub fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        context.printer.print(&Version { version: env!("CARGO_PKG_VERSION") })
    }
}
