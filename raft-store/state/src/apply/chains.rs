//! Commits of placements that were built by layers: the new placement wins, the old one is garbage, the
//! rows of the volumes say what lies there now. And the stages before the last, which wait for it.

use crate::apply::Turn;
use crate::assignments::From;
use crate::blueprint::Blueprint;
use crate::catalog::Disk;
use crate::catalog::Placement;
use crate::catalog::Volume;
use crate::garbage::Garbage;
use crate::garbage::Kind;
use crate::garbage::Place;
use crate::state::State;
use crate::txns::Built;
use crate::txns::Outcome;
use crate::txns::Phase;
use crate::txns::Spec;
use crate::txns::Txn;
use crate::volume_users::VolumeUser;
use crate::work::Attempt;
use crate::work::VolumeResult;
use crate::work::Work;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::VolumeId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;

impl State {
    /// A stage is done that is not the last: what it built waits, under its name, for the commit of all.
    pub(super) fn next_stage(&mut self, turn: &mut Turn, mut txn: Txn, attempt: &Attempt, volumes: &[VolumeResult]) {
        let (Some(blueprint), Some(marker)) = (self.blueprint(&txn), txn.marker.take()) else { return };
        let placement = attempt.token.placement(self.cluster_id());
        let built =
            Built { domain: blueprint.target, placement, token: attempt.token, marker, volumes: volumes.to_vec() };
        txn.built.push(built);
        txn.stage += 1;
        self.note(
            &mut txn,
            format!("attempt {} ({}) built {placement}; on to the next one", attempt.number, attempt.token),
        );
        if let Some(job) = txn.job.take() {
            self.remove_job(job);
        }
        txn.step = None;
        txn.marker = self.marker(txn.id, &txn.spec, txn.stage);
        self.start_stage(turn, txn);
    }

    /// What earlier stages of an aborted transaction built is garbage like all that did not win.
    pub(super) fn discard_built(&mut self, turn: &mut Turn, txn: &mut Txn, evidence: &str) {
        for built in std::mem::take(&mut txn.built) {
            let Some(domain) = self.domains.get(&built.domain) else { continue };
            let place =
                Place { domain: domain.id, path: domain.path.clone(), local: domain.local, whole_domain: false };
            self.put_garbage(Garbage {
                id: turn.next_token(self),
                kind: Kind::ClosedAttempt,
                place,
                placement: Some(built.placement),
                made_by: built.token,
                cluster: None,
                txn: txn.id,
                evidence: evidence.to_owned(),
                bytes: 0,
                since_ms: self.meta.clock_ms,
                due_ms: self.meta.clock_ms,
                work: Work::default(),
                trash: None,
                held: None,
                doomed: None,
                emptied: false,
            });
        }
    }

    /// What the worker reported of a placement that was built by layers, against what was wanted.
    pub(super) fn check_layers(&self, blueprint: &Blueprint, volumes: &[VolumeResult]) -> Result<(), Refusal> {
        for (layer, result) in blueprint.layers.iter().zip(volumes) {
            let source = match layer.from {
                From::Link => Some(result.volume),
                From::Bytes(volume) => Some(volume),
                From::Fresh | From::Flatten(_) => None,
            };
            let known = source.and_then(|id| self.volumes.get(&id)).and_then(|row| row.blake3);
            if let (Some(known), Some(seen), Some(id)) = (known, result.blake3, source)
                && known != seen
            {
                let message = format!("volume {id} does not have the hash that is recorded for it");
                return Err(Refusal::new(Class::Internal, "HASH_MISMATCH", message)
                    .hint("its bytes changed on the storage; the source was left as it is"));
            }
            // A child must not end before its parent, and a guest must not lose the end of its disk.
            if result.virtual_size < layer.volume.virtual_size {
                let message = format!(
                    "volume {} was made with {} bytes where {} were wanted",
                    result.volume, result.virtual_size, layer.volume.virtual_size
                );
                return Err(Refusal::new(Class::Internal, "WRONG_SIZE", message));
            }
        }
        Ok(())
    }

    /// All that the transaction's stages built becomes visible at once.
    pub(super) fn commit_built(
        &mut self,
        turn: &mut Turn,
        txn: &mut Txn,
        attempt: &Attempt,
        volumes: &[VolumeResult],
    ) -> Outcome {
        let mut all: Vec<(Blueprint, Token, Vec<VolumeResult>)> = Vec::new();
        for (stage, built) in (0..).zip(std::mem::take(&mut txn.built)) {
            let earlier = Txn { stage, marker: Some(built.marker), ..txn.clone() };
            all.extend(self.blueprint(&earlier).map(|blueprint| (blueprint, built.token, built.volumes)));
        }
        all.extend(self.blueprint(txn).map(|blueprint| (blueprint, attempt.token, volumes.to_vec())));
        let mut outcome = Outcome::default();
        for (blueprint, token, results) in all {
            outcome = self.put_built(turn, txn, &blueprint, token, &results);
        }
        outcome
    }

    fn put_built(
        &mut self,
        turn: &mut Turn,
        txn: &Txn,
        blueprint: &Blueprint,
        token: Token,
        results: &[VolumeResult],
    ) -> Outcome {
        let placement = token.placement(self.cluster_id());
        let known = self.disks.get(&blueprint.disk).cloned();
        let old = known.as_ref().and_then(|disk| self.placements.get(&disk.placement)).cloned();
        let linked = |id: &VolumeId| {
            blueprint.layers.iter().any(|layer| layer.volume.id == *id && matches!(layer.from, From::Link))
        };
        let freed = old.as_ref().map_or(0, |old| self.own_bytes(old, linked));
        for (layer, result) in blueprint.layers.iter().zip(results) {
            let mut row = layer.volume.clone();
            row.file_size = result.file_size;
            row.allocated_bytes = result.allocated_bytes;
            if !matches!(layer.from, From::Link) {
                row.virtual_size = result.virtual_size;
            }
            row.blake3 = result.blake3.or(row.blake3);
            self.put_volume(row);
        }
        let volumes: Vec<VolumeId> = blueprint.layers.iter().map(|layer| layer.volume.id).collect();
        let before = known.as_ref().map(|disk| disk.volumes.clone()).unwrap_or_default();
        let (domain, disk) = (blueprint.target, blueprint.disk);
        self.put_placement(Placement { id: placement, domain, disk, token, txn: txn.id, cluster: None });
        let row = match known {
            Some(known) => Disk { placement, volumes: volumes.clone(), ..known },
            None => Disk {
                id: disk,
                name: blueprint.name.clone(),
                placement,
                volumes: volumes.clone(),
                created_by: txn.id,
                created_ms: self.meta.clock_ms,
                description: blueprint.description.clone(),
                template: blueprint.template,
            },
        };
        let is_new = !self.disks.contains(&disk);
        self.put_disk(row);
        if is_new {
            // What it links is shared from now on, and the other folder is to say so.
            for placement in self.only_sharers(domain, disk, &volumes) {
                self.project(turn, placement);
            }
        }
        if let Some(old) = old {
            let id = self.discard(turn, &old, txn.id, Kind::Superseded, superseded_by(&txn.spec), 0);
            self.set_garbage_bytes(id, freed);
        }
        let dropped: Vec<VolumeId> = before.into_iter().filter(|id| !volumes.contains(id)).collect();
        for placement in self.only_sharers(domain, disk, &dropped) {
            self.project(turn, placement);
        }
        self.drop_volumes(disk, &dropped);
        Outcome { domain: Some(domain), disk: Some(disk), placement: Some(placement), volumes, ..Outcome::default() }
    }

    /// Commits a transaction that found nothing to do.
    pub(super) fn commit_unchanged(&mut self, turn: &mut Turn, mut txn: Txn, disk: DiskId) {
        let row = self.disks.get(&disk);
        let outcome = Outcome {
            domain: row.and_then(|row| self.domain_of(row)).map(|domain| domain.id),
            disk: Some(disk),
            placement: row.map(|row| row.placement),
            volumes: row.map(|row| row.volumes.clone()).unwrap_or_default(),
            ..Outcome::default()
        };
        self.note(&mut txn, "committed: nothing was to be done");
        self.end(turn, txn, Phase::Committed(outcome));
    }

    /// Volumes that left a disk's chain: those that nobody else uses are gone, the others are no snapshots of it any more.
    fn drop_volumes(&mut self, disk: DiskId, dropped: &[VolumeId]) {
        self.forget_unused(dropped);
        for id in dropped {
            let row = self.volumes.get(id).filter(|row| row.disk == disk && row.snapshot.is_some());
            if let Some(row) = row.cloned() {
                self.put_volume(Volume { snapshot: None, ..row });
            }
        }
    }

    fn set_garbage_bytes(&mut self, id: Option<Token>, bytes: u64) {
        if let Some(mut row) = id.and_then(|id| self.garbage.get(&id)).filter(|row| row.bytes != bytes).cloned() {
            row.bytes = bytes;
            self.put_garbage(row);
        }
    }

    /// Bytes of the disk's volumes that lie in this placement alone: neither linked from where `linked` says, nor from
    /// another disk's placement, or the trash, in the same domain.
    pub(super) fn own_bytes(&self, placement: &Placement, linked: impl Fn(&VolumeId) -> bool) -> u64 {
        let elsewhere = |id: VolumeId| {
            self.volume_users(id).any(|user| match user {
                VolumeUser::Disk(disk) if disk == placement.disk => false,
                VolumeUser::Disk(disk) => {
                    let other = self.disks.get(&disk).and_then(|disk| self.domain_of(disk));
                    other.is_some_and(|domain| domain.id == placement.domain)
                }
                VolumeUser::Trash(garbage) => {
                    self.garbage.get(&garbage).is_some_and(|row| row.place.domain == placement.domain)
                }
            })
        };
        let own = self.chain(placement.disk).filter(|row| !linked(&row.id) && !elsewhere(row.id));
        own.map(|row| row.allocated_bytes).fold(0, u64::saturating_add)
    }
}

/// Why a placement gave way, for its garbage.
fn superseded_by(spec: &Spec) -> &'static str {
    match spec {
        Spec::CreateSnapshot { .. } => "a snapshot was made",
        Spec::DeleteSnapshot { .. } => "a snapshot was deleted",
        Spec::RevertSnapshot { .. } => "the disk was reverted to a snapshot",
        Spec::ConvertDisk { .. } => "the disk was converted",
        Spec::FlattenDisk { .. } => "the disk was flattened",
        Spec::CloneLinked { .. } => "what the disk held was frozen for a clone",
        _ => "a newer placement replaced it",
    }
}
