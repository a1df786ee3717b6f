//! Garbage: kept, held, planned, collected, restored.

use super::Disk;
use super::Garbage;
use super::Naive;
use super::Plan;
use super::Work;
use sdm_proto::ids::TxnId;
use sdm_proto::token::Token;
use sdm_state::garbage::Kind;
use sdm_state::garbage_order::GarbageOrder;
use sdm_state::locks::Mode;
use sdm_state::locks::Resource;
use sdm_state::work::Report;

impl Naive {
    /// A deleted disk: kept for as long as its domain says.
    pub fn trash(&mut self, disk: Disk, txn: TxnId) {
        let domain = self.domains.iter().find(|domain| domain.id == disk.domain).expect("a domain of the model");
        let kept = domain.retention.unwrap_or(self.settings.retention_ms);
        self.garbage.push(Garbage {
            id: Token::default(),
            kind: Kind::Deleted,
            domain: disk.domain,
            placement: disk.placement,
            made_by: disk.made_by,
            txn,
            due: self.now + kept,
            held: None,
            trash: Some(disk).filter(|_| kept > 0),
            work: Work::default(),
        });
    }

    fn row(&self, id: Token) -> Result<&Garbage, String> {
        self.garbage.iter().find(|row| row.id == id).ok_or_else(|| "GARBAGE_NOT_FOUND".to_owned())
    }

    pub fn plan_garbage(&self, order: &GarbageOrder) -> Result<Vec<(Resource, Mode)>, String> {
        let refused = |reason: &str| Err(reason.to_owned());
        match order {
            GarbageOrder::RestoreDisk { garbage, name } => {
                let row = self.row(*garbage)?;
                let Some(disk) = &row.trash else { return refused("NOT_RESTORABLE") };
                if row.work.tries > 0 {
                    return refused("DELETION_ASSIGNED");
                }
                let name = name.as_ref().map_or(disk.name.as_str(), |name| name.as_str());
                if self.disk_named(name).is_some() {
                    return refused("DISK_EXISTS");
                }
                Ok(vec![
                    (Resource::Domain(row.domain), Mode::IntentExclusive),
                    (Resource::Name(format!("disk/{name}")), Mode::Exclusive),
                    (Resource::Disk(disk.id), Mode::Exclusive),
                ])
            }
            GarbageOrder::PurgeTrash { garbage } => {
                if garbage.is_empty() {
                    return refused("BAD_COUNT");
                }
                for id in garbage {
                    let row = self.row(*id)?;
                    if row.trash.is_none() {
                        return refused("NOT_IN_TRASH");
                    }
                    if row.held.is_some() {
                        return refused("GARBAGE_HELD");
                    }
                }
                Ok(Vec::new())
            }
            GarbageOrder::Hold { garbage, reason } => {
                let row = self.row(*garbage)?;
                if reason.is_empty() {
                    return refused("REASON_MISSING");
                }
                if row.work.attempt.is_some() {
                    return refused("DELETION_ASSIGNED");
                }
                Ok(Vec::new())
            }
            GarbageOrder::Unhold { garbage } => self.row(*garbage).map(|_| Vec::new()),
            GarbageOrder::PlanCollection { .. } | GarbageOrder::SetRetention { .. } => Ok(Vec::new()),
            GarbageOrder::ApplyPlan { plan, skip_changed } => {
                let Some(plan) = self.plans.iter().find(|known| known.id == *plan) else {
                    return refused("PLAN_NOT_FOUND");
                };
                if plan.applied {
                    return refused("PLAN_APPLIED");
                }
                if plan.until <= self.now {
                    return refused("PLAN_EXPIRED");
                }
                if !skip_changed && plan.rows.iter().any(|row| self.differs(row)) {
                    return refused("PLAN_CHANGED");
                }
                Ok(Vec::new())
            }
            GarbageOrder::AdoptOrphans { .. } => panic!("the model has no storage"),
        }
    }

    /// Whether a row of a plan is not what it was. What is gone because it was deleted is fine.
    fn differs(&self, (id, placement, due): &(Token, sdm_proto::ids::PlacementId, u64)) -> bool {
        match self.garbage.iter().find(|row| row.id == *id) {
            Some(row) => row.held.is_some() || row.due != *due,
            None => self.disks.iter().any(|disk| disk.placement == *placement),
        }
    }

    pub fn do_garbage(&mut self, order: GarbageOrder, txn: TxnId) {
        let _ = txn;
        match order {
            GarbageOrder::RestoreDisk { garbage, name } => {
                let at = self.garbage.iter().position(|row| row.id == garbage).expect("it was planned");
                let mut disk = self.garbage.remove(at).trash.expect("it was planned");
                if let Some(name) = name {
                    disk.name = name.to_string();
                }
                self.disks.push(disk);
            }
            GarbageOrder::PurgeTrash { garbage } => self.hasten(&garbage),
            GarbageOrder::Hold { garbage, reason } => self.set_held(garbage, Some(reason)),
            GarbageOrder::Unhold { garbage } => self.set_held(garbage, None),
            GarbageOrder::PlanCollection { domain, kind, trash } => {
                let now = self.now;
                let wanted = |row: &&Garbage| {
                    (row.due <= now || (trash && row.trash.is_some()))
                        && row.held.is_none()
                        && row.work.attempt.is_none()
                        && domain.is_none_or(|domain| row.domain == domain)
                        && kind.is_none_or(|kind| row.kind == kind)
                };
                let rows = self.garbage.iter().filter(wanted).map(|row| (row.id, row.placement, row.due)).collect();
                self.plans.retain(|plan| plan.until > now);
                let most = usize::try_from(self.settings.gc_plans_max).expect("a small number");
                while self.plans.len() >= most {
                    self.plans.remove(0);
                }
                let until = now + self.settings.gc_plan_kept_ms;
                self.plans.push(Plan { id: self.index, until, rows, applied: false });
            }
            GarbageOrder::ApplyPlan { plan, .. } => {
                let at = self.plans.iter().position(|known| known.id == plan).expect("it was planned");
                let rows = self.plans[at].rows.clone();
                let same: Vec<Token> = rows.iter().filter(|row| !self.differs(row)).map(|row| row.0).collect();
                self.hasten(&same);
                self.plans[at].applied = true;
            }
            GarbageOrder::SetRetention { domain, retention_ms } => {
                let row = self.domains.iter_mut().find(|row| row.id == domain).expect("a domain of the model");
                row.retention = retention_ms;
            }
            GarbageOrder::AdoptOrphans { .. } => panic!("the model has no storage"),
        }
    }

    fn set_held(&mut self, id: Token, held: Option<String>) {
        let row = self.garbage.iter_mut().find(|row| row.id == id).expect("it was planned");
        row.held = held;
    }

    /// Due now, and assigned if somebody can.
    fn hasten(&mut self, ids: &[Token]) {
        for id in ids {
            let now = self.now;
            let Some(row) = self.garbage.iter_mut().find(|row| row.id == *id) else { continue };
            if row.work.attempt.is_none() {
                row.due = row.due.min(now);
                self.collect_one(*id);
            }
        }
    }

    pub fn collect(&mut self, ids: &[Token]) -> Vec<Token> {
        ids.iter().copied().filter(|id| self.collect_one(*id)).collect()
    }

    fn collect_one(&mut self, id: Token) -> bool {
        let now = self.now;
        let all = self.clone();
        let Some(row) = self.garbage.iter_mut().find(|row| row.id == id) else { return false };
        let may = row.due <= now && row.held.is_none() && row.work.attempt.is_none() && row.work.retry_at <= now;
        if !may {
            return false;
        }
        row.work.assign(all.is_reached(row.domain), now);
        row.work.attempt.is_some()
    }

    pub fn deletion_reported(&mut self, at: usize, report: &Report) {
        let (now, settings) = (self.now, self.settings.clone());
        match report {
            Report::Done { .. } => {
                self.garbage.remove(at);
            }
            Report::Failed { .. } | Report::Stopped | Report::Refused(_) => {
                let work = &mut self.garbage[at].work;
                work.attempt = None;
                work.idle_since = now;
                work.pause(now, &settings);
            }
            _ => {}
        }
    }
}
