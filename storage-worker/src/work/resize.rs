//! Grows the leaf of a published placement in place: what cannot be done in new files, so it is done with everything
//! checked that could make it hurt somebody else.

use uuid::Uuid;

use super::PlacementReport;
use super::Ports;
use super::RefusalCode;
use super::ResizeVolume;
use super::VolumeFormat;
use super::VolumeReport;
use super::verdict::Unfinished;
use super::verdict::refused;
use super::verdict::require_size;
use crate::domain::Domain;
use crate::domain::DomainError;
use crate::domain::Placed;
use crate::driver::DomainDriver;
use crate::driver::DomainFile;
use crate::driver::Storage;
use crate::driver::StorageErrorKind;
use crate::volume::RAW_ALIGNMENT;
use crate::volume::qcow2;
use crate::volume::qcow2::Backing;

pub(super) async fn resize_volume<S: Storage>(
    storage: &S,
    order: &ResizeVolume,
    ports: &Ports,
) -> Result<PlacementReport, Unfinished> {
    require_size(order.virtual_bytes)?;
    let domain = Domain::open(storage, &order.domain).await?;
    domain.require_placement(order.placement, &order.token).await?;
    let file = open_to_change(&domain, order.placement, order.volume).await?;
    // An earlier attempt on this host may have died before it synced what it wrote. Before anything can refuse.
    file.sync()?;
    require_alone(&file, order.volume)?;
    let virtual_bytes = match order.format {
        VolumeFormat::Raw => grow_raw(&file, order)?,
        VolumeFormat::Qcow2 => {
            let parent = order.parent.map(|parent| parent.to_string());
            let backing = parent.as_deref().map_or(Backing::None, Backing::Named);
            let wanted = order.virtual_bytes.next_multiple_of(512);
            qcow2::grow(&file, backing, wanted, &ports.cancel)?
        }
    };
    let placed = Placed { placement: order.placement, made_by: &order.token, attempt: &order.attempt };
    domain.record_growth(placed, order.volume, virtual_bytes).await?;
    let stat = file.stat()?;
    // What is larger than asked was so before, and its size before rounding is not known here.
    let is_as_asked = virtual_bytes == order.virtual_bytes.next_multiple_of(RAW_ALIGNMENT);
    let is_rounded = order.format == VolumeFormat::Raw && is_as_asked && virtual_bytes != order.virtual_bytes;
    Ok(PlacementReport {
        volumes: vec![VolumeReport {
            volume: order.volume,
            file_bytes: stat.bytes,
            allocated_bytes: stat.allocated_bytes,
            virtual_bytes,
            true_bytes: is_rounded.then_some(order.virtual_bytes),
            hash: None,
            qcow2: None,
        }],
    })
}

/// Refuses a volume that has another name.
pub(super) fn require_alone<F: DomainFile>(file: &F, volume: Uuid) -> Result<(), Unfinished> {
    let links = file.stat()?.links;
    if links != 1 {
        let message = format!("the volume {volume} has {links} names: another placement uses it too");
        let hint = "a superseded placement of the disk may still have to be collected: `sdm gc status`; or make a \
                    snapshot first, which gives the disk a volume of its own";
        return Err(refused(RefusalCode::VolumeShared, message, hint));
    }
    Ok(())
}

/// Opens a volume that nobody else uses.
pub(super) async fn open_to_change<D: DomainDriver>(
    domain: &Domain<D>,
    placement: Uuid,
    volume: Uuid,
) -> Result<D::File, Unfinished> {
    let file = match domain.change_volume(placement, volume).await {
        Err(error @ DomainError::Storage(_)) if error.is_storage(StorageErrorKind::NotFound) => {
            let message = format!("the volume {volume} is not in its placement {placement}");
            return Err(refused(RefusalCode::VolumeMissing, message, "somebody else deleted it"));
        }
        answer => answer?,
    };
    file.lock_as_writer()?;
    Ok(file)
}

/// Makes a raw file longer, by a call that can only lengthen: one that hangs and takes effect when a later resize made
/// the file longer still must not cut it. For a sparse volume the last block alone is reserved.
fn grow_raw<F: DomainFile>(file: &F, order: &ResizeVolume) -> Result<u64, Unfinished> {
    let wanted = order.virtual_bytes.next_multiple_of(RAW_ALIGNMENT);
    let present = file.stat()?.bytes;
    if present < wanted {
        let from = if order.preallocated { present } else { wanted.saturating_sub(RAW_ALIGNMENT).max(present) };
        if !file.grow(from..wanted)? {
            let message = "the file system cannot lengthen a file without the risk of cutting it".to_owned();
            let hint = "NFS can from version 4.2 on: mount it so; or copy the disk to another domain with its new size";
            return Err(refused(RefusalCode::StorageUnsupported, message, hint));
        }
    }
    // Also when it is long enough: the call that made it so may not have lived to sync.
    file.sync()?;
    Ok(file.stat()?.bytes)
}
