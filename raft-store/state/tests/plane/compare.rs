//! The book held against the state and the storage, after each entry.

use super::WORKERS;
use super::book::Attached;
use super::book::Book;
use super::book::BookDisk;
use super::storage::BLOCK;
use super::storage::Blocks;
use super::storage::Storage;
use crate::world;
use sdm_proto::ids::DiskId;
use sdm_state::State;
use sdm_state::attachments::Access;
use sdm_state::catalog::Disk;
use sdm_state::catalog::Placement;
use std::collections::BTreeSet;

type Told = Result<(), String>;

fn same<T: PartialEq + std::fmt::Debug>(what: &str, book: &T, state: &T) -> Told {
    if book == state { Ok(()) } else { Err(format!("{what}: the book has {book:?}, the state {state:?}")) }
}

impl Book {
    /// All that users see.
    pub fn check(&mut self, state: &State, storage: &Storage) -> Told {
        let ids: BTreeSet<DiskId> = state.disks.values().map(|disk| disk.id).collect();
        same("disks", &self.disks.keys().copied().collect(), &ids)?;
        for disk in state.disks.values() {
            let placement = state.placements.get(&disk.placement).ok_or("a disk lies nowhere")?;
            let row = self.disks.get(&disk.id).ok_or("a disk is not in the book")?;
            self.check_disk(state, storage, (disk, placement), row)?;
        }
        self.check_domains(state)?;
        self.check_hosts(state)?;
        self.check_trash(state, storage)
    }

    fn check_disk(
        &self,
        state: &State,
        storage: &Storage,
        (disk, placement): (&Disk, &Placement),
        row: &BookDisk,
    ) -> Told {
        let what = |word: &str| format!("{word} of disk {}", row.name);
        same(&what("name"), &row.name.as_str(), &disk.name.as_str())?;
        same(&what("words"), &row.about, &disk.description)?;
        same(&what("domain"), &row.domain, &placement.domain)?;
        same(&what("template"), &row.template, &disk.template)?;
        let folder = placement.id.to_string();
        if storage.folder(placement.domain, &folder).is_none_or(|folder| folder.made_by != placement.token) {
            return Err(format!("disk {} is in the catalog, and its folder is not on the storage", row.name));
        }
        for id in &disk.volumes {
            let volume = state.volumes.get(id).ok_or("a volume has no row")?;
            same(&what("legality"), &!self.illegal.contains(id), &volume.legal)?;
            let file = storage.file(placement.domain, &folder, *id).ok_or_else(|| what("a missing file"))?;
            let fits =
                file.format == volume.format && file.backing == volume.parent && file.size >= volume.virtual_size;
            if !fits {
                return Err(format!("file {id} of disk {} is {file:?}, its row {volume:?}", row.name));
            }
            if volume.blake3.is_some_and(|known| known != storage.hash(file)) {
                return Err(format!("the hash of volume {id} of disk {} is not that of its file", row.name));
            }
        }
        let leaf = disk.volumes.last().and_then(|id| state.volumes.get(id)).ok_or("no leaf")?;
        same(&what("size"), &row.size, &leaf.virtual_size)?;
        same(&what("content"), &row.blocks, &seen(storage, placement, leaf.id, row.size)?)?;
        let names = |names: Vec<(String, u64)>| names;
        let book = names(row.shots.iter().map(|shot| (shot.name.clone(), shot.size)).collect());
        let told = state
            .snapshots_of(disk)
            .filter_map(|volume| Some((volume.snapshot.as_ref()?.name.to_string(), volume.virtual_size)));
        same(&what("snapshots"), &book, &names(told.collect()))?;
        for shot in &row.shots {
            let seen = seen(storage, placement, shot.volume, shot.size)?;
            same(&what(&format!("snapshot {}", shot.name)), &shot.blocks, &seen)?;
        }
        Ok(())
    }

    fn check_domains(&self, state: &State) -> Told {
        let book: BTreeSet<_> = self.domains.iter().map(|(id, row)| (*id, row.name.clone(), row.active)).collect();
        let told = state.domains.values().map(|row| (row.id, row.name.to_string(), row.state.is_active())).collect();
        same("domains", &book, &told)
    }

    fn check_hosts(&self, state: &State) -> Told {
        let told: Vec<Attached> = state
            .attachments
            .values()
            .map(|at| Attached {
                disk: at.disk,
                host: super::effects::host_of(at.worker),
                write: at.access == Access::Write,
                session: match &at.owner {
                    sdm_state::attachments::AttachmentOwner::Session { id, nonce } => Some((*id, nonce.clone())),
                    sdm_state::attachments::AttachmentOwner::Durable => None,
                },
                unfenced: at.is_unfenced(),
            })
            .collect();
        let sorted = |mut rows: Vec<Attached>| {
            rows.sort_by_key(|at| (at.disk, at.host));
            rows
        };
        same("attachments", &sorted(self.attached.clone()), &sorted(told))?;
        for (at, name) in WORKERS.iter().enumerate() {
            let row = state.workers.get(&world::worker_id(name));
            let told =
                (row.is_some(), row.is_some_and(|row| row.is_live()), row.is_some_and(|row| row.draining.is_some()));
            let host = &self.hosts[at];
            same(&format!("worker {name}"), &(host.known, host.live, host.drained), &told)?;
        }
        Ok(())
    }

    /// Whatever was deleted can be restored as it was, until its deletion is assigned: not before its time, and
    /// not while it is held.
    fn check_trash(&mut self, state: &State, storage: &Storage) -> Told {
        let now = state.meta.clock_ms;
        let mut gone = Vec::new();
        for (id, trash) in &mut self.trash {
            let name = &trash.disk.name;
            let Some(row) = state.garbage.get(id) else {
                if !trash.doomed {
                    return Err(format!("disk {name} vanished from the trash"));
                }
                gone.push(*id);
                continue;
            };
            if row.is_doomed() && !trash.doomed {
                if now < trash.until_ms && !self.purged.contains(id) {
                    return Err(format!("disk {name} is deleted before its time"));
                }
                if self.held.contains(id) {
                    return Err(format!("disk {name} is deleted while it is held"));
                }
                trash.doomed = true;
            }
            if trash.doomed {
                continue;
            }
            let kept = row.trash.as_ref().ok_or_else(|| format!("disk {name} in the trash has no rows"))?;
            let leaf = *kept.disk.volumes.last().ok_or("no leaf")?;
            same(
                &format!("content of {name} in the trash"),
                &trash.disk.blocks,
                &seen(storage, &kept.placement, leaf, trash.disk.size)?,
            )?;
        }
        for id in gone {
            self.trash.remove(&id);
        }
        let known: BTreeSet<_> = self.trash.keys().copied().collect();
        let told = state.garbage.values().filter(|row| row.trash.is_some()).map(|row| row.id).collect();
        same("trash", &known, &told)?;
        let held = state.garbage.values().filter(|row| row.held.is_some()).map(|row| row.id).collect();
        self.held.retain(|id| state.garbage.contains(id));
        same("what is held", &self.held, &held)
    }
}

/// What a guest sees of the first so many bytes.
fn seen(
    storage: &Storage,
    placement: &Placement,
    volume: sdm_proto::ids::VolumeId,
    size: u64,
) -> Result<Blocks, String> {
    let seen = storage.seen(placement.domain, &placement.id.to_string(), volume);
    let mut seen = seen.ok_or_else(|| format!("volume {volume} cannot be read"))?;
    seen.retain(|block, _| *block < size / BLOCK);
    Ok(seen)
}
