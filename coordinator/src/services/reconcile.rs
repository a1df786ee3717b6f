//! Reconciling a restored cluster with its storage: every domain is read by a worker, the epoch is
//! raised above all that was found, and each domain is taken over. Every step is an entry or a write
//! that may be repeated, so a reconciliation that was cut off is simply begun again, at any member.

use crate::core::Core;
use crate::services::call::Call;
use crate::services::domain_reading::DomainReading;
use crate::services::worker_call;
use crate::services::worker_call::WorkerAddress;
use crate::services::worker_call::target;
use futures_util::stream::StreamExt;
use sdm_proto::ids::ClusterId;
use sdm_proto::ids::WorkerId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::reconcile_response::Message;
use sdm_raft_store::StateView;
use sdm_state::Command;
use sdm_state::catalog::Domain;
use sdm_state::suspension::MARKED_DISKS_MAX;
use sdm_state::suspension::Reconcile;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::Status;

/// Domains that are read at once.
const AT_ONCE: usize = 4;

/// Clusters that the operator may name.
const TAKE_FROM_MAX: usize = 64;

type Outgoing = mpsc::Sender<Result<v1::ReconcileResponse, Status>>;

/// One reconciliation.
pub(super) struct Reconciliation {
    core: Core,
    view: Arc<StateView>,
    dry_run: bool,
    /// Clusters that domains may be taken from.
    from: Vec<ClusterId>,
}

/// A domain that was read, or why not.
struct Read {
    domain: Domain,
    outcome: Result<(DomainReading, WorkerAddress), Refusal>,
}

impl Reconciliation {
    /// After a linearizable read.
    ///
    /// # Errors
    /// This cluster was not restored, or the request makes no sense.
    pub(super) async fn begin(core: Core, request: v1::ReconcileRequest) -> Result<Self, Refusal> {
        let view = Call::begin(&core).read().await?;
        let Some(restored) = &view.state.meta.restored else {
            let message = "this cluster was not restored from a backup: there is nothing to reconcile";
            return Err(Refusal::new(Class::Precondition, "NOT_RESTORED", message)
                .hint("this is for a cluster that `sdm backup restore` made: see that --endpoints names its members"));
        };
        if request.take_from_cluster_ids.len() > TAKE_FROM_MAX {
            let message = format!("at most {TAKE_FROM_MAX} clusters can be named");
            return Err(Refusal::new(Class::Invalid, "TOO_MANY_CLUSTERS", message));
        }
        let mut from = restored.ancestors.clone();
        for text in &request.take_from_cluster_ids {
            let id = text.parse().map_err(|_| {
                let shown: String = text.chars().take(64).collect();
                Refusal::new(Class::Invalid, "BAD_CLUSTER_ID", format!("{shown:?} is not the id of a cluster"))
                    .hint("`sdm backup reconcile --dry-run` shows whose each domain is")
            })?;
            from.push(id);
        }
        Ok(Self { core, view, dry_run: request.dry_run, from })
    }

    /// Does it all, telling each domain as it is done.
    pub(super) async fn run(self, to: Outgoing) {
        let last = match self.all(&to).await {
            Ok(summary) => Ok(v1::ReconcileResponse { message: Some(Message::Summary(summary)) }),
            Err(refusal) => Err(to_status(&refusal)),
        };
        // Whoever asked may be gone: it begins again.
        let _ = to.send(last).await;
    }

    async fn all(&self, to: &Outgoing) -> Result<v1::ReconcileSummary, Refusal> {
        let (hidden, domains): (Vec<Domain>, Vec<Domain>) =
            self.view.state.domains.values().cloned().partition(|domain| domain.state.is_hidden());
        let read: Vec<Read> = futures_util::stream::iter(domains)
            .map(|domain| async {
                let outcome = self.read(&domain).await;
                Read { domain, outcome }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        if !self.dry_run {
            self.raise_epoch(&read).await?;
        }
        let mut adopted = 0;
        let (domains, mut failed) = (read.len() as u64, 0);
        for Read { domain, outcome } in read {
            let told = match outcome {
                Ok((reading, _)) if self.dry_run => reading.told(&domain, "read"),
                Ok((reading, worker)) => match self.take(&domain, &reading, worker).await {
                    Ok(()) => reading.told(&domain, "adopted"),
                    Err(refusal) => with_refusal(reading.told(&domain, "failed"), refusal),
                },
                Err(refusal) => with_refusal(unread(&domain), refusal),
            };
            adopted += u64::from(told.state == "adopted");
            failed += u64::from(told.state == "failed");
            let message = v1::ReconcileResponse { message: Some(Message::Domain(told)) };
            if to.send(Ok(message)).await.is_err() {
                return Err(Refusal::new(Class::Aborted, "NOBODY_LISTENS", "whoever asked is gone"));
            }
        }
        for domain in &hidden {
            let message = v1::ReconcileResponse { message: Some(Message::Domain(left_out(domain))) };
            let _ = to.send(Ok(message)).await;
        }
        let view = self.core.view();
        let state = &view.state;
        Ok(v1::ReconcileSummary {
            suspended: state.is_suspended(),
            epoch: state.meta.epoch,
            domains,
            adopted,
            failed,
            illegal_disks: state.disks.values().filter(|disk| !state.is_legal(disk)).count() as u64,
            revision: state.applied_index(),
            backup_cluster_id: self.maker().map(|id| id.to_string()).unwrap_or_default(),
        })
    }

    fn maker(&self) -> Option<ClusterId> {
        self.view.state.meta.restored.as_ref()?.ancestors.last().copied()
    }

    /// The epoch has to be above that of every domain that is to be taken.
    async fn raise_epoch(&self, read: &[Read]) -> Result<(), Refusal> {
        let own = self.view.state.cluster_id();
        let needed = |(reading, _): &(DomainReading, WorkerAddress)| {
            let above = u64::from(reading.cluster != own);
            self.may_take(reading.cluster).then(|| reading.epoch.saturating_add(above))
        };
        let found = read.iter().filter_map(|read| read.outcome.as_ref().ok());
        let Some(epoch) = found.filter_map(needed).max().filter(|epoch| *epoch > self.view.state.meta.epoch) else {
            return Ok(());
        };
        tracing::warn!(epoch, "the epoch is raised above that of the storage");
        self.propose(Reconcile::RaiseEpoch { epoch }).await
    }

    fn may_take(&self, cluster: ClusterId) -> bool {
        cluster == self.view.state.cluster_id() || self.from.contains(&cluster)
    }

    /// Reads a domain, page by page, through the first worker that can.
    async fn read(&self, domain: &Domain) -> Result<(DomainReading, WorkerAddress), Refusal> {
        let workers = worker_call::owners(&self.view.state, domain);
        self.through_a_worker(domain, workers, |worker, address| async move {
            let name = self.view.state.worker_word(worker);
            let mut reading = DomainReading::begin(&self.view.state, domain.id, name);
            let mut after = String::new();
            loop {
                let request = wire::InspectDomainRequest {
                    domain: Some(target(domain)),
                    pool_id: self.view.state.meta.pool_id.to_string(),
                    after: after.clone(),
                    ..Default::default()
                };
                let page = worker_call::ask(&self.core, worker, &address, async |mut client| {
                    client.inspect_domain(request).await
                })
                .await?;
                // Names rise from page to page, so this ends even with a worker that means harm.
                let next = page.next_after.clone();
                reading.take(&self.view.state, page)?;
                if next <= after {
                    return Ok((reading.finish(&self.view.state), (worker, address)));
                }
                after = next;
            }
        })
        .await
    }

    /// Marks what was found and writes this cluster's id and epoch into the domain.
    async fn take(&self, domain: &Domain, reading: &DomainReading, worker: WorkerAddress) -> Result<(), Refusal> {
        if !self.may_take(reading.cluster) {
            let message = format!(
                "domain {} is in the hands of cluster {} (epoch {}), which this one does not descend from",
                domain.name, reading.cluster, reading.epoch
            );
            return Err(Refusal::new(Class::Denied, "OTHER_CLUSTERS_DOMAIN", message).hint(format!(
                "two clusters were restored from one backup: keep one of them; if that one is gone for good: \
                 sdm backup reconcile --take-from {}",
                reading.cluster
            )));
        }
        let (missing, found) = reading.changed_disks(&self.view.state);
        for missing in missing.chunks(MARKED_DISKS_MAX) {
            self.propose(Reconcile::MarkDisks { missing: missing.to_vec(), found: Vec::new() }).await?;
        }
        for found in found.chunks(MARKED_DISKS_MAX) {
            self.propose(Reconcile::MarkDisks { missing: Vec::new(), found: found.to_vec() }).await?;
        }
        let view = self.core.view();
        let (cluster, epoch) = (view.state.cluster_id(), view.state.meta.epoch);
        // Who read it first: its session may be over because the epoch was raised, and it lives all the same.
        let others = worker_call::owners(&view.state, domain).into_iter().filter(|other| *other != worker);
        let workers = std::iter::once(worker.clone()).chain(others).collect();
        self.through_a_worker(domain, workers, |worker, address| async move {
            let request = wire::AdoptDomainRequest {
                domain: Some(target(domain)),
                pool_id: self.view.state.meta.pool_id.to_string(),
                cluster_id: cluster.to_string(),
                epoch,
                from_cluster_ids: self.from.iter().map(ToString::to_string).collect(),
            };
            worker_call::ask(&self.core, worker, &address, async |mut client| client.adopt_domain(request).await)
                .await
                .map(drop)
        })
        .await?;
        self.propose(Reconcile::Adopted { domain: domain.id, epoch }).await
    }

    async fn propose(&self, step: Reconcile) -> Result<(), Refusal> {
        Call::begin(&self.core).propose(Command::Reconcile(step)).await.map(drop)
    }

    /// Tries workers whose paths cover the domain until one answers. Whether they reach it now the
    /// state cannot know: before it is adopted, each finds it to be another cluster's.
    async fn through_a_worker<T, F: Future<Output = Result<T, Refusal>>>(
        &self,
        domain: &Domain,
        workers: Vec<WorkerAddress>,
        ask: impl Fn(WorkerId, String) -> F,
    ) -> Result<T, Refusal> {
        let mut last = None;
        for (worker, address) in workers {
            match ask(worker, address).await {
                Ok(answer) => return Ok(answer),
                Err(refusal) => {
                    tracing::warn!(%worker, domain = %domain.name, %refusal, "a worker could not do it");
                    last = Some(refusal);
                }
            }
        }
        Err(last.unwrap_or_else(|| {
            let message = format!("no live worker owns the path {} of domain {}", domain.path, domain.name);
            Refusal::new(Class::Precondition, "NO_WORKER_FOR_PATH", message).hint(format!(
                "admit a worker anew: its usual command with --readmit {}; then sdm worker list --wait 1",
                self.view.state.cluster_id()
            ))
        }))
    }
}

fn unread(domain: &Domain) -> v1::DomainReading {
    v1::DomainReading {
        domain_id: domain.id.to_string(),
        name: domain.name.to_string(),
        path: domain.path.clone(),
        state: "failed".to_owned(),
        ..Default::default()
    }
}

/// A domain that was on its way into the catalog, or out of it, when the backup was made: it leaves after the release.
fn left_out(domain: &Domain) -> v1::DomainReading {
    let (folder, local) = (format!("{}/{}", domain.path, domain.id), if domain.local { " --local" } else { "" });
    let message = "it was being attached, detached or forgotten when the backup was made: it leaves the catalog after \
                   the release, and nothing is done on its storage";
    let hint = format!(
        "when its mark says that it was given up, it can be attached then: `sdm domain attach {folder}{local}`"
    );
    let refusal = Refusal::new(Class::Precondition, "DOMAIN_LEFT_OUT", message).hint(hint);
    with_refusal(v1::DomainReading { state: "left out".to_owned(), ..unread(domain) }, refusal)
}

fn with_refusal(told: v1::DomainReading, refusal: Refusal) -> v1::DomainReading {
    v1::DomainReading { reason: refusal.reason, message: refusal.message, hint: refusal.hint, ..told }
}
