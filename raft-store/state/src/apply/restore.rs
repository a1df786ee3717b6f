//! The state of a restored cluster, and its way out of the suspension. What was open at the backup
//! is aborted without making garbage of it: the old cluster may have finished it afterwards, so its
//! names may hold the only copy of somebody's bytes.

use crate::apply::Turn;
use crate::apply::cluster::member;
use crate::catalog::Domain;
use crate::catalog::DomainState;
use crate::catalog::Leaving;
use crate::catalog::Volume;
use crate::command::AddMember;
use crate::garbage::Hold;
use crate::reply::Reply;
use crate::state::State;
use crate::suspension::MARKED_DISKS_MAX;
use crate::suspension::Reconcile;
use crate::suspension::Restored;
use crate::txns::Outcome;
use crate::txns::Phase;
use crate::txns::Spec;
use crate::work::Work;
use sdm_proto::ids::ClusterId;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

/// The feature level that knows restored clusters.
const FEATURE_LEVEL: u32 = 2;

/// Who a backup becomes.
#[derive(Clone, Debug)]
pub struct RestoreAs {
    /// Newly drawn: two restores of one backup are two clusters.
    pub cluster_id: ClusterId,
    /// Its only member, under an id that the backup's cluster never gave.
    pub member: AddMember,
    /// That id.
    pub member_id: u64,
    /// The last entry that the backup holds, membership changes and empty ones included.
    pub index: u64,
}

impl State {
    /// This state, out of a backup, as that of a new cluster: another cluster id, the next epoch, one
    /// member, nobody else's sessions, and suspended. Not an entry: it happens to a stopped copy.
    #[must_use]
    pub fn restored(mut self, restore: RestoreAs) -> Self {
        let old = self.cluster_id();
        let meta = &mut self.meta;
        let mut ancestors = meta.restored.take().map(|restored| restored.ancestors).unwrap_or_default();
        ancestors.push(old);
        meta.restored = Some(Restored { ancestors, epoch: meta.epoch, index: restore.index, suspended: true });
        meta.cluster_id = Some(restore.cluster_id);
        meta.epoch = meta.epoch.saturating_add(1);
        meta.applied_index = meta.applied_index.max(restore.index);
        meta.feature_level = meta.feature_level.max(FEATURE_LEVEL);
        meta.announced_members.clear();
        meta.removed_members.clear();
        self.forget_holders();
        for id in self.members.values().map(|member| member.id).collect::<Vec<_>>() {
            self.members.remove(&id);
        }
        self.put_member(member(restore.member_id, &restore.member));
        for mut domain in self.domains.values().cloned().collect::<Vec<_>>() {
            domain.adopted_epoch = None;
            // Whoever was writing its name worked for another cluster.
            domain.describing = domain.describing.map(|_| Box::default());
            self.put_domain(domain);
        }
        for id in self.index.open_txns.clone() {
            self.abort_at_restore(id);
        }
        self.give_up_hidden();
        for mut projection in self.projections.values().cloned().collect::<Vec<_>>() {
            projection.work = Work::default();
            self.put_projection(projection);
        }
        for mut garbage in self.garbage.values().cloned().collect::<Vec<_>>() {
            // Names on storage derive from the cluster that made them, for ever.
            garbage.cluster.get_or_insert(old);
            if garbage.is_doomed() {
                garbage.trash = None;
            }
            if garbage.trash.is_some() && garbage.held.is_none() {
                // The old cluster may have put the disk back after the backup, and somebody uses it.
                garbage.held = Some(Hold {
                    reason: "the backup does not know whether this disk was restored after it".to_owned(),
                    by: "the restore from a backup".to_owned(),
                    txn: garbage.txn,
                    since_ms: self.meta.clock_ms,
                });
            }
            garbage.doomed = None;
            garbage.work = Work { last_error: garbage.work.last_error, ..Work::default() };
            self.put_garbage(garbage);
        }
        self.doubt_trash();
        self
    }

    /// Domains that were on their way out or in: those that came go as well. The old cluster may have taken one in and used
    /// it since, so what the backup holds of it is not believed. Their rows leave after the release.
    fn give_up_hidden(&mut self) {
        for domain in self.domains.values().filter(|row| row.state.is_hidden()).cloned().collect::<Vec<_>>() {
            if let DomainState::Arriving { txn } = domain.state {
                let leaving = Leaving { since_ms: self.meta.clock_ms, txn, disks: 0, garbage: 0 };
                self.put_domain(Domain { state: DomainState::Leaving(leaving), describing: None, ..domain });
            }
        }
    }

    /// Whether trash was deleted after the backup nobody here knows: what comes back is illegal until a reading of
    /// the storage found it.
    fn doubt_trash(&mut self) {
        let trash = self.garbage.values().filter_map(|row| row.trash.as_ref());
        let volumes: Vec<_> = trash.flat_map(|trash| trash.disk.volumes.clone()).collect();
        for id in volumes {
            if self.users_of(id).next().is_none()
                && let Some(row) = self.volumes.get(&id).cloned()
            {
                self.put_volume(Volume { legal: false, ..row });
            }
        }
    }

    /// Sessions are gone, and with them the locks of clients and what workers had in hand.
    fn forget_holders(&mut self) {
        for id in self.sessions.values().map(|session| session.id).collect::<Vec<_>>() {
            self.remove_session(id);
        }
        for session in self.attachments.values().filter_map(|row| row.session()).collect::<Vec<_>>() {
            self.leave_attachments(session);
        }
        for mut worker in self.workers.values().cloned().collect::<Vec<_>>() {
            worker.session = None;
            worker.since_ms = self.meta.clock_ms;
            worker.domains.clear();
            self.put_worker(worker);
        }
        // What the old members entered about a state that this one is not.
        for index in self.hashes.values().map(|point| point.index).collect::<Vec<_>>() {
            self.remove_hash_point(index);
        }
        for id in self.locks.values().map(|lock| lock.id).collect::<Vec<_>>() {
            self.remove_lock(id);
        }
    }

    fn abort_at_restore(&mut self, id: TxnId) {
        let Some(mut txn) = self.txns.get(&id).cloned() else { return };
        if let Some(work) = txn.job.and_then(|job| self.jobs.get(&job)).map(|job| &job.work).or(txn.step.as_ref()) {
            txn.attempts = work.attempts;
            txn.last_error = work.last_error.clone();
        }
        if let Some(job) = txn.job {
            self.remove_job(job);
        }
        if let Some(step) = &mut txn.step {
            step.attempt = None;
        }
        txn.built.clear();
        if let Spec::Domain(change) = &txn.spec
            && txn.ending.is_none()
            && self.is_leaving_for(&txn)
        {
            // Decided before the backup: the last rows leave after the release.
            let outcome = Outcome { domain: Some(change.domain()), ..Outcome::default() };
            self.note(&mut txn, "committed: the domain leaves the catalog of the restored cluster, too");
            return self.finish(txn, Phase::Committed(outcome));
        }
        let message = "it was open when the backup was made that this cluster was restored from; whether it was done \
                       afterwards the backup does not know";
        let refusal = Refusal::new(Class::Aborted, "RESTORED", message)
            .hint("`sdm backup reconcile` reports what lies on the storage; then repeat it under a new request id");
        self.note(&mut txn, format!("aborted: {refusal}"));
        self.finish(txn, Phase::Aborted(refusal));
    }

    pub(super) fn reconcile(&mut self, turn: &mut Turn, step: &Reconcile) -> Result<Reply, Refusal> {
        if self.meta.restored.is_none() {
            return Err(Refusal::new(
                Class::Precondition,
                "NOT_RESTORED",
                "this cluster was not restored from a backup: there is nothing to reconcile",
            ));
        }
        match step {
            Reconcile::RaiseEpoch { epoch } => self.raise_epoch(turn, *epoch),
            Reconcile::Adopted { domain, epoch } => self.adopted(*domain, *epoch),
            Reconcile::MarkDisks { missing, found } => self.mark_disks(missing, found),
            Reconcile::Release { without } => self.release_suspension(turn, without),
        }
    }

    /// Workers learn the epoch with their welcome, so each has to get a new one.
    fn raise_epoch(&mut self, turn: &mut Turn, epoch: u64) -> Result<Reply, Refusal> {
        if epoch <= self.meta.epoch {
            return Ok(Reply::Done);
        }
        let live: Vec<u64> = self.workers.values().filter_map(|worker| worker.session).collect();
        for session in live {
            self.end_session(turn, session, "the cluster's epoch was raised");
        }
        self.meta.epoch = epoch;
        Ok(Reply::Done)
    }

    fn adopted(&mut self, domain: DomainId, epoch: u64) -> Result<Reply, Refusal> {
        if epoch != self.meta.epoch {
            let message = format!("the domain was adopted in epoch {epoch}, the cluster is at {}", self.meta.epoch);
            return Err(Refusal::new(Class::Aborted, "EPOCH_CHANGED", message).hint("run `sdm backup reconcile` again"));
        }
        let mut row = self.known_domain(domain)?.clone();
        row.adopted_epoch = Some(epoch);
        self.put_domain(row);
        Ok(Reply::Done)
    }

    fn mark_disks(&mut self, missing: &[DiskId], found: &[DiskId]) -> Result<Reply, Refusal> {
        if missing.len() + found.len() > MARKED_DISKS_MAX {
            let message = format!("{} disks at once, at most {MARKED_DISKS_MAX}", missing.len() + found.len());
            return Err(Refusal::new(Class::Invalid, "TOO_MANY_DISKS", message));
        }
        for (disks, legal) in [(missing, false), (found, true)] {
            for id in disks {
                let volumes = self.disks.get(id).map(|disk| disk.volumes.clone()).unwrap_or_default();
                for volume in volumes {
                    if let Some(mut row) = self.volumes.get(&volume).filter(|row| row.legal != legal).cloned() {
                        row.legal = legal;
                        self.put_volume(row);
                    }
                }
            }
        }
        Ok(Reply::Done)
    }

    fn release_suspension(&mut self, turn: &mut Turn, without: &[DomainId]) -> Result<Reply, Refusal> {
        if !self.is_suspended() {
            return Ok(Reply::Done);
        }
        for domain in without {
            self.known_domain(*domain)?;
        }
        if let Some(refusal) = self.not_adopted(without) {
            return Err(refusal);
        }
        if let Some(restored) = &mut self.meta.restored {
            restored.suspended = false;
        }
        turn.workers_changed = true;
        Ok(Reply::Done)
    }
}
