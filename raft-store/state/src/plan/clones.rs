//! Planning of what makes a disk out of another one: a copy (a full clone, a template), a linked clone;
//! and of a disk's only volume in another format.

use super::Plan;
use super::disk_name;
use super::disk_word;
use super::domain_word;
use super::plan;
use super::snapshots::check_description;
use super::snapshots::own_locks;
use crate::attachments::Access;
use crate::catalog::Disk;
use crate::catalog::Format;
use crate::locks::BLOCKERS_SHOWN;
use crate::locks::Mode;
use crate::locks::Resource;
use crate::state::State;
use crate::txns::Spec;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::VolumeId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

/// Only raw files are preallocated: in qcow2 the guest's first writes need new tables all the same.
pub(super) fn check_preallocated(format: Format, preallocated: bool) -> Result<(), Refusal> {
    if preallocated && format != Format::Raw {
        let message = format!("a {} volume cannot be preallocated", format.word());
        return Err(Refusal::new(Class::Invalid, "BAD_PREALLOCATION", message)
            .hint("preallocate a raw one: --format raw --preallocate"));
    }
    Ok(())
}

impl State {
    /// Locks that keep the owners of a shared base from changing it while it is read.
    pub(super) fn base_locks(&self, disk: &Disk) -> Vec<(Resource, Mode)> {
        let mut owners: Vec<DiskId> = self.chain(disk.id).map(|row| row.disk).filter(|id| *id != disk.id).collect();
        owners.dedup();
        owners.retain(|id| self.disks.contains(id));
        owners.into_iter().map(|id| (Resource::Disk(id), Mode::Shared)).collect()
    }

    /// A disk as it is now, or at a snapshot of it, in words.
    pub(super) fn seen_word(&self, disk: &Disk, snapshot: Option<VolumeId>) -> String {
        snapshot.map_or_else(
            || disk.name.to_string(),
            |volume| format!("{} at {}", disk.name, self.snapshot_word(disk, volume)),
        )
    }

    pub(super) fn check_snapshot(&self, disk: &Disk, snapshot: Option<VolumeId>) -> Result<(), Refusal> {
        let Some(volume) = snapshot else { return Ok(()) };
        let at = self.place_in_chain(disk, volume)?;
        if at + 1 < disk.volumes.len() || disk.template {
            return Ok(());
        }
        let message = format!("volume {volume} is what disk {} holds now, no snapshot of it", disk.name);
        Err(Refusal::new(Class::Precondition, "NOT_A_SNAPSHOT", message)
            .hint(format!("leave --snapshot out, or see `sdm snapshot list {}`", disk.name)))
    }

    pub(super) fn plan_copy(&self, spec: &Spec) -> Result<Plan, Refusal> {
        let Spec::CopyDisk { disk, snapshot, name, description, to, format, preallocated, collapse, template } = spec
        else {
            return Err(super::not_yet(spec));
        };
        check_description(description)?;
        let (disk, from) = self.known_disk(*disk)?;
        let to = self.known_domain(*to)?;
        self.check_new_disk(name)?;
        self.check_snapshot(disk, *snapshot)?;
        self.refuse_illegal(disk)?;
        // What a snapshot froze is read: whoever writes the leaf does not change it.
        if snapshot.is_none() {
            self.refuse_attached(disk, Access::Read)?;
        }
        let length =
            snapshot.map_or(Ok(disk.volumes.len()), |volume| self.place_in_chain(disk, volume).map(|at| at + 1))?;
        if length > 1 && !collapse {
            let message = format!(
                "disk {} has a chain of {length} volumes, and a copy is one volume: it would have no snapshots",
                self.seen_word(disk, *snapshot)
            );
            let hint = match snapshot {
                None => format!(
                    "say that they may go: --collapse; or move the disk with all it has: sdm disk move {} --to DOMAIN",
                    disk.name
                ),
                Some(volume) => format!(
                    "say that it may be one volume: --collapse; or share what is frozen: sdm disk clone {} NAME --snapshot {}",
                    disk.name,
                    self.snapshot_named_or_id(disk, *volume)
                ),
            };
            return Err(Refusal::new(Class::Precondition, "CHAIN_NOT_COLLAPSED", message).hint(hint));
        }
        let own = snapshot.or_else(|| disk.volumes.last().copied()).and_then(|id| self.volumes.get(&id));
        check_preallocated(format.or_else(|| own.map(|row| row.format)).unwrap_or(Format::Raw), *preallocated)?;
        let mut locks = vec![
            (Resource::Domain(from.id), Mode::IntentExclusive),
            (Resource::Domain(to.id), Mode::IntentExclusive),
            (Resource::Disk(disk.id), Mode::Shared),
            disk_name(name),
        ];
        locks.extend(self.base_locks(disk));
        let of = snapshot.map(|volume| format!("{} of ", self.snapshot_word(disk, volume))).unwrap_or_default();
        let verb = if *template { "make template" } else { "copy" };
        let summary = if *template {
            format!("{verb} {name} in {} from {of}disk {} in {}", to.name, disk.name, from.name)
        } else {
            format!("{verb} {of}disk {} in {} to {name} in {}", disk.name, from.name, to.name)
        };
        let mut objects = vec![format!("disk/{name}"), disk_word(disk), domain_word(from)];
        if from.id != to.id {
            objects.push(domain_word(to));
        }
        Ok(plan(locks, summary, &objects))
    }

    pub(super) fn plan_clone(&self, spec: &Spec) -> Result<Plan, Refusal> {
        let Spec::CloneLinked { disk, snapshot, name, description } = spec else { return Err(super::not_yet(spec)) };
        check_description(description)?;
        let (disk, domain) = self.known_disk(*disk)?;
        self.check_new_disk(name)?;
        self.check_snapshot(disk, *snapshot)?;
        self.refuse_illegal(disk)?;
        // What the disk holds now is frozen first: that makes a new leaf, so nobody may be writing the old one.
        let freezes = self.stages(spec) > 1;
        if snapshot.is_none() {
            self.refuse_attached(disk, if freezes { Access::Write } else { Access::Read })?;
            self.check_room_for_leaf(disk)?;
        }
        let mode = if freezes { Mode::Exclusive } else { Mode::Shared };
        let mut locks = vec![
            (Resource::Domain(domain.id), Mode::IntentExclusive),
            (Resource::Disk(disk.id), mode),
            disk_name(name),
        ];
        locks.extend(self.base_locks(disk));
        let of = snapshot.map(|volume| format!("{} of ", self.snapshot_word(disk, volume))).unwrap_or_default();
        let summary = format!("clone {of}disk {} in {} to {name}, sharing its volumes", disk.name, domain.name);
        Ok(plan(locks, summary, &[format!("disk/{name}"), disk_word(disk), domain_word(domain)]))
    }

    /// What surprises somebody who clones a disk by sharing: whatever has something beneath it is qcow2.
    pub(crate) fn clone_warnings(&self, disk: DiskId, snapshot: Option<VolumeId>, stages: u32) -> Vec<String> {
        let seen = match snapshot {
            Some(volume) => self.volumes.get(&volume),
            None => self.chain(disk).last(),
        };
        if seen.is_none_or(|row| row.format != Format::Raw) {
            return Vec::new();
        }
        let mut warnings = vec!["the clone is qcow2, over the raw volume that it shares".to_owned()];
        if stages > 1 {
            warnings.push("the source gets a new layer, too, and is qcow2 from then on".to_owned());
        }
        warnings
    }

    /// That a disk has layers, and how it gets rid of them.
    fn not_one_volume(&self, disk: &Disk, format: Format) -> Refusal {
        let snapshots = self.snapshots_of(disk).count();
        let others = disk.volumes.len().saturating_sub(snapshots + 1);
        let message = format!(
            "disk {} has a chain of {} volumes: {snapshots} snapshots of its own, {others} layers beside them, and what it \
             holds now",
            disk.name,
            disk.volumes.len()
        );
        let mut ways = Vec::new();
        if snapshots > 0 {
            ways.push(format!(
                "delete its snapshots (sdm snapshot list {0}; sdm snapshot delete {0} SNAPSHOT)",
                disk.name
            ));
        }
        if others > 0 {
            ways.push(format!("take in the other layers (sdm disk flatten {})", disk.name));
        }
        let hint = format!(
            "first {}; or copy it: sdm disk copy {} NAME --format {} --collapse",
            ways.join(", then "),
            disk.name,
            format.word()
        );
        let refusal = Refusal::new(Class::Precondition, "HAS_SNAPSHOTS", message).hint(hint);
        let frozen = disk.volumes.len().saturating_sub(1).min(BLOCKERS_SHOWN);
        let name =
            |refusal: Refusal, id: &VolumeId| refusal.blocker("volume", id.to_string(), self.snapshot_word(disk, *id));
        disk.volumes.iter().take(frozen).fold(refusal, name)
    }

    pub(super) fn plan_convert(&self, disk: DiskId, format: Format, preallocated: bool) -> Result<Plan, Refusal> {
        let (disk, domain) = self.changeable_disk(disk, "convert")?;
        self.refuse_illegal(disk)?;
        check_preallocated(format, preallocated)?;
        if disk.volumes.len() > 1 {
            return Err(self.not_one_volume(disk, format));
        }
        let Some(row) = self.chain(disk.id).last() else { return Err(super::not_yet_word("disk-convert")) };
        self.refuse_shared(disk, row.id, &format!("convert disk {}", disk.name))?;
        if row.format == format && row.preallocated == preallocated {
            let message = format!("disk {} is {} already", disk.name, format.word());
            return Err(Refusal::new(Class::Precondition, "ALREADY_SO", message).hint("nothing is to be converted"));
        }
        let kind = if preallocated { "preallocated " } else { "" };
        let summary = format!("convert disk {} in {} to {kind}{}", disk.name, domain.name, format.word());
        Ok(plan(own_locks(disk, domain), summary, &[disk_word(disk)]))
    }
}
