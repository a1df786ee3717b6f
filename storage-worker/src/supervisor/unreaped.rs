//! Counts attempts' processes that were killed and have not ended: the kernel holds them in a call to
//! storage that hangs. Where too many do, a new one would only join them, so it waits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::sync::watch;

/// Killed processes on the same paths that have not ended, above which no more are started there. Each
/// holds some tens of MiB of buffers and a process id.
pub(crate) const UNREAPED_MAX: usize = 8;

type Counts = BTreeMap<Vec<PathBuf>, usize>;

/// The counts of this worker. A cheap clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unreaped(watch::Sender<Counts>);

/// One process that is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    counts: watch::Sender<Counts>,
    paths: Vec<PathBuf>,
}

impl Unreaped {
    /// Counts a killed process that worked on these paths.
    pub(super) fn count(&self, paths: Vec<PathBuf>) -> Counted {
        self.0.send_modify(|counts| *counts.entry(paths.clone()).or_insert(0) += 1);
        Counted { counts: self.0.clone(), paths }
    }

    /// Waits until another process may be started on these paths.
    pub(super) async fn room(&self, paths: &[PathBuf]) {
        let mut counts = self.0.subscribe();
        // Fails only when all senders are gone, and this holds one.
        let _ = counts.wait_for(|counts| counts.get(paths).is_none_or(|count| *count < UNREAPED_MAX)).await;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let paths = std::mem::take(&mut self.paths);
        self.counts.send_modify(|counts| {
            let left = counts.get(&paths).map_or(0, |count| count.saturating_sub(1));
            if left == 0 {
                counts.remove(&paths);
            } else {
                counts.insert(paths, left);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn too_many_on_the_same_paths_are_waited_for_and_others_are_not() {
        let (unreaped, here, there) = (Unreaped::default(), vec![PathBuf::from("/a")], [PathBuf::from("/b")]);
        let mut counted: Vec<_> = (0..UNREAPED_MAX).map(|_| unreaped.count(here.clone())).collect();
        let mut waiting = Box::pin(unreaped.room(&here));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        unreaped.room(&there).await;
        counted.pop();
        waiting.await;
        drop(counted);
        assert!(unreaped.0.borrow().is_empty());
    }
}
