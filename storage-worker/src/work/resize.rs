//! Grows the leaf of a published placement in place: what cannot be done in new files, so it is done with everything
//! checked that could make it hurt somebody else.

use uuid::Uuid;

use super::Failure;
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
use crate::driver::StorageError;
use crate::driver::StorageErrorKind;
use crate::driver::chain;
use crate::volume::RAW_ALIGNMENT;
use crate::volume::qcow2;
use crate::volume::qcow2::Backing;
use crate::volume::qcow2::Qcow2Error;

pub(super) async fn resize_volume<S: Storage>(
    storage: &S,
    order: &ResizeVolume,
    ports: &Ports,
) -> Result<PlacementReport, Unfinished> {
    let domain = Domain::open(storage, &order.domain).await?;
    domain.require_placement(order.placement, &order.token).await?;
    let file = open_to_change(&domain, order.placement, order.volume).await?;
    require_size(order.virtual_bytes)?;
    require_alone(&file, order.volume)?;
    let grown = match order.format {
        VolumeFormat::Raw => grow_raw(&file, order),
        VolumeFormat::Qcow2 => {
            let parent = order.parent.map(|parent| parent.to_string());
            let backing = parent.as_deref().map_or(Backing::None, Backing::Named);
            let wanted = order.virtual_bytes.next_multiple_of(512);
            qcow2::grow(&file, backing, wanted, &ports.cancel).map_err(|error| match error {
                Qcow2Error::Storage(error) if error.operation == "fsync" => not_settled(&error),
                error => error.into(),
            })
        }
    };
    if grown.is_err() {
        // Whatever ends it here, nothing of it may reach the storage after others were told so.
        settle(&file)?;
    }
    let virtual_bytes = grown?;
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

/// Makes durable what was written. A failure is never a refusal, whatever the reason: nobody knows what is on the storage
/// then, so the next attempt is made on this host, where it is read again.
pub(super) fn settle<F: DomainFile>(file: &F) -> Result<(), Unfinished> {
    file.sync().map_err(|error| not_settled(&error))
}

pub(super) fn not_settled(error: &StorageError) -> Unfinished {
    let hint = "look at the storage; the next attempt reads what is there and writes what is missing";
    Unfinished::Failed(Failure { message: chain(error), hint: hint.to_owned() })
}

/// Opens a volume that nobody else uses, what earlier attempts wrote made durable.
pub(super) async fn open_to_change<D: DomainDriver>(
    domain: &Domain<D>,
    placement: Uuid,
    volume: Uuid,
) -> Result<D::File, Unfinished> {
    let file = match domain.change_volume(placement, volume).await {
        Err(error @ DomainError::Storage(_)) if error.is_storage(StorageErrorKind::NotFound) => {
            let message = format!("the volume {volume} is not in its placement {placement}");
            return Err(refused(RefusalCode::VolumeMissing, message, super::verdict::FILE_GONE));
        }
        answer => answer?,
    };
    // An earlier attempt on this host may have died before it synced what it wrote. Before anything can refuse: from here
    // on a refusal says that nothing of that comes late any more.
    settle(&file)?;
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
    settle(file)?;
    Ok(file.stat()?.bytes)
}
