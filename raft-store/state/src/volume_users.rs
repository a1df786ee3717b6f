//! Who uses each volume: the disk that made it, its linked clones, and disks in the trash. Derived from
//! the disks' and the garbage's rows; a volume's row stays as long as it has a user.

use crate::catalog::Disk;
use crate::garbage::Trashed;
use crate::state::State;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::VolumeId;
use sdm_proto::token::Token;

/// Somebody who uses a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VolumeUser {
    /// A disk.
    Disk(DiskId),
    /// Garbage out of which a disk could be restored.
    Trash(Token),
}

/// Of all volumes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct VolumeUsers(imbl::OrdSet<(VolumeId, VolumeUser)>);

impl VolumeUsers {
    /// A user's chain is another now.
    pub(crate) fn change(&mut self, user: VolumeUser, old: &[VolumeId], new: &[VolumeId]) {
        if old == new {
            return;
        }
        for volume in old {
            self.0.remove(&(*volume, user));
        }
        for volume in new {
            self.0.insert((*volume, user));
        }
    }
}

impl State {
    /// Who uses a volume: disks by rising id, then garbage.
    pub fn volume_users(&self, volume: VolumeId) -> impl Iterator<Item = VolumeUser> + '_ {
        // Before every other user.
        let first = VolumeUser::Disk(DiskId::default());
        let from = self.index.volume_users.0.range((volume, first)..);
        from.take_while(move |(of, _)| *of == volume).map(|(_, user)| *user)
    }

    /// The disks whose chain holds the volume, by rising id.
    pub fn users_of(&self, volume: VolumeId) -> impl Iterator<Item = DiskId> + '_ {
        self.volume_users(volume).map_while(|user| match user {
            VolumeUser::Disk(disk) => Some(disk),
            VolumeUser::Trash(_) => None,
        })
    }

    /// Disks in a domain whose chain holds the volume there, other than this one, by rising id.
    fn sharers_in(&self, volume: VolumeId, domain: DomainId, but: DiskId) -> impl Iterator<Item = &Disk> + '_ {
        let others = self.users_of(volume).filter(move |id| *id != but).filter_map(move |id| self.disks.get(&id));
        others.filter(move |disk| self.domain_of(disk).is_some_and(|found| found.id == domain))
    }

    /// Which of a disk's volumes other disks in the domain use, too: oVirt wants those marked in every folder.
    pub fn shared_in(&self, domain: DomainId, disk: DiskId, volumes: impl Iterator<Item = VolumeId>) -> Vec<VolumeId> {
        volumes.filter(|volume| self.sharers_in(*volume, domain, disk).next().is_some()).collect()
    }

    /// Placements, but this disk's and templates', for which these volumes of it are shared only because it uses them.
    pub(crate) fn only_sharers(&self, domain: DomainId, disk: DiskId, volumes: &[VolumeId]) -> Vec<PlacementId> {
        let mut found: Vec<PlacementId> = Vec::new();
        for volume in volumes {
            let mut others = self.sharers_in(*volume, domain, disk);
            if let (Some(other), None) = (others.next(), others.next())
                && !other.template
                && !found.contains(&other.placement)
            {
                found.push(other.placement);
            }
        }
        found
    }

    /// Counts a deleted disk in the trash as a user of its chain, as long as it is there. Answers with the volumes
    /// that it does not use any more.
    pub(crate) fn count_trash(&mut self, garbage: Token, trash: Option<&Trashed>) -> Vec<VolumeId> {
        let old = self.garbage.get(&garbage).and_then(|row| row.trash.as_ref());
        if let Some(old) = old.map(|trash| trash.disk.id) {
            self.index.trashed_disks.remove(&old);
        }
        if let Some(new) = trash {
            self.index.trashed_disks.insert(new.disk.id, garbage);
        }
        let old = self.garbage.get(&garbage).and_then(|row| row.trash.as_ref());
        let old = old.map(|trash| trash.disk.volumes.clone()).unwrap_or_default();
        let new = trash.map(|trash| trash.disk.volumes.as_slice()).unwrap_or_default();
        self.index.volume_users.change(VolumeUser::Trash(garbage), &old, new);
        match (trash, self.garbage.get(&garbage).and_then(|row| row.placement)) {
            (Some(trash), _) => _ = self.index.trashed.insert(trash.placement.id, garbage),
            (None, Some(placement)) => _ = self.index.trashed.remove(&placement),
            (None, None) => {}
        }
        if old == new { Vec::new() } else { old }
    }

    /// The deleted disk whose placement this is.
    pub(crate) fn trash_at(&self, placement: PlacementId) -> Option<&Trashed> {
        self.garbage.get(self.index.trashed.get(&placement)?)?.trash.as_deref()
    }

    /// Forgets those of the volumes that nobody uses any more.
    pub(crate) fn forget_unused(&mut self, volumes: &[VolumeId]) {
        for volume in volumes {
            if self.volume_users(*volume).next().is_none() {
                self.remove_volume(volume);
            }
        }
    }
}
