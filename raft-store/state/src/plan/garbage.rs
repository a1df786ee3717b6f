//! Planning of orders about garbage: what each locks, and whether it is allowed as things are now.

use super::Plan;
use crate::garbage::Garbage;
use crate::garbage::Trashed;
use crate::garbage_order::GarbageOrder;
use crate::garbage_order::NAMED_MAX;
use crate::garbage_order::RETENTION_MAX_MS;
use crate::gc_plans::GcPlan;
use crate::locks::Mode;
use crate::locks::Resource;
use crate::locks::joined;
use crate::state::State;
use sdm_proto::ids::DomainId;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;

/// Changed rows that a refusal names at most.
const CHANGED_SHOWN: usize = 8;

fn unlocked(summary: String, objects: Vec<String>) -> Plan {
    Plan { locks: joined(Vec::new()), summary, objects }
}

impl State {
    /// The plan, or why it is not allowed.
    pub(crate) fn plan_garbage(&self, order: &GarbageOrder) -> Result<Plan, Refusal> {
        match order {
            GarbageOrder::RestoreDisk { garbage, name } => self.plan_restore(*garbage, name.as_ref()),
            GarbageOrder::PurgeTrash { garbage } => self.plan_purge(garbage),
            GarbageOrder::Hold { garbage, reason } => self.plan_hold(*garbage, reason),
            GarbageOrder::Unhold { garbage } => {
                let row = self.known_garbage(*garbage)?;
                Ok(unlocked(format!("give garbage {} free", row.id), vec![garbage_word(row)]))
            }
            GarbageOrder::PlanCollection { domain, .. } => self.plan_collection(*domain),
            GarbageOrder::ApplyPlan { plan, skip_changed } => self.plan_apply(*plan, *skip_changed),
            GarbageOrder::AdoptOrphans { domain, orphans } => {
                check_named(orphans.len())?;
                let domain = self.known_domain(*domain)?;
                // A domain in maintenance is cleaned as well: it has to be empty before it goes.
                let locks = joined(vec![(Resource::Domain(domain.id), Mode::IntentShared)]);
                let summary = format!("have {} orphans in {} deleted", orphans.len(), domain.name);
                Ok(Plan { locks, summary, objects: vec![format!("domain/{}", domain.name)] })
            }
            GarbageOrder::SetRetention { domain, retention_ms } => self.plan_retention(*domain, *retention_ms),
        }
    }

    /// The row, or that there is none.
    ///
    /// # Errors
    /// `GARBAGE_NOT_FOUND`.
    pub fn known_garbage(&self, id: Token) -> Result<&Garbage, Refusal> {
        self.garbage.get(&id).ok_or_else(|| {
            let message = format!("there is no garbage {id}: it was deleted or restored, or never was");
            Refusal::new(Class::NotFound, "GARBAGE_NOT_FOUND", message).hint("sdm gc list, sdm gc trash list")
        })
    }

    fn plan_restore(&self, id: Token, name: Option<&Name>) -> Result<Plan, Refusal> {
        let row = self.known_garbage(id)?;
        let trashed = self.restorable(row)?;
        let domain = self.known_domain(row.place.domain)?;
        let name = name.unwrap_or(&trashed.disk.name);
        if let Some(other) = self.disk_named(name) {
            let message = format!("there is a disk {name} already ({})", other.id);
            return Err(Refusal::new(Class::Conflict, "DISK_EXISTS", message)
                .hint(format!("give it another name: sdm gc trash restore {id} --name NEW")));
        }
        if self.disks.len() as u64 >= self.meta.settings.disks_max {
            let message = format!("there are {} disks, more are not allowed", self.disks.len());
            return Err(Refusal::new(Class::Exhausted, "TOO_MANY_DISKS", message).hint("delete some first"));
        }
        let locks = joined(vec![
            (Resource::Domain(domain.id), Mode::IntentExclusive),
            (Resource::Name(format!("disk/{name}")), Mode::Exclusive),
            (Resource::Disk(trashed.disk.id), Mode::Exclusive),
        ]);
        let summary = format!("restore disk {name} in {} from trash {id}", domain.name);
        Ok(Plan { locks, summary, objects: vec![format!("disk/{name}"), garbage_word(row)] })
    }

    /// What a restore of this row would put back, or why nothing restores it.
    ///
    /// # Errors
    /// It is no deleted disk, its deletion was assigned, or a volume of its chain is another one now.
    pub fn restorable<'a>(&self, row: &'a Garbage) -> Result<&'a Trashed, Refusal> {
        let Some(trashed) = &row.trash else {
            let message = format!("garbage {} ({}) holds no disk that could be put back", row.id, row.kind.word());
            return Err(Refusal::new(Class::Precondition, "NOT_RESTORABLE", message)
                .hint("what can be restored: sdm gc trash list"));
        };
        if row.is_doomed() {
            return Err(self.doomed_refusal(row, trashed));
        }
        for volume in &trashed.volumes {
            let Some(live) = self.volumes.get(&volume.id) else {
                let message = format!(
                    "volume {} of disk {} is not in the catalog any more, and other disks may have changed it",
                    volume.id, trashed.disk.name
                );
                return Err(Refusal::new(Class::Precondition, "VOLUME_MISSING", message)
                    .hint("keep what lies there (`sdm gc hold`); its files can be imported as a new disk"));
            };
            let same =
                (live.parent, live.format, live.virtual_size) == (volume.parent, volume.format, volume.virtual_size);
            if !same {
                let message = format!(
                    "volume {} of disk {} is shared, and was changed since the disk was deleted",
                    volume.id, trashed.disk.name
                );
                return Err(Refusal::new(Class::Precondition, "VOLUME_CHANGED", message)
                    .hint("`sdm disk list` shows who has that volume now"));
            }
        }
        Ok(trashed)
    }

    fn doomed_refusal(&self, row: &Garbage, trashed: &Trashed) -> Refusal {
        let given = row.doomed.map_or_else(String::new, |doomed| {
            let seconds = self.meta.clock_ms.saturating_sub(doomed.at_ms) / 1000;
            format!(" to worker {} {seconds} s ago", self.worker_word(doomed.worker))
        });
        let message = format!("disk {} cannot be restored any more: its deletion was given{given}", trashed.disk.name);
        let message = if given.is_empty() { format!("{message} to a worker") } else { message };
        Refusal::new(Class::Precondition, "DELETION_ASSIGNED", message)
            .hint("a longer retention keeps disks longer: sdm domain set NAME --retention 7d")
    }

    fn plan_purge(&self, ids: &[Token]) -> Result<Plan, Refusal> {
        check_named(ids.len())?;
        let mut objects = Vec::new();
        for id in ids {
            let row = self.known_garbage(*id)?;
            if row.trash.is_none() {
                let message = format!("garbage {id} ({}) is not in the trash", row.kind.word());
                return Err(Refusal::new(Class::Precondition, "NOT_IN_TRASH", message)
                    .hint("it is deleted by itself when it is due; what is in the trash: sdm gc trash list"));
            }
            self.refuse_held(row)?;
            objects.push(garbage_word(row));
        }
        objects.truncate(CHANGED_SHOWN);
        let summary = match ids {
            [one] => format!("delete trash {one} for good"),
            _ => format!("delete {} rows of trash for good", ids.len()),
        };
        Ok(unlocked(summary, objects))
    }

    fn refuse_held(&self, row: &Garbage) -> Result<(), Refusal> {
        let Some(hold) = &row.held else { return Ok(()) };
        let seconds = self.meta.clock_ms.saturating_sub(hold.since_ms) / 1000;
        let message = format!("garbage {} has been held for {seconds} s by {}: {}", row.id, hold.by, hold.reason);
        Err(Refusal::new(Class::Precondition, "GARBAGE_HELD", message)
            .hint(format!("give it free first: sdm gc unhold {}", row.id)))
    }

    fn plan_hold(&self, id: Token, reason: &str) -> Result<Plan, Refusal> {
        let row = self.known_garbage(id)?;
        if reason.is_empty() {
            return Err(Refusal::new(Class::Invalid, "REASON_MISSING", "whoever finds it held wants to know why")
                .hint(format!("sdm gc hold {id} --reason TEXT")));
        }
        if let Some(attempt) = &row.work.attempt {
            let seconds = self.meta.clock_ms.saturating_sub(attempt.assigned_ms) / 1000;
            let who = self.worker_word(attempt.worker);
            let message = format!("garbage {id} is being deleted since {seconds} s by worker {who}");
            return Err(Refusal::new(Class::Precondition, "DELETION_ASSIGNED", message)
                .hint("what is being deleted is not called back"));
        }
        Ok(unlocked(format!("hold garbage {id}"), vec![garbage_word(row)]))
    }

    fn plan_collection(&self, domain: Option<DomainId>) -> Result<Plan, Refusal> {
        let objects: Vec<String> = domain
            .map(|id| self.known_domain(id))
            .transpose()?
            .map(|row| format!("domain/{}", row.name))
            .into_iter()
            .collect();
        let place = objects.first().map_or_else(String::new, |word| format!(" of {word}"));
        Ok(unlocked(format!("plan a collection{place}"), objects))
    }

    /// The plan of this id while it may be carried out.
    ///
    /// # Errors
    /// `PLAN_NOT_FOUND`, `PLAN_EXPIRED`, `PLAN_APPLIED`.
    pub fn open_gc_plan(&self, id: u64) -> Result<&GcPlan, Refusal> {
        let again = "make another one: sdm gc plan";
        let plan = self.gc_plans.get(&id).ok_or_else(|| {
            let message = format!("there is no plan {id}; of old ones only the last few are kept");
            Refusal::new(Class::NotFound, "PLAN_NOT_FOUND", message).hint(again)
        })?;
        if let Some(txn) = plan.applied {
            let message = format!("plan {id} was carried out in transaction {txn}");
            return Err(Refusal::new(Class::Precondition, "PLAN_APPLIED", message).hint(again));
        }
        if plan.expires_ms <= self.meta.clock_ms {
            let seconds = (self.meta.clock_ms - plan.expires_ms) / 1000;
            let message = format!("plan {id} expired {seconds} s ago");
            return Err(Refusal::new(Class::Precondition, "PLAN_EXPIRED", message).hint(again));
        }
        Ok(plan)
    }

    fn plan_apply(&self, id: u64, skip_changed: bool) -> Result<Plan, Refusal> {
        let plan = self.open_gc_plan(id)?;
        let changed: Vec<(Token, String)> = self.changed_since(plan).collect();
        if !changed.is_empty() && !skip_changed {
            let message = format!(
                "{} of {} rows of plan {id} are not what they were when it was made; nothing was deleted",
                changed.len(),
                plan.items.len()
            );
            let refusal = Refusal::new(Class::Precondition, "PLAN_CHANGED", message).hint(format!(
                "look at a new one: sdm gc plan; or do the rest of this one: sdm gc apply {id} --skip-changed"
            ));
            let blockers = changed.into_iter().take(CHANGED_SHOWN);
            return Err(blockers.fold(refusal, |refusal, (id, why)| refusal.blocker("garbage", id.to_string(), why)));
        }
        Ok(unlocked(format!("carry out plan {id} of a collection"), vec![format!("gc-plan/{id}")]))
    }

    /// The rows of a plan that are not what they were, with what happened. What is deleted already, or is
    /// being deleted, is as the plan wants it.
    pub fn changed_since<'a>(&'a self, plan: &'a GcPlan) -> impl Iterator<Item = (Token, String)> + 'a {
        plan.items.iter().filter_map(|item| {
            let Some(row) = self.garbage.get(&item.garbage) else {
                let is_back = item.placement.is_some_and(|placement| self.placements.contains(&placement));
                return is_back.then(|| (item.garbage, "it was restored".to_owned()));
            };
            if row.content_hash() == item.hash {
                return None;
            }
            let why = row.held.as_ref().map_or_else(
                || "it is due at another time, or its evidence changed".to_owned(),
                |hold| format!("it is held by {}: {}", hold.by, hold.reason),
            );
            Some((item.garbage, why))
        })
    }

    fn plan_retention(&self, domain: DomainId, retention_ms: Option<u64>) -> Result<Plan, Refusal> {
        let domain = self.known_domain(domain)?;
        if retention_ms.is_some_and(|ms| ms > RETENTION_MAX_MS) {
            let message = format!("a retention has at most {} days", RETENTION_MAX_MS / 86_400_000);
            return Err(Refusal::new(Class::Invalid, "RETENTION_TOO_LONG", message)
                .hint("what is to stay for ever is held: sdm gc hold ID --reason TEXT"));
        }
        let words = retention_ms.map_or_else(|| "the cluster's own".to_owned(), |ms| format!("{} s", ms / 1000));
        let summary = format!("set the retention of {} to {words}", domain.name);
        Ok(unlocked(summary, vec![format!("domain/{}", domain.name)]))
    }
}

fn garbage_word(row: &Garbage) -> String {
    format!("garbage/{}", row.id)
}

fn check_named(count: usize) -> Result<(), Refusal> {
    if (1..=NAMED_MAX).contains(&count) {
        return Ok(());
    }
    let message = format!("{count} rows are named; 1 to {NAMED_MAX} can be at once");
    Err(Refusal::new(Class::Invalid, "BAD_COUNT", message).hint("name some of them, then the rest"))
}
