//! How far the attempts are right now, for whoever asks. Written by attempts, read by the service.

use crate::process::OrderState;
use sdm_proto::wire::v1::JobProgress;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// Shortest stretch over which a rate is measured.
const RATE_STRETCH_MS: u64 = 500;

/// Weight of the newest stretch in the moving average, in percent: about three seconds of memory.
const RATE_NEW_PERCENT: u64 = 20;

#[derive(Debug, Default)]
struct Row {
    shown: JobProgress,
    measured: Option<(u64, u64)>,
}

impl Row {
    fn advance(&mut self, state: &OrderState, now_ms: u64) {
        self.shown.done_bytes = state.done_bytes;
        self.shown.total_bytes = self.shown.total_bytes.max(state.total_bytes);
        self.shown.checkpoint_bytes = state.durable_bytes();
        let Some((at_ms, bytes)) = self.measured.filter(|(_, bytes)| *bytes <= state.done_bytes) else {
            self.measured = Some((now_ms, state.done_bytes));
            return;
        };
        let stretch_ms = now_ms.saturating_sub(at_ms);
        if stretch_ms < RATE_STRETCH_MS {
            return;
        }
        let rate = (state.done_bytes - bytes).saturating_mul(1000) / stretch_ms;
        let before = self.shown.bytes_per_second;
        self.shown.bytes_per_second = if before == 0 {
            rate
        } else {
            (before.saturating_mul(100 - RATE_NEW_PERCENT)).saturating_add(rate.saturating_mul(RATE_NEW_PERCENT)) / 100
        };
        self.measured = Some((now_ms, state.done_bytes));
    }
}

/// Progress of all attempts of this worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProgressBoard(Arc<Mutex<BTreeMap<String, Row>>>);

/// One attempt's row; taken out when dropped.
#[derive(Debug)]
pub(crate) struct ProgressRow {
    board: ProgressBoard,
    token: String,
}

impl ProgressBoard {
    fn rows(&self) -> MutexGuard<'_, BTreeMap<String, Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A row for an attempt.
    pub(crate) fn row(&self, token: &str, attempt: u32, total_bytes: u64, phase: &str) -> ProgressRow {
        let shown = JobProgress { attempt, total_bytes, phase: phase.to_owned(), ..JobProgress::default() };
        self.rows().insert(token.to_owned(), Row { shown, measured: None });
        ProgressRow { board: self.clone(), token: token.to_owned() }
    }

    /// What is shown of these tokens.
    pub(super) fn of(&self, tokens: impl IntoIterator<Item = String>) -> Vec<(String, JobProgress)> {
        let rows = self.rows();
        tokens.into_iter().filter_map(|token| rows.get(&token).map(|row| (token, row.shown.clone()))).collect()
    }
}

impl ProgressRow {
    fn change(&self, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.board.rows().get_mut(&self.token) {
            change(row);
        }
    }

    /// The attempt is this far.
    pub(crate) fn advance(&self, state: &OrderState, now_ms: u64) {
        self.change(|row| row.advance(state, now_ms));
    }

    /// What it does now.
    pub(crate) fn phase(&self, phase: &str) {
        self.change(|row| phase.clone_into(&mut row.shown.phase));
    }

    /// It starts again from zero.
    pub(crate) fn reset(&self, phase: &str) {
        self.change(|row| {
            row.shown = JobProgress {
                attempt: row.shown.attempt,
                total_bytes: row.shown.total_bytes,
                phase: phase.to_owned(),
                ..JobProgress::default()
            };
            row.measured = None;
        });
    }
}

impl Drop for ProgressRow {
    fn drop(&mut self) {
        self.board.rows().remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(done_bytes: u64) -> OrderState {
        OrderState { done_bytes, total_bytes: 10_000, ..OrderState::default() }
    }

    #[test]
    fn the_rate_follows_what_was_done_and_survives_a_reset() {
        let board = ProgressBoard::default();
        let row = board.row("1-2-3", 1, 0, "copy");
        let shown = || board.of(["1-2-3".to_owned()]).pop().map(|(_, shown)| shown);
        row.advance(&state(0), 1_000);
        row.advance(&state(1_000), 2_000);
        assert_eq!(shown().map(|shown| shown.bytes_per_second), Some(1_000));
        row.advance(&state(3_000), 3_000);
        assert_eq!(shown().map(|shown| shown.bytes_per_second), Some(1_200));
        row.reset("waiting for sender");
        row.advance(&state(10), 4_000);
        assert_eq!(shown().map(|shown| (shown.done_bytes, shown.bytes_per_second)), Some((10, 0)));
        drop(row);
        assert_eq!(shown(), None);
    }
}
