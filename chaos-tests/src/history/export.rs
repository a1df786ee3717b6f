//! Writes a history down in the form of another checker.

use super::edn::Edn;
use super::edn::Values;
use super::event::Event;
use super::lines::Lines;
use super::operation::pair;
use super::porcupine;
use anyhow::Context;
use anyhow::Result;
use std::io::BufRead;
use std::io::Write;

/// Whose form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// Knossos: EDN, an operation map a line, values as [key value]
    Knossos,
    /// Elle's rw-register: EDN, reads and writes as transactions
    Elle,
    /// porcupine: JSON, a call or a return a line
    Porcupine,
}

impl Target {
    /// Reads a history and writes it in this form.
    ///
    /// # Errors
    /// It does not read, makes no sense, or cannot be written.
    pub fn convert(self, from: impl BufRead, to: &mut impl Write) -> Result<()> {
        let events: Vec<Event> = Lines::new(from).collect::<Result<_, _>>()?;
        match self {
            Target::Knossos | Target::Elle => {
                let values = if self == Target::Elle { Values::Transactions } else { Values::Keyed };
                let mut edn = Edn::new(values, &events);
                for event in &events {
                    writeln!(to, "{}", edn.line(event)).context("writing the converted history")?;
                }
            }
            Target::Porcupine => {
                for line in porcupine::lines(&pair(&events)?) {
                    writeln!(to, "{line}").context("writing the converted history")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_has_a_line_for_what_was_asked_and_a_bad_history_is_refused() {
        let history = concat!(
            r#"{"index":0,"time":0,"type":"invoke","process":0,"f":"write","key":"r","value":1}"#,
            "\n",
            r#"{"index":1,"time":1,"type":"ok","process":0,"f":"write","key":"r","value":1}"#,
            "\n"
        );
        for target in [Target::Knossos, Target::Elle, Target::Porcupine] {
            let mut to = Vec::new();
            target.convert(history.as_bytes(), &mut to).expect("a sound history");
            assert_eq!(String::from_utf8(to).expect("text").lines().count(), 2, "{target:?}");
            assert!(target.convert("{".as_bytes(), &mut Vec::new()).is_err());
        }
    }
}
