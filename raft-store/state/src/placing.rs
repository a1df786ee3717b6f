//! Placing work: which worker does it, and whether there is space for it. Fewest assigned attempts
//! first, ties by id.

use crate::locks::BLOCKERS_SHOWN;
use crate::shape::JobShape;
use crate::shape::Shape;
use crate::state::State;
use crate::work::Owner;
use crate::work::Work;
use crate::workers::Worker;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::WorkerId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub worker: WorkerId,
    /// Set when the worker pulls: who serves the source.
    pub source_worker: Option<WorkerId>,
}

impl State {
    fn load_of(&self, worker: WorkerId) -> usize {
        self.index.by_worker.get(&worker).map_or(0, imbl::OrdSet::len)
    }

    /// Of those that suit, one at which fewest attempts of this work failed; then the least busy one; then by id.
    fn least_busy(&self, work: &Work, fitting: impl Iterator<Item = WorkerId>) -> Option<WorkerId> {
        let failures = |id: &WorkerId| work.failed_at.iter().filter(|failed| *failed == id).count();
        fitting.min_by_key(|id| (failures(id), self.load_of(*id), *id))
    }

    /// The live workers that reach a domain, by rising id.
    pub fn workers_reaching(&self, domain: DomainId) -> impl Iterator<Item = &Worker> + '_ {
        self.index.contents.reaching(domain).filter_map(|id| self.workers.get(&id))
    }

    /// Who could do this work now; None when nobody can.
    pub(crate) fn choose_worker(&self, owner: Owner) -> Option<Choice> {
        let work = self.work_of(owner)?;
        let contents = &self.index.contents;
        let fresh = |id: &WorkerId| !work.excluded.contains(id) && self.takes_work(*id);
        let owns = |id: &WorkerId, path: &str| self.workers.get(id).is_some_and(|worker| worker.owns_path(path));
        let reaches = |id: &WorkerId, domain| self.workers.get(id).is_some_and(|worker| worker.reaches(domain));
        let alone = |worker| Choice { worker, source_worker: None };
        let at_domain = |id: DomainId| self.least_busy(work, contents.reaching(id).filter(fresh)).map(alone);
        let at_path = |path: &str| {
            let owners = contents.live().filter(|id| owns(id, path) && fresh(id));
            self.least_busy(work, owners).map(alone)
        };
        match owner {
            Owner::Step(txn) if self.pin_of(work).is_some() => {
                // Also when it is drained: nobody else can.
                let pinned = self.pin_of(work)?;
                let fits = match self.shape(self.txns.get(&txn)?) {
                    Shape::AtPath { path, .. } => owns(&pinned, &path) && contents.live().any(|id| id == pinned),
                    Shape::Step { domain, .. } | Shape::InPlace { domain, .. } => reaches(&pinned, domain),
                    Shape::Anywhere | Shape::Instant | Shape::Job(_) => false,
                };
                fits.then(|| alone(pinned))
            }
            Owner::Step(txn) => match self.shape(self.txns.get(&txn)?) {
                Shape::AtPath { path, .. } => at_path(&path),
                Shape::Step { domain, .. } | Shape::InPlace { domain, .. } => at_domain(domain),
                Shape::Anywhere => self.least_busy(work, contents.live().filter(fresh)).map(alone),
                Shape::Instant | Shape::Job(_) => None,
            },
            Owner::Deletion(id) => {
                let place = &self.garbage.get(&id)?.place;
                if place.whole_domain { at_path(&place.path) } else { at_domain(place.domain) }
            }
            Owner::Describe(domain) => self.late_writer_reaching(work, domain).map(alone).or_else(|| at_domain(domain)),
            Owner::Projection(id) => {
                let domain = self.domain_of_placement(id)?;
                self.late_writer_reaching(work, domain).map(alone).or_else(|| at_domain(domain))
            }
            Owner::Job(id) => {
                let job = self.jobs.get(&id)?;
                match (job.source, job.target) {
                    (Some(source), Some(target)) => self
                        .least_busy(work, contents.reaching(source).filter(|id| reaches(id, target) && fresh(id)))
                        .map(alone)
                        .or_else(|| self.choose_pull(work, source, target).filter(|_| self.may_pull(job.txn))),
                    (Some(only), None) | (None, Some(only)) => at_domain(only),
                    (None, None) => None,
                }
            }
        }
    }

    /// Whether what a job reads may be read by another worker than the one that writes.
    fn may_pull(&self, txn: TxnId) -> bool {
        self.txns.get(&txn).is_some_and(|txn| matches!(self.shape(txn), Shape::Job(JobShape { pull: true, .. })))
    }

    /// Refuses when no live worker reaches both domains: what a guest sees through a chain is read and written by one.
    pub(crate) fn check_common_worker(&self, source: DomainId, target: DomainId) -> Result<(), Refusal> {
        let reaches = |id: &WorkerId| self.workers.get(id).is_some_and(|worker| worker.reaches(target));
        if self.index.contents.reaching(source).any(|id| reaches(&id) && self.takes_work(id)) {
            return Ok(());
        }
        let name = |id: DomainId| self.domains.get(&id).map_or_else(|| id.to_string(), |row| row.name.to_string());
        let message = format!(
            "no live worker reaches both {} and {}, and a chain that becomes one volume, or another format, is read and \
             written by one worker",
            name(source),
            name(target)
        );
        Err(Refusal::new(Class::Precondition, "NO_COMMON_WORKER", message).hint(
            "copy it within its domain first, then move the copy (sdm disk move); or start a worker that reaches both",
        ))
    }

    fn choose_pull(&self, work: &Work, source: DomainId, target: DomainId) -> Option<Choice> {
        let takes = |id: &WorkerId| self.takes_work(*id);
        let worker = self.least_busy(work, self.index.contents.reaching(target).filter(takes))?;
        let source_worker = self.least_busy(work, self.index.contents.reaching(source).filter(takes))?;
        Some(Choice { worker, source_worker: Some(source_worker) })
    }

    /// Whether a worker may be given new work.
    fn takes_work(&self, id: WorkerId) -> bool {
        self.workers.get(&id).is_some_and(Worker::takes_work)
    }

    /// One that could do it and is drained.
    fn drained_reaching(&self, id: DomainId) -> Option<&Worker> {
        let mut reaching = self.index.contents.reaching(id).filter_map(|worker| self.workers.get(&worker));
        reaching.find(|worker| worker.is_live() && worker.draining.is_some())
    }

    /// Refuses when no live worker that takes work reaches the domain.
    pub(crate) fn check_reachable(&self, id: DomainId) -> Result<(), Refusal> {
        if self.index.contents.reaching(id).any(|worker| self.takes_work(worker)) {
            return Ok(());
        }
        let name = self.domains.get(&id).map_or_else(|| id.to_string(), |domain| domain.name.to_string());
        let mut refusal = Refusal::new(
            Class::Precondition,
            "DOMAIN_UNREACHABLE",
            format!("no live worker reaches domain {name}"),
        )
        .hint(match self.drained_reaching(id) {
            Some(worker) => format!(
                "sdm worker undrain {}, then repeat under a new request id; or start another worker that reaches it",
                worker.identity.name
            ),
            None => {
                format!("sdm domain show {name}; start a worker that reaches it, then repeat under a new request id")
            }
        });
        // Live ones first, and only so many: a refusal is kept with the transaction and has to fit an answer.
        let live = self.workers.values().filter(|worker| worker.is_live());
        let lost = self.workers.values().filter(|worker| !worker.is_live());
        for worker in live.chain(lost).take(BLOCKERS_SHOWN) {
            let why = match worker.domains.get(&id) {
                _ if !worker.is_live() => "is lost".to_owned(),
                Some(sight) => sight
                    .error
                    .clone()
                    .unwrap_or_else(|| format!("is drained (sdm worker undrain {})", worker.identity.name)),
                None => {
                    "does not have the domain's path beneath its --reach prefixes, or has not looked yet".to_owned()
                }
            };
            refusal = refusal.blocker("worker", worker.identity.name.as_str(), why);
        }
        Err(refusal)
    }

    /// Refuses when what is free on the domain's file system, less what is promised to jobs and the
    /// floor, does not hold this many bytes. A domain whose space nobody reported yet is believed.
    pub(crate) fn check_space(&self, id: DomainId, need: u64) -> Result<(), Refusal> {
        let seen = self.workers_reaching(id).find_map(|w| Some((w, w.domains.get(&id)?)));
        let Some((worker, sight)) = seen.filter(|(_, sight)| sight.total_bytes > 0) else { return Ok(()) };
        // All domains on its file system, itself among them.
        let sharing = worker.domains.iter().filter(|(_, other)| other.file_system == sight.file_system);
        let promised = sharing.map(|(other, _)| self.promised_bytes(*other)).fold(0, u64::wrapping_add);
        let floor = sight.total_bytes / 1000 * self.meta.settings.space_floor_permille;
        let usable = sight.free_bytes.saturating_sub(promised).saturating_sub(floor);
        if need <= usable {
            return Ok(());
        }
        let name = self.domains.get(&id).map_or_else(|| id.to_string(), |domain| domain.name.to_string());
        let message = format!(
            "domain {name} lacks {} bytes: {need} are needed, {} are free, {promised} of them promised to running jobs and {floor} kept free",
            need - usable,
            sight.free_bytes
        );
        Err(Refusal::new(Class::Exhausted, "NO_SPACE", message)
            .hint("free space there (`sdm gc run`), or choose another domain; then repeat under a new request id"))
    }
}
