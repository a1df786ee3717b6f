//! Reading, comparing and taking over domains for a member: each in a process of its own, because the storage may hang. No session and no token stand behind it: reading changes nothing, and a late takeover by an
//! earlier epoch is refused by the domain's own mark.

use crate::folder::ChildrenLock;
use crate::process::IoProcess;
use crate::process::IoProcesses;
use crate::process::OrderEnd;
use crate::supervisor::Reach;
use crate::supervisor::Unreadable;
use crate::supervisor::expected_placement;
use crate::supervisor::refusal_by_storage;
use crate::work::AdoptDomain;
use crate::work::CheckPlacements;
use crate::work::DomainRoot;
use crate::work::DomainState;
use crate::work::Done;
use crate::work::Finding;
use crate::work::FindingReason;
use crate::work::FoundImage;
use crate::work::FoundKind;
use crate::work::FoundVolume;
use crate::work::InspectDomain;
use crate::work::Order;
use crate::work::Outcome;
use crate::work::VolumeFormat;
use crate::work::VolumeRole;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::internal::v1 as wire;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use uuid::Uuid;

/// Domains that are dealt with at once: each costs a process.
const AT_ONCE: usize = 4;

/// How long one page or one takeover may take: thousands of small reads over a slow network file system.
const PATIENCE: Duration = Duration::from_secs(120);

/// Clusters that a domain may be taken from, in one request.
const FROM_MAX: usize = 256;

/// Placements that are compared in one request: with their volumes they travel in one message.
const PLACEMENTS_MAX: usize = 256;

/// Reads and takes over domains.
#[derive(Clone)]
pub(crate) struct Takeover {
    processes: Arc<dyn IoProcesses>,
    lock: ChildrenLock,
    reach: Reach,
    slots: Arc<Semaphore>,
}

impl Takeover {
    pub(crate) fn new(processes: Arc<dyn IoProcesses>, lock: ChildrenLock, reach: Reach) -> Self {
        Self { processes, lock, reach, slots: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// A page of what lies in a domain.
    pub(super) async fn inspect(
        &self,
        request: wire::InspectDomainRequest,
    ) -> Result<wire::InspectDomainResponse, Refusal> {
        let domain = self.root(request.domain.as_ref(), &request.pool_id, Uuid::nil(), 0)?;
        let wire::InspectDomainRequest { after, free_too, volumes, .. } = request;
        match self.run(Order::InspectDomain(InspectDomain { domain, after, free_too, volumes })).await? {
            Done::Inspected(page) => Ok(wire::InspectDomainResponse {
                cluster_id: page.cluster.to_string(),
                epoch: page.epoch,
                images: page.images.into_iter().map(image).collect(),
                next_after: page.next_after.unwrap_or_default(),
                state: match page.state {
                    DomainState::Ours => wire::inspect_domain_response::State::Ours.into(),
                    DomainState::Released => wire::inspect_domain_response::State::Released.into(),
                    DomainState::Free => wire::inspect_domain_response::State::Free.into(),
                },
                description: page.description,
                catalog: page.catalog,
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Compares placements with what the catalog says of them.
    pub(super) async fn check(
        &self,
        request: wire::CheckPlacementsRequest,
    ) -> Result<wire::CheckPlacementsResponse, Refusal> {
        let cluster = id(&request.cluster_id, "cluster")?;
        let domain = self.root(request.domain.as_ref(), &request.pool_id, cluster, request.epoch)?;
        if request.placements.len() > PLACEMENTS_MAX {
            let message = format!("{} placements are asked for, more than {PLACEMENTS_MAX}", request.placements.len());
            return Err(Refusal::new(Class::Invalid, "BAD_REQUEST", message));
        }
        let placements = request.placements.iter().map(expected_placement);
        let placements = placements
            .collect::<Result<_, _>>()
            .map_err(|error: Unreadable| Refusal::new(Class::Invalid, "BAD_REQUEST", error.to_string()))?;
        let order = CheckPlacements { domain, placements, hashes: request.hashes };
        match self.run(Order::CheckPlacements(order)).await? {
            Done::Checked(findings) => {
                Ok(wire::CheckPlacementsResponse { findings: findings.into_iter().map(finding).collect() })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Takes a domain over.
    pub(super) async fn adopt(&self, request: wire::AdoptDomainRequest) -> Result<wire::AdoptDomainResponse, Refusal> {
        let cluster = id(&request.cluster_id, "cluster")?;
        let domain = self.root(request.domain.as_ref(), &request.pool_id, cluster, request.epoch)?;
        let from = request.from_cluster_ids.iter().take(FROM_MAX).map(|text| id(text, "cluster"));
        let order = AdoptDomain { domain, from: from.collect::<Result<_, _>>()? };
        match self.run(Order::AdoptDomain(order)).await? {
            Done::Adopted => Ok(wire::AdoptDomainResponse {}),
            other => Err(unexpected(&other)),
        }
    }

    fn root(
        &self,
        target: Option<&wire::DomainTarget>,
        pool: &str,
        cluster: Uuid,
        epoch: u64,
    ) -> Result<DomainRoot, Refusal> {
        let target = target.ok_or_else(|| Refusal::new(Class::Invalid, "BAD_REQUEST", "the domain is missing"))?;
        let path = PathBuf::from(&target.path);
        if !self.reach.covers(&path) {
            let message = format!("the path {} is not this worker's", target.path);
            return Err(
                Refusal::new(Class::Denied, "NOT_REACHED", message).hint("ask a worker whose --reach covers it")
            );
        }
        Ok(DomainRoot { path, domain: id(&target.domain_id, "domain")?, pool: id(pool, "pool")?, cluster, epoch })
    }

    async fn run(&self, order: Order) -> Result<Done, Refusal> {
        let busy =
            || Refusal::new(Class::Unavailable, "WORKER_BUSY", "too many domains are being read").hint("try again");
        let _slot = self.slots.try_acquire().map_err(|_| busy())?;
        let lock = self.lock.serving(std::slice::from_ref(&order.domain().path));
        let child = self.processes.start(lock).await.map_err(|error| {
            Refusal::new(Class::Unavailable, "NO_PROCESS", format!("no I/O process can be started: {error}"))
        })?;
        let process = IoProcess::new(child);
        let mut running = process.submit(order).await;
        let Ok(end) = tokio::time::timeout(PATIENCE, running.ended()).await else {
            process.kill();
            let message = format!("the domain's I/O hangs: nothing came within {} s", PATIENCE.as_secs());
            return Err(Refusal::new(Class::Timeout, "STORAGE_HANGS", message).hint("look at the storage on that host"));
        };
        match end {
            OrderEnd::Outcome(Outcome::Done(done)) => Ok(done),
            OrderEnd::Outcome(Outcome::Refused(refusal)) => Err(refusal_by_storage(refusal)),
            OrderEnd::Outcome(Outcome::Failed(failure)) => {
                Err(Refusal::new(Class::Unavailable, "IO_FAILED", failure.message).hint(failure.hint))
            }
            OrderEnd::Outcome(Outcome::Stopped) => {
                Err(Refusal::new(Class::Unavailable, "STOPPED", "the order was stopped").hint("try again"))
            }
            OrderEnd::ProcessGone(exit) => {
                let message = format!("the I/O process ended: {}", exit.0);
                Err(Refusal::new(Class::Unavailable, "PROCESS_DIED", message).hint("see the worker's log; try again"))
            }
        }
    }
}

fn id(text: &str, what: &str) -> Result<Uuid, Refusal> {
    Uuid::try_parse(text)
        .map_err(|_| Refusal::new(Class::Invalid, "BAD_REQUEST", format!("{what} {text:?} is not a UUID")))
}

fn unexpected(done: &Done) -> Refusal {
    Refusal::new(Class::Internal, "UNEXPECTED_OUTCOME", format!("the order ended as {done:?}"))
}

fn image(found: FoundImage) -> wire::FoundImage {
    use wire::found_image::Kind;
    let name = found.name;
    match found.kind {
        FoundKind::Placement { cluster, token, transaction, volumes, epoch, disk, details } => wire::FoundImage {
            name,
            kind: Kind::Placement.into(),
            cluster_id: cluster.to_string(),
            token,
            transaction_id: transaction,
            volume_ids: volumes.iter().map(Uuid::to_string).collect(),
            words: String::new(),
            disk_id: disk.map(|disk| disk.to_string()).unwrap_or_default(),
            volumes: details.into_iter().map(volume).collect(),
            epoch,
        },
        FoundKind::Image { details } => wire::FoundImage {
            name,
            kind: Kind::Other.into(),
            words: "a disk that others made".to_owned(),
            volumes: details.into_iter().map(volume).collect(),
            ..Default::default()
        },
        FoundKind::DotName => wire::FoundImage { name, kind: Kind::DotName.into(), ..Default::default() },
        FoundKind::Other(words) => wire::FoundImage { name, kind: Kind::Other.into(), words, ..Default::default() },
    }
}

fn volume(found: FoundVolume) -> wire::FoundVolume {
    let known = wire::FoundVolume {
        volume_id: found.volume.to_string(),
        file_size: found.file_bytes,
        allocated_bytes: found.allocated_bytes,
        links: found.links,
        ..Default::default()
    };
    let metadata = match found.metadata {
        Ok(metadata) => metadata,
        Err(words) => return wire::FoundVolume { words, ..known },
    };
    let role = match metadata.role {
        VolumeRole::Leaf => "LEAF",
        VolumeRole::Internal => "INTERNAL",
        VolumeRole::Shared => "SHARED",
    };
    let format = match metadata.format {
        VolumeFormat::Raw => "raw",
        VolumeFormat::Qcow2 => "qcow2",
    };
    wire::FoundVolume {
        format: format.to_owned(),
        virtual_size: metadata.virtual_bytes,
        parent_id: metadata.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        sequence: metadata.sequence,
        role: role.to_owned(),
        illegal: metadata.illegal,
        preallocated: metadata.preallocated,
        disk_name: metadata.disk_name,
        disk_description: metadata.disk_description,
        ..known
    }
}

fn finding(finding: Finding) -> wire::PlacementFinding {
    wire::PlacementFinding {
        placement_id: finding.placement.to_string(),
        volume_id: finding.volume.map(|volume| volume.to_string()).unwrap_or_default(),
        reason: finding.reason.as_str().to_owned(),
        words: finding.words,
        projection_mends: finding.reason == FindingReason::MetadataWrong,
    }
}
