//! Whether this host lets us do it: root, loop devices, the tools. Found out by trying, not by
//! guessing. Without it a scenario is skipped, loudly; with `CHAOS_REQUIRE=1` that is a failure.

use crate::loop_fs::FsKind;
use crate::loop_fs::LoopFs;
use crate::run_folder::RunFolder;
use std::process::ExitCode;

/// Set to 1, what is missing is a failure.
const REQUIRE: &str = "CHAOS_REQUIRE";

/// Small enough to be made at once, large enough for ext4's mkfs.
const PROBE_BYTES: u64 = 16 << 20;

/// Why these file systems cannot be had here; None if they can.
pub fn missing(run: &RunFolder, kinds: &[FsKind]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root, for mounts".to_owned());
    }
    for kind in kinds {
        let probe = || -> anyhow::Result<()> {
            let fs = LoopFs::make(run.path(), &format!("probe-{kind}"), *kind, PROBE_BYTES)?;
            fs.switch()?.cut()?;
            let image = fs.image().to_owned();
            drop(fs);
            Ok(std::fs::remove_file(image)?)
        };
        if let Err(error) = probe() {
            return Some(format!("no {kind} on a loop device can be made and shut down here: {error:#}"));
        }
    }
    None
}

/// Says that a scenario was skipped; the exit code that this means.
pub fn skipped(scenario: &str, why: &str) -> ExitCode {
    let required = std::env::var_os(REQUIRE).is_some_and(|value| value == "1");
    if required {
        eprintln!("\nchaos-tests {scenario}: FAILED: {why} ({REQUIRE}=1 demands it)");
        return ExitCode::FAILURE;
    }
    eprintln!("\nSKIPPED: chaos-tests {scenario}: {why}");
    println!("{scenario}: SKIPPED ({why})");
    ExitCode::SUCCESS
}
