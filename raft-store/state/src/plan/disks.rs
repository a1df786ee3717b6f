//! Planning of what concerns a disk as a whole: its name and words, its size, and what users decide
//! about its volumes.

use super::Plan;
use super::disk_name;
use super::disk_word;
use super::plan;
use super::snapshots::check_description;
use super::snapshots::own_locks;
use crate::blueprint::SECTOR_BYTES;
use crate::catalog::Disk;
use crate::locks::BLOCKERS_SHOWN;
use crate::state::State;
use crate::volume_users::VolumeUser;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::VolumeId;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

impl State {
    pub(super) fn plan_rename(&self, disk: DiskId, name: &Name) -> Result<Plan, Refusal> {
        let (disk, domain) = self.known_disk(disk)?;
        if disk.name == *name {
            let message = format!("the disk is called {name} already");
            return Err(Refusal::new(Class::Precondition, "ALREADY_SO", message).hint("nothing is to be renamed"));
        }
        self.refuse_taken_name(name)?;
        let mut locks = own_locks(disk, domain);
        locks.extend([disk_name(&disk.name), disk_name(name)]);
        let objects = [disk_word(disk), format!("disk/{name}")];
        Ok(plan(locks, format!("rename disk {} in {} to {name}", disk.name, domain.name), &objects))
    }

    pub(super) fn plan_describe(&self, disk: DiskId, description: &str) -> Result<Plan, Refusal> {
        check_description(description)?;
        let (disk, domain) = self.known_disk(disk)?;
        let summary = format!("describe disk {} in {}", disk.name, domain.name);
        Ok(plan(own_locks(disk, domain), summary, &[disk_word(disk)]))
    }

    pub(super) fn plan_resize(&self, disk: DiskId, size: u64) -> Result<Plan, Refusal> {
        self.check_size(size)?;
        let (disk, domain) = self.changeable_disk(disk, "resize")?;
        self.refuse_illegal(disk)?;
        let now = self.chain(disk.id).last().map_or(0, |leaf| leaf.virtual_size);
        if !size.is_multiple_of(SECTOR_BYTES) {
            let message = format!("{size} bytes are not a whole number of sectors ({SECTOR_BYTES} bytes)");
            return Err(Refusal::new(Class::Invalid, "SIZE_UNALIGNED", message)
                .hint(format!("give {} bytes", size.next_multiple_of(SECTOR_BYTES))));
        }
        if size <= now {
            let message = format!("disk {} has {now} bytes already, and a disk never shrinks", disk.name);
            return Err(Refusal::new(Class::Precondition, "NOT_LARGER", message)
                .hint("give a larger size; for a smaller disk, create one and copy inside the guest"));
        }
        if let Some(leaf) = disk.volumes.last() {
            self.refuse_shared(disk, *leaf, &format!("resize disk {}", disk.name))?;
        }
        let summary = format!("resize disk {} in {} from {now} to {size} bytes", disk.name, domain.name);
        Ok(plan(own_locks(disk, domain), summary, &[disk_word(disk)]))
    }

    pub(super) fn plan_legality(&self, disk: DiskId, volume: VolumeId, legal: bool) -> Result<Plan, Refusal> {
        let (disk, domain) = self.known_disk(disk)?;
        self.place_in_chain(disk, volume)?;
        let word = if legal { "legal" } else { "illegal" };
        if self.volumes.get(&volume).is_some_and(|row| row.legal == legal) {
            let message = format!("volume {volume} of disk {} is {word} already", disk.name);
            return Err(Refusal::new(Class::Precondition, "ALREADY_SO", message).hint("nothing is to be changed"));
        }
        // Whoever shares it has it on the storage, too, and all that is written anew is one entry's work.
        let most = usize::try_from(self.meta.settings.work_per_entry).unwrap_or(usize::MAX);
        if self.volume_users(volume).take(most + 1).count() > most {
            let message = format!("volume {volume} is shared by more than {most} disks");
            return Err(Refusal::new(Class::Exhausted, "TOO_MANY_CLONES", message)
                .hint("flatten clones until fewer are left (sdm disk flatten CLONE), or delete some"));
        }
        let summary = format!("make volume {volume} of disk {} in {} {word}", disk.name, domain.name);
        Ok(plan(own_locks(disk, domain), summary, &[disk_word(disk), format!("volume/{volume}")]))
    }

    pub(super) fn plan_repair(&self, disk: DiskId) -> Result<Plan, Refusal> {
        let (disk, domain) = self.known_disk(disk)?;
        let summary = format!("write anew what the storage says about disk {} in {}", disk.name, domain.name);
        Ok(plan(own_locks(disk, domain), summary, &[disk_word(disk)]))
    }

    /// Refuses a name that a disk has.
    pub(super) fn refuse_taken_name(&self, name: &Name) -> Result<(), Refusal> {
        if self.disk_named(name).is_some() {
            return Err(Refusal::new(Class::Conflict, "DISK_EXISTS", format!("there is a disk {name} already"))
                .hint(format!("choose another name, or see `sdm disk show {name}`")));
        }
        Ok(())
    }

    /// Refuses a new disk of this name, and one too many.
    pub(super) fn check_new_disk(&self, name: &Name) -> Result<(), Refusal> {
        self.refuse_taken_name(name)?;
        if self.disks.len() as u64 >= self.meta.settings.disks_max {
            let message = format!("there are {} disks, more are not allowed", self.disks.len());
            let refusal = Refusal::new(Class::Exhausted, "TOO_MANY_DISKS", message);
            return Err(self.hinted(refusal, "delete disks that nobody needs: sdm disk list"));
        }
        Ok(())
    }

    /// With a hint that the first level did not give.
    pub(super) fn hinted(&self, refusal: Refusal, hint: &str) -> Refusal {
        if self.meta.feature_level >= 2 { refusal.hint(hint) } else { refusal }
    }

    /// What surprises somebody who deletes a disk.
    pub(crate) fn deletion_warnings(&self, disk: DiskId) -> Vec<String> {
        let Some(row) = self.disks.get(&disk) else { return Vec::new() };
        let others = row.volumes.iter().flat_map(|volume| self.volume_users(*volume));
        let clones = others.filter(|user| *user != VolumeUser::Disk(disk)).take(BLOCKERS_SHOWN).count();
        let mut warnings = vec![self.retention_words(row)];
        if clones > 0 {
            warnings.push("volumes that clones share stay on the storage".to_owned());
        }
        warnings
    }

    /// Whether a deleted disk can be put back, and for how long.
    fn retention_words(&self, disk: &Disk) -> String {
        let Some(domain) = self.domain_of(disk) else { return String::new() };
        match self.retention_ms(domain.id) {
            0 => format!(
                "it is gone for good at once: domain {0} keeps no deleted disks (sdm domain set {0} --retention 7d, before)",
                domain.name
            ),
            ms => format!(
                "it can be put back for {} s (the retention of domain {}): sdm gc trash restore {}",
                ms / 1000,
                domain.name,
                disk.name
            ),
        }
    }
}
