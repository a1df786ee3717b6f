//! Log lines, on stderr always: stdout is for results.

use std::io;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Says how log lines look where no option can.
pub const FORMAT_VARIABLE: &str = "SDM_LOG_FORMAT";

impl LogFormat {
    /// As the environment says.
    #[must_use]
    pub fn of_environment() -> Self {
        match std::env::var(FORMAT_VARIABLE).as_deref() {
            Ok("json") => Self::Json,
            _ => Self::Text,
        }
    }
}

/// For processes that stay: level info unless RUST_LOG says otherwise. openraft tells each of its steps
/// and warns at every heartbeat of a dead member; what matters of that, our own lines tell once.
pub fn begin(format: LogFormat) {
    begin_at(format, "info,openraft=error");
}

/// For commands: nothing unless RUST_LOG says otherwise.
pub fn begin_quiet(format: LogFormat) {
    begin_at(format, "off");
}

fn begin_at(format: LogFormat, default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    // An error means that a log was begun already, which serves as well.
    _ = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}
