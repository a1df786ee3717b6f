//! Merges in place: the layers of a published placement opened, the upper one to be changed; and its header's backing
//! file, when the placement is built without the layer that it lay over.

use uuid::Uuid;

use super::BuildChain;
use super::MergeInPlace;
use super::PlacementReport;
use super::Ports;
use super::RefusalCode;
use super::SourceVolume;
use super::VolumeFormat;
use super::VolumeReport;
use super::VolumeSpec;
use super::build::Advance;
use super::resize::open_to_change;
use super::resize::require_alone;
use super::resize::settle;
use super::run::open_volume;
use super::verdict::Unfinished;
use super::verdict::refused;
use crate::domain::Domain;
use crate::driver::DomainDriver;
use crate::driver::DomainFile;
use crate::driver::Storage;
use crate::flatten::ChainBuilder;
use crate::flatten::LayerFormat;
use crate::merge::MergePorts;
use crate::merge::pull;
use crate::volume::qcow2;
use crate::volume::qcow2::Backing;
use crate::volume::qcow2::BackingFile;
use crate::volume::qcow2::FileImage;
use crate::volume::qcow2::Header;

fn invalid(message: impl Into<String>) -> Unfinished {
    refused(RefusalCode::InvalidOrder, message, "")
}

pub(super) fn format_name(format: VolumeFormat) -> &'static str {
    match format {
        VolumeFormat::Raw => "raw",
        VolumeFormat::Qcow2 => "qcow2",
    }
}

pub(super) async fn merge_in_place<S: Storage>(
    storage: &S,
    order: &MergeInPlace,
    ports: &Ports,
) -> Result<PlacementReport, Unfinished> {
    let [beneath @ .., gone, child] = &order.volumes[..] else {
        return Err(invalid("a merge of fewer than two volumes"));
    };
    if child.format != VolumeFormat::Qcow2 {
        return Err(invalid(format!("the raw volume {} lies over another one", child.volume)));
    }
    let domain = Domain::open(storage, &order.domain).await?;
    domain.require_placement(order.placement, &order.token).await?;
    if order.settle_only {
        let file = open_to_change(&domain, order.placement, child.volume).await?;
        return report(&file, child.volume);
    }
    let file = open_to_change(&domain, order.placement, child.volume).await?;
    require_alone(&file, child.volume)?;
    if !lies_over(&file, beneath.last())? {
        let merged = merge_into(&domain, order.placement, (beneath, gone), &file, child.volume, ports).await;
        if merged.is_err() {
            // Whatever ends it here, nothing of it may reach the storage after others were told so.
            settle(&file)?;
        }
        merged?;
    }
    report(&file, child.volume)
}

/// Whether an image names this layer beneath it, so that it was merged before.
fn lies_over<F: DomainFile>(file: &F, beneath: Option<&SourceVolume>) -> Result<bool, Unfinished> {
    let name = beneath.map(|beneath| beneath.volume.to_string());
    let backing = name.as_deref().map_or(Backing::None, Backing::Named);
    match Header::read_layer(&FileImage::new(file)?, backing) {
        Ok(_) => Ok(true),
        Err(qcow2::Qcow2Error::Storage(error)) => Err(error.into()),
        Err(_) => Ok(false),
    }
}

async fn merge_into<D: DomainDriver>(
    domain: &Domain<D>,
    placement: Uuid,
    (beneath, gone): (&[SourceVolume], &SourceVolume),
    child: &D::File,
    volume: Uuid,
    ports: &Ports,
) -> Result<(), Unfinished> {
    let mut builder = ChainBuilder::default();
    let mut below: Option<String> = None;
    for known in beneath.iter().chain([gone]) {
        let file = open_volume(domain, placement, known.volume).await?;
        let format = match known.format {
            VolumeFormat::Raw => LayerFormat::Raw,
            VolumeFormat::Qcow2 => LayerFormat::Qcow2 { backing: below.as_deref() },
        };
        if builder.len() < beneath.len() {
            builder.beneath(file, format, &ports.cancel)?;
        } else {
            builder.flattened(file, format, &ports.cancel)?;
        }
        below = Some(known.volume.to_string());
    }
    let reader = domain.open_volume(placement, volume).await?;
    let chain = builder.finish(beneath.len());
    let advance = Advance::new(ports, chain.virtual_bytes());
    let progress = advance.progress();
    let ports = MergePorts { progress: &progress, cancel: &ports.cancel };
    Ok(pull(chain, child, &reader, &gone.volume.to_string(), ports)?)
}

fn report<F: DomainFile>(file: &F, volume: Uuid) -> Result<PlacementReport, Unfinished> {
    let stat = file.stat()?;
    let mut head = vec![0; 32];
    file.read_at(&mut head, 0)?;
    let virtual_bytes = head.get(24..32).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    Ok(PlacementReport {
        volumes: vec![VolumeReport {
            volume,
            file_bytes: stat.bytes,
            allocated_bytes: stat.allocated_bytes,
            virtual_bytes,
            true_bytes: None,
            hash: None,
            qcow2: None,
        }],
    })
}

/// Has a volume of the source lie over what lies beneath it in the placement to be. Done already is done.
pub(super) async fn rebase_in_source<S: Storage>(
    storage: &S,
    order: &BuildChain,
    volume: Uuid,
) -> Result<(), Unfinished> {
    let source = order.source.as_ref().ok_or_else(|| invalid("there is no source"))?;
    let at = source.volumes.iter().position(|known| known.volume == volume);
    let from = at.and_then(|at| source.volumes.get(at.checked_sub(1)?));
    let from = from.ok_or_else(|| invalid(format!("the volume {volume} lies over nothing in its source")))?;
    let specs = &order.placement.volumes;
    let to = specs.iter().position(|spec| spec.volume == volume);
    let to = to.ok_or_else(|| invalid(format!("the volume {volume} is not in the placement to be")))?;
    let to = to.checked_sub(1).and_then(|to| specs.get(to)).map(backing_file);
    let domain = Domain::open(storage, &source.at.domain).await?;
    domain.require_placement(source.at.placement, &source.at.token).await?;
    // It may have names in folders of earlier attempts: what a guest sees through those does not change either.
    let file = open_to_change(&domain, source.at.placement, volume).await?;
    let name = from.volume.to_string();
    qcow2::rebase(&file, Backing::Named(&name), to.as_ref())?;
    Ok(())
}

fn backing_file(beneath: &VolumeSpec) -> BackingFile {
    BackingFile { name: beneath.volume.to_string(), format: format_name(beneath.format) }
}
