//! The loop of a member's collector: sleeps until the state changes or something falls due, waits a
//! moment of its own so that the members do not all propose the same, looks again, and proposes what
//! is left.

use super::plan::Plan;
use super::plan::plan;
use crate::core::Core;
use rand::RngExt;
use sdm_proto::limits;
use sdm_state::Command;
use sdm_state::Reply;
use std::ops::RangeInclusive;
use tokio::sync::watch;
use tokio::time::Instant;

/// Each member waits so long, drawn anew each time, before it proposes: the first one that wakes
/// usually does it for all.
const JITTER_MS: RangeInclusive<u64> = 50..=1_000;

/// After a change of the state: a busy cluster changes all the time, and nothing here is in a hurry.
const SETTLE_MS: u64 = 250;

/// Waits after proposals that led to nothing, because others were faster or there is no quorum. Doubled
/// each time up to the longest.
const BACKOFF_FIRST_MS: u64 = 1_000;
const BACKOFF_MAX_MS: u64 = 30_000;

/// The cluster's clock as it probably is now: the state's, and what passed here since it moved. Only a
/// guess of when to propose; the entry's own stamp decides.
#[derive(Clone, Copy, Debug, Default)]
struct ClockGuess {
    clock_ms: u64,
    seen_ms: u64,
}

impl ClockGuess {
    fn look(&mut self, clock_ms: u64, now_ms: u64) {
        if clock_ms != self.clock_ms {
            *self = Self { clock_ms, seen_ms: now_ms };
        }
    }

    fn at(self, now_ms: u64) -> u64 {
        self.clock_ms.saturating_add(now_ms.saturating_sub(self.seen_ms))
    }

    /// When, here, the cluster's clock probably shows this.
    fn when(self, clock_ms: u64) -> u64 {
        self.seen_ms.saturating_add(clock_ms.saturating_sub(self.clock_ms))
    }
}

/// The collector of one member.
#[derive(Debug)]
pub struct Collector {
    core: Core,
    changes: watch::Receiver<Option<u64>>,
    guess: ClockGuess,
    backoff_ms: u64,
}

impl Collector {
    /// Over this member's core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { changes: core.watch(), core, guess: ClockGuess::default(), backoff_ms: BACKOFF_FIRST_MS }
    }

    /// Runs until the member shuts down.
    pub async fn run(mut self) {
        let closing = self.core.closing().clone();
        closing.run_until_cancelled(async move { while self.turn().await {} }).await;
    }

    /// One look; false when the member is gone.
    async fn turn(&mut self) -> bool {
        let seen = self.look();
        if seen.collect.is_empty() {
            return self.rest(seen.next_due_ms).await;
        }
        let moment_ms = rand::rng().random_range(JITTER_MS);
        self.pause(moment_ms).await;
        let plan = self.look();
        if !plan.collect.is_empty() {
            self.execute(plan).await;
        }
        true
    }

    /// The plan for the newest view; later changes will wake.
    fn look(&mut self) -> Plan {
        self.changes.borrow_and_update();
        let view = self.core.view();
        let now_ms = self.core.clock().now_ms();
        self.guess.look(view.state.meta.clock_ms, now_ms);
        plan(&view.state, self.guess.at(now_ms))
    }

    /// Until something changes, or the next garbage falls due.
    async fn rest(&mut self, next_due_ms: Option<u64>) -> bool {
        let due = async {
            match next_due_ms {
                Some(at_ms) => self.core.clock().sleep_until(self.guess.when(at_ms)).await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            changed = self.changes.changed() => changed.is_ok(),
            () = due => return true,
        };
        self.pause(SETTLE_MS).await;
        changed
    }

    async fn execute(&mut self, plan: Plan) {
        let asked = plan.collect.len();
        let deadline = Instant::now() + limits::CALL_TIMEOUT;
        let answer = self.core.propose(Command::Collect { garbage: plan.collect.clone() }, deadline).await;
        match answer.map(|proposed| proposed.reply) {
            Ok(Reply::Collected(assigned)) if !assigned.is_empty() => {
                tracing::info!(asked, assigned = assigned.len(), %plan, "garbage is being deleted");
                self.backoff_ms = BACKOFF_FIRST_MS;
                return;
            }
            Ok(reply) => tracing::debug!(asked, %reply, "nothing was left to collect"),
            Err(refusal) => tracing::debug!(asked, %refusal, "could not propose a collection"),
        }
        self.pause(self.backoff_ms).await;
        self.backoff_ms = (self.backoff_ms * 2).min(BACKOFF_MAX_MS);
    }

    async fn pause(&self, ms: u64) {
        let clock = self.core.clock();
        clock.sleep_until(clock.now_ms().saturating_add(ms)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guess_runs_on_between_entries_and_starts_anew_with_each_move_of_the_clock() {
        let mut guess = ClockGuess::default();
        guess.look(10_000, 500);
        assert_eq!(guess.at(700), 10_200);
        assert_eq!(guess.when(10_200), 700);
        guess.look(10_000, 900);
        assert_eq!(guess.at(1_000), 10_500);
        guess.look(10_100, 1_000);
        assert_eq!((guess.at(1_000), guess.when(10_050)), (10_100, 1_000));
    }
}
