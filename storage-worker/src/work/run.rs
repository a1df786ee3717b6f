//! Executes orders.

use std::sync::Arc;

use super::CheckPlacements;
use super::CreateDisk;
use super::Done;
use super::NewPlacement;
use super::Order;
use super::Outcome;
use super::Piece;
use super::PlacementReport;
use super::Ports;
use super::RefusalCode;
use super::SendPlacement;
use super::VolumeFormat;
use super::VolumeReport;
use super::VolumeSpec;
use super::build::Advance;
use super::build::build_placement;
use super::chain::Made;
use super::chain::build_chain;
use super::chain::fresh_volume;
use super::merge::merge_in_place;
use super::resize::resize_volume;
use super::verdict::Unfinished;
use super::verdict::refused;
use super::verdict::require_size;
use crate::copy::CopyPorts;
use crate::copy::Sending;
use crate::copy::send_file;
use crate::domain::Attempt;
use crate::domain::Domain;
use crate::domain::DomainError;
use crate::domain::adopt_domain;
use crate::domain::attach_domain;
use crate::domain::check_placements;
use crate::domain::create_domain;
use crate::domain::delete_domain;
use crate::domain::delete_placement;
use crate::domain::detach_domain;
use crate::domain::format_domain;
use crate::domain::inspect_domain;
use crate::domain::project_placement;
use crate::domain::read_catalog_piece;
use crate::domain::rename_domain;
use crate::domain::write_catalog_piece;
use crate::driver::DomainDriver;
use crate::driver::DomainFile;
use crate::driver::FileStorage;
use crate::driver::Storage;
use crate::driver::StorageErrorKind;
use crate::flatten::ChainBuilder;
use crate::flatten::FlattenPorts;
use crate::flatten::LayerFormat;
use crate::flatten::send_flattened;

/// Longest chain that one placement holds: QEMU copes with more, backups and people do not.
const VOLUMES_MAX: usize = 64;

/// Executes an order on this host's file systems. Blocks the calling thread: for a process of its own.
pub async fn run(order: Order, ports: Ports) -> Outcome {
    run_on(&FileStorage, order, ports).await
}

/// Executes an order on the storage given.
pub async fn run_on<S: Storage>(storage: &S, order: Order, mut ports: Ports) -> Outcome {
    let done = match &order {
        Order::ProbeDomain(root) => probe_domain(storage, root).await,
        Order::CreateDomain(order) => create_domain(storage, order).await.map(Done::DomainCreated).map_err(Into::into),
        Order::CreateDisk(order) => create_disk(storage, order, &ports).await.map(placed),
        Order::BuildPlacement(order) => build_placement(storage, order, &mut ports).await.map(placed),
        Order::BuildChain(order) => build_chain(storage, order, &ports).await.map(placed),
        Order::ResizeVolume(order) => resize_volume(storage, order, &ports).await.map(Done::Resized),
        Order::MergeInPlace(order) => merge_in_place(storage, order, &ports).await.map(Done::Merged),
        Order::ProjectPlacement(order) => match Domain::open(storage, &order.domain).await {
            Ok(domain) => project_placement(&domain, order).await.map(|()| Done::Projected).map_err(Into::into),
            Err(error) => Err(error.into()),
        },
        Order::SendPlacement(order) => send_placement(storage, order, &mut ports).await.map(Done::Sent),
        Order::DeletePlacement(order) => match Domain::open(storage, &order.domain).await {
            Ok(domain) => delete_placement(&domain, order).await.map(Done::Deleted).map_err(Into::into),
            Err(error) => Err(error.into()),
        },
        Order::DeleteDomain(order) => delete_domain(storage, order).await.map(Done::Deleted).map_err(Into::into),
        Order::InspectDomain(order) => inspect_domain(storage, order).await.map(Done::Inspected).map_err(Into::into),
        Order::AdoptDomain(order) => adopt_domain(storage, order).await.map(|()| Done::Adopted).map_err(Into::into),
        Order::RenameDomain(order) => changed(rename_domain(storage, order).await),
        Order::DetachDomain(order) => changed(detach_domain(storage, order).await),
        Order::WriteCatalog(order) => changed(write_catalog_piece(storage, order).await),
        Order::ReadCatalog(order) => {
            read_catalog_piece(storage, order).await.map(Done::CatalogRead).map_err(Into::into)
        }
        Order::AttachDomain(order) => changed(attach_domain(storage, order).await),
        Order::FormatDomain(order) => format_domain(storage, order).await.map(Done::Deleted).map_err(Into::into),
        Order::CheckPlacements(order) => check_expected(storage, order, &ports).await,
    };
    match done {
        Ok(done) => Outcome::Done(done),
        Err(unfinished) => unfinished.into(),
    }
}

fn placed(volumes: Vec<VolumeReport>) -> Done {
    Done::Placed(PlacementReport { volumes })
}

fn changed(answer: Result<(), DomainError>) -> Result<Done, Unfinished> {
    answer.map(|()| Done::DomainChanged).map_err(Into::into)
}

async fn check_expected<S: Storage>(storage: &S, order: &CheckPlacements, ports: &Ports) -> Result<Done, Unfinished> {
    let domain = Domain::open(storage, &order.domain).await?;
    let findings = check_placements(&domain, order, &ports.cancel).await?;
    findings.map(Done::Checked).ok_or(Unfinished::Stopped)
}

async fn probe_domain<S: Storage>(storage: &S, root: &super::DomainRoot) -> Result<Done, Unfinished> {
    let domain = Domain::open(storage, root).await?;
    Ok(Done::DomainProbed(domain.report().await?))
}

/// What every order that makes a placement must say.
pub(super) fn require_sound(placement: &NewPlacement) -> Result<(), Unfinished> {
    let volumes = &placement.volumes;
    let invalid = |message: &str| Err(refused(RefusalCode::InvalidOrder, message, ""));
    if volumes.is_empty() || volumes.len() > VOLUMES_MAX {
        return invalid(&format!("a placement of {} volumes is not possible", volumes.len()));
    }
    let mut ids: Vec<_> = volumes.iter().map(|spec| spec.volume).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() != volumes.len() {
        return invalid("two volumes of the placement have the same id");
    }
    Ok(())
}

async fn create_disk<S: Storage>(
    storage: &S,
    order: &CreateDisk,
    ports: &Ports,
) -> Result<Vec<VolumeReport>, Unfinished> {
    let placement = &order.placement;
    require_sound(placement)?;
    for spec in &placement.volumes {
        if spec.parent.is_some() {
            return Err(refused(RefusalCode::InvalidOrder, "an empty volume with a parent is made as a layer", ""));
        }
        require_size(spec.virtual_bytes.unwrap_or(0))?;
    }
    let domain = Domain::open(storage, &placement.domain).await?;
    if let Some(volumes) = Attempt::published_already(&domain, placement).await? {
        return Ok(volumes);
    }
    let attempt = Attempt::begin(&domain, placement).await?;
    let created = create_volumes(&attempt, &placement.volumes, ports).await;
    finish(attempt, created).await
}

async fn create_volumes<D: DomainDriver>(
    attempt: &Attempt<'_, D>,
    specs: &[VolumeSpec],
    ports: &Ports,
) -> Result<Made<D::File>, Unfinished> {
    let total = specs.iter().filter_map(|spec| spec.virtual_bytes).fold(0, u64::saturating_add);
    let advance = Advance::new(ports, total);
    let mut made = Made::durable(Vec::new());
    for spec in specs {
        let file = attempt.create_empty_volume(spec.volume).await?;
        made.reports.push(fresh_volume(&file, spec, None, ports, &advance)?);
        made.unsynced.push(file);
    }
    Ok(made)
}

/// Publishes what was made, or takes away what will never be wanted.
pub(super) async fn finish<D: DomainDriver>(
    attempt: Attempt<'_, D>,
    made: Result<Made<D::File>, Unfinished>,
) -> Result<Vec<VolumeReport>, Unfinished> {
    match made {
        Ok(Made { reports, unsynced }) => {
            attempt.publish(&reports, unsynced).await?;
            Ok(reports)
        }
        Err(refusal @ Unfinished::Refused(_)) => {
            // The names are garbage to the catalog anyway; this only gives the room back sooner.
            if let Err(error) = attempt.discard().await {
                tracing::debug!(error = %error, "a refused attempt's folder stays for the collector");
            }
            Err(refusal)
        }
        Err(other) => Err(other),
    }
}

/// A volume that is not where the catalog says is no reason to try again.
pub(super) async fn open_volume<D: DomainDriver>(
    domain: &Domain<D>,
    placement: uuid::Uuid,
    volume: uuid::Uuid,
) -> Result<Arc<D::File>, Unfinished> {
    let file = match domain.open_volume(placement, volume).await {
        Err(error @ DomainError::Storage(_)) if error.is_storage(StorageErrorKind::NotFound) => {
            let message = format!("the volume {volume} is not in its placement {placement}");
            return Err(refused(RefusalCode::VolumeMissing, message, super::verdict::FILE_GONE));
        }
        answer => answer?,
    };
    file.lock_against_writers()?;
    Ok(Arc::new(file))
}

async fn send_placement<S: Storage>(
    storage: &S,
    order: &SendPlacement,
    ports: &mut Ports,
) -> Result<PlacementReport, Unfinished> {
    let Some(outgoing) = ports.outgoing.take() else {
        return Err(refused(RefusalCode::InvalidOrder, "there is no port to send through", ""));
    };
    let domain = Domain::open(storage, &order.domain).await?;
    let mark = domain.require_placement(order.placement, &order.token).await?;
    if !order.flattened.is_empty() {
        return send_chain(&domain, order, &outgoing, ports).await;
    }
    let mut files = Vec::new();
    let mut total = 0_u64;
    for sent in &order.volumes {
        let file = open_volume(&domain, order.placement, sent.volume).await?;
        let stat = file.stat()?;
        total = total.saturating_add(stat.bytes);
        files.push((sent, file, stat));
    }
    let mut advance = Advance::new(ports, total);
    let mut volumes = Vec::new();
    for (ordinal, (sent, file, stat)) in (0_u32..).zip(files) {
        let sending = Sending {
            ordinal,
            true_bytes: sent.true_bytes,
            expected: sent.expected_hash,
            threads: domain.driver().io_threads(),
        };
        let (progress, checkpoint) = (advance.progress(), |_| {});
        let copy_ports = CopyPorts {
            progress: &progress,
            checkpoint: &checkpoint,
            cancel: &ports.cancel,
            now_ms: ports.now_ms.as_ref(),
        };
        let answer = send_file(file, sending, &outgoing, copy_ports).await?;
        advance.add(answer.file_bytes);
        let known = mark.volumes.iter().find(|known| known.volume == sent.volume);
        volumes.push(VolumeReport {
            volume: sent.volume,
            file_bytes: answer.file_bytes,
            allocated_bytes: stat.allocated_bytes,
            virtual_bytes: known.map_or(answer.file_bytes, |known| known.virtual_bytes),
            true_bytes: sent.true_bytes,
            hash: Some(answer.hash),
            qcow2: known.and_then(|known| known.qcow2.clone()),
        });
    }
    Ok(PlacementReport { volumes })
}

/// Sends what a guest sees through a chain as a raw image.
async fn send_chain<D: DomainDriver>(
    domain: &Domain<D>,
    order: &SendPlacement,
    outgoing: &tokio::sync::mpsc::Sender<Piece>,
    ports: &Ports,
) -> Result<PlacementReport, Unfinished> {
    let [sent] = &order.volumes[..] else {
        return Err(refused(RefusalCode::InvalidOrder, "a chain becomes one image", ""));
    };
    let mut builder = ChainBuilder::default();
    let mut below: Option<String> = None;
    for known in &order.flattened {
        let file = open_volume(domain, order.placement, known.volume).await?;
        let format = match known.format {
            VolumeFormat::Raw => LayerFormat::Raw,
            VolumeFormat::Qcow2 => LayerFormat::Qcow2 { backing: below.as_deref() },
        };
        builder.flattened(file, format, &ports.cancel)?;
        below = Some(known.volume.to_string());
    }
    let chain = builder.finish(0);
    let advance = Advance::new(ports, chain.virtual_bytes());
    let progress = advance.progress();
    let flatten_ports = FlattenPorts { progress: &progress, cancel: &ports.cancel };
    let answer = send_flattened(chain, 0, outgoing, domain.driver().io_threads(), flatten_ports).await?;
    Ok(PlacementReport {
        volumes: vec![VolumeReport {
            volume: sent.volume,
            file_bytes: answer.file_bytes,
            allocated_bytes: 0,
            virtual_bytes: answer.file_bytes,
            true_bytes: None,
            hash: Some(answer.hash),
            qcow2: None,
        }],
    })
}
