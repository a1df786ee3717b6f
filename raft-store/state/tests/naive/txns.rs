//! Transactions: asked, locked, begun, ended.

use super::Attempt;
use super::Disk;
use super::Garbage;
use super::Lock;
use super::Naive;
use super::Phase;
use super::Txn;
use super::Work;
use sdm_proto::ids::ClusterId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::token::Token;
use sdm_state::State;
use sdm_state::command::Begin;
use sdm_state::command::SessionRef;
use sdm_state::garbage::Kind;
use sdm_state::garbage_order::GarbageOrder;
use sdm_state::locks::Mode;
use sdm_state::locks::Resource;
use sdm_state::txns::Spec;
use sdm_state::work::Report;

pub type Answer = Result<(), String>;

fn no(reason: &str) -> Answer {
    Err(reason.to_owned())
}

fn name_lock(name: &str) -> (Resource, Mode) {
    (Resource::Name(format!("disk/{name}")), Mode::Exclusive)
}

fn of_token(token: Token, cluster: ClusterId) -> sdm_proto::ids::PlacementId {
    token.placement(cluster)
}

impl Naive {
    pub fn begin(&mut self, begin: &Begin) -> Answer {
        if let Some(known) = self.txn(begin.id) {
            return if known.hash == begin.request_hash { Ok(()) } else { no("REQUEST_ID_REUSED") };
        }
        if self.now > begin.not_after_ms {
            return no("REQUEST_TOO_OLD");
        }
        let harmless = matches!(begin.spec, Spec::Noop { .. });
        if !harmless && self.forgotten.is_some_and(|at| begin.looked_up_ms <= at) {
            return no("REQUEST_TOO_OLD");
        }
        let mut txn = Txn {
            id: begin.id,
            hash: begin.request_hash,
            spec: begin.spec.clone(),
            phase: Phase::Running,
            lock: None,
            work: None,
            ended: (0, 0),
        };
        let wants = match self.plan(&begin.spec) {
            Ok(wants) => wants,
            Err(reason) => {
                txn.phase = Phase::Refused(reason);
                txn.ended = (self.index, self.now);
                self.txns.push(txn);
                return Ok(());
            }
        };
        let waits = self.blocked(self.index, &wants);
        if waits && begin.lock_wait_ms == 0 {
            txn.phase = Phase::Refused("LOCKED".into());
            txn.ended = (self.index, self.now);
            self.txns.push(txn);
            return Ok(());
        }
        let until = self.now + begin.lock_wait_ms;
        self.locks.push(Lock { id: self.index, txn: begin.id, wants, held: !waits, until });
        txn.lock = Some(self.index);
        txn.phase = if waits { Phase::Waiting } else { Phase::Running };
        self.txns.push(txn);
        if !waits {
            self.start(begin.id);
        }
        Ok(())
    }

    /// The lock set of an operation, or why it is not allowed.
    pub fn plan(&self, spec: &Spec) -> Result<Vec<(Resource, Mode)>, String> {
        use Mode::Exclusive;
        use Mode::IntentExclusive;
        let taken = |name: &str| if self.disk_named(name).is_some() { no("DISK_EXISTS") } else { Ok(()) };
        let missing = || "DISK_NOT_FOUND".to_owned();
        let in_domain = |id: DomainId| (Resource::Domain(id), IntentExclusive);
        Ok(match spec {
            Spec::CreateDisk { name, domain, .. } => {
                taken(name.as_str())?;
                vec![in_domain(*domain), name_lock(name.as_str())]
            }
            Spec::MoveDisk { disk, to } => {
                let disk = self.disk(*disk).ok_or_else(missing)?;
                if disk.domain == *to {
                    return Err("ALREADY_THERE".into());
                }
                vec![in_domain(disk.domain), in_domain(*to), (Resource::Disk(disk.id), Exclusive)]
            }
            Spec::DeleteDisk { disk } => {
                let disk = self.disk(*disk).ok_or_else(missing)?;
                vec![in_domain(disk.domain), (Resource::Disk(disk.id), Exclusive)]
            }
            Spec::RenameDisk { disk, name } => {
                let disk = self.disk(*disk).ok_or_else(missing)?;
                if disk.name == name.as_str() {
                    return Err("ALREADY_SO".into());
                }
                taken(name.as_str())?;
                let own = (Resource::Disk(disk.id), Exclusive);
                vec![in_domain(disk.domain), own, name_lock(&disk.name), name_lock(name.as_str())]
            }
            Spec::Noop { resource } => vec![(Resource::User(resource.clone()), Exclusive)],
            Spec::Garbage(order) => return self.plan_garbage(order),
            other => panic!("the model knows no {other:?}"),
        })
    }

    /// Locked: it begins, or it turns out that it cannot.
    pub fn start(&mut self, id: TxnId) {
        let spec = self.txn_mut(id).spec.clone();
        self.txn_mut(id).phase = Phase::Running;
        let (source, target) = self.ends_of(&spec);
        let unreachable = [source, target].into_iter().flatten().any(|domain| !self.is_reached(domain));
        if unreachable {
            return self.end(id, Phase::Refused("DOMAIN_UNREACHABLE".into()));
        }
        match spec {
            Spec::CreateDisk { .. } | Spec::MoveDisk { .. } => self.begin_work(id),
            Spec::Noop { .. } if self.workers.iter().any(|worker| worker.session.is_some()) => self.begin_work(id),
            Spec::Noop { .. } => self.end(id, Phase::Refused("NO_LIVE_WORKER".into())),
            Spec::DeleteDisk { disk } => {
                let at = self.disks.iter().position(|row| row.id == disk).expect("it was planned");
                let gone = self.disks.remove(at);
                self.trash(gone, id);
                self.end(id, Phase::Committed);
            }
            Spec::RenameDisk { disk, name } => {
                let row = self.disks.iter_mut().find(|row| row.id == disk).expect("it was planned");
                row.name = name.to_string();
                self.end(id, Phase::Committed);
            }
            Spec::Garbage(order) => {
                self.do_garbage(order, id);
                self.end(id, Phase::Committed);
            }
            other => panic!("the model knows no {other:?}"),
        }
    }

    fn begin_work(&mut self, id: TxnId) {
        let now = self.now;
        self.txn_mut(id).work = Some(Work { idle_since: now, ..Work::default() });
        self.try_assign(id);
    }

    pub fn end(&mut self, id: TxnId, phase: Phase) {
        let ended = (self.index, self.now);
        let txn = self.txn_mut(id);
        txn.phase = phase;
        txn.work = None;
        txn.ended = ended;
        if let Some(lock) = txn.lock.take() {
            self.locks.retain(|held| held.id != lock);
            self.lock_freed = true;
        }
    }

    /// Whoever waits and need not any more, first come first served.
    pub fn settle(&mut self) {
        while let Some(next) = self.locks.iter().position(|lock| !lock.held && !self.blocked(lock.id, &lock.wants)) {
            self.grant(next);
        }
    }

    pub fn grant(&mut self, at: usize) {
        self.locks[at].held = true;
        let Lock { txn, wants, .. } = self.locks[at].clone();
        let spec = self.txn_mut(txn).spec.clone();
        match self.plan(&spec) {
            Ok(now) if same_set(&now, &wants) => self.start(txn),
            // What is taken or gone is that to whoever waited, too.
            Err(reason) if reason.ends_with("_EXISTS") || reason.ends_with("_NOT_FOUND") => {
                self.end(txn, Phase::Refused(reason));
            }
            _ => self.end(txn, Phase::Refused("CHANGED_WHILE_WAITING".into())),
        }
    }

    /// Gives work to a worker if one can do it; which one is learned afterwards.
    pub fn try_assign(&mut self, id: TxnId) {
        let spec = self.txn_mut(id).spec.clone();
        let (source, target) = self.ends_of(&spec);
        let possible = match spec {
            Spec::Noop { .. } => self.workers.iter().any(|worker| worker.session.is_some()),
            _ => [source, target].into_iter().flatten().all(|domain| self.is_reached(domain)),
        };
        let now = self.now;
        let Some(work) = self.txn_mut(id).work.as_mut().filter(|work| work.attempt.is_none()) else { return };
        work.assign(possible, now);
    }

    pub fn assign_pending(&mut self) {
        let now = self.now;
        let waits = |txn: &&Txn| txn.work.as_ref().is_some_and(|work| work.attempt.is_none() && work.retry_at <= now);
        let pending: Vec<TxnId> = self.txns.iter().filter(waits).map(|txn| txn.id).collect();
        for id in pending {
            self.try_assign(id);
        }
    }

    /// An attempt ended without a result; what it made is garbage.
    pub fn attempt_failed(&mut self, id: TxnId, cluster: ClusterId) {
        self.close(id, cluster);
        let (now, settings) = (self.now, self.settings.clone());
        let Some(work) = self.txn_mut(id).work.as_mut() else { return };
        work.pause(now, &settings);
        if work.tries >= settings.attempts_max {
            self.end(id, Phase::Aborted("ATTEMPTS_USED_UP".into()));
        }
    }

    /// The current attempt is believed no more.
    pub fn close(&mut self, id: TxnId, cluster: ClusterId) {
        let now = self.now;
        let spec = self.txn_mut(id).spec.clone();
        let Some(work) = self.txn_mut(id).work.as_mut() else { return };
        let Some(attempt) = work.attempt.take() else { return };
        work.idle_since = now;
        let (_, target) = self.ends_of(&spec);
        let Some(domain) = target else { return };
        self.garbage.push(Garbage {
            id: Token::default(),
            kind: Kind::ClosedAttempt,
            domain,
            placement: of_token(attempt.token, cluster),
            made_by: attempt.token,
            txn: id,
            due: now,
            held: None,
            trash: None,
            work: Work::default(),
        });
    }

    pub fn abort(&mut self, id: TxnId, reason: &str, cluster: ClusterId) {
        let waiting = self.txn_mut(id).phase == Phase::Waiting;
        self.close(id, cluster);
        let reason = reason.to_owned();
        self.end(id, if waiting { Phase::Refused(reason) } else { Phase::Aborted(reason) });
    }

    pub fn abort_asked(&mut self, id: TxnId, cluster: ClusterId) -> Answer {
        match self.txn(id).map(|txn| txn.phase.clone()) {
            None => no("TXN_NOT_FOUND"),
            Some(Phase::Committed) => no("TXN_COMMITTED"),
            Some(phase) if phase.is_final() => Ok(()),
            Some(_) => {
                self.abort(id, "ABORTED", cluster);
                Ok(())
            }
        }
    }

    pub fn report(&mut self, session: SessionRef, token: Token, report: &Report, after: &State) -> Answer {
        let Some(worker) = self.workers.iter().find(|worker| worker.session == Some(session)) else {
            return no("SESSION_EXPIRED");
        };
        let worker = worker.name.clone();
        let cluster = after.cluster_id();
        let mine = |work: &Work| {
            work.attempt.as_ref().is_some_and(|attempt| {
                attempt.token == token && (attempt.worker == worker || attempt.source.as_ref() == Some(&worker))
            })
        };
        if let Some(at) = self.garbage.iter().position(|row| mine(&row.work)) {
            self.deletion_reported(at, report);
            return Ok(());
        }
        let Some(txn) = self.txns.iter().find(|txn| txn.work.as_ref().is_some_and(mine)) else {
            return no("ATTEMPT_CLOSED");
        };
        let (id, spec) = (txn.id, txn.spec.clone());
        let attempt = txn.work.clone().and_then(|work| work.attempt).expect("it is its");
        match report {
            Report::Failed { .. } | Report::Stopped => self.attempt_failed(id, cluster),
            Report::Refused(refusal) => self.abort(id, &refusal.reason, cluster),
            Report::Done { volumes, .. } if attempt.worker == worker => {
                let volumes = volumes.iter().map(|volume| volume.volume).collect();
                self.commit(id, spec, &attempt, volumes, after);
            }
            _ => {}
        }
        Ok(())
    }

    fn commit(
        &mut self,
        id: TxnId,
        spec: Spec,
        attempt: &Attempt,
        volumes: Vec<sdm_proto::ids::VolumeId>,
        after: &State,
    ) {
        let placement = of_token(attempt.token, after.cluster_id());
        match spec {
            Spec::CreateDisk { name, domain, .. } => {
                // Its id is new; which one the rules do not say.
                let row = after.disk_named(&name).map(|disk| disk.id).unwrap_or_default();
                let fresh = self.disk(row).is_none()
                    && self.garbage.iter().all(|garbage| garbage.trash.as_ref().is_none_or(|disk| disk.id != row));
                assert!(fresh, "disk {row} was there already");
                let made_by = attempt.token;
                self.disks.push(Disk { id: row, name: name.to_string(), domain, placement, made_by, volumes });
            }
            Spec::MoveDisk { disk, to } => {
                let row = self.disks.iter_mut().find(|row| row.id == disk).expect("it is locked");
                let old = std::mem::replace(row, Disk { domain: to, placement, made_by: attempt.token, ..row.clone() });
                let now = self.now;
                self.garbage.push(Garbage {
                    id: Token::default(),
                    kind: Kind::Superseded,
                    domain: old.domain,
                    placement: old.placement,
                    made_by: old.made_by,
                    txn: id,
                    due: now,
                    held: None,
                    trash: None,
                    work: Work::default(),
                });
            }
            Spec::Noop { .. } => {}
            other => panic!("no worker does {other:?}"),
        }
        self.end(id, Phase::Committed);
    }

    pub fn lose(&mut self, session: SessionRef, cluster: ClusterId) {
        let Some(at) = self.workers.iter().position(|worker| worker.session == Some(session)) else { return };
        self.workers[at].session = None;
        self.workers[at].reaches.clear();
        self.workers[at].told.clear();
        self.workers_changed = true;
        let name = self.workers[at].name.clone();
        let has =
            |work: &Work| work.attempt.as_ref().is_some_and(|a| a.worker == name || a.source.as_ref() == Some(&name));
        let lost: Vec<TxnId> =
            self.txns.iter().filter(|txn| txn.work.as_ref().is_some_and(has)).map(|txn| txn.id).collect();
        let (now, settings) = (self.now, self.settings.clone());
        for row in self.garbage.iter_mut().filter(|row| has(&row.work)) {
            row.work.attempt = None;
            row.work.pause(now, &settings);
        }
        for id in lost {
            self.attempt_failed(id, cluster);
        }
    }

    pub fn see(&mut self, session: SessionRef, domain: DomainId, well: bool) -> Answer {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.session == Some(session)) else {
            return no("SESSION_EXPIRED");
        };
        let name = worker.name.clone();
        worker.reaches.retain(|known| *known != domain);
        if well {
            worker.reaches.push(domain);
        }
        self.workers_changed = true;
        self.judge(&name);
        Ok(())
    }

    /// Whether the attempts of a worker still reach what they need.
    fn judge(&mut self, name: &str) {
        let now = self.now.max(1);
        let all = self.clone();
        let judge = |work: &mut Work, source: Option<DomainId>, target: Option<DomainId>| {
            let Some(attempt) = work.attempt.as_mut() else { return };
            if attempt.worker != name && attempt.source.as_deref() != Some(name) {
                return;
            }
            let reader = attempt.source.clone().unwrap_or_else(|| attempt.worker.clone());
            let well = source.is_none_or(|domain| all.reaches(&reader, domain))
                && target.is_none_or(|domain| all.reaches(&attempt.worker, domain));
            attempt.unreachable_since = match (well, attempt.unreachable_since) {
                (true, _) => 0,
                (false, 0) => now,
                (false, since) => since,
            };
        };
        for txn in &mut self.txns {
            let (source, target) = all.ends_of(&txn.spec);
            if let Some(work) = &mut txn.work {
                judge(work, source, target);
            }
        }
        for row in &mut self.garbage {
            let domain = row.domain;
            judge(&mut row.work, None, Some(domain));
        }
    }
}

impl Work {
    /// A worker is told to do it, or nobody can.
    pub fn assign(&mut self, possible: bool, now: u64) {
        if !possible {
            if self.idle_since == 0 {
                self.idle_since = now;
            }
            return;
        }
        self.tries += 1;
        self.retry_at = 0;
        self.idle_since = 0;
        let worker = String::new();
        self.attempt =
            Some(Attempt { token: Token::default(), worker, source: None, since: now, unreachable_since: 0 });
    }

    /// The next try comes after a pause that grows.
    pub fn pause(&mut self, now: u64, settings: &sdm_state::settings::Settings) {
        self.idle_since = now;
        let pause = settings.retry_first_ms << (self.tries.max(1) - 1).min(30);
        self.retry_at = now + pause.min(settings.retry_max_ms);
    }
}

fn same_set(a: &[(Resource, Mode)], b: &[(Resource, Mode)]) -> bool {
    a.len() == b.len() && a.iter().all(|one| b.contains(one))
}

/// Whether an order is one that the model can be asked about.
pub fn is_known(order: &GarbageOrder) -> bool {
    !matches!(order, GarbageOrder::AdoptOrphans { .. })
}
