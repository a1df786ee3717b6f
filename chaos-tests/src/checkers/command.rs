//! `check FILE`: judges a history that was written down.

use super::judge::judge;
use crate::history::Event;
use crate::history::Lines;
use anyhow::Context;
use anyhow::Result;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Findings that are printed.
const SHOWN: usize = 50;

/// Exit code where nothing was found broken, and something could not be decided.
const UNDECIDED: u8 = 2;

/// Reads, judges, and says what was found. Exit code 0: nothing is broken; 1: something is; 2: nothing that was found,
/// but not everything could be decided.
///
/// # Errors
/// The file does not read as a history.
pub fn check_file(path: &Path, steps_max: u64) -> Result<ExitCode> {
    let file = File::open(path).with_context(|| format!("opening the history {}", path.display()))?;
    let events: Vec<Event> = Lines::new(BufReader::new(file)).collect::<Result<_, _>>()?;
    let begun = Instant::now();
    let judgement = judge(&events, steps_max);
    for (promise, what) in judgement.broken.iter().take(SHOWN) {
        println!("violation: {promise:?}: {what}");
    }
    for what in judgement.unknown.iter().take(SHOWN) {
        println!("unknown: {what}");
    }
    let (word, code) = match (judgement.broken.len(), judgement.unknown.len()) {
        (0, 0) => ("PASSED", ExitCode::SUCCESS),
        (0, _) => ("UNKNOWN", ExitCode::from(UNDECIDED)),
        _ => ("FAILED", ExitCode::FAILURE),
    };
    println!(
        "{word}: {} events, {} operations, {} objects in order ({} operations), {} violations, {} undecided, {:.2} s",
        events.len(),
        judgement.operations,
        judgement.in_order,
        judgement.ordered,
        judgement.broken.len(),
        judgement.unknown.len(),
        begun.elapsed().as_secs_f64()
    );
    Ok(code)
}
