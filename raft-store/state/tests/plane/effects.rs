//! What each operation means to users: how a commit changes the book.

use super::WORKERS;
use super::book::Attached;
use super::book::Away;
use super::book::Book;
use super::book::BookDisk;
use super::book::BookDomain;
use super::book::Shot;
use super::book::Trash;
use super::storage::Blocks;
use super::storage::Storage;
use crate::world;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::VolumeId;
use sdm_proto::ids::WorkerId;
use sdm_state::State;
use sdm_state::attachments::Access;
use sdm_state::attachments::AttachmentChange;
use sdm_state::domain_change::AttachDomain;
use sdm_state::domain_change::DomainChange;
use sdm_state::garbage_order::GarbageOrder;
use sdm_state::txns::Outcome;
use sdm_state::txns::Spec;
use sdm_state::workers::WorkerChange;

/// What the book needs to know besides: the ids that a commit gave, and what lay on the storage before it.
pub struct Moment<'a> {
    pub before: &'a State,
    pub after: &'a State,
    pub storage: &'a Storage,
    pub sent: Blocks,
}

/// The number of a worker.
pub fn host_of(worker: WorkerId) -> usize {
    WORKERS.iter().position(|name| world::worker_id(name) == worker).unwrap_or_default()
}

type Told = Result<(), String>;

impl Moment<'_> {
    /// What was seen through a volume of a disk before this entry.
    fn seen_before(&self, disk: DiskId, volume: VolumeId) -> Result<(Blocks, u64), String> {
        let row = self.before.disks.get(&disk).ok_or("the disk was not there")?;
        let placement = self.before.placements.get(&row.placement).ok_or("it lay nowhere")?;
        let folder = placement.id.to_string();
        let seen = self.storage.seen(placement.domain, &folder, volume).ok_or("its bytes are gone")?;
        let size = self.before.volumes.get(&volume).map(|row| row.virtual_size).ok_or("no such volume")?;
        Ok((seen, size))
    }
}

impl Book {
    fn disk_mut(&mut self, id: DiskId) -> Result<&mut BookDisk, String> {
        self.disks.get_mut(&id).ok_or_else(|| format!("disk {id} was worked on, and there is none"))
    }

    /// An operation is done.
    pub fn done(&mut self, spec: &Spec, outcome: &Outcome, moment: &Moment<'_>) -> Told {
        match spec {
            Spec::CreateDomain { name, path, .. } => {
                let id = outcome.domain.ok_or("no domain was made")?;
                let (name, path) = (name.to_string(), path.clone());
                self.domains.insert(id, BookDomain { name, path, active: true, retention_ms: None });
            }
            Spec::CreateDisk { name, domain, size, description, .. } => {
                let disk = new_disk(name.as_str(), description, *domain, (Blocks::new(), *size));
                self.put_new(outcome, disk)?;
            }
            Spec::ImportDisk { name, domain, file_size, .. } => {
                let disk = new_disk(name.as_str(), "", *domain, (moment.sent.clone(), *file_size));
                self.put_new(outcome, disk)?;
            }
            Spec::MoveDisk { disk, to } => self.disk_mut(*disk)?.domain = *to,
            Spec::DeleteDisk { disk } => self.deleted(*disk, moment)?,
            Spec::RenameDisk { disk, name } => self.disk_mut(*disk)?.name = name.to_string(),
            Spec::DescribeDisk { disk, description } => self.disk_mut(*disk)?.about.clone_from(description),
            Spec::ResizeDisk { disk, size } => {
                let row = self.disk_mut(*disk)?;
                row.size = *size;
                row.size_most = row.size_most.max(*size);
            }
            Spec::CopyDisk { disk, snapshot, name, description, to, template, .. } => {
                let seen = self.content(*disk, *snapshot, moment)?;
                let most = self.disk_mut(*disk)?.size_most;
                let copy = new_disk(name.as_str(), description, *to, seen);
                self.put_new(outcome, BookDisk { template: *template, size_most: most, ..copy })?;
            }
            Spec::CloneLinked { disk, snapshot, name, description } => {
                let seen = self.content(*disk, *snapshot, moment)?;
                let (domain, most) = self.disk_mut(*disk).map(|row| (row.domain, row.size_most))?;
                let clone = new_disk(name.as_str(), description, domain, seen);
                self.put_new(outcome, BookDisk { size_most: most, ..clone })?;
            }
            Spec::CreateSnapshot { disk, name, .. } => {
                // What was the leaf is frozen; the disk may be gone again with the same entry.
                let chain = moment.before.disks.get(disk).map(|row| row.volumes.as_slice()).unwrap_or_default();
                let volume = *chain.last().ok_or("its disk was not there")?;
                let row = self.disk_mut(*disk)?;
                let shot = Shot { name: name.to_string(), volume, blocks: row.blocks.clone(), size: row.size };
                row.shots.push(shot);
            }
            Spec::DeleteSnapshot { disk, volume, .. } => {
                self.disk_mut(*disk)?.shots.retain(|shot| shot.volume != *volume);
            }
            Spec::FlattenDisk { disk } => {
                // What was shared is this disk's alone now: a snapshot keeps its name, and has another volume.
                let state = moment.after.disks.get(disk);
                for shot in &mut self.disk_mut(*disk)?.shots {
                    let name = shot.name.parse().map_err(|_| "a snapshot without a name".to_owned())?;
                    let row = state.and_then(|state| moment.after.snapshot_named(state, &name));
                    shot.volume = row.map_or(shot.volume, |row| row.id);
                }
            }
            Spec::RevertSnapshot { disk, volume, .. } => self.reverted(*disk, *volume, moment)?,
            Spec::SetVolumeLegality { volume, legal: true, .. } => _ = self.illegal.remove(volume),
            Spec::SetVolumeLegality { volume, legal: false, .. } => _ = self.illegal.insert(*volume),
            Spec::Domain(change) => self.domain_changed(change, moment)?,
            Spec::Attachment(change) => self.attachment_changed(change)?,
            Spec::Worker(change) => self.worker_changed(change),
            Spec::Garbage(order) => self.garbage_ordered(order, moment)?,
            // What a guest sees stays as it is: exports, conversions, words written anew, and whatever else.
            _ => {}
        }
        Ok(())
    }

    fn put_new(&mut self, outcome: &Outcome, disk: BookDisk) -> Told {
        let id = outcome.disk.ok_or("no disk was made")?;
        let known = self.disks.contains_key(&id) || self.trash.values().any(|trash| trash.id == id);
        if known {
            return Err(format!("disk {id} was there already"));
        }
        self.disks.insert(id, disk);
        Ok(())
    }

    /// What a guest sees in a disk now, or saw at a snapshot.
    fn content(&self, disk: DiskId, snapshot: Option<VolumeId>, moment: &Moment<'_>) -> Result<(Blocks, u64), String> {
        let row = self.disks.get(&disk).ok_or("its source is gone")?;
        let Some(volume) = snapshot else { return Ok((row.blocks.clone(), row.size)) };
        match row.shots.iter().find(|shot| shot.volume == volume) {
            Some(shot) => Ok((shot.blocks.clone(), shot.size)),
            // A layer without a name: only the storage tells what it holds.
            None => moment.seen_before(disk, volume),
        }
    }

    fn deleted(&mut self, id: DiskId, moment: &Moment<'_>) -> Told {
        let disk = self.disks.remove(&id).ok_or("there was none")?;
        if self.attached.iter().any(|at| at.disk == id) {
            return Err(format!("disk {} was deleted while a host has it", disk.name));
        }
        let settings = &moment.after.meta.settings;
        let retention = self.retention_ms(disk.domain, settings.retention_ms);
        let found =
            moment.after.garbage.values().find(|row| row.trash.as_ref().is_some_and(|trash| trash.disk.id == id));
        match found {
            Some(row) => {
                let until_ms = moment.after.meta.clock_ms + retention;
                self.trash.insert(row.id, Trash { id, disk, until_ms, doomed: false });
            }
            None if retention > 0 => return Err(format!("disk {} cannot be restored", disk.name)),
            None => {}
        }
        Ok(())
    }

    fn reverted(&mut self, id: DiskId, volume: VolumeId, moment: &Moment<'_>) -> Told {
        let (blocks, size) = self.content(id, Some(volume), moment)?;
        let chain = moment.before.disks.get(&id).map(|row| row.volumes.clone()).unwrap_or_default();
        let place = |volume: VolumeId| chain.iter().position(|known| *known == volume);
        let row = self.disk_mut(id)?;
        row.shots.retain(|shot| place(shot.volume) <= place(volume));
        (row.blocks, row.size) = (blocks, size);
        Ok(())
    }

    fn domain_changed(&mut self, change: &DomainChange, moment: &Moment<'_>) -> Told {
        let id = change.domain();
        match change {
            DomainChange::Maintenance { .. } => self.domains.get_mut(&id).ok_or("no domain")?.active = false,
            DomainChange::Activate { .. } => self.domains.get_mut(&id).ok_or("no domain")?.active = true,
            DomainChange::Rename { name, .. } => self.domains.get_mut(&id).ok_or("no domain")?.name = name.to_string(),
            DomainChange::Delete { .. } => {
                if let Some(disk) = self.disks.values().find(|disk| disk.domain == id) {
                    return Err(format!("disk {} was in the domain that was deleted", disk.name));
                }
                self.domains.remove(&id).ok_or("no domain")?;
            }
            DomainChange::Detach { .. } => {
                let row = self.domains.remove(&id).ok_or("no domain")?;
                let catalog = moment.storage.domains.get(&id).and_then(|place| place.given_up.clone());
                let catalog = catalog.ok_or("the domain was not given up on the storage")?;
                let here = |disk: &BookDisk| disk.domain == id;
                let disks = self.disks.iter().filter(|(_, disk)| here(disk)).map(|(id, disk)| (*id, disk.clone()));
                let away = Away { path: row.path, catalog, disks: disks.collect(), retention_ms: row.retention_ms };
                self.disks.retain(|_, disk| !here(disk));
                self.away.insert(id, away);
            }
            DomainChange::Attach(attach) => self.attached_domain(attach)?,
            DomainChange::Forget { .. } => {
                self.domains.remove(&id);
                self.disks.retain(|_, disk| disk.domain != id);
                self.trash.retain(|_, trash| trash.disk.domain != id);
            }
        }
        Ok(())
    }

    fn attached_domain(&mut self, attach: &AttachDomain) -> Told {
        let away = self.away.remove(&attach.domain).ok_or("it was not away")?;
        self.stale.push((attach.domain, away.clone()));
        let (name, path) = (attach.name.to_string(), attach.path.clone());
        self.domains.insert(attach.domain, BookDomain { name, path, active: true, retention_ms: away.retention_ms });
        for (id, disk) in away.disks {
            let named = attach.contents.disks.iter().find(|row| row.id == id);
            let name = named.map(|row| row.name.to_string()).ok_or_else(|| format!("{} did not come", disk.name))?;
            self.disks.insert(id, BookDisk { name, ..disk });
        }
        Ok(())
    }

    fn attachment_changed(&mut self, change: &AttachmentChange) -> Told {
        match change {
            AttachmentChange::Attach { disk, worker, access, session } => {
                let write = *access == Access::Write;
                if self.attached_to(*disk).any(|at| at.write || write) {
                    return Err("two hosts have it, and one writes".to_owned());
                }
                let nonce = |id: &u64| self.clients.get(id).cloned().ok_or("that session was over");
                let session = session.map(|session| nonce(&session.id).map(|drawn| (session.id, drawn))).transpose()?;
                self.attached.push(Attached { disk: *disk, host: host_of(*worker), write, session, unfenced: false });
            }
            AttachmentChange::Detach { disk, worker, stopped } => {
                let at = self.meant(*disk, worker.map(host_of))?.clone();
                let live = self.hosts[at.host].live;
                if self.may_write_on(&at) && !(*stopped && (live || !at.unfenced)) {
                    return Err("nothing proved that the host writes no more".to_owned());
                }
                self.attached.retain(|other| *other != at);
            }
        }
        Ok(())
    }

    fn worker_changed(&mut self, change: &WorkerChange) {
        let at = host_of(change.worker());
        let host = &mut self.hosts[at];
        match change {
            WorkerChange::Drain { .. } => host.drained = true,
            WorkerChange::Undrain { .. } => host.drained = false,
            WorkerChange::Remove { .. } => *host = super::book::Host::default(),
            WorkerChange::ConfirmDown { session, .. } => {
                host.down = *session;
                self.fenced(at);
            }
        }
    }

    fn garbage_ordered(&mut self, order: &GarbageOrder, moment: &Moment<'_>) -> Told {
        match order {
            GarbageOrder::RestoreDisk { garbage, name } => {
                let trash = self.trash.remove(garbage).ok_or("what was restored was not in the trash")?;
                if trash.doomed {
                    return Err(format!("disk {} was restored while it is being deleted", trash.disk.name));
                }
                let name = name.as_ref().map_or(trash.disk.name.clone(), ToString::to_string);
                self.disks.insert(trash.id, BookDisk { name, ..trash.disk });
                self.held.remove(garbage);
            }
            GarbageOrder::PurgeTrash { garbage } => self.purged.extend(garbage.iter().copied()),
            GarbageOrder::ApplyPlan { plan, .. } => {
                let plan = moment.before.gc_plans.get(plan).ok_or("there was no such plan")?;
                self.purged.extend(plan.items.iter().map(|item| item.garbage));
            }
            GarbageOrder::Hold { garbage, .. } => _ = self.held.insert(*garbage),
            GarbageOrder::Unhold { garbage } => _ = self.held.remove(garbage),
            GarbageOrder::SetRetention { domain, retention_ms } => {
                self.domains.get_mut(domain).ok_or("no domain")?.retention_ms = *retention_ms;
            }
            _ => {}
        }
        Ok(())
    }
}

fn new_disk(name: &str, about: &str, domain: DomainId, (blocks, size): (Blocks, u64)) -> BookDisk {
    let (name, about, shots) = (name.to_owned(), about.to_owned(), Vec::new());
    BookDisk { name, about, domain, template: false, blocks, size, size_most: size, shots }
}
