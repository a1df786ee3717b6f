//! What sharing forbids: to change a volume that others use, to delete a template while it has clones, to move a disk
//! away from those it shares with. And each way out of it.

use super::Plan;
use super::disk_word;
use super::plan;
use super::snapshots::own_locks;
use crate::catalog::Disk;
use crate::catalog::Domain;
use crate::locks::BLOCKERS_SHOWN;
use crate::state::State;
use crate::volume_users::VolumeUser;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::VolumeId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use std::collections::BTreeSet;

impl State {
    /// Refuses to change a volume that other disks, or disks in the trash, go on using.
    pub(super) fn refuse_shared(&self, disk: &Disk, volume: VolumeId, what: &str) -> Result<(), Refusal> {
        let others = self.others_at(disk, volume);
        let Some(first) = others.first() else { return Ok(()) };
        let message = format!(
            "cannot {what}: volume {volume} of disk {} is shared with {} and must stay as it is",
            disk.name,
            self.user_word(first)
        );
        let refusal = Refusal::new(Class::Precondition, "SHARED_VOLUME", message).hint(self.way_to_part(disk, &others));
        Err(others.iter().fold(refusal, |refusal, user| self.name_user(refusal, user)))
    }

    /// Refuses to move a disk away from those it shares volumes with: a shared volume is one file, and lies in one domain.
    pub(super) fn refuse_move_of_shared(&self, disk: &Disk, to: &Domain) -> Result<(), Refusal> {
        let others = self.others_of(disk);
        let Some(first) = others.first() else { return Ok(()) };
        let message = format!(
            "cannot move disk {} to {}: it shares volumes with {}, and what is shared lies in one domain",
            disk.name,
            to.name,
            self.user_word(first)
        );
        let copy = if disk.template { "sdm template make" } else { "sdm disk copy" };
        let collapse = if disk.volumes.len() > 1 && !disk.template { " --collapse" } else { "" };
        let way =
            if disk.template { self.way_to_part(disk, &others) } else { format!("sdm disk flatten {}", disk.name) };
        let refusal = Refusal::new(Class::Precondition, "SHARED_VOLUME", message).hint(format!(
            "end the sharing first: {way}; or leave it here and make another one there: {copy} {} NAME --to {}{collapse}",
            disk.name, to.name
        ));
        Err(others.iter().fold(refusal, |refusal, user| self.name_user(refusal, user)))
    }

    /// Some of those who use this volume besides the disk: disks, then what is in the trash.
    fn others_at(&self, disk: &Disk, volume: VolumeId) -> Vec<VolumeUser> {
        self.volume_users(volume).filter(|user| *user != VolumeUser::Disk(disk.id)).take(BLOCKERS_SHOWN).collect()
    }

    /// Some of those who use any of its volumes besides the disk, each once.
    fn others_of(&self, disk: &Disk) -> Vec<VolumeUser> {
        let others: BTreeSet<_> = disk.volumes.iter().flat_map(|volume| self.others_at(disk, *volume)).collect();
        others.into_iter().take(BLOCKERS_SHOWN).collect()
    }

    /// The next command of whoever wants a disk to share nothing with these.
    fn way_to_part(&self, disk: &Disk, others: &[VolumeUser]) -> String {
        let way = match others.first() {
            Some(VolumeUser::Disk(id)) => {
                let row = self.disks.get(id);
                let name = row.map_or_else(|| id.to_string(), |disk| disk.name.to_string());
                if row.is_some_and(|disk| disk.template) {
                    // A template has nothing but its own: whoever stands on it takes a copy.
                    format!("sdm disk flatten {}", disk.name)
                } else {
                    format!("sdm disk flatten {name} (or delete it)")
                }
            }
            Some(VolumeUser::Trash(garbage)) => format!("sdm gc trash purge {garbage}"),
            None => return String::new(),
        };
        if others.len() > 1 { format!("{way}, and the same for each that is named") } else { way }
    }

    pub(super) fn plan_flatten(&self, disk: DiskId) -> Result<Plan, Refusal> {
        let (disk, domain) = self.changeable_disk(disk, "flatten")?;
        self.refuse_illegal(disk)?;
        let kept = self.kept_volumes(disk).count();
        let what = if self.is_flat(disk) {
            "nothing is to be done: no volume is shared, and no layer is there but its own snapshots".to_owned()
        } else {
            format!("{kept} of {} layers stay, and none is shared", disk.volumes.len())
        };
        let summary = format!("flatten disk {} in {}: {what}", disk.name, domain.name);
        Ok(plan(own_locks(disk, domain), summary, &[disk_word(disk)]))
    }

    /// What surprises somebody who flattens a disk.
    pub(crate) fn flatten_warnings(&self, disk: DiskId) -> Vec<String> {
        let Some(disk) = self.disks.get(&disk).filter(|disk| !self.is_flat(disk)) else { return Vec::new() };
        let mut warnings = Vec::new();
        let copied: Vec<String> = self
            .kept_volumes(disk)
            .filter(|kept| kept.shared)
            .map(|kept| self.snapshot_word(disk, kept.volume.id))
            .collect();
        if !copied.is_empty() {
            warnings.push(format!(
                "{}: others use the same volume, so it gets a new one, with a new id",
                copied.join(", ")
            ));
        }
        let formats = (self.chain(disk.id).next(), self.kept_volumes(disk).next());
        if let (Some(root), Some(kept)) = formats
            && root.format != kept.volume.format
        {
            let format = kept.volume.format.word();
            warnings
                .push(format!("what was {} below is {format} afterwards, like the layer above it", root.format.word()));
        }
        warnings
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

    /// Refuses to delete a template while clones use what it holds.
    pub(super) fn refuse_cloned(&self, disk: &Disk) -> Result<(), Refusal> {
        if !disk.template {
            return Ok(());
        }
        let others = self.others_of(disk);
        let Some(first) = others.first() else { return Ok(()) };
        let message = format!("template {} is the base of {}", disk.name, self.user_word(first));
        let way = format!("first make what stands on it whole: {}", self.way_to_part(disk, &others));
        let refusal = Refusal::new(Class::Precondition, "TEMPLATE_IN_USE", message).hint(way);
        Err(others.iter().fold(refusal, |refusal, user| self.name_user(refusal, user)))
    }
}
