//! What lies in each domain, what is promised there, and which workers reach it: derived from the
//! tables, never stored, so that nobody has to walk over all disks, jobs or workers to know.

use crate::catalog::Placement;
use crate::jobs::Job;
use crate::workers::Worker;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::WorkerId;

/// A domain's share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// Placements in it.
    pub placements: u64,
    /// Bytes that jobs reserved there and have not made durable yet.
    pub promised_bytes: u64,
}

/// Of all domains.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Contents {
    shares: imbl::OrdMap<DomainId, Share>,
    /// By disk, for a list of a domain's disks.
    placed: imbl::OrdSet<(DomainId, DiskId, PlacementId)>,
    /// Live workers that reach it.
    reached_by: imbl::OrdMap<DomainId, imbl::OrdSet<WorkerId>>,
    /// Live workers.
    live: imbl::OrdSet<WorkerId>,
}

/// What a job still takes of its target.
fn promise(job: &Job) -> Option<(DomainId, u64)> {
    let durable = job.work.attempt.as_ref().map_or(0, |attempt| attempt.checkpoint_bytes);
    Some((job.target?, job.reserved_bytes.saturating_sub(durable)))
}

fn reached(worker: &Worker) -> impl Iterator<Item = DomainId> + '_ {
    let live = worker.is_live();
    worker.domains.iter().filter(move |(_, sight)| live && sight.error.is_none()).map(|(id, _)| *id)
}

impl Contents {
    /// Of this domain.
    pub(crate) fn share(&self, domain: DomainId) -> Share {
        self.shares.get(&domain).copied().unwrap_or_default()
    }

    /// The disks in a domain, from this one on, by rising id.
    pub(crate) fn disks_from(&self, domain: DomainId, first: DiskId) -> impl Iterator<Item = DiskId> + '_ {
        let from = (domain, first, PlacementId::default());
        self.placed.range(from..).take_while(move |(of, _, _)| *of == domain).map(|(_, disk, _)| *disk)
    }

    /// The live workers that reach a domain, by rising id.
    pub(crate) fn reaching(&self, domain: DomainId) -> impl Iterator<Item = WorkerId> + '_ {
        self.reached_by.get(&domain).into_iter().flatten().copied()
    }

    /// The live workers, by rising id.
    pub(crate) fn live(&self) -> impl ExactSizeIterator<Item = WorkerId> + '_ {
        self.live.iter().copied()
    }

    fn change(&mut self, domain: DomainId, change: impl FnOnce(&mut Share)) {
        let mut share = self.share(domain);
        change(&mut share);
        if share == Share::default() {
            self.shares.remove(&domain);
        } else {
            self.shares.insert(domain, share);
        }
    }

    pub(crate) fn place(&mut self, placement: &Placement) {
        if self.placed.insert((placement.domain, placement.disk, placement.id)).is_none() {
            self.change(placement.domain, |share| share.placements += 1);
        }
    }

    pub(crate) fn unplace(&mut self, placement: &Placement) {
        if self.placed.remove(&(placement.domain, placement.disk, placement.id)).is_some() {
            self.change(placement.domain, |share| share.placements -= 1);
        }
    }

    pub(crate) fn promise(&mut self, job: &Job) {
        if let Some((domain, bytes)) = promise(job) {
            self.change(domain, |share| share.promised_bytes = share.promised_bytes.wrapping_add(bytes));
        }
    }

    pub(crate) fn unpromise(&mut self, job: &Job) {
        if let Some((domain, bytes)) = promise(job) {
            self.change(domain, |share| share.promised_bytes = share.promised_bytes.wrapping_sub(bytes));
        }
    }

    pub(crate) fn arrive(&mut self, worker: &Worker) {
        let id = worker.identity.id;
        if worker.is_live() {
            self.live.insert(id);
        }
        for domain in reached(worker) {
            self.reached_by.entry(domain).or_default().insert(id);
        }
    }

    pub(crate) fn leave(&mut self, worker: &Worker) {
        let id = worker.identity.id;
        self.live.remove(&id);
        for domain in reached(worker) {
            let mut others = self.reached_by.remove(&domain).unwrap_or_default();
            others.remove(&id);
            if !others.is_empty() {
                self.reached_by.insert(domain, others);
            }
        }
    }
}
