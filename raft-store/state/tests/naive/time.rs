//! What the passing of time brings, in the order in which it falls due.

use super::Naive;
use super::Phase;
use super::Work;
use sdm_proto::ids::ClusterId;
use sdm_proto::ids::TxnId;
use sdm_proto::token::Token;
use sdm_state::txns::Spec;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Wait(u64),
    Step(TxnId),
    Job(u64, TxnId),
    Deletion(Token),
}

impl Naive {
    pub fn pass(&mut self, now: u64, cluster: ClusterId) {
        self.now = now;
        let mut due = self.due();
        due.sort();
        due.dedup();
        for (_, what) in due {
            match what {
                What::Wait(id) => self.wait_over(id, cluster),
                What::Step(id) | What::Job(_, id) => self.work_due(id, cluster),
                What::Deletion(id) => self.deletion_due(id),
            }
        }
        self.forget();
    }

    fn due(&self) -> Vec<(u64, What)> {
        let mut due: Vec<(u64, What)> =
            self.locks.iter().filter(|lock| !lock.held).map(|lock| (lock.until, What::Wait(lock.id))).collect();
        for txn in &self.txns {
            let Some(work) = &txn.work else { continue };
            let is_job = matches!(txn.spec, Spec::MoveDisk { .. });
            let what = if is_job { What::Job(txn.lock.unwrap_or(0), txn.id) } else { What::Step(txn.id) };
            due.extend(self.hangs_at(work, !is_job).map(|at| (at, what)));
            if work.attempt.is_none() {
                due.extend((work.retry_at > 0).then_some((work.retry_at, what)));
                due.push((work.idle_since + self.settings.unassigned_max_ms, what));
            }
        }
        for row in &self.garbage {
            due.extend(self.hangs_at(&row.work, true).map(|at| (at, What::Deletion(row.id))));
        }
        due.retain(|(at, _)| *at <= self.now);
        due
    }

    /// When an attempt is given up.
    fn hangs_at(&self, work: &Work, is_short: bool) -> Option<u64> {
        let attempt = work.attempt.as_ref()?;
        let lost =
            (attempt.unreachable_since > 0).then(|| attempt.unreachable_since + self.settings.unreachable_max_ms);
        let slow = is_short.then(|| attempt.since + self.settings.step_max_ms);
        lost.into_iter().chain(slow).min()
    }

    fn wait_over(&mut self, id: u64, cluster: ClusterId) {
        let Some(at) = self.locks.iter().position(|lock| lock.id == id && !lock.held) else { return };
        if !self.blocked(id, &self.locks[at].wants.clone()) {
            return self.grant(at);
        }
        let txn = self.locks[at].txn;
        self.abort(txn, "LOCK_WAIT_OVER", cluster);
    }

    fn work_due(&mut self, id: TxnId, cluster: ClusterId) {
        let Some(txn) = self.txn(id).filter(|txn| txn.phase == Phase::Running) else { return };
        let Some(work) = txn.work.clone() else { return };
        let is_short = !matches!(txn.spec, Spec::MoveDisk { .. });
        if work.attempt.is_some() {
            if self.hangs_at(&work, is_short).is_some_and(|at| at <= self.now) {
                self.attempt_failed(id, cluster);
            }
            return;
        }
        if work.idle_since + self.settings.unassigned_max_ms <= self.now {
            return self.abort(id, "NO_WORKER", cluster);
        }
        if work.retry_at > 0 && work.retry_at <= self.now {
            self.txn_mut(id).work.as_mut().expect("it has work").retry_at = 0;
            self.try_assign(id);
        }
    }

    fn deletion_due(&mut self, id: Token) {
        let (now, settings) = (self.now, self.settings.clone());
        let Some(at) = self.garbage.iter().position(|row| row.id == id) else { return };
        let work = self.garbage[at].work.clone();
        if self.hangs_at(&work, true).is_some_and(|at| at <= now) {
            let work = &mut self.garbage[at].work;
            work.attempt = None;
            work.idle_since = now;
            work.pause(now, &settings);
        }
    }

    /// Results are remembered by number and by age; of what did nothing, the last few.
    fn forget(&mut self) {
        let most = usize::try_from(self.settings.finished_noops_max).expect("a small number");
        let finished = |of_noops: bool, txns: &[super::Txn]| {
            let is = |txn: &&super::Txn| txn.phase.is_final() && matches!(txn.spec, Spec::Noop { .. }) == of_noops;
            let mut rows: Vec<_> = txns.iter().filter(is).map(|txn| (txn.ended.0, txn.id, txn.ended.1)).collect();
            rows.sort();
            rows
        };
        loop {
            let noops = finished(true, &self.txns);
            if noops.len() <= most {
                break;
            }
            let oldest = noops[0].1;
            self.txns.retain(|txn| txn.id != oldest);
        }
        let keep = usize::try_from(self.settings.finished_txns_max).expect("a small number");
        loop {
            let rows = finished(false, &self.txns);
            let Some((_, oldest, ended)) = rows.first().copied() else { return };
            if rows.len() <= keep && self.now - ended <= self.settings.request_window_ms {
                return;
            }
            self.forgotten = Some(self.forgotten.unwrap_or(0).max(ended));
            self.txns.retain(|txn| txn.id != oldest);
        }
    }
}
