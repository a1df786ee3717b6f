//! Merges in place: a snapshot is deleted without space for a new file. Its bytes go up into the volume above it, which
//! is written as it lies there.
//!
//! ```text
//!  stage 0   the volume above gets what is missing in it; what a guest sees never changes: an abort leaves it as it is
//!  stage 1   its header names what the snapshot lay over; a new placement of links has the chain without the snapshot
//! ```
//! Until the second stage begins all may be given up. From then on the header may say what the catalog does not say yet,
//! so that stage is tried until it is done: it moves no bytes. Both stages are work in place, fenced like all such.

use crate::apply::Turn;
use crate::assignments::Order;
use crate::blueprint::QCOW2_FIXED_BYTES;
use crate::blueprint::QCOW2_SHARE;
use crate::catalog::Volume;
use crate::shape::Shape;
use crate::state::State;
use crate::txns::Phase;
use crate::txns::Spec;
use crate::txns::Txn;
use crate::work::Attempt;
use crate::work::Owner;
use crate::work::VolumeResult;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

impl Txn {
    /// Whether it merges volumes in place.
    pub(crate) fn is_merge_in_place(&self) -> bool {
        matches!(self.spec, Spec::DeleteSnapshot { in_place: true, .. })
    }

    /// Whether there is no way back any more.
    pub(crate) fn goes_only_forward(&self) -> bool {
        self.is_merge_in_place() && self.stage > 0 && matches!(self.phase, Phase::Running)
    }

    /// Refuses an abort where there is no way back.
    pub(crate) fn refuse_way_back(&self) -> Result<(), Refusal> {
        if !self.goes_only_forward() {
            return Ok(());
        }
        let message = format!(
            "transaction {} has merged all bytes in place and is changing the chain now, which it does to the end: {}",
            self.id, self.summary
        );
        Err(Refusal::new(Class::Precondition, "TXN_GOES_FORWARD", message)
            .hint(format!("nothing is lost by it; see what it waits for: sdm txn show {}", self.id)))
    }
}

impl State {
    /// The volume that lies over this one in a disk's chain.
    pub(crate) fn child_in_chain(&self, disk: DiskId, volume: VolumeId) -> Option<&Volume> {
        self.chain(disk).skip_while(|row| row.id != volume).nth(1)
    }

    /// What the snapshot takes is at most what the volume above it lacks.
    fn merged_bytes(&self, disk: DiskId, volume: VolumeId) -> u64 {
        let row = self.chain(disk).find(|row| row.id == volume);
        // Compressed clusters are written as they are read: not more than a guest can see.
        let bytes = row.map_or(0, |row| row.allocated_bytes.min(row.virtual_size));
        bytes.saturating_add(bytes / QCOW2_SHARE).saturating_add(QCOW2_FIXED_BYTES)
    }

    pub(crate) fn shape_of_merge(&self, txn: &Txn, disk: DiskId, volume: VolumeId) -> Shape {
        let Some(domain) = self.disks.get(&disk).and_then(|row| self.domain_of(row)) else { return Shape::Instant };
        let builds = txn.stage > 0;
        let more_bytes = if builds { 0 } else { self.merged_bytes(disk, volume) };
        Shape::InPlace { domain: domain.id, more_bytes, builds }
    }

    /// The first stage: the volume above gets the bytes. When an abort waits for its end, only what was written before is
    /// made durable.
    pub(crate) fn merge_order(&self, txn: &Txn, disk: DiskId, volume: VolumeId) -> Option<Order> {
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
            settle_only: txn.ending.is_some(),
        })
    }

    /// The volume whose header names another one beneath it from this stage on.
    pub(crate) fn rebased(&self, txn: &Txn) -> Option<VolumeId> {
        match txn.spec {
            Spec::DeleteSnapshot { disk, volume, in_place: true } => Some(self.child_in_chain(disk, volume)?.id),
            _ => None,
        }
    }

    /// Whether an attempt that goes on is wanted no more, though only its own word ends it.
    pub(crate) fn is_to_stop(&self, owner: Owner) -> bool {
        let txn = self.txn_of(owner).and_then(|id| self.txns.get(&id));
        let stops = |txn: &Txn| txn.is_merge_in_place() && txn.stage == 0 && txn.ending.is_some();
        // What settles is short, and has to come to its end.
        let began = |txn: &Txn| txn.step.as_ref().is_some_and(|step| step.pinned.is_none());
        txn.is_some_and(|txn| stops(txn) && began(txn))
    }

    /// What is done on the storage, in words.
    pub(crate) fn merge_steps(&self, disk: DiskId, volume: VolumeId) -> Vec<String> {
        let child = self.child_in_chain(disk, volume).map(|row| row.id.to_string()).unwrap_or_default();
        let most = self.merged_bytes(disk, volume);
        vec![
            format!(
                "write into volume {child}, in place, what it lacks of volume {volume}: at most {most} bytes; until that is \
                 done it can be aborted, and what the disk holds never changes"
            ),
            format!(
                "change what volume {child} lies over, and build a placement of links without volume {volume}: a moment, \
                 which is not aborted any more; its space is free when the old placement is collected"
            ),
        ]
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
