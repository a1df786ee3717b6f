//! Merges in place: a snapshot is deleted without space for a new file. Its bytes go up into the volume above it, which
//! is written as it lies there.
//!
//! ```text
//!  stage 0   the volume above gets what is missing in it; what a guest sees never changes: an abort leaves it as it is
//!  stage 1   its header names what the snapshot lay over; a new placement of links has the chain without the snapshot
//! ```
//! Until the second stage begins all may be given up. From then on the header may say what the catalog does not say yet,
//! so that stage is tried until it is done: it moves no bytes. It ends otherwise only where a worker saw that the header
//! was not changed, where what it would change is gone, or with its domain. Both stages are work in place, fenced like all
//! such.

use crate::apply::Turn;
use crate::assignments::Order;
use crate::blueprint::QCOW2_FIXED_BYTES;
use crate::blueprint::QCOW2_SHARE;
use crate::catalog::Volume;
use crate::locks::Owner as LockOwner;
use crate::locks::Resource;
use crate::shape::Shape;
use crate::state::State;
use crate::txns::Phase;
use crate::txns::Spec;
use crate::txns::Txn;
use crate::work::Attempt;
use crate::work::Owner;
use crate::work::VolumeResult;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

/// What a worker says of a chain that it could not link anew, when it saw that the header was not changed.
pub(super) const NOT_REBASED: &str = "NOT_REBASED";

/// What it says of a volume or a placement that somebody took away.
const GONE: [&str; 2] = ["VOLUME_MISSING", "PLACEMENT_MISSING"];

/// Tables and refcounts as a share of what they map, with the smallest clusters that there are, of 512 bytes: 8 bytes and
/// 2 bytes for each, and refcounts for those, rounded up.
const SMALLEST_CLUSTERS_SHARE: u64 = 32;

/// Whatever is rounded up to the largest clusters, of 2 MiB: data, a table and refcounts; and the largest refcount table,
/// of 8 MiB, written anew.
const LARGEST_CLUSTERS_BYTES: u64 = 16 << 20;

impl Txn {
    /// Whether it merges volumes in place.
    pub(crate) fn is_merge_in_place(&self) -> bool {
        matches!(self.spec, Spec::DeleteSnapshot { in_place: true, .. })
    }

    /// Whether there is no way back any more.
    pub(crate) fn goes_only_forward(&self) -> bool {
        self.is_merge_in_place() && self.stage > 0 && matches!(self.phase, Phase::Running)
    }

    /// Whether what it would still change was not there any more when a worker looked for it.
    fn lacks_its_volumes(&self) -> bool {
        let step = self.step.as_ref().filter(|step| step.attempt.is_none());
        let error = step.and_then(|step| step.last_error.as_ref());
        error.is_some_and(|error| GONE.iter().any(|reason| error.contains(reason)))
    }
}

impl State {
    /// The volume that lies over this one in a disk's chain.
    pub(crate) fn child_in_chain(&self, disk: DiskId, volume: VolumeId) -> Option<&Volume> {
        self.chain(disk).skip_while(|row| row.id != volume).nth(1)
    }

    /// What the volume above takes more, as far as the catalog knows: what the snapshot takes; and what it never takes more
    /// than. Between the two is what was compressed, and what lay in smaller pieces than the clusters above.
    fn merged_bytes(&self, disk: DiskId, volume: VolumeId) -> (u64, u64) {
        let Some(row) = self.chain(disk).find(|row| row.id == volume) else { return (0, 0) };
        let with = |bytes: u64, share: u64, fixed: u64| bytes.saturating_add(bytes / share).saturating_add(fixed);
        let most = with(row.virtual_size, SMALLEST_CLUSTERS_SHARE, LARGEST_CLUSTERS_BYTES);
        (with(row.allocated_bytes, QCOW2_SHARE, QCOW2_FIXED_BYTES).min(most), most)
    }

    /// Refuses an abort where there is no way back. One whose volumes somebody took away may end: it is no better for
    /// going on.
    pub(super) fn refuse_way_back(&self, txn: &Txn) -> Result<(), Refusal> {
        if !txn.goes_only_forward() || txn.lacks_its_volumes() {
            return Ok(());
        }
        let message = format!(
            "transaction {} has merged all bytes in place and is changing the chain now, which it does to the end: {}",
            txn.id, txn.summary
        );
        let domain = self.merges_in(txn).and_then(|id| self.domains.get(&id));
        let name = domain.map_or("DOMAIN", |domain| domain.name.as_str());
        Err(Refusal::new(Class::Precondition, "TXN_GOES_FORWARD", message).hint(format!(
            "nothing is lost by it; see what it waits for: sdm txn show {}; where the storage is lost for good, the \
             transaction ends with its domain: sdm domain forget {name} --confirm {name} --reason TEXT",
            txn.id
        )))
    }

    /// The domain in whose published files it writes, if it does.
    fn merges_in(&self, txn: &Txn) -> Option<DomainId> {
        match self.shape(txn) {
            Shape::InPlace { domain, .. } => Some(domain),
            _ => None,
        }
    }

    /// Whether it ends when its domain is forgotten. What an abort ends is left to that; what waits for the word of a
    /// worker that may never come, or goes only forward, has no other end once the storage is lost.
    fn ends_with_domain(&self, txn: &Txn, id: DomainId) -> bool {
        let has_no_other_end = txn.goes_only_forward() || txn.ending.is_some();
        if !matches!(txn.phase, Phase::Running) || !has_no_other_end || self.merges_in(txn) != Some(id) {
            return false;
        }
        // Storage that somebody reaches is not lost: its own worker says its word soon, or is confirmed down.
        self.index.contents.reaching(id).next().is_none()
    }

    /// Transactions that end when this domain is forgotten, each with its locks: at most as many as may be open.
    pub(crate) fn ending_with_domain(&self, id: DomainId) -> Vec<(u64, TxnId)> {
        let of = |lock: &u64| match self.locks.get(lock)?.owner {
            LockOwner::Txn(txn) => Some(txn),
            LockOwner::Session(_) => None,
        };
        let locks = self.index.lock_queues.at(&Resource::Domain(id)).into_iter();
        let locks = locks.filter_map(|lock| Some((lock, of(&lock)?)));
        let ends = |txn: &TxnId| self.txns.get(txn).is_some_and(|txn| self.ends_with_domain(txn, id));
        locks.filter(|(_, txn)| ends(txn)).collect()
    }

    /// What is still written for them is written where nobody believes anything any more.
    pub(super) fn end_with_domain(&mut self, turn: &mut Turn, id: DomainId) {
        let name = self.domains.get(&id).map_or_else(|| id.to_string(), |domain| domain.name.to_string());
        for (_, txn) in self.ending_with_domain(id) {
            let message = format!("domain {name} was forgotten, and with it what this was working on");
            self.end_whatever_is_written(turn, txn, Refusal::new(Class::Aborted, "DOMAIN_FORGOTTEN", message));
        }
    }

    /// Ends a transaction without the word of whoever may still write for it, or with the word that nothing was changed.
    pub(super) fn end_whatever_is_written(&mut self, turn: &mut Turn, id: TxnId, refusal: Refusal) {
        let owner = Owner::Step(id);
        self.settle_in_place(owner);
        self.unpin(owner);
        self.close_attempt(turn, owner, &format!("transaction {id} was aborted: {}", refusal.message), true);
        let Some(mut txn) = self.txns.get(&id).filter(|txn| !txn.phase.is_final()).cloned() else { return };
        self.note(&mut txn, format!("aborted: {refusal}"));
        self.end(turn, txn, Phase::Aborted(refusal));
    }

    pub(crate) fn shape_of_merge(&self, txn: &Txn, disk: DiskId, volume: VolumeId) -> Shape {
        let Some(domain) = self.disks.get(&disk).and_then(|row| self.domain_of(row)) else { return Shape::Instant };
        let builds = txn.stage > 0;
        let more_bytes = if builds { 0 } else { self.merged_bytes(disk, volume).0 };
        Shape::InPlace { domain: domain.id, more_bytes, builds }
    }

    /// The first stage: the volume above gets the bytes. When an abort waits for its end, only what was written before is
    /// made durable.
    pub(crate) fn merge_order(&self, attempt: &Attempt, disk: DiskId, volume: VolumeId) -> Option<Order> {
        let row = self.disks.get(&disk)?;
        let placement = self.placements.get(&row.placement)?;
        let child = self.child_in_chain(disk, volume)?.id;
        let mut volumes = self.whole_chain(row)?;
        volumes.truncate(volumes.iter().position(|row| row.id == child)? + 1);
        Some(Order::Merge {
            target: self.target(placement.domain)?,
            placement: placement.id,
            made_by: placement.token,
            disk,
            volumes,
            settle_only: attempt.settles,
        })
    }

    /// The volume whose header names another one beneath it from this stage on.
    pub(crate) fn rebased(&self, txn: &Txn) -> Option<VolumeId> {
        match txn.spec {
            Spec::DeleteSnapshot { disk, volume, in_place: true } => Some(self.child_in_chain(disk, volume)?.id),
            _ => None,
        }
    }

    /// Whether the next attempt is only to make durable what those before it wrote.
    pub(crate) fn is_to_settle(&self, owner: Owner) -> bool {
        let txn = self.txn_of(owner).and_then(|id| self.txns.get(&id));
        txn.is_some_and(|txn| txn.is_merge_in_place() && txn.stage == 0 && txn.ending.is_some())
    }

    /// Whether an attempt that goes on is wanted no more, though only its own word ends it. What settles is short, and has
    /// to come to its end.
    pub(crate) fn is_to_stop(&self, owner: Owner) -> bool {
        let attempt = self.work_of(owner).and_then(|work| work.attempt.as_ref());
        attempt.is_some_and(|attempt| !attempt.settles) && self.is_to_settle(owner)
    }

    /// What is done on the storage, in words.
    pub(crate) fn merge_steps(&self, disk: DiskId, volume: VolumeId) -> Vec<String> {
        let child = self.child_in_chain(disk, volume).map(|row| row.id.to_string()).unwrap_or_default();
        let (bytes, most) = self.merged_bytes(disk, volume);
        vec![
            format!(
                "write into volume {child}, in place, what it lacks of volume {volume}: it takes up to {bytes} bytes, or, \
                 where those are compressed or lie in pieces smaller than its clusters, up to {most}, which the worker \
                 counts and looks for before it writes; until that is done it can be aborted, and what the disk holds \
                 never changes"
            ),
            format!(
                "change what volume {child} lies over, and build a placement of links without volume {volume}: a moment, \
                 which is not aborted any more; its space is free when the old placement is collected"
            ),
        ]
    }

    /// Names the way without space for a new file, where that is what is lacking.
    pub(crate) fn name_in_place(&self, spec: &Spec, refusal: Refusal) -> Refusal {
        let Spec::DeleteSnapshot { disk, volume, in_place: false } = spec else { return refusal };
        let Some(row) = self.disks.get(disk) else { return refusal };
        if refusal.reason != "NO_SPACE" || !self.meta.settings.merges_in_place {
            return refusal;
        }
        let (snapshot, hint) = (self.snapshot_name_or_id(*volume), refusal.hint.clone());
        refusal.hint(format!("{hint}; or merge it in place: sdm snapshot delete {} {snapshot} --in-place", row.name))
    }

    fn snapshot_name_or_id(&self, volume: VolumeId) -> String {
        let snapshot = self.volumes.get(&volume).and_then(|row| row.snapshot.as_ref());
        snapshot.map_or_else(|| volume.to_string(), |snapshot| snapshot.name.to_string())
    }

    /// All bytes are where they are needed: on to the chain, unless an abort was asked for.
    pub(super) fn merged_in_place(
        &mut self,
        turn: &mut Turn,
        mut txn: Txn,
        attempt: &Attempt,
        results: &[VolumeResult],
    ) {
        for result in results {
            let Some(mut row) = self.volumes.get(&result.volume).cloned() else { continue };
            row.file_size = result.file_size;
            row.allocated_bytes = result.allocated_bytes;
            row.blake3 = None;
            self.put_volume(row);
        }
        if let Some(ending) = txn.ending.take() {
            return self.abort(turn, txn.id, ending, false);
        }
        txn.stage += 1;
        self.note(&mut txn, format!("attempt {} ({}) merged the bytes in place", attempt.number, attempt.token));
        txn.step = None;
        txn.marker = self.marker(txn.id, &txn.spec, txn.stage);
        self.start_stage(turn, txn);
    }

    /// What would abort it only has it tried again.
    pub(super) fn go_on(&mut self, turn: &mut Turn, id: TxnId, owner: Owner, refusal: &Refusal) {
        if self.writes_in_place(owner) {
            return;
        }
        if self.work_of(owner).is_some_and(|work| work.attempt.is_some()) {
            return self.attempt_failed(turn, owner, &refusal.to_string(), true);
        }
        if let Some(mut work) = self.work_of(owner).cloned() {
            work.unassigned_since_ms = self.meta.clock_ms;
            self.put_work(owner, work);
        }
        self.note_txn(id, format!("it goes on all the same, because there is no way back: {refusal}"));
    }
}
