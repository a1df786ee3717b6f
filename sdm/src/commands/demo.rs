//! `sdm demo`: its options. What it does stands in `crate::demo`.

use crate::cli::GlobalOptions;
use crate::demo::DemoConfig;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Format;
use crate::shutdown::Shutdown;
use crate::values::parse_size;
use clap::Args;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use std::path::PathBuf;

/// Its options.
#[derive(Args, Debug)]
pub struct DemoCommand {
    /// Folder for everything that the demo makes; must be empty or missing [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Size of the disk: 1GiB, 512M, or bytes
    #[arg(long, value_name = "S", default_value = "1GiB", allow_hyphen_values = true)]
    size: String,
    /// Leave the cluster running at the end and print how to talk to it
    #[arg(long)]
    keep: bool,
}

/// Smallest disk of a demo, in bytes: below this there is no middle of the move to kill a leader in.
const SIZE_BYTES_MIN: u64 = 64 << 20;

impl DemoCommand {
    fn resolve(&self, format: Format) -> Result<DemoConfig, Failure> {
        if format != Format::Table {
            let message = "the demo tells a story to people: it has no JSON";
            return Err(Refusal::new(Class::Invalid, "USAGE", message).hint("leave out -o json").into());
        }
        let size = parse_size("--size", &self.size)?;
        if size < SIZE_BYTES_MIN {
            let message = "--size: the demo needs at least 64 MiB, or there is no middle of the move to see";
            return Err(Refusal::new(Class::Invalid, "BAD_SIZE", message).into());
        }
        Ok(DemoConfig { dir: self.dir.clone(), size, keep: self.keep })
    }

    /// Shows it.
    ///
    /// # Errors
    /// The options are wrong, or something did not go as it should.
    pub async fn run(self, global: &GlobalOptions, shutdown: Shutdown) -> Result<ExitCode, Failure> {
        crate::logging::begin_quiet(global.log_format);
        crate::demo::run(self.resolve(global.output)?, shutdown).await
    }
}
