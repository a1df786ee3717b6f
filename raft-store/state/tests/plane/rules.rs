//! Which refusals users may meet, by the book alone. Of what must be refused, one of the true reasons is
//! to be given; what need not be must not be refused for such a reason. Reasons that lie in the storage,
//! in workers, locks, limits or sharing are not the book's.

use super::book::Book;
use super::book::BookDisk;
use super::effects::host_of;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_state::attachments::Access;
use sdm_state::attachments::AttachmentChange;
use sdm_state::domain_change::DomainChange;
use sdm_state::garbage_order::GarbageOrder;
use sdm_state::txns::Spec;
use sdm_state::workers::WorkerChange;
use std::collections::BTreeSet;

/// Reasons that the book decides: none of them is given without being true.
pub const KNOWN: &[&str] = &[
    "DISK_EXISTS",
    "DISK_NOT_FOUND",
    "TEMPLATE_READ_ONLY",
    "ATTACHED",
    "ALREADY_ATTACHED",
    "NOT_ATTACHED",
    "HOST_NEEDED",
    "FENCE_REQUIRED",
    "SNAPSHOT_EXISTS",
    "NEWER_SNAPSHOTS",
    "NOT_LARGER",
    "ALREADY_THERE",
    "DOMAIN_EXISTS",
    "DOMAIN_NOT_FOUND",
    "DOMAIN_ACTIVE",
    "DOMAIN_IN_MAINTENANCE",
    "WORKER_NOT_FOUND",
    "WORKER_LOST",
    "WORKER_LIVE",
    "WORKER_DRAINING",
    "WRONG_SESSION",
    "SESSION_EXPIRED",
    "NOT_IN_TRASH",
    "GARBAGE_HELD",
];

/// The true reasons to refuse something.
#[derive(Debug, Default)]
pub struct Reasons {
    /// For one of these it must be.
    pub must: BTreeSet<&'static str>,
    /// For one of these it may be.
    pub may: BTreeSet<&'static str>,
}

impl Reasons {
    fn when(&mut self, holds: bool, reason: &'static str) {
        if holds {
            self.must.insert(reason);
        }
    }

    fn perhaps(&mut self, holds: bool, reason: &'static str) {
        if holds {
            self.may.insert(reason);
        }
    }
}

impl Book {
    /// Why it must be refused now; nothing when it may be done.
    pub fn reasons(&self, spec: &Spec) -> Reasons {
        let mut why = Reasons::default();
        let to = &mut why;
        match spec {
            Spec::CreateDomain { name, .. } => to.when(self.has_domain(name.as_str(), None), "DOMAIN_EXISTS"),
            Spec::CreateDisk { name, domain, .. } | Spec::ImportDisk { name, domain, .. } => {
                self.name_is_free(to, name.as_str());
                self.works_in(to, *domain);
            }
            Spec::ExportDisk { disk } | Spec::ExportChain { disk, .. } => _ = self.read(to, *disk),
            Spec::MoveDisk { disk, to: target } => {
                let row = self.changed(to, *disk, false);
                to.when(row.is_some_and(|row| row.domain == *target), "ALREADY_THERE");
                self.works_in(to, *target);
            }
            Spec::DeleteDisk { disk } => _ = self.changed(to, *disk, false),
            Spec::RenameDisk { disk, name } => {
                let row = self.known(to, *disk);
                if row.is_some_and(|row| row.name != name.as_str()) {
                    self.name_is_free(to, name.as_str());
                }
                self.disk_works(to, *disk);
            }
            Spec::DescribeDisk { disk, .. }
            | Spec::SetVolumeLegality { disk, .. }
            | Spec::RepairProjection { disk } => {
                self.known(to, *disk);
                self.disk_works(to, *disk);
            }
            Spec::ResizeDisk { disk, size } => {
                let row = self.changed(to, *disk, true);
                to.when(row.is_some_and(|row| *size <= row.size), "NOT_LARGER");
            }
            Spec::CopyDisk { disk, name, to: target, snapshot, .. } => {
                self.name_is_free(to, name.as_str());
                self.works_in(to, *target);
                self.disk_works(to, *disk);
                self.known(to, *disk);
                // What is frozen does not change under a writer.
                to.when(snapshot.is_none() && self.has_writer(*disk), "ATTACHED");
                to.perhaps(self.has_writer(*disk), "ATTACHED");
            }
            Spec::CloneLinked { disk, name, snapshot, .. } => {
                self.name_is_free(to, name.as_str());
                self.disk_works(to, *disk);
                let row = self.known(to, *disk);
                let freezes = snapshot.is_none() && row.is_some_and(|row| !row.template);
                let in_the_way = self.attached_to(*disk).any(|at| freezes || (at.write && snapshot.is_none()));
                to.when(in_the_way, "ATTACHED");
                to.perhaps(self.has_writer(*disk), "ATTACHED");
            }
            Spec::ConvertDisk { disk, .. } | Spec::DeleteSnapshot { disk, .. } | Spec::FlattenDisk { disk } => {
                self.changed(to, *disk, true);
            }
            Spec::CreateSnapshot { disk, name, .. } => {
                let row = self.changed(to, *disk, true);
                let taken = |row: &BookDisk| row.shots.iter().any(|shot| shot.name == name.as_str());
                to.when(row.is_some_and(taken), "SNAPSHOT_EXISTS");
            }
            Spec::RevertSnapshot { disk, volume, discard_newer } => {
                let row = self.changed(to, *disk, true);
                let place = |row: &BookDisk| row.shots.iter().position(|shot| shot.volume == *volume);
                let newer = row.is_some_and(|row| place(row).is_some_and(|at| at + 1 < row.shots.len()));
                to.when(newer && !discard_newer, "NEWER_SNAPSHOTS");
                // A layer without a name may lie beneath the snapshots, or over them.
                to.perhaps(row.is_some_and(|row| place(row).is_none() && !row.shots.is_empty()), "NEWER_SNAPSHOTS");
            }
            Spec::Domain(change) => self.domain_reasons(to, change),
            Spec::Attachment(change) => self.attachment_reasons(to, change),
            Spec::Worker(change) => self.worker_reasons(to, change),
            Spec::Garbage(order) => self.garbage_reasons(to, order),
            _ => {}
        }
        why
    }

    fn has_domain(&self, name: &str, but: Option<DomainId>) -> bool {
        self.domains.iter().any(|(id, domain)| domain.name == name && Some(*id) != but)
    }

    fn name_is_free(&self, why: &mut Reasons, name: &str) {
        why.when(self.disk_named(name).is_some(), "DISK_EXISTS");
    }

    fn works_in(&self, why: &mut Reasons, domain: DomainId) {
        match self.domains.get(&domain) {
            None => why.when(true, "DOMAIN_NOT_FOUND"),
            Some(row) => why.when(!row.active, "DOMAIN_IN_MAINTENANCE"),
        }
    }

    fn known(&self, why: &mut Reasons, disk: DiskId) -> Option<&BookDisk> {
        let row = self.disks.get(&disk);
        why.when(row.is_none(), "DISK_NOT_FOUND");
        row
    }

    fn disk_works(&self, why: &mut Reasons, disk: DiskId) {
        if let Some(row) = self.disks.get(&disk) {
            self.works_in(why, row.domain);
        }
    }

    /// A disk whose bytes are only read: a domain in maintenance and readers are no obstacle.
    fn read(&self, why: &mut Reasons, disk: DiskId) -> Option<&BookDisk> {
        let row = self.known(why, disk);
        why.when(self.has_writer(disk), "ATTACHED");
        row
    }

    /// A disk whose bytes change, or their place.
    fn changed(&self, why: &mut Reasons, disk: DiskId, writes: bool) -> Option<&BookDisk> {
        let row = self.known(why, disk);
        why.when(self.attached_to(disk).next().is_some(), "ATTACHED");
        why.when(writes && row.is_some_and(|row| row.template), "TEMPLATE_READ_ONLY");
        self.disk_works(why, disk);
        row
    }

    fn domain_reasons(&self, why: &mut Reasons, change: &DomainChange) {
        let id = change.domain();
        let known = self.domains.get(&id);
        match change {
            DomainChange::Attach(attach) => {
                why.when(known.is_some() || self.has_domain(attach.name.as_str(), None), "DOMAIN_EXISTS");
                let taken = attach.contents.disks.iter().any(|disk| self.disk_named(disk.name.as_str()).is_some());
                why.when(taken, "DISK_EXISTS");
            }
            _ if known.is_none() => why.when(true, "DOMAIN_NOT_FOUND"),
            DomainChange::Rename { name, .. } => why.when(self.has_domain(name.as_str(), Some(id)), "DOMAIN_EXISTS"),
            DomainChange::Detach { .. } | DomainChange::Delete { .. } => {
                why.when(known.is_some_and(|domain| domain.active), "DOMAIN_ACTIVE");
            }
            _ => {}
        }
    }

    fn attachment_reasons(&self, why: &mut Reasons, change: &AttachmentChange) {
        match change {
            AttachmentChange::Attach { disk, worker, access, session } => {
                let (write, host) = (*access == Access::Write, &self.hosts[host_of(*worker)]);
                let row = self.known(why, *disk);
                self.disk_works(why, *disk);
                why.when(write && row.is_some_and(|row| row.template), "TEMPLATE_READ_ONLY");
                why.when(!host.known, "WORKER_NOT_FOUND");
                why.when(host.known && !host.live, "WORKER_LOST");
                why.when(host.drained, "WORKER_DRAINING");
                why.when(session.is_some_and(|session| !self.clients.contains_key(&session.id)), "SESSION_EXPIRED");
                why.when(self.attached_to(*disk).any(|at| at.host == host_of(*worker)), "ALREADY_ATTACHED");
                why.when(self.attached_to(*disk).any(|at| at.write || write), "ATTACHED");
            }
            AttachmentChange::Detach { disk, worker, stopped } => {
                self.known(why, *disk);
                match self.meant(*disk, worker.map(host_of)) {
                    Err(reason) => why.when(self.disks.contains_key(disk), reason),
                    Ok(at) => {
                        let seen = *stopped && (self.hosts[at.host].live || !at.unfenced);
                        why.when(self.may_write_on(at) && !seen, "FENCE_REQUIRED");
                    }
                }
            }
        }
    }

    fn worker_reasons(&self, why: &mut Reasons, change: &WorkerChange) {
        let host = &self.hosts[host_of(change.worker())];
        why.when(!host.known, "WORKER_NOT_FOUND");
        match change {
            WorkerChange::Remove { .. } => why.when(host.live && !host.drained, "WORKER_LIVE"),
            WorkerChange::ConfirmDown { session, .. } if host.known => {
                why.when(host.live, "WORKER_LIVE");
                why.when(*session != host.last_session, "WRONG_SESSION");
            }
            _ => {}
        }
    }

    fn garbage_reasons(&self, why: &mut Reasons, order: &GarbageOrder) {
        match order {
            GarbageOrder::RestoreDisk { garbage, name } => {
                let Some(trash) = self.trash.get(garbage) else { return };
                why.when(trash.doomed, "DELETION_ASSIGNED");
                self.name_is_free(why, name.as_ref().map_or(trash.disk.name.as_str(), |name| name.as_str()));
                self.works_in(why, trash.disk.domain);
            }
            GarbageOrder::PurgeTrash { garbage } => {
                why.when(garbage.iter().any(|id| !self.trash.contains_key(id)), "NOT_IN_TRASH");
                let held = garbage.iter().any(|id| self.held.contains(id));
                why.when(held, "GARBAGE_HELD");
            }
            GarbageOrder::SetRetention { domain, .. } => {
                why.when(!self.domains.contains_key(domain), "DOMAIN_NOT_FOUND");
            }
            GarbageOrder::PlanCollection { domain: Some(domain), .. } | GarbageOrder::AdoptOrphans { domain, .. } => {
                why.when(!self.domains.contains_key(domain), "DOMAIN_NOT_FOUND");
            }
            _ => {}
        }
    }
}
