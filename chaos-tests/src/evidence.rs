//! What is kept when a promise was broken: the images as the last cut left them and as they are now,
//! the members' logs, what the clients were told, and how to do it again.

use crate::cluster::Cluster;
use crate::history::History;
use crate::run_folder::RunFolder;
use anyhow::Context;
use anyhow::Result;
use std::path::Path;
use std::path::PathBuf;

/// What the name of a folder with evidence begins with; the janitor leaves it alone.
const PREFIX: &str = "evidence-";

/// The folder in a run's folder for images as a cut left them, before anything read them.
pub const CRASH_IMAGES: &str = "as-cut";

/// Ends the members and moves everything into a folder beside the run's.
///
/// # Errors
/// The file system's, or a member's file system stays busy.
pub fn keep(run: &RunFolder, cluster: &mut Cluster, history: &History, story: &str) -> Result<PathBuf> {
    let name = format!("{PREFIX}{}", std::process::id());
    let target = run.path().with_file_name(name);
    std::fs::create_dir_all(&target).with_context(|| format!("making {}", target.display()))?;
    for node in &mut cluster.nodes {
        node.power_off()?;
        take(node.fs().image(), &target)?;
        take(node.log(), &target)?;
    }
    let as_cut = run.path().join(CRASH_IMAGES);
    if as_cut.is_dir() {
        take(&as_cut, &target)?;
    }
    std::fs::write(target.join("history.jsonl"), history.events())?;
    std::fs::write(target.join("story.txt"), story)?;
    Ok(target)
}

fn take(from: &Path, target: &Path) -> Result<()> {
    let Some(name) = from.file_name() else { return Ok(()) };
    std::fs::rename(from, target.join(name)).with_context(|| format!("moving {}", from.display()))
}
