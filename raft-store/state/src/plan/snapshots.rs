//! Planning of snapshots: to make one, to delete one (which merges its volume with the one above), to
//! go back to one. Each is a new placement of the same disk.

use super::Plan;
use super::disk_word;
use super::plan;
use crate::attachments::Access;
use crate::catalog::Disk;
use crate::catalog::Domain;
use crate::catalog::Volume;
use crate::locks::BLOCKERS_SHOWN;
use crate::locks::Mode;
use crate::locks::Resource;
use crate::state::State;
use crate::volume_users::VolumeUser;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::VolumeId;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

/// Longest text about a disk or a snapshot, in bytes: with the disk's name it stands in `.meta`, which holds 210.
const DESCRIPTION_BYTES_MAX: usize = 200;

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
        let mut refusal = Refusal::new(Class::Exhausted, "CHAIN_TOO_LONG", message)
            .hint(format!("delete snapshots that nobody needs: sdm snapshot delete {} SNAPSHOT", disk.name));
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

    /// Refuses to change a volume that other disks, or disks in the trash, go on using.
    pub(super) fn refuse_shared(&self, disk: &Disk, volume: VolumeId, what: &str) -> Result<(), Refusal> {
        let others: Vec<VolumeUser> =
            self.volume_users(volume).filter(|user| *user != VolumeUser::Disk(disk.id)).take(BLOCKERS_SHOWN).collect();
        if others.is_empty() {
            return Ok(());
        }
        let message = format!(
            "cannot {what}: volume {volume} of disk {} is shared with {} and must stay as it is",
            disk.name,
            self.user_word(&others[0])
        );
        let way = match &others[0] {
            VolumeUser::Disk(id) => {
                let name = self.disks.get(id).map_or_else(|| id.to_string(), |disk| disk.name.to_string());
                format!("first give disk {name} its own copy: sdm snapshot delete {name} {volume}; or delete that disk")
            }
            VolumeUser::Trash(garbage) => format!("first delete it for good: sdm gc trash purge {garbage}"),
        };
        let refusal = Refusal::new(Class::Precondition, "SHARED_VOLUME", message).hint(way);
        Err(others.iter().fold(refusal, |refusal, user| self.name_user(refusal, user)))
    }

    /// Who uses a volume, in words.
    pub(super) fn user_word(&self, user: &VolumeUser) -> String {
        match user {
            VolumeUser::Disk(id) => {
                self.disks.get(id).map_or_else(|| format!("disk {id}"), |disk| format!("disk {}", disk.name))
            }
            VolumeUser::Trash(garbage) => {
                let trash = self.garbage.get(garbage).and_then(|row| row.trash.as_ref());
                trash.map_or_else(
                    || format!("garbage {garbage}"),
                    |trash| format!("disk {} in the trash", trash.disk.name),
                )
            }
        }
    }

    /// The same as something in the way.
    pub(super) fn name_user(&self, refusal: Refusal, user: &VolumeUser) -> Refusal {
        let word = self.user_word(user);
        match user {
            VolumeUser::Disk(id) => {
                let name = self.disks.get(id).map_or_else(|| id.to_string(), |disk| disk.name.to_string());
                refusal.blocker("disk", name, "shares its volumes")
            }
            VolumeUser::Trash(garbage) => {
                refusal.blocker("garbage", garbage.to_string(), format!("{word}; sdm gc trash purge {garbage}"))
            }
        }
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
        if in_place {
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
        let summary = format!("delete {word} of disk {} in {}", disk.name, domain.name);
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
        let newer: Vec<&Volume> = self.chain(disk.id).skip(at + 1).filter(|row| row.snapshot.is_some()).collect();
        if !newer.is_empty() && !discard_newer {
            let message = format!(
                "{} of disk {} made after {word} would be gone",
                if newer.len() == 1 { "a snapshot".to_owned() } else { format!("{} snapshots", newer.len()) },
                disk.name
            );
            let refusal = Refusal::new(Class::Precondition, "NEWER_SNAPSHOTS", message)
                .hint("give --discard-newer, or keep them: clone the snapshot instead (sdm disk clone --snapshot)");
            let name = |refusal: Refusal, row: &&Volume| {
                refusal.blocker("volume", row.id.to_string(), self.snapshot_word(disk, row.id))
            };
            return Err(newer.iter().take(BLOCKERS_SHOWN).fold(refusal, name));
        }
        let summary = format!("revert disk {} in {} to {word}", disk.name, domain.name);
        Ok(plan(own_locks(disk, domain), summary, &[disk_word(disk)]))
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
