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
use crate::forgotten::FORGOTTEN_MAX;
use crate::garbage::Garbage;
use crate::locks::BLOCKERS_SHOWN;
use crate::locks::LockSet;
use crate::locks::Mode;
use crate::locks::Owner as LockOwner;
use crate::locks::Resource;
use crate::state::State;
use crate::txns::Spec;
use crate::txns::Txn;
use crate::volume_users::VolumeUser;
use crate::work::Owner;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::names::Name;
use sdm_proto::names::is_domain_path;
use sdm_proto::refusal::Blocker;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Disks that leave with a domain at most: their catalog is written and read piece by piece, each in an entry of its own.
const DETACHED_DISKS_MAX: u64 = 100_000;

/// Pieces of a catalog: enough for that many disks whose chains are the longest.
const PIECES_MAX: u32 = 100_000;

/// Disks at which a detach looks for sharers outside before it begins; at the others it looks piece by piece.
const LOOKED_AT_MAX: usize = 200;

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
        let name = &domain.name;
        let hint = if self.check_reachable(domain.id).is_ok() {
            format!("sdm domain activate {name}")
        } else {
            format!(
                "when a worker reaches it again (sdm worker list): sdm domain activate {name}; where its storage is lost for \
                 good: sdm domain forget {name} --confirm {name} --reason TEXT"
            )
        };
        Err(Refusal::new(Class::Precondition, "DOMAIN_IN_MAINTENANCE", message).hint(hint).blocker(
            "transaction",
            maintenance.txn.to_string(),
            "put it into maintenance",
        ))
    }

    pub(super) fn plan_domain_change(&self, change: &DomainChange) -> Result<Plan, Refusal> {
        match change {
            DomainChange::Attach(attach) => self.plan_domain_attach(attach),
            DomainChange::Rename { domain, name } => self.plan_domain_rename(self.known_domain(*domain)?, name),
            DomainChange::Maintenance { domain } => self.plan_domain_state(*domain, "put domain", "into maintenance"),
            DomainChange::Activate { domain } => self.plan_domain_state(*domain, "activate domain", ""),
            DomainChange::Detach { domain } => {
                let plan = self.plan_domain_end(*domain, "detach")?;
                self.refuse_large(self.disks_in(*domain))?;
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
                     is to be forgotten all the same: `sdm domain maintenance {name}` first"
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
        let mut found = self.domain_locks(id, own_lock, &self.ending_with_domain(id));
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
        self.refuse_too_many(contents, 1)?;
        self.check_contents(*domain, contents)?;
        self.refuse_clashes(contents)?;
        if let Some(more) = attach.more.as_ref().filter(|more| more.pieces > PIECES_MAX) {
            let message =
                format!("the catalog of domain {domain} has {} pieces, and {PIECES_MAX} are possible", more.pieces);
            return Err(
                Refusal::new(Class::Precondition, "BAD_DOMAIN_CATALOG", message).hint("the domain is left as it is")
            );
        }
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

    fn refuse_large(&self, disks: u64) -> Result<(), Refusal> {
        if disks <= DETACHED_DISKS_MAX {
            return Ok(());
        }
        let message = format!("{disks} disks lie in the domain, and at most {DETACHED_DISKS_MAX} leave with one");
        Err(Refusal::new(Class::Exhausted, "DOMAIN_TOO_LARGE", message)
            .hint("move disks to other domains (sdm disk move) until it is small enough"))
    }

    /// Refuses a detach or a delete while something names the domain, and lists what, each with the command that clears
    /// it.
    fn refuse_named(&self, id: DomainId, spec: &Spec, own_lock: Option<u64>) -> Result<(), Refusal> {
        let deleting = matches!(spec, Spec::Domain(DomainChange::Delete { .. }));
        let mut found: Vec<Blocker> = self.domain_locks(id, own_lock, &[]);
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
        let looked_at = self.disks_in_from(id, DiskId::default()).take(LOOKED_AT_MAX);
        let volumes: BTreeSet<_> = looked_at.flat_map(|disk| disk.volumes.iter().copied()).collect();
        self.sharers_of(id, &volumes)
    }

    /// The same of these volumes.
    pub(crate) fn sharers_of(&self, id: DomainId, volumes: &BTreeSet<VolumeId>) -> Vec<Blocker> {
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
                        "lies in domain {} and shares volumes with disks here; `sdm disk flatten {}` ends that",
                        domain.map_or("?", |domain| domain.name.as_str()),
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

    /// The same, without one's own and those that end when it is given up, with what clears each.
    fn domain_locks(&self, id: DomainId, own_lock: Option<u64>, ending: &[(u64, TxnId)]) -> Vec<Blocker> {
        let locks = self.lock_blockers_but(&sole_use_of(id), ending).into_iter().filter(|lock| Some(*lock) != own_lock);
        let words = |lock: &LockSet| {
            let state = if lock.granted.is_some() { "held" } else { "asked for" };
            let next = match lock.owner {
                LockOwner::Txn(txn) if self.index.fencing_txns.contains(&txn) => {
                    format!("sdm txn show {txn} (unfenced)")
                }
                LockOwner::Txn(txn) if self.txns.get(&txn).is_some_and(Txn::goes_only_forward) => {
                    format!("wait, it goes only forward: sdm txn show {txn}")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Disk;
    use crate::catalog::Format;
    use crate::catalog::Placement;
    use crate::catalog::Volume;
    use sdm_proto::token::Token;

    fn volume(id: VolumeId, disk: DiskId, parent: Option<VolumeId>) -> Volume {
        Volume {
            id,
            disk,
            parent,
            format: Format::Qcow2,
            virtual_size: 1 << 20,
            file_size: 1 << 20,
            allocated_bytes: 0,
            legal: true,
            blake3: None,
            preallocated: false,
            snapshot: None,
        }
    }

    fn put(state: &mut State, disk: &str, domain: DomainId, volumes: Vec<VolumeId>) {
        let id = DiskId::derive("test disk", &[disk.as_bytes()]);
        let placement = PlacementId::derive("test placement", &[disk.as_bytes()]);
        let (token, txn) = (Token::default(), TxnId::default());
        state.put_placement(Placement { id: placement, domain, disk: id, token, txn, cluster: None });
        state.put_disk(Disk {
            id,
            name: disk.parse().expect("a name"),
            placement,
            volumes,
            created_by: txn,
            created_ms: 0,
            description: String::new(),
            template: false,
        });
    }

    /// Clones stay in their source's domain now; a state may hold others that were moved before that was so.
    #[test]
    fn a_domain_whose_volumes_are_shared_elsewhere_is_not_detached() {
        let mut state = State::default();
        state.meta.feature_level = 2;
        let domains = ["d1", "d2"].map(|name| {
            let id = DomainId::derive("test domain", &[name.as_bytes()]);
            state.put_domain(Domain {
                id,
                name: name.parse().expect("a name"),
                path: format!("/srv/{name}"),
                local: true,
                created_by: TxnId::default(),
                created_ms: 0,
                adopted_epoch: None,
                retention_ms: None,
                state: DomainState::Active,
                describing: None,
            });
            id
        });
        let [base, leaf, other] = [0_u8, 1, 2].map(|n| VolumeId::derive("test volume", &[&[n]]));
        let maker = DiskId::derive("test disk", &[b"a"]);
        state.put_volume(volume(base, maker, None));
        state.put_volume(volume(leaf, maker, Some(base)));
        state.put_volume(volume(other, maker, Some(base)));
        put(&mut state, "a", domains[0], vec![base, leaf]);
        put(&mut state, "b", domains[0], vec![base, other]);
        let spec = Spec::Domain(DomainChange::Detach { domain: domains[0] });
        assert_eq!(state.refuse_named(domains[0], &spec, None), Ok(()), "among themselves they may share");
        put(&mut state, "b", domains[1], vec![base, other]);
        let refusal = state.refuse_named(domains[0], &spec, None).expect_err("b is elsewhere");
        assert_eq!(refusal.reason, "DOMAIN_IN_USE");
        let [blocker] = &refusal.blockers[..] else { panic!("{refusal}") };
        assert_eq!((blocker.kind.as_str(), blocker.id.as_str()), ("disk", "b"));
        assert!(blocker.description.contains("lies in domain d2"), "{refusal}");
    }
}
