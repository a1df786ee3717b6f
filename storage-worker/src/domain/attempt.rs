//! One try at making a placement: a dot folder that becomes the placement by one rename.
//!
//! ```text
//!  begin ──► files, .meta ──► mark (.sdm) ──► fsync all ──► rename ──► fsync images/
//! ```
//! A crash at any point leaves either the dot folder, which belongs to this token alone, or the whole placement.

use sdm_proto::failpoint;
use sdm_proto::ids::ClusterId;
use sdm_proto::token::Token;
use uuid::Uuid;

use crate::driver::DomainDriver;
use crate::driver::DomainFile;
use crate::driver::EntryKind;
use crate::driver::EntryPath;
use crate::driver::OpenHow;
use crate::driver::StorageErrorKind;
use crate::work::NewPlacement;
use crate::work::VolumeReport;
use crate::work::VolumeSpec;

use super::Domain;
use super::DomainError;
use super::DotName;
use super::FILE_MODE;
use super::FOLDER_MODE;
use super::Legality;
use super::PlacementMark;
use super::VolumeMetadata;
use super::delete::remove_contents;
use super::names::MARK;
use super::open::images;
use super::small_file::read_text;
use super::small_file::write_unsynced;

/// A placement that is being made.
#[derive(Debug)]
pub struct Attempt<'d, D> {
    domain: &'d Domain<D>,
    order: &'d NewPlacement,
    folder: EntryPath,
    published: EntryPath,
}

impl<D: DomainDriver> Domain<D> {
    /// Reads the mark of a published placement; `None` when no such placement is there.
    ///
    /// # Errors
    /// When the folder is there without a mark that can be understood, or is no folder.
    pub async fn placement_mark(&self, placement: Uuid) -> Result<Option<PlacementMark>, DomainError> {
        read_mark(self, &self.image(&placement.to_string())?).await
    }

    /// Checks that a published placement was made under the token that the order names; without one, that it is this
    /// pool's and derives its own name.
    ///
    /// # Errors
    /// When it is not there, or was made by somebody else.
    pub async fn require_placement(&self, placement: Uuid, token: &str) -> Result<PlacementMark, DomainError> {
        let folder = self.image(&placement.to_string())?;
        let mark = read_mark(self, &folder).await?;
        let mark = mark.ok_or_else(|| DomainError::PlacementMissing(folder.to_string()))?;
        if token.is_empty() {
            self.require_derived(&folder, &mark, placement)?;
        } else {
            require_origin(&folder, &mark, placement, token)?;
        }
        Ok(mark)
    }

    /// A token and the cluster whose log assigned it derive one placement's name, which nobody else can have.
    fn require_derived(&self, folder: &EntryPath, mark: &PlacementMark, placement: Uuid) -> Result<(), DomainError> {
        let derived = mark.token.parse::<Token>().ok().map(|token| token.placement(ClusterId::from_uuid(mark.cluster)));
        if self.knows_pool(mark.pool) && derived.is_some_and(|derived| derived.uuid() == placement) {
            return Ok(());
        }
        Err(DomainError::EvidenceMismatch {
            entry: folder.to_string(),
            expected: "one of this pool that derives its name".to_owned(),
            found: format!("{} of cluster {} and pool {}", mark.token, mark.cluster, mark.pool),
        })
    }

    /// Opens a volume of a published placement for small changes in place.
    ///
    /// # Errors
    /// What the storage answers; anything but a regular file is refused.
    pub async fn change_volume(&self, placement: Uuid, volume: Uuid) -> Result<D::File, DomainError> {
        let path = self.image(&placement.to_string())?.join(&volume.to_string())?;
        Ok(self.driver().open(&path, OpenHow::CHANGE_VOLUME).await?)
    }

    /// Opens a volume of a published placement for reading.
    ///
    /// # Errors
    /// What the storage answers; anything but a regular file is refused.
    pub async fn open_volume(&self, placement: Uuid, volume: Uuid) -> Result<D::File, DomainError> {
        let path = self.image(&placement.to_string())?.join(&volume.to_string())?;
        Ok(self.driver().open(&path, OpenHow::READ_VOLUME).await?)
    }
}

/// A mark proves its folder ours when it names both the token and the placement that the token's name derives to:
/// a token alone may come again after a restore from backup.
pub(super) fn require_origin(
    folder: &EntryPath,
    mark: &PlacementMark,
    placement: Uuid,
    token: &str,
) -> Result<(), DomainError> {
    if mark.token == token && mark.placement == placement {
        return Ok(());
    }
    Err(DomainError::EvidenceMismatch {
        entry: folder.to_string(),
        expected: token.to_owned(),
        found: if mark.token == token {
            format!("{token} of placement {}", mark.placement)
        } else {
            mark.token.clone()
        },
    })
}

/// `None` when the folder is not there.
pub(super) async fn read_mark<D: DomainDriver>(
    domain: &Domain<D>,
    folder: &EntryPath,
) -> Result<Option<PlacementMark>, DomainError> {
    if domain.driver().stat(folder).await?.is_none() {
        return Ok(None);
    }
    let entry = folder.join(MARK)?;
    let text = read_text(domain.driver(), &entry).await?;
    let mark = serde_json::from_str(&text)
        .map_err(|error| DomainError::Corrupt { entry: entry.to_string(), reason: error.to_string() })?;
    Ok(Some(mark))
}

impl<'d, D: DomainDriver> Attempt<'d, D> {
    /// Has this very attempt published already? Then its result, as it was recorded.
    ///
    /// # Errors
    /// When somebody else's placement lies under the name.
    pub async fn published_already(
        domain: &Domain<D>,
        order: &NewPlacement,
    ) -> Result<Option<Vec<VolumeReport>>, DomainError> {
        let Some(mark) = domain.placement_mark(order.placement).await? else { return Ok(None) };
        require_origin(&domain.image(&order.placement.to_string())?, &mark, order.placement, &order.token)?;
        // The rename may have been seen by this call and yet not be durable.
        domain.driver().sync_folder(&images()).await?;
        Ok(Some(mark.volumes))
    }

    /// Makes the dot folder, empty: what an earlier run of the same attempt left in it is taken away.
    ///
    /// # Errors
    /// When something that is not ours lies in it, or the storage fails.
    pub async fn begin(domain: &'d Domain<D>, order: &'d NewPlacement) -> Result<Self, DomainError> {
        let dot: DotName = order.dot_name.parse()?;
        let folder = domain.image(dot.as_str())?;
        let published = domain.image(&order.placement.to_string())?;
        match domain.driver().make_folder(&folder, FOLDER_MODE).await {
            Err(error) if error.is(StorageErrorKind::AlreadyExists) => {
                remove_contents(domain.driver(), &folder).await?;
            }
            answer => answer?,
        }
        Ok(Self { domain, order, folder, published })
    }

    /// Creates a small volume's file under its final name: one that is written through the page cache.
    ///
    /// # Errors
    /// What the storage answers.
    pub async fn create_empty_volume(&self, volume: Uuid) -> Result<D::File, DomainError> {
        let path = self.folder.join(&volume.to_string())?;
        Ok(self.domain.driver().open(&path, OpenHow::create(FILE_MODE)).await?)
    }

    /// Opens a volume that was given its name here for small changes in place: they reach it under all its names.
    ///
    /// # Errors
    /// What the storage answers; anything but a regular file is refused.
    pub async fn change_volume(&self, volume: Uuid) -> Result<D::File, DomainError> {
        let path = self.folder.join(&volume.to_string())?;
        Ok(self.domain.driver().open(&path, OpenHow::CHANGE_VOLUME).await?)
    }

    /// Creates a volume's file under its final name.
    ///
    /// # Errors
    /// What the storage answers.
    pub async fn create_volume(&self, volume: Uuid) -> Result<D::File, DomainError> {
        let path = self.folder.join(&volume.to_string())?;
        Ok(self.domain.driver().open(&path, OpenHow::create_volume(FILE_MODE)).await?)
    }

    /// Gives a volume of a published placement of this domain its name here too. `false`: links are lacking between these
    /// two folders, or the file has too many names; nothing was done.
    ///
    /// # Errors
    /// What the storage answers; anything but a regular file is refused.
    pub async fn link_volume(&self, from: Uuid, volume: Uuid) -> Result<bool, DomainError> {
        let source = self.domain.image(&from.to_string())?.join(&volume.to_string())?;
        let target = self.folder.join(&volume.to_string())?;
        match self.domain.driver().link(&source, &target).await {
            Ok(()) => {}
            Err(error) if error.is(StorageErrorKind::OtherFileSystem) || error.is(StorageErrorKind::TooManyLinks) => {
                return Ok(false);
            }
            // A retransmitted link can report EEXIST for its own success; nobody else makes names in this folder.
            Err(error) if error.is(StorageErrorKind::AlreadyExists) => {}
            Err(error) => return Err(error.into()),
        }
        // Somebody may have put something else in the source's place between the look at it and the link.
        match self.domain.driver().stat(&target).await? {
            Some(found) if found.kind == EntryKind::File => Ok(true),
            Some(found) => Err(DomainError::UnexpectedEntry { entry: target.to_string(), kind: found.kind }),
            None => Err(DomainError::PlacementMissing(target.to_string())),
        }
    }

    /// Writes the `.meta` of each volume and the mark, makes everything durable and publishes it. `unsynced`: files of
    /// the placement that are not durable yet.
    ///
    /// # Errors
    /// What the storage answers. The placement may then be published and not durable: the same attempt, run again,
    /// finds out.
    pub async fn publish(self, volumes: &[VolumeReport], mut unsynced: Vec<D::File>) -> Result<(), DomainError> {
        if failpoint::skips("plant.visible-early") {
            return Ok(());
        }
        let driver = self.domain.driver();
        for (spec, report) in self.order.volumes.iter().zip(volumes) {
            let text = self.metadata(spec, report).encode();
            let path = self.folder.join(&format!("{}.meta", spec.volume))?;
            unsynced.push(write_unsynced(driver, &path, text.as_bytes()).await?);
        }
        let root = self.domain.root();
        let mark = PlacementMark {
            pool: root.pool,
            cluster: root.cluster,
            epoch: root.epoch,
            domain: root.domain,
            placement: self.order.placement,
            token: self.order.token.clone(),
            transaction: self.order.transaction.clone(),
            disk: self.order.disk,
            volumes: volumes.to_vec(),
        };
        let mark = serde_json::to_vec(&mark)
            .map_err(|error| DomainError::Corrupt { entry: MARK.to_owned(), reason: error.to_string() })?;
        unsynced.push(write_unsynced(driver, &self.folder.join(MARK)?, &mark).await?);
        // All are written before the first is synced: one commit of the file system's journal then serves them all.
        for file in unsynced {
            file.sync()?;
        }
        driver.sync_folder(&self.folder).await?;
        self.rename().await?;
        Ok(driver.sync_folder(&images()).await?)
    }

    /// A retransmitted rename can report ENOENT for its own success; the mark under the new name tells.
    async fn rename(&self) -> Result<(), DomainError> {
        match self.domain.driver().rename(&self.folder, &self.published).await {
            Err(error) if error.is(StorageErrorKind::NotFound) => {
                let mark = self.domain.placement_mark(self.order.placement).await?;
                if mark.is_some_and(|mark| mark.token == self.order.token) { Ok(()) } else { Err(error.into()) }
            }
            answer => Ok(answer?),
        }
    }

    fn metadata(&self, spec: &VolumeSpec, report: &VolumeReport) -> VolumeMetadata {
        VolumeMetadata {
            virtual_bytes: report.virtual_bytes,
            created_at_s: self.order.created_at_s,
            disk_name: self.order.disk_name.clone(),
            disk_description: self.order.disk_description.clone(),
            domain: self.domain.root().domain,
            format: spec.format,
            generation: 0,
            image: self.order.placement,
            legality: if spec.illegal { Legality::Illegal } else { Legality::Legal },
            parent: spec.parent,
            preallocated: spec.preallocated,
            sequence: spec.sequence,
            role: spec.role,
        }
    }

    /// Takes the dot folder away: the order is refused, and what was made of it only takes room.
    ///
    /// # Errors
    /// What the storage answers.
    pub async fn discard(self) -> Result<(), DomainError> {
        remove_contents(self.domain.driver(), &self.folder).await?;
        Ok(self.domain.driver().remove_folder(&self.folder).await?)
    }
}
