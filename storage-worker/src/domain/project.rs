//! The `.meta` files of a published placement, written anew when a name, a size or a legality changed.

use uuid::Uuid;

use crate::driver::DomainDriver;
use crate::driver::EntryPath;
use crate::work::ProjectPlacement;
use crate::work::VolumeSpec;

use super::Domain;
use super::DomainError;
use super::Legality;
use super::VolumeMetadata;
use super::aside::Aside;
use super::aside::clear;
use super::names::PlacementFile;
use super::small_file::read_text;

/// Writes them; written already is written. Each is replaced whole.
///
/// # Errors
/// When the placement is not there or somebody else's, or the storage fails.
pub async fn project_placement<D: DomainDriver>(
    domain: &Domain<D>,
    order: &ProjectPlacement,
) -> Result<(), DomainError> {
    domain.require_placement(order.placement, &order.token).await?;
    let folder = domain.image(&order.placement.to_string())?;
    clear(domain.driver(), &folder, |name| PlacementFile::of(name) == Some(PlacementFile::NextMetadata)).await?;
    let placed = Placed { placement: order.placement, made_by: &order.token, attempt: &order.attempt };
    for spec in &order.volumes {
        // When it was made, and how many operations vdsm counted, is written nowhere else.
        let known = read_metadata(domain.driver(), &folder, spec.volume).await.ok();
        let metadata = metadata(domain, order, spec, known.as_ref());
        if known.as_ref() != Some(&metadata) {
            domain.write_metadata(&placed, spec.volume, &metadata).await?;
        }
    }
    // Also when nothing was to be written: what was found may have been renamed by a call that did not live to sync.
    Ok(domain.driver().sync_folder(&folder).await?)
}

fn metadata<D: DomainDriver>(
    domain: &Domain<D>,
    order: &ProjectPlacement,
    spec: &VolumeSpec,
    known: Option<&VolumeMetadata>,
) -> VolumeMetadata {
    VolumeMetadata {
        virtual_bytes: spec.virtual_bytes.or(known.map(|known| known.virtual_bytes)).unwrap_or(0),
        created_at_s: known.map_or(0, |known| known.created_at_s),
        disk_name: order.disk_name.clone(),
        disk_description: order.disk_description.clone(),
        domain: domain.root().domain,
        format: spec.format,
        generation: known.map_or(0, |known| known.generation),
        image: order.placement,
        legality: if spec.illegal { Legality::Illegal } else { Legality::Legal },
        parent: spec.parent,
        preallocated: spec.preallocated,
        sequence: spec.sequence,
        role: spec.role,
    }
}

fn path(folder: &EntryPath, volume: Uuid, suffix: &str) -> Result<EntryPath, DomainError> {
    Ok(folder.join(&format!("{volume}{suffix}"))?)
}

/// Reads a volume's `.meta`.
pub(super) async fn read_metadata<D: DomainDriver>(
    driver: &D,
    folder: &EntryPath,
    volume: Uuid,
) -> Result<VolumeMetadata, DomainError> {
    let path = path(folder, volume, ".meta")?;
    let text = read_text(driver, &path).await?;
    VolumeMetadata::decode(&text)
        .map_err(|error| DomainError::Corrupt { entry: path.to_string(), reason: error.to_string() })
}

/// A published placement, and who writes in it.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'o> {
    /// The folder's name under `images/`.
    pub placement: Uuid,
    /// The token that its `.sdm` must carry.
    pub made_by: &'o str,
    /// The token of the attempt that writes.
    pub attempt: &'o str,
}

impl<D: DomainDriver> Domain<D> {
    /// After a volume grew in place: its `.meta` says so too. One that cannot be understood is left to the projection.
    ///
    /// # Errors
    /// What the storage answers.
    pub async fn record_growth(&self, placed: Placed<'_>, volume: Uuid, virtual_bytes: u64) -> Result<(), DomainError> {
        let folder = self.image(&placed.placement.to_string())?;
        let mut metadata = match read_metadata(self.driver(), &folder, volume).await {
            Ok(metadata) => metadata,
            Err(DomainError::Corrupt { entry, reason }) => {
                tracing::warn!(entry, reason, "a volume's .meta cannot be understood; the projection writes it anew");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if metadata.virtual_bytes < virtual_bytes {
            metadata.virtual_bytes = virtual_bytes;
            metadata.count_operation();
            self.write_metadata(&placed, volume, &metadata).await?;
        }
        Ok(self.driver().sync_folder(&folder).await?)
    }

    /// Replaces a volume's `.meta`; its folder is the caller's to sync.
    async fn write_metadata(
        &self,
        placed: &Placed<'_>,
        volume: Uuid,
        metadata: &VolumeMetadata,
    ) -> Result<(), DomainError> {
        let folder = self.image(&placed.placement.to_string())?;
        let aside = Aside::of(&folder, &format!("{volume}.meta"), placed.attempt)?;
        aside.write(self.driver(), metadata.encode().as_bytes()).await?;
        // The folder or the domain may be somebody else's by now.
        let allowed = match self.require_ours().await {
            Ok(()) => self.require_placement(placed.placement, placed.made_by).await.map(|_| ()),
            other => other,
        };
        aside.publish(self.driver(), allowed).await
    }
}
