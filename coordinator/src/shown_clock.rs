//! The cluster's clock as people are shown it. It moves only with entries, which may be a minute
//! apart; what is shown goes on between them with this machine's boot-time clock, so that ages and
//! remaining times do not stand still. Nothing is ever decided by it.

use crate::core::Core;
use sdm_state::State;
use std::sync::Mutex;
use std::sync::PoisonError;

#[derive(Clone, Copy, Debug, Default)]
struct Anchor {
    /// The newest reading of the cluster's clock, and when this member came to know it.
    clock_ms: u64,
    seen_at_ms: u64,
}

/// What this member knows of the clock's course.
#[derive(Debug, Default)]
pub(crate) struct ShownClock(Mutex<Anchor>);

impl ShownClock {
    /// The clock as it is shown `now_ms`, given what was applied. It runs on for no longer than one
    /// entry may move the clock: without a quorum the cluster's time stands still.
    pub fn at(&self, clock_ms: u64, run_on_max_ms: u64, now_ms: u64) -> u64 {
        let mut anchor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if clock_ms > anchor.clock_ms {
            *anchor = Anchor { clock_ms, seen_at_ms: now_ms };
        }
        anchor.clock_ms.saturating_add(now_ms.saturating_sub(anchor.seen_at_ms).min(run_on_max_ms))
    }
}

impl Core {
    /// The cluster's clock, for display alone.
    pub(crate) fn shown_clock_ms(&self, state: &State) -> u64 {
        let meta = &state.meta;
        self.inner.shown_clock.at(meta.clock_ms, meta.settings.clock_step_max_ms, self.clock().now_ms())
    }
}

/// Looks at each entry when it is applied, so that nobody's question is the first to see it. Ends
/// with the member.
pub(crate) async fn run(core: Core) {
    let mut applied = core.watch();
    let looking = async {
        loop {
            applied.borrow_and_update();
            core.shown_clock_ms(&core.view().state);
            if applied.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = looking => {}
        () = core.closing().cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_on_between_entries_but_not_for_ever_and_never_back() {
        let clock = ShownClock::default();
        assert_eq!(clock.at(1_000, 120_000, 50), 1_000);
        assert_eq!(clock.at(1_000, 120_000, 30_050), 31_000);
        assert_eq!(clock.at(20_000, 120_000, 30_060), 20_000, "the cluster's own clock decides");
        assert_eq!(clock.at(1_000, 120_000, 30_070), 20_010, "an old view does not turn it back");
        assert_eq!(clock.at(20_000, 120_000, 9_000_000), 140_000);
    }
}
