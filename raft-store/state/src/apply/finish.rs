//! How transactions end: the commit converts the marker, an abort makes garbage of it, and both
//! release the locks in the same entry.

use crate::apply::Turn;
use crate::catalog::Disk;
use crate::catalog::Domain;
use crate::catalog::DomainState;
use crate::catalog::Format;
use crate::catalog::Placement;
use crate::catalog::Volume;
use crate::garbage::Garbage;
use crate::garbage::Kind;
use crate::garbage::Place;
use crate::reply::Reply;
use crate::shape::Shape;
use crate::state::State;
use crate::txns::Outcome;
use crate::txns::Phase;
use crate::txns::Spec;
use crate::txns::Txn;
use crate::work::Attempt;
use crate::work::Owner;
use crate::work::VolumeResult;
use crate::work::Work;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;

impl State {
    /// Records the outcome. Locks, jobs and names must be dealt with already.
    pub(crate) fn finish(&mut self, mut txn: Txn, phase: Phase) {
        txn.phase = phase;
        txn.finished_ms = self.meta.clock_ms;
        txn.lock = None;
        txn.job = None;
        txn.fencing = None;
        txn.ending = None;
        self.put_txn(txn);
    }

    /// Ends a transaction: its job goes, its locks are released.
    pub(crate) fn end(&mut self, turn: &mut Turn, mut txn: Txn, phase: Phase) {
        if let Some(work) = self.work_of(Self::work_owner(&txn)) {
            txn.attempts = work.attempts;
            txn.last_error = work.last_error.clone();
        }
        if let Some(job) = txn.job {
            self.remove_job(job);
        }
        if let Some(lock) = txn.lock {
            self.give_back(turn, lock);
        }
        self.finish(txn, phase);
    }

    fn work_owner(txn: &Txn) -> Owner {
        txn.job.map_or(Owner::Step(txn.id), Owner::Job)
    }

    /// Aborts a running or waiting transaction; the source of a move or an export was never
    /// touched. `leaves_names` is false when the refusal proves that nothing was made.
    pub(crate) fn abort(&mut self, turn: &mut Turn, id: TxnId, refusal: Refusal, leaves_names: bool) {
        let Some(txn) = self.txns.get(&id).filter(|txn| !txn.phase.is_final()) else { return };
        if self.is_leaving_for(txn) {
            return;
        }
        let owner = Self::work_owner(txn);
        if txn.goes_only_forward() {
            return self.go_on(turn, id, owner, &refusal);
        }
        if self.writes_in_place(owner) {
            return self.end_later(id, refusal);
        }
        if self.work_of(owner).is_some_and(|work| work.pinned.is_some()) {
            self.close_attempt(turn, owner, &refusal.message, leaves_names);
            return self.end_later(id, refusal);
        }
        self.close_attempt(turn, owner, &format!("transaction {id} was aborted: {}", refusal.message), leaves_names);
        let Some(mut txn) = self.txns.get(&id).cloned() else { return };
        if let Some(domain) = self.arriving_for(&txn) {
            return self.return_domain(turn, txn, domain, refusal);
        }
        let waiting = matches!(txn.phase, Phase::Waiting { .. });
        self.note(&mut txn, format!("{}: {refusal}", if waiting { "refused" } else { "aborted" }));
        self.discard_built(turn, &mut txn, &format!("transaction {id} was aborted: {}", refusal.message));
        self.project_given_up(turn, &txn, &refusal);
        let phase = if waiting { Phase::Refused(refusal) } else { Phase::Aborted(refusal) };
        self.end(turn, txn, phase);
    }

    pub(super) fn abort_asked(&mut self, turn: &mut Turn, id: TxnId, reason: &str) -> Result<Reply, Refusal> {
        let unknown = || {
            Refusal::new(Class::NotFound, "TXN_NOT_FOUND", format!("there is no transaction {id}")).hint("sdm txn list")
        };
        let txn = self.txns.get(&id).ok_or_else(unknown)?;
        if let Phase::Committed(_) = txn.phase {
            let message = format!("transaction {id} is committed already: {}", txn.summary);
            return Err(Refusal::new(Class::Precondition, "TXN_COMMITTED", message).hint("undo it with its opposite"));
        }
        self.refuse_way_back(txn)?;
        if self.is_leaving_for(txn) {
            let message = format!("transaction {id} is done but for the last rows: {}", txn.summary);
            return Err(Refusal::new(Class::Precondition, "TXN_ENDING", message).hint(format!("sdm txn watch {id}")));
        }
        let refusal = Refusal::new(Class::Aborted, "ABORTED", format!("aborted on request: {reason}"));
        if txn.goes_only_forward() {
            self.end_whatever_is_written(turn, id, refusal);
        } else {
            self.abort(turn, id, refusal, true);
        }
        Ok(Reply::Txn(id))
    }

    /// An attempt said all is done. The commit checks once more that what it builds on still holds.
    pub(super) fn commit(
        &mut self,
        turn: &mut Turn,
        id: TxnId,
        attempt: &Attempt,
        volumes: &[VolumeResult],
        bytes: u64,
    ) {
        let Some(txn) = self.txns.get(&id).cloned() else { return };
        if let Some(domain) = self.arriving_for(&txn).filter(|_| txn.gives_back()) {
            return self.given_back(turn, txn, attempt, domain);
        }
        if let Err(refusal) = self.check_commit(&txn, volumes) {
            return self.abort(turn, id, refusal, true);
        }
        if txn.is_merge_in_place() && txn.stage == 0 {
            return self.merged_in_place(turn, txn, attempt, volumes);
        }
        if txn.stage + 1 < self.stages(&txn.spec) {
            return self.next_stage(turn, txn, attempt, volumes);
        }
        if let Spec::Domain(change) = txn.spec.clone() {
            return self.handed_over(turn, txn, attempt, &change);
        }
        let mut txn = txn;
        let outcome = match txn.spec.clone() {
            Spec::CreateDomain { name, path, local } => self.commit_domain(id, attempt, name, path, local),
            Spec::ResizeDisk { disk, .. } => self.commit_resize(turn, disk, volumes),
            _ if self.blueprint(&txn).is_some() => self.commit_built(turn, &mut txn, attempt, volumes),
            Spec::ImportDisk { name, domain, format, .. } => {
                self.commit_new_disk(&txn, attempt, name, domain, format, volumes)
            }
            Spec::MoveDisk { disk, to } => self.commit_move(turn, id, attempt, disk, to, volumes),
            Spec::ExportDisk { disk } | Spec::ExportChain { disk, .. } => {
                Outcome { disk: Some(disk), ..Outcome::default() }
            }
            Spec::Noop { .. } => Outcome::default(),
            _ => return,
        };
        let blake3 = volumes.last().and_then(|volume| volume.blake3);
        let outcome = Outcome { bytes, blake3, ..outcome };
        // The winning attempt is over: nothing is assigned any more, and its names stay.
        self.clear_attempt(&mut txn);
        self.note(&mut txn, format!("committed attempt {} ({})", attempt.number, attempt.token));
        self.end(turn, txn, Phase::Committed(outcome));
    }

    fn clear_attempt(&mut self, txn: &mut Txn) {
        if let Some(step) = &mut txn.step {
            step.attempt = None;
        }
    }

    fn check_commit(&self, txn: &Txn, volumes: &[VolumeResult]) -> Result<(), Refusal> {
        let held = txn.lock.and_then(|id| self.locks.get(&id)).is_some_and(|lock| lock.granted.is_some());
        if !held {
            return Err(Refusal::new(Class::Internal, "LOCKS_LOST", "its locks are not held any more"));
        }
        // What was written into a published file or a domain's own ones stands there: only the catalog can follow.
        let stands = matches!(txn.spec, Spec::Domain(_)) || matches!(self.shape(txn), Shape::InPlace { .. });
        if !stands {
            self.check_vouched(txn)?;
        }
        // The catalog can only have changed under our locks through a defect; what would be wrong
        // then is found here, before anything becomes visible.
        self.plan(&txn.spec)?;
        let Some(marker) = &txn.marker else { return Ok(()) };
        let reported: Vec<_> = volumes.iter().map(|volume| volume.volume).collect();
        if reported != marker.volumes {
            let message = format!("the worker reported volumes {reported:?} where {:?} were wanted", marker.volumes);
            return Err(Refusal::new(Class::Internal, "WRONG_VOLUMES", message));
        }
        self.check_sizes(&txn.spec, volumes)?;
        if let Some(blueprint) = self.blueprint(txn).filter(|_| self.meta.feature_level >= 2) {
            return self.check_layers(&blueprint, volumes);
        }
        if let Spec::ResizeDisk { size, .. } = txn.spec {
            return self.check_grown(size, volumes);
        }
        if let Spec::ExportChain { disk, snapshot, .. } = txn.spec
            && self.seen_chain(disk, snapshot).len() > 1
        {
            // What it hashed is the image that it made of the chain, which has no hash of its own.
            return Ok(());
        }
        for result in volumes {
            let known = self.volumes.get(&result.volume).and_then(|volume| volume.blake3);
            if let (Some(known), Some(seen)) = (known, result.blake3)
                && known != seen
            {
                let message = format!("volume {} does not have the hash that is recorded for it", result.volume);
                return Err(Refusal::new(Class::Internal, "HASH_MISMATCH", message)
                    .hint("its bytes changed on the storage; the source was left as it is"));
            }
        }
        Ok(())
    }

    /// What arrived must be what was announced: space was promised, and limits were checked, for that.
    fn check_sizes(&self, spec: &Spec, volumes: &[VolumeResult]) -> Result<(), Refusal> {
        let most = self.meta.settings.disk_bytes_max;
        if let Some(large) = volumes.iter().find(|volume| volume.virtual_size > most) {
            let message =
                format!("a virtual size of {} bytes is more than a disk may have ({most})", large.virtual_size);
            return Err(Refusal::new(Class::Invalid, "SIZE_TOO_LARGE", message));
        }
        let Spec::ImportDisk { format, file_size, .. } = spec else { return Ok(()) };
        for volume in volumes {
            // A raw file is stored rounded up; its own length is then what a guest sees.
            let arrived = if *format == Format::Raw { volume.virtual_size } else { volume.file_size };
            if arrived != *file_size {
                let message = format!("{arrived} bytes arrived where {file_size} were announced");
                return Err(Refusal::new(Class::Invalid, "SIZE_MISMATCH", message)
                    .hint("the file changed while it was sent; import it again"));
            }
        }
        Ok(())
    }

    fn commit_domain(&mut self, txn: TxnId, attempt: &Attempt, name: Name, path: String, local: bool) -> Outcome {
        let id = attempt.token.domain(self.cluster_id());
        self.put_domain(Domain {
            id,
            name,
            path,
            local,
            created_by: txn,
            created_ms: self.meta.clock_ms,
            adopted_epoch: None,
            state: DomainState::Active,
            describing: None,
            retention_ms: None,
        });
        self.see_new_domain(attempt.worker, id);
        Outcome { domain: Some(id), ..Outcome::default() }
    }

    fn commit_new_disk(
        &mut self,
        txn: &Txn,
        attempt: &Attempt,
        name: Name,
        domain: DomainId,
        format: Format,
        volumes: &[VolumeResult],
    ) -> Outcome {
        let Some(disk) = txn.marker.as_ref().and_then(|marker| marker.disk) else { return Outcome::default() };
        let placement = attempt.token.placement(self.cluster_id());
        let mut parent = None;
        for result in volumes {
            self.put_volume(Volume {
                id: result.volume,
                disk,
                parent,
                format,
                virtual_size: result.virtual_size,
                file_size: result.file_size,
                allocated_bytes: result.allocated_bytes,
                legal: true,
                blake3: result.blake3,
                preallocated: false,
                snapshot: None,
            });
            parent = Some(result.volume);
        }
        let chain: Vec<_> = volumes.iter().map(|result| result.volume).collect();
        self.put_placement(Placement { id: placement, domain, disk, token: attempt.token, txn: txn.id, cluster: None });
        self.put_disk(Disk {
            id: disk,
            name,
            placement,
            volumes: chain.clone(),
            created_by: txn.id,
            created_ms: self.meta.clock_ms,
            description: String::new(),
            template: false,
        });
        Outcome {
            domain: Some(domain),
            disk: Some(disk),
            placement: Some(placement),
            volumes: chain,
            ..Outcome::default()
        }
    }

    fn commit_move(
        &mut self,
        turn: &mut Turn,
        txn: TxnId,
        attempt: &Attempt,
        id: DiskId,
        to: DomainId,
        volumes: &[VolumeResult],
    ) -> Outcome {
        let Some(mut disk) = self.disks.get(&id).cloned() else { return Outcome::default() };
        let old = self.placements.get(&disk.placement).cloned();
        let placement = attempt.token.placement(self.cluster_id());
        for result in volumes {
            let Some(mut volume) = self.volumes.get(&result.volume).cloned() else { continue };
            volume.file_size = result.file_size;
            volume.allocated_bytes = result.allocated_bytes;
            volume.blake3 = result.blake3.or(volume.blake3);
            self.put_volume(volume);
        }
        disk.placement = placement;
        let chain = disk.volumes.clone();
        self.put_placement(Placement { id: placement, domain: to, disk: id, token: attempt.token, txn, cluster: None });
        self.put_disk(disk);
        if let Some(old) = old {
            self.discard(turn, &old, txn, Kind::Superseded, "the disk was moved away", 0);
            for placement in self.only_sharers(old.domain, id, &chain) {
                self.project(turn, placement);
            }
        }
        Outcome { domain: Some(to), disk: Some(id), placement: Some(placement), volumes: chain, ..Outcome::default() }
    }

    /// A delete needs no worker to be decided: the disk is gone with this entry, its placement is
    /// garbage, and the collector has it deleted when its retention is over.
    pub(super) fn commit_delete(&mut self, turn: &mut Turn, mut txn: Txn, id: DiskId) {
        let Some(disk) = self.disks.get(&id).cloned() else { return };
        let domain = self.domain_of(&disk).map(|domain| domain.id);
        let retention = domain.map_or(0, |domain| self.retention_ms(domain));
        let trash = self.trashed(&disk, retention);
        let mut outcome = Outcome { domain, disk: Some(id), volumes: disk.volumes.clone(), ..Outcome::default() };
        if let Some(placement) = self.placements.get(&disk.placement).cloned() {
            let told = self
                .projections
                .get(&placement.id)
                .filter(|row| row.work.attempt.is_some() || !row.work.late.is_empty())
                .cloned();
            let id = self.discard(turn, &placement, txn.id, Kind::Deleted, "the disk was deleted", retention);
            if let Some(mut row) = id.and_then(|id| self.garbage.get(&id)).filter(|_| trash.is_some()).cloned() {
                row.trash = trash;
                (outcome.trash, outcome.kept_ms) = (Some(row.id), Some(retention));
                self.put_garbage(row.clone());
                // Two attempts would write the same files: the next one goes out when this one answered or is given up.
                if let Some(told) = told {
                    self.put_projection(told);
                }
                self.project_trash(&row);
            }
        }
        self.remove_disk(id);
        for placement in domain.map(|domain| self.only_sharers(domain, id, &disk.volumes)).unwrap_or_default() {
            self.project(turn, placement);
        }
        self.forget_unused(&disk.volumes);
        self.note(
            &mut txn,
            match outcome.trash {
                None => "committed: the disk is gone, its bytes are garbage".to_owned(),
                Some(trash) => format!(
                    "committed: the disk is in the trash, and can be put back for {} s: sdm gc trash restore {trash}",
                    retention / 1000
                ),
            },
        );
        self.end(turn, txn, Phase::Committed(outcome));
    }

    /// Takes a placement out of the catalog and makes garbage of it.
    pub(super) fn discard(
        &mut self,
        turn: &mut Turn,
        placement: &Placement,
        txn: TxnId,
        kind: Kind,
        why: &str,
        retention_ms: u64,
    ) -> Option<Token> {
        let domain = self.domains.get(&placement.domain)?;
        let place = Place { domain: domain.id, path: domain.path.clone(), local: domain.local, whole_domain: false };
        let bytes = self.own_bytes(placement, |_| false);
        self.remove_projection(placement.id);
        self.remove_placement(placement.id);
        let id = turn.next_token(self);
        self.put_garbage(Garbage {
            id,
            kind,
            place,
            placement: Some(placement.id),
            made_by: placement.token,
            // The cluster that made the placement: the token alone derives its name in this one only.
            cluster: self.maker_of(placement),
            txn,
            evidence: format!("{why} (transaction {txn})"),
            bytes,
            since_ms: self.meta.clock_ms,
            due_ms: self.meta.clock_ms.saturating_add(retention_ms),
            work: Work::default(),
            trash: None,
            held: None,
            doomed: None,
            emptied: false,
        });
        Some(id)
    }
}
