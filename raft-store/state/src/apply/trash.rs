//! Trash: what stays of a deleted disk while it can be put back. Nothing of it changes on storage but
//! what the projection says of its legality; the folder stays where it is under its name.

use crate::apply::Turn;
use crate::catalog::Disk;
use crate::garbage::Garbage;
use crate::garbage::Trashed;
use crate::state::State;
use crate::txns::Outcome;
use crate::txns::Txn;
use sdm_proto::ids::DomainId;
use sdm_proto::names::Name;
use sdm_proto::token::Token;

/// The level that knows trash.
const FEATURE_LEVEL: u32 = 2;

impl State {
    /// How long disks that are deleted from this domain can be restored, in milliseconds.
    #[must_use]
    pub fn retention_ms(&self, domain: DomainId) -> u64 {
        let own = self.domains.get(&domain).and_then(|domain| domain.retention_ms);
        own.unwrap_or(self.meta.settings.retention_ms)
    }

    /// What a restore of this disk would need; asked before its rows go. None where nothing is kept.
    pub(super) fn trashed(&self, disk: &Disk, retention_ms: u64) -> Option<Box<Trashed>> {
        if self.meta.feature_level < FEATURE_LEVEL || retention_ms == 0 {
            return None;
        }
        let placement = self.placements.get(&disk.placement)?.clone();
        let volumes = self.chain(disk.id).cloned().collect();
        Some(Box::new(Trashed { disk: disk.clone(), volumes, placement }))
    }

    /// Puts a deleted disk back. The plan said that it can be.
    pub(super) fn restore_trash(&mut self, id: Token, name: Option<Name>) -> Outcome {
        let Some(row) = self.garbage.get(&id).cloned() else { return Outcome::default() };
        self.project_trash(&row);
        let Some(trashed) = row.trash else { return Outcome::default() };
        let Trashed { mut disk, placement, .. } = *trashed;
        if let Some(name) = name {
            disk.name = name;
        }
        let outcome = Outcome {
            domain: Some(placement.domain),
            disk: Some(disk.id),
            placement: Some(placement.id),
            volumes: disk.volumes.clone(),
            ..Outcome::default()
        };
        // The rows of its volumes stayed, because the trash used them; the disk does before that goes.
        self.put_placement(placement);
        self.put_disk(disk);
        self.remove_garbage(id);
        outcome
    }

    /// Makes trash due; what a worker can delete now is assigned in this entry, the collectors take the rest.
    pub(super) fn purge_trash(&mut self, turn: &mut Turn, txn: &mut Txn, ids: &[Token]) -> Outcome {
        let bytes = ids.iter().filter_map(|id| self.garbage.get(id)).map(|row| row.bytes).fold(0, u64::saturating_add);
        let (assigned, _) = self.make_due(turn, ids);
        self.note(txn, format!("{assigned} of {} deletions are assigned; nothing restores those", ids.len()));
        Outcome { bytes, ..Outcome::default() }
    }

    /// What lies on storage shall say that the disk is, or is not, one that may be used.
    /// Which of both follows from where its row is when a worker is told.
    pub(super) fn project_trash(&mut self, garbage: &Garbage) {
        if let Some(placement) = garbage.placement {
            self.want_projection(placement);
        }
    }
}
