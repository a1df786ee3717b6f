//! What cannot be undone is asked once more: typed at a terminal, or said beforehand with `--yes`.

use crate::output::Failure;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use std::io::BufRead;
use std::io::IsTerminal;
use std::io::Write;

/// Whether the user says so beforehand.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct Confirmed {
    /// Do not ask: for scripts
    #[arg(long)]
    yes: bool,
}

impl Confirmed {
    /// Has the user type the name of what is about to go, unless it was confirmed beforehand.
    ///
    /// # Errors
    /// The name was not typed, or there is nobody to ask.
    pub fn require(&self, what: &str, name: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            return Err(Refusal::new(Class::Invalid, "CONFIRMATION_NEEDED", format!("{what}: nobody can be asked"))
                .hint("say --yes")
                .into());
        }
        let mut typed = String::new();
        let mut stderr = std::io::stderr();
        // A terminal that cannot be written to answers nothing either.
        _ = write!(stderr, "{what}; type its name to go on: ").and_then(|()| stderr.flush());
        _ = std::io::stdin().lock().read_line(&mut typed);
        if typed.trim() == name {
            return Ok(());
        }
        Err(Failure::new(Class::Invalid, "NOT_CONFIRMED", "that is not its name: nothing was done"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn said_beforehand_nobody_is_asked() {
        assert!(Confirmed { yes: true }.require("domain a goes", "a").is_ok());
    }
}
