//! Changes of what is said about disks and volumes: decided at once, and then written on the storage for
//! others to read, until a worker confirmed it. Nobody waits for that.

use crate::apply::Turn;
use crate::catalog::Disk;
use crate::projections::Projection;
use crate::state::State;
use crate::txns::Outcome;
use crate::txns::Phase;
use crate::txns::Spec;
use crate::txns::Txn;
use crate::work::Attempt;
use crate::work::Owner;
use crate::work::Work;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::VolumeId;
use sdm_proto::refusal::Refusal;

/// What attempts are refused with that found nothing to write `.meta` into.
const NOTHING_THERE: [&str; 3] = ["DOMAIN_MISSING", "PLACEMENT_MISSING", "VOLUME_MISSING"];

impl State {
    /// A transaction that changes words alone: it is committed with the entry that begins it.
    pub(super) fn commit_words(&mut self, turn: &mut Turn, mut txn: Txn) {
        let (disk, said) = match txn.spec.clone() {
            Spec::RenameDisk { disk, name } => {
                let said = format!("its name is {name}");
                self.change_disk(turn, disk, |row| row.name = name);
                (disk, said)
            }
            Spec::DescribeDisk { disk, description } => {
                self.change_disk(turn, disk, |row| row.description = description);
                (disk, "it is described".to_owned())
            }
            Spec::SetVolumeLegality { disk, volume, legal } => {
                self.set_legality(turn, volume, legal);
                (disk, format!("volume {volume} is {}", if legal { "legal" } else { "illegal" }))
            }
            Spec::RepairProjection { disk } => {
                self.change_disk(turn, disk, |_| {});
                (disk, "what the storage says is written anew".to_owned())
            }
            _ => return,
        };
        let row = self.disks.get(&disk);
        let outcome = Outcome {
            domain: row.and_then(|row| self.domain_of(row)).map(|domain| domain.id),
            disk: Some(disk),
            placement: row.map(|row| row.placement),
            volumes: row.map(|row| row.volumes.clone()).unwrap_or_default(),
            ..Outcome::default()
        };
        self.note(&mut txn, format!("committed: {said}; the storage says so as soon as a worker wrote it"));
        self.end(turn, txn, Phase::Committed(outcome));
    }

    fn change_disk(&mut self, turn: &mut Turn, id: DiskId, change: impl FnOnce(&mut Disk)) {
        let Some(mut disk) = self.disks.get(&id).cloned() else { return };
        change(&mut disk);
        let placement = disk.placement;
        self.put_disk(disk);
        self.project(turn, placement);
    }

    fn set_legality(&mut self, turn: &mut Turn, id: VolumeId, legal: bool) {
        let Some(mut row) = self.volumes.get(&id).cloned() else { return };
        row.legal = legal;
        self.put_volume(row);
        let users: Vec<PlacementId> =
            self.users_of(id).filter_map(|disk| self.disks.get(&disk)).map(|disk| disk.placement).collect();
        for placement in users {
            self.project(turn, placement);
        }
    }

    /// What this placement says on the storage is to be written anew.
    pub(crate) fn project(&mut self, turn: &mut Turn, placement: PlacementId) {
        self.want_projection(placement);
        self.assign(turn, Owner::Projection(placement));
    }

    /// Of what a transaction changed in place the storage may tell already, though the catalog never will: an attempt may
    /// have come as far as `.meta` before it broke off.
    pub(super) fn project_given_up(&mut self, turn: &mut Turn, txn: &Txn, refusal: &Refusal) {
        // There is no `.meta` to write anew, and an order for it would fail for ever.
        if NOTHING_THERE.contains(&refusal.reason.as_str()) {
            return;
        }
        let disk = match txn.spec {
            Spec::ResizeDisk { disk, .. } | Spec::DeleteSnapshot { disk, in_place: true, .. } => disk,
            _ => return,
        };
        let began = self.work_of(Owner::Step(txn.id)).is_some_and(|work| work.attempts > 0);
        if let Some(placement) = self.disks.get(&disk).map(|row| row.placement).filter(|_| began) {
            self.project(turn, placement);
        }
    }

    /// The same, by the next entry: a placement in the trash is in the way of nothing else.
    pub(crate) fn want_projection(&mut self, placement: PlacementId) {
        let now = self.meta.clock_ms;
        if self.meta.feature_level < 2 || self.domain_of_placement(placement).is_none() {
            return;
        }
        let fresh = Projection {
            placement,
            wanted_index: self.meta.applied_index,
            since_ms: now,
            work: Work { unassigned_since_ms: now, retry_at_ms: now, ..Work::default() },
        };
        let projection = match self.projections.get(&placement) {
            Some(known) => Projection { wanted_index: fresh.wanted_index, ..known.clone() },
            None => fresh,
        };
        self.put_projection(projection);
    }

    /// A worker wrote what a placement is to say, as it was when it was told, or later.
    pub(super) fn projected(&mut self, turn: &mut Turn, id: PlacementId, attempt: &Attempt) {
        let Some(wanted_index) = self.projections.get(&id).map(|row| row.wanted_index) else { return };
        let (owner, domain) = (Owner::Projection(id), self.domain_of_placement(id));
        if self.is_written_for_good(owner, attempt, wanted_index) {
            self.remove_projection(id);
        } else if self.work_of(owner).is_some_and(|work| work.retry_at_ms <= self.meta.clock_ms) {
            // It changed once more meanwhile, or somebody is to say that it is over.
            self.assign(turn, owner);
            return;
        }
        self.assign_next_projection(turn, domain);
    }

    fn assign_next_projection(&mut self, turn: &mut Turn, domain: Option<DomainId>) {
        let Some(domain) = domain else { return };
        let next = self.waiting_projections(domain).next();
        if let Some(next) = next {
            self.assign(turn, Owner::Projection(next));
        }
    }

    /// Placements of a domain whose projection has no worker and is not in a pause, by rising id.
    fn waiting_projections(&self, domain: DomainId) -> impl Iterator<Item = PlacementId> + '_ {
        let now = self.meta.clock_ms;
        let from = self.index.waiting_projections.range((domain, PlacementId::default())..);
        let own = from.take_while(move |(of, _)| *of == domain).map(|(_, id)| *id);
        own.filter(move |id| self.projections.get(id).is_some_and(|row| row.work.retry_at_ms <= now))
    }

    /// Gives projections to workers where there are some, at most so many in all. Each that is done calls the next one
    /// of its domain.
    pub(crate) fn assign_projections(&mut self, turn: &mut Turn, most: usize) {
        let mut left = most;
        if self.index.waiting_projections.is_empty() {
            return;
        }
        let domains: Vec<DomainId> = self.domains.values().map(|domain| domain.id).collect();
        for domain in domains {
            let waiting: Vec<PlacementId> = self.waiting_projections(domain).take(left).collect();
            if waiting.is_empty() || self.check_reachable(domain).is_err() {
                continue;
            }
            for id in waiting {
                left -= usize::from(self.assign(turn, Owner::Projection(id)));
            }
        }
    }
}
