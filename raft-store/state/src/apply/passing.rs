//! What happens by the passing of time: waits for locks end, retries come due, missing workers and
//! missing other ends are given up, finished transactions are forgotten.

use crate::apply::Turn;
use crate::due::Due;
use crate::due::hang_deadline_ms;
use crate::locks::Owner as LockOwner;
use crate::state::State;
use crate::txns::Spec;
use crate::work::Attempt;
use crate::work::Owner;
use crate::work::Work;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

impl State {
    pub(super) fn pass_time(&mut self, turn: &mut Turn) {
        let most = usize::try_from(self.meta.settings.work_per_entry).unwrap_or(usize::MAX);
        let now = self.meta.clock_ms;
        if self.is_suspended() {
            return self.forget_finished(most);
        }
        let due: Vec<Due> =
            self.index.due.iter().take_while(|(at, _)| *at <= now).take(most).map(|(_, due)| *due).collect();
        for due in due {
            match due {
                Due::LockWait(lock) => self.lock_wait_over(turn, lock),
                Due::Work(owner) => self.work_due(turn, owner),
                Due::Leaving(domain) => self.leave(turn, domain),
            }
        }
        self.forget_finished(most);
    }

    fn lock_wait_over(&mut self, turn: &mut Turn, id: u64) {
        let Some(lock) = self.locks.get(&id).filter(|lock| lock.granted.is_none()).cloned() else { return };
        if self.meta.feature_level >= 2 && !self.is_blocked(&lock) {
            // Its turn had come; no entry has come to it yet.
            return self.grant_waiting(turn, lock);
        }
        let blockers = self.lock_blockers(&lock);
        match lock.owner {
            LockOwner::Session(_) => self.release(turn, id),
            LockOwner::Txn(txn) => {
                let mut refusal = self.locked_refusal(&lock.why, &blockers);
                refusal.class = Class::Timeout;
                refusal.reason = "LOCK_WAIT_OVER".to_owned();
                self.abort(turn, txn, refusal, false);
            }
        }
    }

    fn work_due(&mut self, turn: &mut Turn, owner: Owner) {
        let now = self.meta.clock_ms;
        let Some(mut work) = self.work_of(owner).cloned() else { return };
        let hung = |attempt: &&Attempt| !work.in_place && self.is_hung(owner, attempt);
        if let Some(attempt) = work.attempt.as_ref().filter(hung) {
            let error = self.hang_words(attempt);
            self.leave_late_writer(owner);
            return self.attempt_failed(turn, owner, &error, true);
        }
        let Some(txn) = self.txn_of(owner) else { return self.retry_without_txn(turn, owner, work) };
        if let Some(attempt) = &work.attempt {
            if attempt.peer_deadline_ms > 0 && attempt.peer_deadline_ms <= now {
                let refusal = self.peer_gone(owner);
                self.abort(turn, txn, refusal, true);
            }
            return;
        }
        // What is pinned to a host keeps its locks until that is fenced or says its word, however long it takes.
        let given_up = work.unassigned_since_ms.saturating_add(self.meta.settings.unassigned_max_ms) <= now;
        if given_up && work.pinned.is_none() {
            let last = work.last_error.map(|error| format!("; the last attempt failed: {error}")).unwrap_or_default();
            let message = format!("no worker could take it for {} s{last}", (now - work.unassigned_since_ms) / 1000);
            let refusal = Refusal::new(Class::Aborted, "NO_WORKER", message).hint("sdm worker list, sdm domain list");
            return self.abort(turn, txn, refusal, true);
        }
        if work.retry_at_ms > 0 && work.retry_at_ms <= now {
            work.retry_at_ms = 0;
            self.put_work(owner, work);
            self.assign(turn, owner);
        }
    }

    /// What brings the storage up to what the catalog says is tried until it is done.
    fn retry_without_txn(&mut self, turn: &mut Turn, owner: Owner, mut work: Work) {
        let due = work.attempt.is_none() && work.retry_at_ms > 0 && work.retry_at_ms <= self.meta.clock_ms;
        if due && !matches!(owner, Owner::Deletion(_)) {
            work.retry_at_ms = 0;
            self.put_work(owner, work);
            self.assign(turn, owner);
        }
    }

    /// When an attempt is given up because nothing more is to be expected of it; None while that is not foreseen.
    #[must_use]
    pub fn hang_deadline_ms(&self, owner: Owner, attempt: &Attempt) -> Option<u64> {
        let in_place = self.work_of(owner).is_some_and(|work| work.in_place);
        hang_deadline_ms(owner, attempt, &self.meta.settings).filter(|_| !in_place)
    }

    fn is_hung(&self, owner: Owner, attempt: &Attempt) -> bool {
        hang_deadline_ms(owner, attempt, &self.meta.settings).is_some_and(|at| at <= self.meta.clock_ms)
    }

    fn hang_words(&self, attempt: &Attempt) -> String {
        let (token, worker) = (attempt.token, self.worker_word(attempt.worker));
        let since = if attempt.unreachable_since_ms > 0 { attempt.unreachable_since_ms } else { attempt.assigned_ms };
        let seconds = self.meta.clock_ms.saturating_sub(since) / 1000;
        if attempt.unreachable_since_ms > 0 {
            return format!(
                "attempt {token} is given up: its storage was unreachable for {seconds} s (worker {worker})"
            );
        }
        format!("attempt {token} is given up: worker {worker} did not finish it in {seconds} s")
    }

    fn peer_gone(&self, owner: Owner) -> Refusal {
        let seconds = self.meta.settings.peer_absence_max_ms / 1000;
        let exports = self
            .txn_of(owner)
            .and_then(|id| self.txns.get(&id))
            .is_some_and(|txn| matches!(txn.spec, Spec::ExportDisk { .. } | Spec::ExportChain { .. }));
        if exports {
            let message = format!("nobody read the disk's bytes for {seconds} s");
            return Refusal::new(Class::Aborted, "READER_GONE", message)
                .hint("repeat the export under a new request id");
        }
        let message = format!("nobody sent the file's bytes for {seconds} s");
        Refusal::new(Class::Aborted, "SOURCE_GONE", message).hint("repeat the import under a new request id")
    }

    /// Of those that did nothing, the last few stay: nobody can tell whether one was done twice.
    fn forget_finished_noops(&mut self, most: usize) {
        let keep = usize::try_from(self.meta.settings.finished_noops_max).unwrap_or(usize::MAX);
        for _ in 0..most {
            let Some((index, id)) = self.index.finished_noops.get_min().copied() else { return };
            if self.index.finished_noops.len() <= keep {
                return;
            }
            self.remove_finished_txn(index, id);
        }
    }

    /// Finished transactions stay while their request ids are remembered: by age and by number.
    fn forget_finished(&mut self, most: usize) {
        self.forget_finished_noops(most);
        let settings = &self.meta.settings;
        let (window, keep) = (settings.request_window_ms, settings.finished_txns_max);
        for _ in 0..most {
            let unfinished = self.index.open_txns.len() + self.index.finished_noops.len();
            let finished = self.txns.len().saturating_sub(unfinished) as u64;
            let oldest = self.index.finished_txns.get_min().and_then(|(at, ids)| Some((*at, *ids.get_min()?)));
            let Some((index, id)) = oldest else { return };
            let finished_ms = self.txns.get(&id).map_or(0, |txn| txn.finished_ms);
            if finished <= keep && self.meta.clock_ms.saturating_sub(finished_ms) <= window {
                return;
            }
            self.meta.forgotten_ms = self.meta.forgotten_ms.max(finished_ms);
            self.remove_finished_txn(index, id);
            self.meta.prune_floor = index;
        }
    }
}
