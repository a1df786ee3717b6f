//! Plans of changes of domains, and what is refused at once because of how a domain stands instead of
//! waiting for it.

use super::Plan;
use super::domain_word;
use super::plan;
use crate::attachments::Attachment;
use crate::catalog::Domain;
use crate::catalog::DomainState;
use crate::domain_change::AttachDomain;
use crate::domain_change::DomainChange;
use crate::domain_change::DomainContents;
use crate::forgotten::FORGOTTEN_MAX;
use crate::garbage::Garbage;
use crate::locks::BLOCKERS_SHOWN;
use crate::locks::LockSet;
use crate::locks::Mode;
use crate::locks::Owner as LockOwner;
use crate::locks::Resource;
use crate::state::State;
use crate::txns::Spec;
use crate::volume_users::VolumeUser;
use crate::work::Owner;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::TxnId;
use sdm_proto::names::Name;
use sdm_proto::names::is_domain_path;
use sdm_proto::refusal::Blocker;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

fn name_of(domain: &Name) -> (Resource, Mode) {
    (Resource::Name(format!("domain/{domain}")), Mode::Exclusive)
}

impl State {
    /// The plan, if nothing forbids to begin it now. Asked when a request arrives and when its locks are granted (then
    /// with its own lock set); what runs already is asked for its plan alone, and finishes.
    pub(crate) fn plan_admitted(&self, spec: &Spec, own_lock: Option<u64>) -> Result<Plan, Refusal> {
        let plan = self.plan(spec)?;
        match spec {
            Spec::Domain(DomainChange::Detach { domain } | DomainChange::Delete { domain }) => {
                self.refuse_named(*domain, spec, own_lock)?;
            }
            Spec::Domain(DomainChange::Forget { domain }) => self.refuse_forget(*domain, own_lock)?,
            Spec::Domain(_) => {}
            _ => {
                for (resource, mode) in &plan.locks {
                    if let Resource::Domain(id) = resource
                        && matches!(mode, Mode::IntentExclusive | Mode::Exclusive)
                        && let Some(domain) = self.domains.get(id)
                    {
                        self.refuse_maintenance(domain)?;
                    }
                }
            }
        }
        Ok(plan)
    }

    /// Refuses new work in a domain that is in maintenance.
    ///
    /// # Errors
    /// `DOMAIN_IN_MAINTENANCE`, with since when, by whom and why.
    pub fn refuse_maintenance(&self, domain: &Domain) -> Result<(), Refusal> {
        let DomainState::Maintenance(maintenance) = &domain.state else { return Ok(()) };
        let seconds = self.meta.clock_ms.saturating_sub(maintenance.since_ms) / 1000;
        let by = if maintenance.by.is_empty() { String::new() } else { format!(" by {}", maintenance.by) };
        let why = if maintenance.reason.is_empty() { String::new() } else { format!(" ({})", maintenance.reason) };
        let message = format!("domain {} is in maintenance for {seconds} s{by}{why}", domain.name);
        Err(Refusal::new(Class::Precondition, "DOMAIN_IN_MAINTENANCE", message)
            .hint(format!("sdm domain activate {}", domain.name))
            .blocker("transaction", maintenance.txn.to_string(), "put it into maintenance"))
    }

    pub(super) fn plan_domain_change(&self, change: &DomainChange) -> Result<Plan, Refusal> {
        match change {
            DomainChange::Attach(attach) => self.plan_domain_attach(attach),
            DomainChange::Rename { domain, name } => self.plan_domain_rename(self.known_domain(*domain)?, name),
            DomainChange::Maintenance { domain } => self.plan_domain_state(*domain, "put domain", "into maintenance"),
            DomainChange::Activate { domain } => self.plan_domain_state(*domain, "activate domain", ""),
            DomainChange::Detach { domain } => {
                let (plan, contents) = (self.plan_domain_end(*domain, "detach")?, self.disks_in(*domain));
                self.refuse_large(*domain, contents)?;
                Ok(plan)
            }
            DomainChange::Delete { domain } => self.plan_domain_end(*domain, "delete"),
            DomainChange::Forget { domain } => self.plan_domain_forget(*domain),
        }
    }

    fn plan_domain_state(&self, id: DomainId, verb: &str, end: &str) -> Result<Plan, Refusal> {
        let domain = self.known_domain(id)?;
        let summary = format!("{verb} {} {end}", domain.name);
        Ok(plan(vec![name_of(&domain.name)], summary.trim_end().to_owned(), &[domain_word(domain)]))
    }

    fn plan_domain_rename(&self, domain: &Domain, name: &Name) -> Result<Plan, Refusal> {
        self.refuse_domain_name(name, Some(domain.id))?;
        let locks = vec![name_of(&domain.name), name_of(name)];
        let summary = format!("rename domain {} to {name}", domain.name);
        Ok(plan(locks, summary, &[domain_word(domain), format!("domain/{name}")]))
    }

    fn plan_domain_end(&self, id: DomainId, verb: &str) -> Result<Plan, Refusal> {
        let domain = self.known_domain(id)?;
        if domain.state.is_active() {
            let message = format!("domain {} is active; only one in maintenance can be {verb}ed", domain.name)
                .replace("deleteed", "deleted");
            return Err(Refusal::new(Class::Precondition, "DOMAIN_ACTIVE", message)
                .hint(format!("sdm domain maintenance {}, then repeat it", domain.name)));
        }
        let locks = vec![(Resource::Domain(id), Mode::Exclusive), name_of(&domain.name)];
        Ok(plan(locks, format!("{verb} domain {}", domain.name), &[domain_word(domain)]))
    }

    /// Only what is in maintenance, or nobody reaches any more: that its storage is lost is for people to say.
    fn plan_domain_forget(&self, id: DomainId) -> Result<Plan, Refusal> {
        let lock = (Resource::Domain(id), Mode::Exclusive);
        if !self.domains.contains(&id) && self.garbage_in(id).next().is_some() {
            return Ok(plan(vec![lock], format!("forget what is left of domain {id}"), &[format!("domain/{id}")]));
        }
        let domain = self.known_domain(id)?;
        if domain.state.is_active()
            && let Some(worker) = self.index.contents.reaching(id).next()
        {
            let (name, worker) = (&domain.name, self.worker_word(worker));
            let message = format!("domain {name} is active, and worker {worker} reaches it: its storage is not lost");
            return Err(Refusal::new(Class::Precondition, "DOMAIN_REACHED", message)
                .hint(format!(
                    "what is there can be kept (sdm domain detach {name}) or deleted (sdm domain delete {name}); if it \
                     is to be forgotten all the same: sdm domain maintenance {name} first"
                ))
                .blocker("worker", worker, "reaches it"));
        }
        if self.forgotten.len() >= FORGOTTEN_MAX {
            let message = format!("{FORGOTTEN_MAX} domains were forgotten, more are not remembered");
            return Err(Refusal::new(Class::Exhausted, "TOO_MANY_FORGOTTEN", message)
                .hint("leave the domain in maintenance: sdm domain maintenance NAME"));
        }
        let locks = vec![lock, name_of(&domain.name)];
        let disks = self.disks_in(id);
        Ok(plan(locks, format!("forget domain {} with {disks} disks", domain.name), &[domain_word(domain)]))
    }

    /// Refuses to forget a domain while a transaction works in it, or a live host has a disk of it.
    fn refuse_forget(&self, id: DomainId, own_lock: Option<u64>) -> Result<(), Refusal> {
        let mut found = self.domain_locks(id, own_lock);
        let live = |at: &&Attachment| self.workers.get(&at.worker).is_some_and(crate::workers::Worker::is_live);
        let attached = self.attachments_in(id).filter(live).take(BLOCKERS_SHOWN);
        found.extend(attached.map(|attachment| self.attachment_blocker(attachment)));
        if found.is_empty() {
            return Ok(());
        }
        found.truncate(BLOCKERS_SHOWN);
        let name = self.domains.get(&id).map_or_else(|| id.to_string(), |domain| domain.name.to_string());
        let message = format!("domain {name} cannot be forgotten: something works in it; nothing was changed");
        let refusal = Refusal::new(Class::Precondition, "DOMAIN_IN_USE", message)
            .hint("clear what is listed, then repeat it under a new request id");
        Err(found.into_iter().fold(refusal, |refusal, at| refusal.blocker(&at.kind, at.id, at.description)))
    }

    /// Another domain has the name.
    fn refuse_domain_name(&self, name: &Name, own: Option<DomainId>) -> Result<(), Refusal> {
        if self.domain_named(name).is_none_or(|other| Some(other.id) == own) {
            return Ok(());
        }
        Err(Refusal::new(Class::Conflict, "DOMAIN_EXISTS", format!("there is a domain {name} already"))
            .hint(format!("choose another name, or see `sdm domain show {name}`")))
    }

    /// Another domain has the path, or the path lies within another domain's own folder.
    pub(super) fn refuse_domain_path(&self, path: &str) -> Result<(), Refusal> {
        if self.meta.feature_level < 2 {
            return Ok(());
        }
        let taken = |domain: &&Domain| {
            let own = format!("{}/{}", domain.path.trim_end_matches('/'), domain.id);
            domain.path == path
                || path.strip_prefix(own.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let Some(other) = self.domains.values().find(taken) else { return Ok(()) };
        let message = format!("domain {} has the path {} already", other.name, other.path);
        Err(Refusal::new(Class::Conflict, "DOMAIN_PATH_TAKEN", message)
            .hint("two domains never lie on one path: choose another folder")
            .blocker("domain", other.name.as_str(), format!("at {}", other.path)))
    }

    fn plan_domain_attach(&self, attach: &AttachDomain) -> Result<Plan, Refusal> {
        let AttachDomain { domain, name, path, contents, .. } = attach;
        if !is_domain_path(path) {
            let message = format!("{path:?} is not the absolute path of a folder");
            return Err(Refusal::new(Class::Invalid, "BAD_PATH", message)
                .hint("give it without '.', '..', doubled or trailing slashes"));
        }
        if let Some(known) = self.domains.get(domain) {
            let message = format!("domain {domain} is attached already, as {}", known.name);
            return Err(Refusal::new(Class::Conflict, "DOMAIN_EXISTS", message).hint("sdm domain list"));
        }
        self.refuse_forgotten(*domain)?;
        self.refuse_domain_name(name, None)?;
        self.refuse_domain_path(path)?;
        self.refuse_too_many(contents)?;
        self.check_contents(*domain, contents)?;
        self.refuse_clashes(contents)?;
        if let Some(garbage) = self.garbage_in(*domain).next() {
            let message = format!("domain {domain} was deleted, and its folder is being removed");
            return Err(Refusal::new(Class::Precondition, "DOMAIN_DELETED", message).hint("sdm gc list").blocker(
                "garbage",
                garbage.id.to_string(),
                garbage.evidence.clone(),
            ));
        }
        let mut locks = vec![
            name_of(name),
            (Resource::Name(format!("path/{path}")), Mode::Exclusive),
            (Resource::Domain(*domain), Mode::Exclusive),
        ];
        locks.extend(contents.disks.iter().map(|disk| super::disk_name(&disk.name)));
        let summary = format!("attach domain {name} at {path} with {} disks", contents.disks.len());
        Ok(plan(locks, summary, &[format!("domain/{name}")]))
    }

    fn refuse_too_many(&self, contents: &DomainContents) -> Result<(), Refusal> {
        let settings = &self.meta.settings;
        let disks = (self.disks.len() + contents.disks.len()) as u64;
        let domains = self.domains.len() as u64 + 1;
        if disks > settings.disks_max || domains > settings.domains_max || contents.rows() > settings.domain_rows_max {
            let message = format!(
                "with it there would be {domains} domains (at most {}) and {disks} disks (at most {}); it brings {} rows (at most {})",
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

    /// What comes with the domain was written by another cluster: it must be whole, and meet nothing that is here.
    fn check_contents(&self, domain: DomainId, contents: &DomainContents) -> Result<(), Refusal> {
        let placements: BTreeMap<_, _> = contents.placements.iter().map(|row| (row.id, row)).collect();
        let volumes: BTreeMap<_, _> = contents.volumes.iter().map(|row| (row.id, row)).collect();
        let disks: BTreeSet<DiskId> = contents.disks.iter().map(|disk| disk.id).collect();
        let names: BTreeSet<&Name> = contents.disks.iter().map(|disk| &disk.name).collect();
        let used: BTreeSet<_> = contents.disks.iter().flat_map(|disk| &disk.volumes).copied().collect();
        let mut placed = BTreeSet::new();
        let whole = contents.disks.iter().all(|disk| {
            let own = placements.get(&disk.placement).is_some_and(|at| at.disk == disk.id && at.domain == domain);
            let mut parent = None;
            let chain = disk.volumes.iter().all(|id| {
                let fits = volumes.get(id).is_some_and(|volume| volume.parent == parent);
                parent = Some(*id);
                fits
            });
            own && placed.insert(disk.placement) && chain && !disk.volumes.is_empty()
        });
        let counted = placements.len() == contents.placements.len()
            && volumes.len() == contents.volumes.len()
            && disks.len() == contents.disks.len()
            && names.len() == contents.disks.len()
            && placed.len() == placements.len()
            && used.len() == volumes.len();
        let new = disks.iter().all(|id| !self.disks.contains(id))
            && volumes.keys().all(|id| !self.volumes.contains(id))
            && placements.keys().all(|id| !self.placements.contains(id));
        if whole && counted && new {
            return Ok(());
        }
        let message = if new {
            format!("what domain {domain} says about its disks contradicts itself")
        } else {
            format!("disks of domain {domain} are in the catalog already")
        };
        Err(Refusal::new(Class::Precondition, "BAD_DOMAIN_CATALOG", message)
            .hint("the domain is left as it is; `sdm disk list` shows what is here"))
    }

    fn refuse_clashes(&self, contents: &DomainContents) -> Result<(), Refusal> {
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

    fn refuse_large(&self, id: DomainId, disks: u64) -> Result<(), Refusal> {
        let most = self.meta.settings.domain_rows_max;
        // At least three rows a disk: no need to count what is too much anyway.
        if disks.saturating_mul(3) <= most && self.contents_of(id).rows() <= most {
            return Ok(());
        }
        let message = format!(
            "{disks} disks lie in the domain: with their volumes more than the {most} rows that one entry takes in"
        );
        Err(Refusal::new(Class::Exhausted, "DOMAIN_TOO_LARGE", message)
            .hint("move disks to other domains (sdm disk move) until it is small enough"))
    }

    /// What lies in a domain: the rows that go with it.
    pub(crate) fn contents_of(&self, domain: DomainId) -> DomainContents {
        let retention_ms = self.domains.get(&domain).and_then(|domain| domain.retention_ms);
        let mut contents = DomainContents { retention_ms, ..DomainContents::default() };
        let mut volumes = BTreeSet::new();
        for disk in self.disks_in_from(domain, DiskId::default()) {
            let Some(placement) = self.placements.get(&disk.placement) else { continue };
            volumes.extend(disk.volumes.iter().copied());
            let mut placement = placement.clone();
            placement.cluster = self.maker_of(&placement).or(Some(self.cluster_id()));
            contents.placements.push(placement);
            contents.disks.push(disk.clone());
        }
        contents.volumes = volumes.iter().filter_map(|id| self.volumes.get(id)).cloned().collect();
        contents
    }

    /// Refuses a detach or a delete while something names the domain, and lists what, each with the command that clears
    /// it.
    fn refuse_named(&self, id: DomainId, spec: &Spec, own_lock: Option<u64>) -> Result<(), Refusal> {
        let deleting = matches!(spec, Spec::Domain(DomainChange::Delete { .. }));
        let mut found: Vec<Blocker> = self.domain_locks(id, own_lock);
        found.extend(self.garbage_in(id).take(BLOCKERS_SHOWN).map(garbage_blocker));
        let attached = self.attachments_in(id).take(BLOCKERS_SHOWN);
        found.extend(attached.map(|attachment| self.attachment_blocker(attachment)));
        let projections = self.index.projecting.range((id, PlacementId::default())..);
        let projections = projections.take_while(|(of, _)| *of == id).take(BLOCKERS_SHOWN);
        found.extend(projections.map(|(_, placement)| {
            let late = self.late_words(Owner::Projection(*placement));
            let words = late.unwrap_or_else(|| "its words on the storage are being written; wait".to_owned());
            blocker("projection", placement.to_string(), &words)
        }));
        if self.index.describing.contains(&id) {
            let late = self.late_words(Owner::Describe(id));
            let words = late.unwrap_or_else(|| "the domain's name is being written to it; wait".to_owned());
            found.push(blocker("projection", id.to_string(), &words));
        }
        if !deleting {
            found.extend(self.sharers_elsewhere(id).into_iter().take(BLOCKERS_SHOWN));
        }
        if deleting {
            for disk in self.disks_in_from(id, DiskId::default()).take(BLOCKERS_SHOWN) {
                let words = format!(
                    "lies in it; sdm disk move {0} --to DOMAIN, or sdm disk delete {0} (after `sdm domain activate`)",
                    disk.name
                );
                found.push(blocker("disk", disk.name.to_string(), &words));
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        let name = self.domains.get(&id).map_or_else(|| id.to_string(), |domain| domain.name.to_string());
        let verb = if deleting { "deleted" } else { "detached" };
        let message = format!("domain {name} cannot be {verb}: something names it; nothing was changed");
        found.truncate(BLOCKERS_SHOWN);
        let refusal = Refusal::new(Class::Precondition, "DOMAIN_IN_USE", message)
            .hint("clear what is listed, then repeat it under a new request id");
        Err(found.into_iter().fold(refusal, |refusal, at| refusal.blocker(&at.kind, at.id, at.description)))
    }

    /// Who outside the domain uses volumes of its disks: linked clones that were moved away, what is in the trash. The
    /// rows of shared volumes cannot both go and stay.
    fn sharers_elsewhere(&self, id: DomainId) -> Vec<Blocker> {
        let volumes: BTreeSet<_> =
            self.disks_in_from(id, DiskId::default()).flat_map(|disk| disk.volumes.iter().copied()).collect();
        let users: BTreeSet<_> = volumes.iter().flat_map(|volume| self.volume_users(*volume)).collect();
        let mut found = Vec::new();
        for user in users {
            match user {
                VolumeUser::Disk(disk) => {
                    let Some(disk) = self.disks.get(&disk) else { continue };
                    let domain = self.domain_of(disk);
                    if domain.is_some_and(|domain| domain.id == id) {
                        continue;
                    }
                    let words = format!(
                        "lies in domain {} and shares volumes with disks here; bring it here (sdm disk move {2} --to {1}), or copy it and delete it",
                        domain.map_or("?", |domain| domain.name.as_str()),
                        self.domains.get(&id).map_or("DOMAIN", |domain| domain.name.as_str()),
                        disk.name
                    );
                    found.push(blocker("disk", disk.name.to_string(), &words));
                }
                VolumeUser::Trash(garbage) => {
                    if let Some(row) = self.garbage.get(&garbage).filter(|row| row.place.domain != id) {
                        found.push(garbage_blocker(row));
                    }
                }
            }
        }
        found
    }

    /// Lock sets that hold the domain, as far as they keep others from it.
    pub fn domain_holders(&self, id: DomainId) -> impl Iterator<Item = &LockSet> + '_ {
        let locks = self.lock_blockers(&sole_use_of(id)).into_iter();
        locks.filter_map(|lock| self.locks.get(&lock)).filter(|lock| lock.granted.is_some())
    }

    /// Lock sets that hold the domain or wait for it.
    fn domain_locks(&self, id: DomainId, own_lock: Option<u64>) -> Vec<Blocker> {
        let locks = self.lock_blockers(&sole_use_of(id)).into_iter().filter(|lock| Some(*lock) != own_lock);
        let words = |lock: &LockSet| {
            let state = if lock.granted.is_some() { "held" } else { "asked for" };
            let next = match lock.owner {
                LockOwner::Txn(txn) if self.index.fencing_txns.contains(&txn) => {
                    format!("sdm txn show {txn} (unfenced)")
                }
                LockOwner::Txn(txn) => format!("wait, or sdm txn abort {txn}"),
                LockOwner::Session(session) => format!("wait, or sdm lock release {} --session {session}", lock.id),
            };
            blocker("lock", lock.id.to_string(), &format!("{state} by {}; {next}", self.owner_words(lock)))
        };
        locks.filter_map(|lock| self.locks.get(&lock)).map(words).collect()
    }

    fn attachment_blocker(&self, attachment: &Attachment) -> Blocker {
        let disk =
            self.disks.get(&attachment.disk).map_or_else(|| attachment.disk.to_string(), |disk| disk.name.to_string());
        let words =
            format!("disk {disk} is {}; {}", self.attachment_words(attachment), self.way_to_detach(attachment, &disk));
        blocker("attachment", attachment.token.to_string(), &words)
    }
}

fn garbage_blocker(garbage: &Garbage) -> Blocker {
    let next = match (&garbage.held, &garbage.trash) {
        (Some(_), _) => format!("sdm gc unhold {}", garbage.id),
        (None, Some(_)) => format!("sdm gc trash purge {}, or restore it", garbage.id),
        (None, None) => "sdm gc run".to_owned(),
    };
    blocker("garbage", garbage.id.to_string(), &format!("{}; {next}", garbage.evidence))
}

fn blocker(kind: &str, id: impl Into<String>, description: &str) -> Blocker {
    Blocker { kind: kind.to_owned(), id: id.into(), description: description.to_owned() }
}

/// What whoever wants a domain for itself would have to wait for.
fn sole_use_of(id: DomainId) -> LockSet {
    LockSet {
        id: u64::MAX,
        owner: LockOwner::Txn(TxnId::default()),
        resources: BTreeMap::from([(Resource::Domain(id), Mode::Exclusive)]),
        why: String::new(),
        asked_ms: 0,
        deadline_ms: 0,
        granted: None,
        txn: None,
    }
}
