//! The one binary of sdm: `sdm coordinator`, `sdm worker`, `sdm demo`, and the operator's nouns and
//! verbs. It holds no rules of the cluster: those are the state's.

#![forbid(unsafe_code)]

mod cli;
mod client;
mod commands;
mod context;
mod demo;
mod examples;
#[cfg(test)]
mod hint_lines;
mod logging;
mod output;
mod shutdown;
mod transfer;
mod values;
mod views;

use output::ExitCode;

fn main() -> std::process::ExitCode {
    // I/O processes are started by the thousand and must not pay for a command line's parser.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "io-process") {
        logging::begin(logging::LogFormat::of_environment());
        let code = sdm_storage_worker::io_process_main();
        return std::process::ExitCode::from(u8::try_from(code).unwrap_or(ExitCode::Internal.number()));
    }
    std::process::ExitCode::from(cli::run().number())
}
