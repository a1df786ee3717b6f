//! Planning: which locks a transaction needs, and whether it is allowed, given the catalog as it is
//! now. Asked when a request arrives and again just before its locks are granted.

mod arriving;
mod attachments;
mod clones;
mod disks;
mod domains;
mod garbage;
mod sharing;
mod snapshots;
mod workers;

use crate::attachments::Access;
use crate::catalog::Disk;
use crate::catalog::Domain;
use crate::locks::Mode;
use crate::locks::Resource;
use crate::locks::joined;
use crate::state::State;
use crate::txns::Spec;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::VolumeId;
use sdm_proto::names::Name;
use sdm_proto::names::is_domain_path;
use sdm_proto::names::is_lock_name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use std::collections::BTreeMap;

/// What a transaction needs and does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// Its lock set.
    pub locks: BTreeMap<Resource, Mode>,
    /// What it does, in words.
    pub summary: String,
    /// What it works on, in words.
    pub objects: Vec<String>,
}

fn plan(locks: Vec<(Resource, Mode)>, summary: String, objects: &[String]) -> Plan {
    Plan { locks: joined(locks), summary, objects: objects.to_vec() }
}

fn domain_word(domain: &Domain) -> String {
    format!("domain/{}", domain.name)
}

fn disk_word(disk: &Disk) -> String {
    format!("disk/{}", disk.name)
}

fn disk_name(name: &Name) -> (Resource, Mode) {
    (Resource::Name(format!("disk/{name}")), Mode::Exclusive)
}

/// That this build knows the operation and cannot do it.
pub(crate) fn not_yet(spec: &Spec) -> Refusal {
    not_yet_word(spec.kind())
}

fn not_yet_word(kind: &str) -> Refusal {
    Refusal::new(Class::Unsupported, "NOT_YET", format!("{kind} cannot be done by this version"))
}

fn plan_noop(name: &str) -> Result<Plan, Refusal> {
    if !is_lock_name(name) {
        return Err(Refusal::new(Class::Invalid, "BAD_RESOURCE", "a noop locks one name beneath user/"));
    }
    let resource = Resource::User(name.to_owned());
    let word = resource.to_string();
    Ok(plan(vec![(resource, Mode::Exclusive)], format!("do nothing under {word}"), &[word]))
}

impl State {
    /// The plan, or why it is not allowed.
    pub(crate) fn plan(&self, spec: &Spec) -> Result<Plan, Refusal> {
        match spec {
            Spec::CreateDomain { name, path, local } => self.plan_create_domain(name, path, *local),
            Spec::CreateDisk { name, domain, size, format, preallocated, description } => {
                self.check_size(*size)?;
                clones::check_preallocated(*format, *preallocated)?;
                snapshots::check_description(description)?;
                self.plan_new_disk("create", name, *domain)
            }
            Spec::ImportDisk { name, domain, file_size, .. } => {
                self.check_size(*file_size)?;
                self.plan_new_disk("import", name, *domain)
            }
            Spec::ExportDisk { disk } => self.plan_export(*disk, None, false),
            Spec::ExportChain { disk, snapshot, collapse } => self.plan_export(*disk, *snapshot, *collapse),
            Spec::MoveDisk { disk, to } => self.plan_move(*disk, *to),
            Spec::DeleteDisk { disk } => {
                let (disk, domain) = self.known_disk(*disk)?;
                self.refuse_cloned(disk)?;
                self.refuse_attached(disk, Access::Write)?;
                let locks = vec![
                    (Resource::Domain(domain.id), Mode::IntentExclusive),
                    (Resource::Disk(disk.id), Mode::Exclusive),
                ];
                Ok(plan(locks, format!("delete disk {} in {}", disk.name, domain.name), &[disk_word(disk)]))
            }
            Spec::Garbage(order) => self.plan_garbage(order),
            Spec::Domain(change) => self.plan_domain_change(change),
            Spec::Attachment(change) => self.plan_attachment(change),
            Spec::Worker(change) => self.plan_worker_change(change),
            Spec::Noop { resource } => plan_noop(resource),
            Spec::RenameDisk { disk, name } => self.plan_rename(*disk, name),
            Spec::DescribeDisk { disk, description } => self.plan_describe(*disk, description),
            Spec::ResizeDisk { disk, size } => self.plan_resize(*disk, *size),
            Spec::CopyDisk { .. } => self.plan_copy(spec),
            Spec::CloneLinked { .. } => self.plan_clone(spec),
            Spec::ConvertDisk { disk, format, preallocated } => self.plan_convert(*disk, *format, *preallocated),
            Spec::FlattenDisk { disk } => self.plan_flatten(*disk),
            Spec::CreateSnapshot { disk, name, description } => self.plan_create_snapshot(*disk, name, description),
            Spec::DeleteSnapshot { disk, volume, in_place } => self.plan_delete_snapshot(*disk, *volume, *in_place),
            Spec::RevertSnapshot { disk, volume, discard_newer } => self.plan_revert(*disk, *volume, *discard_newer),
            Spec::SetVolumeLegality { disk, volume, legal } => self.plan_legality(*disk, *volume, *legal),
            Spec::RepairProjection { disk } => self.plan_repair(*disk),
        }
    }

    pub(crate) fn known_domain(&self, id: DomainId) -> Result<&Domain, Refusal> {
        self.domains.get(&id).filter(|domain| !domain.state.is_hidden()).ok_or_else(|| {
            Refusal::new(Class::NotFound, "DOMAIN_NOT_FOUND", format!("there is no domain {id}"))
                .hint("sdm domain list")
        })
    }

    pub(crate) fn known_disk(&self, id: DiskId) -> Result<(&Disk, &Domain), Refusal> {
        let missing =
            || Refusal::new(Class::NotFound, "DISK_NOT_FOUND", format!("there is no disk {id}")).hint("sdm disk list");
        let disk = self.disks.get(&id).ok_or_else(missing)?;
        let domain = self.domain_of(disk).filter(|domain| !domain.state.is_hidden());
        Ok((disk, domain.ok_or_else(missing)?))
    }

    fn check_size(&self, bytes: u64) -> Result<(), Refusal> {
        let most = self.meta.settings.disk_bytes_max;
        if bytes == 0 {
            return Err(Refusal::new(Class::Invalid, "SIZE_ZERO", "a disk of 0 bytes holds nothing")
                .hint("give a size of at least 4 KiB"));
        }
        if bytes > most {
            let message = format!("{bytes} bytes are more than a disk may have ({most})");
            let refusal = Refusal::new(Class::Invalid, "SIZE_TOO_LARGE", message);
            return Err(self.hinted(refusal, "give a smaller size; several disks hold more together"));
        }
        Ok(())
    }

    fn plan_create_domain(&self, name: &Name, path: &str, local: bool) -> Result<Plan, Refusal> {
        if !is_domain_path(path) {
            let message = format!("{path:?} is not the absolute path of a folder");
            return Err(Refusal::new(Class::Invalid, "BAD_PATH", message)
                .hint("give it without '.', '..', doubled or trailing slashes"));
        }
        if self.domain_named(name).is_some() {
            return Err(Refusal::new(Class::Conflict, "DOMAIN_EXISTS", format!("there is a domain {name} already"))
                .hint(format!("choose another name, or see `sdm domain show {name}`")));
        }
        self.refuse_domain_path(path)?;
        if self.domains.len() as u64 >= self.meta.settings.domains_max {
            let message = format!("there are {} domains, more are not allowed", self.domains.len());
            return Err(Refusal::new(Class::Exhausted, "TOO_MANY_DOMAINS", message)
                .hint("give up one that nobody needs (sdm domain list, sdm domain delete NAME), then repeat it"));
        }
        let locks = vec![
            (Resource::Name(format!("domain/{name}")), Mode::Exclusive),
            (Resource::Name(format!("path/{path}")), Mode::Exclusive),
        ];
        let what = if local { "local domain" } else { "domain" };
        Ok(plan(locks, format!("create {what} {name} at {path}"), &[format!("domain/{name}")]))
    }

    fn plan_new_disk(&self, verb: &str, name: &Name, domain: DomainId) -> Result<Plan, Refusal> {
        let domain = self.known_domain(domain)?;
        self.check_new_disk(name)?;
        let locks = vec![(Resource::Domain(domain.id), Mode::IntentExclusive), disk_name(name)];
        let objects = [format!("disk/{name}"), domain_word(domain)];
        Ok(plan(locks, format!("{verb} disk {name} in {}", domain.name), &objects))
    }

    fn plan_export(&self, disk: DiskId, snapshot: Option<VolumeId>, collapse: bool) -> Result<Plan, Refusal> {
        let (disk, domain) = self.known_disk(disk)?;
        self.check_snapshot(disk, snapshot)?;
        self.refuse_illegal(disk)?;
        // What a snapshot froze is read: whoever writes the leaf does not change it.
        if snapshot.is_none() {
            self.refuse_attached(disk, Access::Read)?;
        }
        let length = self.seen_chain(disk.id, snapshot).len();
        if length > 1 && !collapse {
            let message =
                format!("disk {} has a chain of {length} volumes; only one volume can be exported", disk.name);
            return Err(Refusal::new(Class::Precondition, "CHAIN_TOO_LONG", message).hint(format!(
                "copy it into one volume first (sdm disk copy {} NAME --collapse), and export the copy",
                disk.name
            )));
        }
        let mut locks =
            vec![(Resource::Domain(domain.id), Mode::IntentShared), (Resource::Disk(disk.id), Mode::Shared)];
        locks.extend(self.base_locks(disk));
        let of = snapshot.map(|volume| format!("{} of ", self.snapshot_word(disk, volume))).unwrap_or_default();
        Ok(plan(locks, format!("export {of}disk {} from {}", disk.name, domain.name), &[disk_word(disk)]))
    }

    fn plan_move(&self, disk: DiskId, to: DomainId) -> Result<Plan, Refusal> {
        let (disk, from) = self.known_disk(disk)?;
        self.refuse_illegal(disk)?;
        self.refuse_attached(disk, Access::Write)?;
        let to = self.known_domain(to)?;
        if to.id == from.id {
            let message = format!("disk {} is in {} already", disk.name, to.name);
            return Err(Refusal::new(Class::Precondition, "ALREADY_THERE", message).hint("nothing is to be moved"));
        }
        self.refuse_move_of_shared(disk, to)?;
        let locks = vec![
            (Resource::Domain(from.id), Mode::IntentExclusive),
            (Resource::Domain(to.id), Mode::IntentExclusive),
            (Resource::Disk(disk.id), Mode::Exclusive),
        ];
        let summary = format!("move disk {} from {} to {}", disk.name, from.name, to.name);
        Ok(plan(locks, summary, &[disk_word(disk), domain_word(from), domain_word(to)]))
    }
}
