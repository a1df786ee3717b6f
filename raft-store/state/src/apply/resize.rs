//! Resizing: the one change of a disk that is made in its published files, because a guest's bytes must
//! not be copied for it. It can only grow, so doing it twice changes nothing.

use crate::apply::Turn;
use crate::catalog::Format;
use crate::garbage::Kind;
use crate::locks::BLOCKERS_SHOWN;
use crate::shape::Shape;
use crate::state::State;
use crate::txns::Outcome;
use crate::txns::Phase;
use crate::txns::Spec;
use crate::txns::Txn;
use crate::work::VolumeResult;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::TxnId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

impl State {
    pub(crate) fn shape_of_resize(&self, disk: DiskId, size: u64) -> Shape {
        let row = self.disks.get(&disk);
        let Some(domain) = row.and_then(|row| self.domain_of(row)) else { return Shape::Instant };
        let leaf = self.chain(disk).last();
        // All that is not preallocated takes space only when a guest writes it.
        let preallocated = leaf.filter(|leaf| leaf.preallocated && leaf.format == Format::Raw);
        let more_bytes = preallocated.map_or(0, |leaf| size.saturating_sub(leaf.virtual_size));
        Shape::InPlace { domain: domain.id, more_bytes, builds: false }
    }

    /// From the first attempt on the file is another than the one whose hash is known.
    pub(super) fn forget_hash_of_written(&mut self, txn: &Txn) {
        let written = match txn.spec {
            Spec::ResizeDisk { disk, .. } => self.chain(disk).last(),
            Spec::DeleteSnapshot { disk, volume, in_place: true } => self.child_in_chain(disk, volume),
            _ => None,
        };
        if let Some(mut row) = written.filter(|row| row.blake3.is_some()).cloned() {
            row.blake3 = None;
            self.put_volume(row);
        }
    }

    /// What is written was linked to the end: an older folder of the disk that somebody holds is not deleted by itself.
    pub(super) fn name_held(&self, txn: TxnId, refusal: Refusal) -> Refusal {
        let disk = match self.txns.get(&txn).map(|txn| &txn.spec) {
            Some(Spec::ResizeDisk { disk, .. } | Spec::DeleteSnapshot { disk, in_place: true, .. }) => disk,
            _ => return refusal,
        };
        let Some(domain) = self.disks.get(disk).and_then(|row| self.domain_of(row)) else { return refusal };
        let held: Vec<_> = self
            .garbage_in(domain.id)
            .filter(|row| row.held.is_some() && row.kind == Kind::Superseded && self.was_of(row.txn, *disk))
            .take(BLOCKERS_SHOWN)
            .collect();
        let Some(first) = held.first() else { return refusal };
        let hint = format!(
            "a superseded folder that is held keeps the volume linked: sdm gc unhold {}; then repeat under a new request id",
            first.id
        );
        held.iter().fold(refusal.hint(hint), |refusal, row| {
            let words = format!("held; {}; sdm gc unhold {}", row.evidence, row.id);
            refusal.blocker("garbage", row.id.to_string(), words)
        })
    }

    /// Whether a transaction gave this disk the placement after the one that it superseded; of one that is forgotten
    /// nobody can say that it did not.
    fn was_of(&self, txn: TxnId, disk: DiskId) -> bool {
        let Some(txn) = self.txns.get(&txn) else { return true };
        let made = matches!(&txn.phase, Phase::Committed(outcome) if outcome.disk == Some(disk));
        made || matches!(txn.spec, Spec::CloneLinked { disk: source, .. } if source == disk)
    }

    /// What the worker reported must be at least what was wanted.
    pub(super) fn check_grown(&self, size: u64, volumes: &[VolumeResult]) -> Result<(), Refusal> {
        match volumes.iter().find(|volume| volume.virtual_size < size) {
            None => Ok(()),
            Some(short) => {
                let message = format!("the leaf has {} bytes where {size} were wanted", short.virtual_size);
                Err(Refusal::new(Class::Internal, "WRONG_SIZE", message))
            }
        }
    }

    pub(super) fn commit_resize(&mut self, turn: &mut Turn, id: DiskId, volumes: &[VolumeResult]) -> Outcome {
        for result in volumes {
            let Some(mut row) = self.volumes.get(&result.volume).cloned() else { continue };
            row.virtual_size = result.virtual_size;
            row.file_size = result.file_size;
            row.allocated_bytes = result.allocated_bytes;
            row.blake3 = None;
            self.put_volume(row);
        }
        let Some(disk) = self.disks.get(&id) else { return Outcome::default() };
        let (placement, chain) = (disk.placement, disk.volumes.clone());
        let domain = self.domain_of(disk).map(|domain| domain.id);
        self.project(turn, placement);
        Outcome { domain, disk: Some(id), placement: Some(placement), volumes: chain, ..Outcome::default() }
    }
}
