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
use crate::locks::Mode;
use crate::locks::Resource;
use crate::state::State;
use crate::txns::Spec;
use crate::volume_users::VolumeUser;
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
    fn base_locks(&self, disk: &Disk) -> Vec<(Resource, Mode)> {
        let mut owners: Vec<DiskId> = self.chain(disk.id).map(|row| row.disk).filter(|id| *id != disk.id).collect();
        owners.dedup();
        owners.retain(|id| self.disks.contains(id));
        owners.into_iter().map(|id| (Resource::Disk(id), Mode::Shared)).collect()
    }

    fn check_snapshot(&self, disk: &Disk, snapshot: Option<VolumeId>) -> Result<(), Refusal> {
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
        self.refuse_attached(disk, Access::Read)?;
        let length =
            snapshot.map_or(Ok(disk.volumes.len()), |volume| self.place_in_chain(disk, volume).map(|at| at + 1))?;
        if length > 1 && !collapse {
            let message = format!(
                "disk {} has a chain of {length} volumes, and a copy is one volume: it would have no snapshots",
                disk.name
            );
            return Err(Refusal::new(Class::Precondition, "CHAIN_NOT_COLLAPSED", message)
                .hint("say that they may go: --collapse; or move the disk with all it has: sdm disk move"));
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
        self.refuse_attached(disk, if freezes { Access::Write } else { Access::Read })?;
        if snapshot.is_none() {
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

    pub(super) fn plan_convert(&self, disk: DiskId, format: Format, preallocated: bool) -> Result<Plan, Refusal> {
        let (disk, domain) = self.changeable_disk(disk, "convert")?;
        self.refuse_illegal(disk)?;
        check_preallocated(format, preallocated)?;
        if disk.volumes.len() > 1 {
            let message = format!("disk {} has a chain of {} volumes", disk.name, disk.volumes.len());
            return Err(Refusal::new(Class::Precondition, "HAS_SNAPSHOTS", message).hint(format!(
                "delete its snapshots first (sdm snapshot list {0}), or copy it: sdm disk copy {0} NAME --format {1} \
                 --collapse",
                disk.name,
                format.word()
            )));
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

    /// Refuses to delete a template while clones use what it holds.
    pub(super) fn refuse_cloned(&self, disk: &Disk) -> Result<(), Refusal> {
        if !disk.template {
            return Ok(());
        }
        let users = disk.volumes.iter().flat_map(|volume| self.volume_users(*volume));
        let mut clones: Vec<VolumeUser> =
            users.filter(|user| *user != VolumeUser::Disk(disk.id)).take(crate::locks::BLOCKERS_SHOWN).collect();
        clones.dedup();
        let Some(first) = clones.first() else { return Ok(()) };
        let message = format!("template {} is the base of {}", disk.name, self.user_word(first));
        let refusal = Refusal::new(Class::Precondition, "TEMPLATE_IN_USE", message).hint(format!(
            "make its clones whole first (sdm snapshot delete CLONE {}), or delete them",
            disk.volumes.last().copied().unwrap_or_default()
        ));
        Err(clones.iter().fold(refusal, |refusal, user| self.name_user(refusal, user)))
    }
}
