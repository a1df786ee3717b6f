//! Merges in place: the layers of a published placement opened, the upper one to be changed; and its header's backing
//! file, when the placement is built without the layer that it lay over.

use uuid::Uuid;

use super::BuildChain;
use super::MergeInPlace;
use super::Outcome;
use super::PlacementReport;
use super::Ports;
use super::Refusal;
use super::RefusalCode;
use super::SourceVolume;
use super::VolumeFormat;
use super::VolumeReport;
use super::VolumeSpec;
use super::build::Advance;
use super::resize::not_settled;
use super::resize::open_to_change;
use super::resize::require_alone;
use super::resize::settle;
use super::run::open_volume;
use super::verdict::Unfinished;
use super::verdict::refused;
use crate::domain::Attempt;
use crate::domain::Domain;
use crate::domain::DomainError;
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
        // Whatever would refuse the second half, from which there is no way back, does so before a byte is written.
        let below = beneath.last().map(|known| backing_file(known.volume, known.format));
        qcow2::check_rebase(&file, Backing::Named(&gone.volume.to_string()), below.as_ref())?;
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
    let free_bytes = domain.driver().space().await.map_err(DomainError::Storage)?.free_bytes;
    let ports = MergePorts { progress: &progress, cancel: &ports.cancel, free_bytes };
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

/// Which volume of the source lies beneath another one, and which one is to in the placement to be.
fn layers_beneath(order: &BuildChain, volume: Uuid) -> Result<(&SourceVolume, Option<&VolumeSpec>), Unfinished> {
    let source = order.source.as_ref().ok_or_else(|| invalid("there is no source"))?;
    let at = source.volumes.iter().position(|known| known.volume == volume);
    let from = at.and_then(|at| source.volumes.get(at.checked_sub(1)?));
    let from = from.ok_or_else(|| invalid(format!("the volume {volume} lies over nothing in its source")))?;
    let specs = &order.placement.volumes;
    let to = specs.iter().position(|spec| spec.volume == volume);
    let to = to.ok_or_else(|| invalid(format!("the volume {volume} is not in the placement to be")))?;
    Ok((from, to.checked_sub(1).and_then(|to| specs.get(to))))
}

/// Has a volume of a placement that is being built lie over what lies beneath it there. A link is the same file as in the
/// source: from here on there is no way back. Done already is done.
pub(super) async fn rebase_in_attempt<D: DomainDriver>(
    attempt: &Attempt<'_, D>,
    order: &BuildChain,
    volume: Uuid,
) -> Result<(), Unfinished> {
    let (from, to) = layers_beneath(order, volume)?;
    let to = to.map(|spec| backing_file(spec.volume, spec.format));
    let file = attempt.change_volume(volume).await?;
    settle(&file)?;
    file.lock_as_writer()?;
    let name = from.volume.to_string();
    match qcow2::rebase(&file, Backing::Named(&name), to.as_ref()) {
        // Nobody knows what is on the storage then.
        Err(qcow2::Qcow2Error::Storage(error)) => Err(not_settled(&error)),
        answer => Ok(answer.map(drop)?),
    }
}

/// A chain without one of its layers was refused. Where the volume above that one still lies over it, nothing of the chain
/// was changed by this attempt or an earlier one, and that is what is said.
pub(super) async fn refused_to_rebase<S: Storage>(
    storage: &S,
    order: &BuildChain,
    volume: Uuid,
    refusal: Refusal,
) -> Unfinished {
    match is_rebased(storage, order, volume).await {
        Ok(false) => Unfinished::Refused(Refusal {
            code: RefusalCode::NotRebased,
            message: format!("{} [{}]; volume {volume} lies over what it lay over", refusal.message, refusal.code),
            ..refusal
        }),
        Ok(true) => Unfinished::Refused(refusal),
        Err(error) => {
            let error = Outcome::from(error);
            tracing::warn!(%volume, ?error, "nobody could see what a volume lies over");
            Unfinished::Refused(refusal)
        }
    }
}

async fn is_rebased<S: Storage>(storage: &S, order: &BuildChain, volume: Uuid) -> Result<bool, Unfinished> {
    let (_, to) = layers_beneath(order, volume)?;
    let source = order.source.as_ref().ok_or_else(|| invalid("there is no source"))?;
    let domain = Domain::open(storage, &source.at.domain).await?;
    domain.require_placement(source.at.placement, &source.at.token).await?;
    let file = domain.change_volume(source.at.placement, volume).await?;
    // What an earlier attempt wrote on this host may not be on the storage yet.
    settle(&file)?;
    let name = to.map(|spec| spec.volume.to_string());
    Ok(qcow2::names_backing(&file, name.as_deref())?)
}

fn backing_file(volume: Uuid, format: VolumeFormat) -> BackingFile {
    BackingFile { name: volume.to_string(), format: format_name(format) }
}
