//! What comes with a domain that is attached: rows that another cluster wrote, or whoever could write to the storage.
//! They are held against every rule that this cluster's own rows keep, before any of them is in the catalog.

use crate::catalog::Disk;
use crate::catalog::Format;
use crate::catalog::Placement;
use crate::catalog::Volume;
use crate::domain_change::DomainContents;
use crate::garbage_order::RETENTION_MAX_MS;
use crate::locks::BLOCKERS_SHOWN;
use crate::plan::snapshots::check_description;
use crate::state::State;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::VolumeId;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// A file is at most so much larger than the largest disk: snapshots inside an image that was imported, tables, rounding.
const FILE_SHARE: u64 = 4;

/// Rows that arrive, by id.
struct Arriving<'a> {
    volumes: BTreeMap<VolumeId, &'a Volume>,
    placements: BTreeMap<PlacementId, &'a Placement>,
    /// How many of the disks that arrive use each volume.
    users: BTreeMap<VolumeId, u64>,
}

fn none_twice(wrong: bool, what: &str) -> Result<(), String> {
    if wrong { Err(format!("two {what} of it have one id or name")) } else { Ok(()) }
}

impl<'a> Arriving<'a> {
    fn of(contents: &'a DomainContents) -> Result<Self, String> {
        let volumes: BTreeMap<_, _> = contents.volumes.iter().map(|row| (row.id, row)).collect();
        let placements: BTreeMap<_, _> = contents.placements.iter().map(|row| (row.id, row)).collect();
        let disks: BTreeSet<DiskId> = contents.disks.iter().map(|disk| disk.id).collect();
        let names: BTreeSet<&Name> = contents.disks.iter().map(|disk| &disk.name).collect();
        none_twice(volumes.len() < contents.volumes.len(), "volumes")?;
        none_twice(placements.len() < contents.placements.len(), "placements")?;
        none_twice(disks.len().min(names.len()) < contents.disks.len(), "disks")?;
        let mut users = BTreeMap::new();
        for id in contents.disks.iter().flat_map(|disk| &disk.volumes) {
            *users.entry(*id).or_default() += 1;
        }
        if let Some(id) = volumes.keys().find(|id| !users.contains_key(id)) {
            return Err(format!("no disk of it uses its volume {id}"));
        }
        let placed: BTreeSet<_> = contents.disks.iter().map(|disk| disk.placement).collect();
        if placed.len() < contents.disks.len() || placements.keys().any(|id| !placed.contains(id)) {
            return Err("not every disk of it has a placement of its own".to_owned());
        }
        Ok(Self { volumes, placements, users })
    }
}

impl State {
    pub(crate) fn refuse_too_many(&self, contents: &DomainContents, new_domains: u64) -> Result<(), Refusal> {
        let settings = &self.meta.settings;
        let disks = (self.disks.len() + contents.disks.len()) as u64;
        let domains = self.domains.len() as u64 + new_domains;
        if disks > settings.disks_max || domains > settings.domains_max || contents.rows() > settings.domain_rows_max {
            let message = format!(
                "with it there would be {domains} domains (at most {}) and {disks} disks (at most {}); it brings {} rows at once (at most {})",
                settings.domains_max,
                settings.disks_max,
                contents.rows(),
                settings.domain_rows_max
            );
            return Err(Refusal::new(Class::Exhausted, "TOO_MANY_DISKS", message).hint(
                "delete what nobody needs here (sdm disk list, sdm domain list), or there before it is detached; then \
                 repeat it",
            ));
        }
        Ok(())
    }

    /// What comes with the domain: it must be whole, keep all rules, and meet nothing that is here. Of volumes that are
    /// shared, those that came before with the same domain are known already.
    ///
    /// # Errors
    /// `BAD_DOMAIN_CATALOG`, with what is wrong.
    pub(crate) fn check_contents(&self, domain: DomainId, contents: &DomainContents) -> Result<(), Refusal> {
        self.find_wrong(domain, contents).map_err(|why| {
            let message = format!("what domain {domain} says about its disks cannot be right: {why}");
            Refusal::new(Class::Precondition, "BAD_DOMAIN_CATALOG", message).hint(
                "the domain is left as it is; the files of its disks can be imported: sdm disk import FILE --name NAME \
                 --domain ANOTHER --format FORMAT",
            )
        })
    }

    fn find_wrong(&self, domain: DomainId, contents: &DomainContents) -> Result<(), String> {
        if contents.retention_ms.is_some_and(|ms| ms > RETENTION_MAX_MS) {
            return Err(format!("its retention is longer than {} days", RETENTION_MAX_MS / 86_400_000));
        }
        let arriving = Arriving::of(contents)?;
        for volume in &contents.volumes {
            self.check_volume(volume).map_err(|why| format!("volume {} {why}", volume.id))?;
        }
        for placement in &contents.placements {
            self.check_placement(domain, placement).map_err(|why| format!("placement {} {why}", placement.id))?;
        }
        for disk in &contents.disks {
            self.check_disk(domain, disk, &arriving).map_err(|why| format!("disk {} {why}", disk.name))?;
        }
        Ok(())
    }

    fn check_volume(&self, volume: &Volume) -> Result<(), String> {
        let most = self.meta.settings.disk_bytes_max;
        if self.volumes.contains(&volume.id) {
            return Err("is in the catalog already".to_owned());
        }
        if volume.virtual_size == 0 || volume.virtual_size > most {
            return Err(format!("has {} bytes, and 1 to {most} are possible", volume.virtual_size));
        }
        let file_most = most.saturating_mul(FILE_SHARE);
        if volume.file_size > file_most || volume.allocated_bytes > file_most {
            let (file, allocated) = (volume.file_size, volume.allocated_bytes);
            return Err(format!("has a file of {file} bytes, {allocated} allocated, and {file_most} are possible"));
        }
        if let Some(snapshot) = &volume.snapshot {
            check_description(&snapshot.description).map_err(|refusal| refusal.message)?;
        }
        Ok(())
    }

    /// Its name derives from its token, and neither was or will be given by this cluster to anything else.
    fn check_placement(&self, domain: DomainId, placement: &Placement) -> Result<(), String> {
        if placement.domain != domain {
            return Err(format!("lies in domain {}", placement.domain));
        }
        if self.domain_of_placement(placement.id).is_some() {
            return Err("is in the catalog already".to_owned());
        }
        let maker = placement.cluster.unwrap_or_else(|| self.cluster_id());
        let token = placement.token;
        if token.placement(maker) != placement.id {
            return Err(format!("does not have the name that token {token} of cluster {maker} gives it"));
        }
        if maker != self.cluster_id() {
            return Ok(());
        }
        if (token.epoch, token.index) >= (self.meta.epoch, self.meta.applied_index) {
            return Err(format!("has token {token}, which this cluster has not given yet"));
        }
        if self.has_garbage_of(token) || self.index.attempts.contains_key(&token) {
            return Err(format!("has token {token}, whose names are garbage or being made here"));
        }
        Ok(())
    }

    fn check_disk(&self, domain: DomainId, disk: &Disk, arriving: &Arriving<'_>) -> Result<(), String> {
        if self.disks.contains(&disk.id) || self.index.trashed_disks.contains_key(&disk.id) {
            return Err(format!("({}) is in the catalog or in the trash already", disk.id));
        }
        check_description(&disk.description).map_err(|refusal| refusal.message)?;
        if arriving.placements.get(&disk.placement).is_none_or(|at| at.disk != disk.id) {
            return Err(format!("does not lie in its placement {}", disk.placement));
        }
        let most = self.meta.settings.chain_max;
        if disk.volumes.is_empty() || disk.volumes.len() as u64 > most {
            return Err(format!("has a chain of {} volumes, and 1 to {most} are possible", disk.volumes.len()));
        }
        let mut parent: Option<&Volume> = None;
        let mut snapshots = BTreeSet::new();
        for id in &disk.volumes {
            let known = || self.volumes.get(id).filter(|_| self.is_shared_in(*id, domain));
            let volume = arriving.volumes.get(id).copied().or_else(known);
            let volume = volume.ok_or_else(|| format!("lacks its volume {id}"))?;
            check_layer(volume, parent)?;
            if let Some(snapshot) = volume.snapshot.as_ref().filter(|_| volume.disk == disk.id)
                && !snapshots.insert(&snapshot.name)
            {
                return Err(format!("has two snapshots {}", snapshot.name));
            }
            parent = Some(volume);
        }
        let Some(leaf) = parent.filter(|_| !disk.template) else { return Ok(()) };
        if leaf.snapshot.is_some() {
            return Err(format!("would write into its snapshot {}", leaf.id));
        }
        if !arriving.volumes.contains_key(&leaf.id) || arriving.users.get(&leaf.id) != Some(&1) {
            return Err(format!("would write into volume {}, which others use", leaf.id));
        }
        Ok(())
    }

    /// Whether a volume came with this domain, and is nobody's leaf. Leaves have one user, so the first one tells.
    fn is_shared_in(&self, volume: VolumeId, domain: DomainId) -> bool {
        self.users_of(volume).next().and_then(|id| self.disks.get(&id)).is_some_and(|disk| {
            let here = self.domain_of(disk).is_some_and(|at| at.id == domain);
            here && (disk.template || disk.volumes.last() != Some(&volume))
        })
    }

    pub(crate) fn refuse_clashes(&self, contents: &DomainContents) -> Result<(), Refusal> {
        let clashes = || contents.disks.iter().filter(|disk| self.disk_named(&disk.name).is_some());
        let count = clashes().count();
        if count == 0 {
            return Ok(());
        }
        let message = format!("{count} disks of the domain have names that are taken here");
        let mut refusal = Refusal::new(Class::Conflict, "DISK_EXISTS", message)
            .hint("rename those here (sdm disk rename), or give all that come another name: --rename-prefix TEXT");
        for disk in clashes().take(BLOCKERS_SHOWN) {
            refusal = refusal.blocker("disk", disk.name.as_str(), "has this name here, too");
        }
        Err(refusal)
    }
}

/// The rules of chains: the same as for disks that are made here.
fn check_layer(volume: &Volume, parent: Option<&Volume>) -> Result<(), String> {
    let id = volume.id;
    if volume.parent != parent.map(|parent| parent.id) {
        return Err(format!("has a chain that is broken at volume {id}"));
    }
    let Some(parent) = parent else { return Ok(()) };
    if volume.format != Format::Qcow2 {
        return Err(format!("has a {} volume {id} over another one: only qcow2 can be", volume.format.word()));
    }
    if volume.virtual_size < parent.virtual_size {
        return Err(format!("has a volume {id} that is smaller than the one beneath"));
    }
    Ok(())
}
