//! Volumes as the cluster words them, read: chains, layers and where their bytes come from.

use super::assignment::Unreadable;
use super::assignment::id;
use super::assignment::missing;
use crate::work;
use crate::work::ExpectedPlacement;
use crate::work::FileHash;
use crate::work::LayerSource;
use crate::work::SentVolume;
use crate::work::SourceVolume;
use crate::work::VolumeFormat;
use crate::work::VolumeRole;
use sdm_proto::wire::internal::v1 as wire;
use uuid::Uuid;

/// A raw file is as long as a multiple of this; its volume remembers the size before rounding.
const RAW_ROUNDING_BYTES: u64 = 4096;

/// The chain's volumes; the last one is its leaf, unless all are a template's.
pub(super) fn chain(volumes: &[wire::VolumeSpec], template: bool) -> Result<Vec<work::VolumeSpec>, Unreadable> {
    let count = volumes.len();
    let volume = |(n, spec): (usize, &wire::VolumeSpec)| {
        let role = match n + 1 == count {
            _ if template => VolumeRole::Shared,
            true => VolumeRole::Leaf,
            false => VolumeRole::Internal,
        };
        let sequence = u32::try_from(n + 1).map_err(|_| Unreadable("the chain is too long".to_owned()))?;
        volume_spec(spec, role, sequence)
    };
    volumes.iter().enumerate().map(volume).collect()
}

/// A layer of a chain: its volume and its place.
pub(super) fn layer_spec(layer: &wire::Layer) -> Result<work::VolumeSpec, Unreadable> {
    let known = wire::layer::Role::try_from(layer.role);
    let role = match known.map_err(|_| Unreadable(format!("role {} of a layer is not known", layer.role)))? {
        wire::layer::Role::Leaf => VolumeRole::Leaf,
        wire::layer::Role::Internal => VolumeRole::Internal,
        wire::layer::Role::Shared => VolumeRole::Shared,
    };
    volume_spec(layer.volume.as_ref().ok_or_else(|| missing("a layer's volume"))?, role, layer.sequence)
}

/// Where a layer's bytes come from.
pub(super) fn layer_source(layer: &wire::Layer) -> Result<LayerSource, Unreadable> {
    Ok(match layer.from.as_ref().ok_or_else(|| missing("where a layer comes from"))? {
        wire::layer::From::Link(_) => LayerSource::Link,
        wire::layer::From::Fresh(_) => LayerSource::Fresh,
        wire::layer::From::Bytes(from) => LayerSource::Bytes { volume: id(&from.volume_id, "source volume")? },
        wire::layer::From::Flatten(from) => LayerSource::Flatten {
            volumes: from.volume_ids.iter().map(|volume| id(volume, "source volume")).collect::<Result<_, _>>()?,
        },
    })
}

/// Reads a placement as the catalog has it.
pub(crate) fn expected_placement(expected: &wire::ExpectedPlacement) -> Result<ExpectedPlacement, Unreadable> {
    Ok(ExpectedPlacement {
        placement: id(&expected.placement_id, "placement")?,
        token: expected.made_by_token.clone(),
        disk_name: expected.description.clone(),
        volumes: expected.layers.iter().map(layer_spec).collect::<Result<_, _>>()?,
    })
}

/// The volume beneath it.
pub(super) fn parent(spec: &wire::VolumeSpec) -> Result<Option<Uuid>, Unreadable> {
    (!spec.parent_id.is_empty()).then(|| id(&spec.parent_id, "parent volume")).transpose()
}

fn volume_spec(spec: &wire::VolumeSpec, role: VolumeRole, sequence: u32) -> Result<work::VolumeSpec, Unreadable> {
    Ok(work::VolumeSpec {
        volume: id(&spec.volume_id, "volume")?,
        format: format(spec)?,
        parent: parent(spec)?,
        role,
        sequence,
        virtual_bytes: virtual_bytes(spec)?,
        true_bytes: true_bytes(spec)?,
        preallocated: spec.preallocated,
        illegal: spec.illegal,
        expected_hash: hash(spec)?,
        announced_bytes: None,
    })
}

/// Its format, which is one of those that are known.
pub(super) fn format(spec: &wire::VolumeSpec) -> Result<VolumeFormat, Unreadable> {
    match spec.format.as_str() {
        "raw" => Ok(VolumeFormat::Raw),
        "qcow2" => Ok(VolumeFormat::Qcow2),
        other => Err(Unreadable(format!("format {other:?} is not known"))),
    }
}

/// The hash that its file must have, where one is known.
pub(super) fn hash(spec: &wire::VolumeSpec) -> Result<Option<FileHash>, Unreadable> {
    if spec.blake3.is_empty() {
        return Ok(None);
    }
    let bytes =
        <[u8; 32]>::try_from(spec.blake3.as_ref()).map_err(|_| Unreadable("a hash is not 32 bytes".to_owned()))?;
    Ok(Some(FileHash(bytes)))
}

/// What a guest sees. The cluster keeps a raw volume's size before rounding.
fn virtual_bytes(spec: &wire::VolumeSpec) -> Result<Option<u64>, Unreadable> {
    Ok(match (spec.virtual_size, format(spec)?) {
        (0, _) => None,
        (bytes, VolumeFormat::Raw) => Some(bytes.checked_next_multiple_of(RAW_ROUNDING_BYTES).unwrap_or(bytes)),
        (bytes, VolumeFormat::Qcow2) => Some(bytes),
    })
}

/// The size before rounding of a raw volume that is rounded up.
pub(super) fn true_bytes(spec: &wire::VolumeSpec) -> Result<Option<u64>, Unreadable> {
    let rounded = format(spec)? == VolumeFormat::Raw && !spec.virtual_size.is_multiple_of(RAW_ROUNDING_BYTES);
    Ok(rounded.then_some(spec.virtual_size))
}

/// A volume that is sent whole.
pub(super) fn sent_volume(spec: &wire::VolumeSpec) -> Result<SentVolume, Unreadable> {
    Ok(SentVolume { volume: id(&spec.volume_id, "volume")?, true_bytes: None, expected_hash: hash(spec)? })
}

/// A volume of a chain that is read.
pub(super) fn source_volume(spec: &wire::VolumeSpec) -> Result<SourceVolume, Unreadable> {
    Ok(SourceVolume { volume: id(&spec.volume_id, "volume")?, format: format(spec)?, expected_hash: hash(spec)? })
}
