//! Planning of snapshots: to make one, to delete one (which merges its volume with the one above), to
//! go back to one. Each is a new placement of the same disk.

use super::Plan;
use super::disk_word;
use super::plan;
use crate::attachments::Access;
use crate::catalog::Disk;
use crate::catalog::Domain;
use crate::catalog::Format;
use crate::catalog::Volume;
use crate::locks::BLOCKERS_SHOWN;
use crate::locks::Mode;
use crate::locks::Resource;
use crate::state::State;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::VolumeId;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

/// Longest text about a disk or a snapshot, in bytes: with the disk's name it stands in `.meta`, which holds 210.
const DESCRIPTION_BYTES_MAX: usize = 200;

/// Snapshots that a summary names: it stands in lists, and a chain may have many.
const SNAPSHOTS_NAMED: usize = 4;

/// Locks of an operation that changes one disk.
pub(super) fn own_locks(disk: &Disk, domain: &Domain) -> Vec<(Resource, Mode)> {
    vec![(Resource::Domain(domain.id), Mode::IntentExclusive), (Resource::Disk(disk.id), Mode::Exclusive)]
}

/// A description that can be kept.
pub(super) fn check_description(text: &str) -> Result<(), Refusal> {
    if text.len() > DESCRIPTION_BYTES_MAX {
        let message = format!("a description has at most {DESCRIPTION_BYTES_MAX} bytes, this one has {}", text.len());
        return Err(Refusal::new(Class::Invalid, "BAD_DESCRIPTION", message).hint("give a shorter one"));
    }
    if text.chars().any(char::is_control) {
        let message = "a description is one line without control characters";
        return Err(Refusal::new(Class::Invalid, "BAD_DESCRIPTION", message).hint("give it in one line"));
    }
    Ok(())
}

impl State {
    /// A disk whose data may be changed: known, legal where that matters, no template, with no host.
    pub(super) fn changeable_disk(&self, id: DiskId, verb: &str) -> Result<(&Disk, &Domain), Refusal> {
        let (disk, domain) = self.known_disk(id)?;
        if disk.template {
            let message = format!("disk {} is a template, nobody can {verb} it: it is read-only for ever", disk.name);
            return Err(Refusal::new(Class::Precondition, "TEMPLATE_READ_ONLY", message)
                .hint(format!("clone it: sdm disk clone {} NAME --linked", disk.name)));
        }
        self.refuse_attached(disk, Access::Write)?;
        Ok((disk, domain))
    }

    /// Where a volume stands in a disk's chain, from the root.
    pub(super) fn place_in_chain(&self, disk: &Disk, volume: VolumeId) -> Result<usize, Refusal> {
        disk.volumes.iter().position(|id| *id == volume).ok_or_else(|| {
            let message = format!("disk {} has no volume {volume}", disk.name);
            Refusal::new(Class::NotFound, "VOLUME_NOT_FOUND", message).hint(format!("sdm snapshot list {}", disk.name))
        })
    }

    /// A snapshot of a disk in words: its name, or the volume where it has none, or is another disk's.
    pub(crate) fn snapshot_word(&self, disk: &Disk, volume: VolumeId) -> String {
        let row = self.volumes.get(&volume).filter(|row| row.disk == disk.id);
        let named = row.and_then(|row| row.snapshot.as_ref());
        named.map_or_else(|| format!("volume {volume}"), |snapshot| format!("snapshot {}", snapshot.name))
    }

    /// A snapshot as commands take it.
    pub(super) fn snapshot_named_or_id(&self, disk: &Disk, volume: VolumeId) -> String {
        let row = self.volumes.get(&volume).filter(|row| row.disk == disk.id);
        row.and_then(|row| row.snapshot.as_ref()).map_or_else(|| volume.to_string(), |at| at.name.to_string())
    }

    /// Refuses where the volume is the leaf, which is no snapshot.
    fn frozen_at(&self, disk: &Disk, volume: VolumeId) -> Result<usize, Refusal> {
        let at = self.place_in_chain(disk, volume)?;
        if at + 1 == disk.volumes.len() {
            let message = format!("volume {volume} is what disk {} holds now, no snapshot of it", disk.name);
            return Err(Refusal::new(Class::Precondition, "NOT_A_SNAPSHOT", message)
                .hint(format!("sdm snapshot list {}", disk.name)));
        }
        Ok(at)
    }

    fn refuse_long_chain(&self, disk: &Disk, more: usize) -> Result<(), Refusal> {
        let most = self.meta.settings.chain_max;
        let length = (disk.volumes.len() + more) as u64;
        if length <= most {
            return Ok(());
        }
        let message =
            format!("the chain of disk {} would have {length} volumes, more than {most} are not allowed", disk.name);
        let delete = format!("delete snapshots that nobody needs: sdm snapshot delete {} SNAPSHOT", disk.name);
        // Layers that are no snapshots of it are taken into those above.
        let hint = match self.kept_volumes(disk).count() < disk.volumes.len() {
            true => format!("sdm disk flatten {}; or {delete}", disk.name),
            false => delete,
        };
        let mut refusal = Refusal::new(Class::Exhausted, "CHAIN_TOO_LONG", message).hint(hint);
        let frozen = disk.volumes.len().saturating_sub(1);
        for volume in disk.volumes.iter().take(frozen.min(BLOCKERS_SHOWN)) {
            refusal = refusal.blocker("volume", volume.to_string(), self.snapshot_word(disk, *volume));
        }
        Err(refusal)
    }

    /// Refuses what would need more layers than a chain may have.
    pub(super) fn check_room_for_leaf(&self, disk: &Disk) -> Result<(), Refusal> {
        self.refuse_long_chain(disk, 1)
    }

    pub(super) fn plan_create_snapshot(&self, disk: DiskId, name: &Name, text: &str) -> Result<Plan, Refusal> {
        check_description(text)?;
        let (disk, domain) = self.changeable_disk(disk, "make a snapshot of")?;
        self.refuse_illegal(disk)?;
        if let Some(other) = self.snapshot_named(disk, name) {
            let message = format!("disk {} has a snapshot {name} already (volume {})", disk.name, other.id);
            return Err(Refusal::new(Class::Conflict, "SNAPSHOT_EXISTS", message)
                .hint(format!("choose another name, or see `sdm snapshot list {}`", disk.name)));
        }
        self.check_room_for_leaf(disk)?;
        let summary = format!("make snapshot {name} of disk {} in {}", disk.name, domain.name);
        Ok(plan(own_locks(disk, domain), summary, &[disk_word(disk)]))
    }

    pub(super) fn plan_delete_snapshot(&self, disk: DiskId, volume: VolumeId, in_place: bool) -> Result<Plan, Refusal> {
        let (disk, domain) = self.changeable_disk(disk, "merge volumes of")?;
        let at = self.frozen_at(disk, volume)?;
        self.refuse_illegal(disk)?;
        if in_place && !self.meta.settings.merges_in_place {
            let message = "a merge in place is not built: a merge makes new files, and needs the space for them";
            return Err(Refusal::new(Class::Unsupported, "IN_PLACE_UNSUPPORTED", message).hint(format!(
                "free space in the domain (sdm gc run), or move the disk to one that has it (sdm disk move {} --to DOMAIN); \
                 then without --in-place",
                disk.name
            )));
        }
        let word = self.snapshot_word(disk, volume);
        if let Some(child) = disk.volumes.get(at + 1) {
            self.refuse_shared(disk, *child, &format!("delete {word} of disk {}", disk.name))?;
        }
        let how = if in_place { ", merged in place" } else { "" };
        let summary = format!("delete {word} of disk {} in {}{how}", disk.name, domain.name);
        Ok(plan(own_locks(disk, domain), summary, &[disk_word(disk)]))
    }

    pub(super) fn plan_revert(&self, disk: DiskId, volume: VolumeId, discard_newer: bool) -> Result<Plan, Refusal> {
        let (disk, domain) = self.changeable_disk(disk, "revert")?;
        let at = self.frozen_at(disk, volume)?;
        let kept: Vec<&Volume> = self.chain(disk.id).take(at + 1).collect();
        if let Some(bad) = kept.iter().find(|row| !row.legal) {
            let message =
                format!("{} of disk {} is illegal, or lies over what is", self.snapshot_word(disk, bad.id), disk.name);
            return Err(Refusal::new(Class::Precondition, "DISK_ILLEGAL", message)
                .hint(format!("sdm volume show {}; revert to an older snapshot", bad.id)));
        }
        let word = self.snapshot_word(disk, volume);
        let newer: Vec<&Volume> = self.newer_snapshots(disk, at).collect();
        if !newer.is_empty() && !discard_newer {
            let message = format!(
                "{} of disk {} made after {word} would be gone",
                if newer.len() == 1 { "a snapshot".to_owned() } else { format!("{} snapshots", newer.len()) },
                disk.name
            );
            let refusal = Refusal::new(Class::Precondition, "NEWER_SNAPSHOTS", message).hint(format!(
                "give --discard-newer, or keep them: clone the snapshot instead (sdm disk clone {} NAME --snapshot {})",
                disk.name,
                self.snapshot_named_or_id(disk, volume)
            ));
            let name = |refusal: Refusal, row: &&Volume| {
                refusal.blocker("volume", row.id.to_string(), self.snapshot_word(disk, row.id))
            };
            return Err(newer.iter().take(BLOCKERS_SHOWN).fold(refusal, name));
        }
        let gone = self.snapshot_names(disk, newer.into_iter());
        let gone = if gone.is_empty() { gone } else { format!(", giving up {gone}") };
        let summary = format!("revert disk {} in {} to {word}{gone}", disk.name, domain.name);
        Ok(plan(own_locks(disk, domain), summary, &[disk_word(disk)]))
    }

    /// What surprises somebody who has a disk frozen.
    pub(crate) fn leaf_warnings(&self, disk: DiskId) -> Vec<String> {
        let raw = self.chain(disk).last().is_some_and(|leaf| leaf.format == Format::Raw);
        if raw {
            vec!["the disk is qcow2 from then on, over the raw volume that is frozen".to_owned()]
        } else {
            Vec::new()
        }
    }

    /// Snapshots that lie over a place in the chain.
    fn newer_snapshots<'a>(&'a self, disk: &'a Disk, at: usize) -> impl Iterator<Item = &'a Volume> + 'a {
        self.chain(disk.id).skip(at + 1).filter(|row| row.snapshot.is_some())
    }

    /// Snapshots in words: the first of them by name.
    fn snapshot_names<'a>(&self, disk: &Disk, rows: impl Iterator<Item = &'a Volume>) -> String {
        let mut names: Vec<String> = rows.map(|row| self.snapshot_word(disk, row.id)).collect();
        if names.len() > SNAPSHOTS_NAMED {
            let more = names.len() - SNAPSHOTS_NAMED;
            names.truncate(SNAPSHOTS_NAMED);
            names.push(format!("{more} more"));
        }
        names.join(", ")
    }

    /// What surprises somebody who reverts a disk.
    pub(crate) fn revert_warnings(&self, disk: DiskId, volume: VolumeId) -> Vec<String> {
        let mut warnings = vec!["what the disk holds now is lost".to_owned()];
        let Some(row) = self.disks.get(&disk) else { return warnings };
        let Ok(at) = self.place_in_chain(row, volume) else { return warnings };
        for gone in self.newer_snapshots(row, at) {
            warnings.push(format!("{} is given up (volume {})", self.snapshot_word(row, gone.id), gone.id));
        }
        warnings
    }

    /// The snapshot of this name among those of a disk.
    #[must_use]
    pub fn snapshot_named<'a>(&'a self, disk: &'a Disk, name: &Name) -> Option<&'a Volume> {
        self.snapshots_of(disk).find(|row| row.snapshot.as_ref().is_some_and(|snapshot| snapshot.name == *name))
    }

    /// The snapshots of a disk, oldest first: the frozen volumes of its chain that it made itself and that have a name.
    pub fn snapshots_of<'a>(&'a self, disk: &'a Disk) -> impl Iterator<Item = &'a Volume> + 'a {
        let frozen = disk.volumes.len().saturating_sub(1);
        let rows = disk.volumes.iter().take(frozen).filter_map(|id| self.volumes.get(id));
        rows.filter(|row| row.disk == disk.id && row.snapshot.is_some())
    }
}
