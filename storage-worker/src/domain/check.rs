//! Placements compared with what the catalog says of them. Reads only.

use uuid::Uuid;

use crate::copy::UNIT_BYTES;
use crate::driver::DomainDriver;
use crate::driver::DomainFile;
use crate::driver::EntryKind;
use crate::driver::StorageErrorKind;
use crate::volume::RAW_ALIGNMENT;
use crate::volume::qcow2;
use crate::volume::qcow2::Backing;
use crate::volume::qcow2::FileImage;
use crate::work::CancelFlag;
use crate::work::CheckPlacements;
use crate::work::ExpectedPlacement;
use crate::work::FileHash;
use crate::work::Finding;
use crate::work::FindingReason;
use crate::work::VolumeFormat;
use crate::work::VolumeSpec;

use super::Domain;
use super::DomainError;
use super::Legality;
use super::names::PlacementFile;
use super::project::read_metadata;

/// Findings that one answer holds; a domain with more is beyond a list.
const FINDINGS_MAX: usize = 1000;

/// Compares; `None`: it was stopped.
///
/// # Errors
/// When the storage fails as a whole. What fails for one placement is a finding.
pub async fn check_placements<D: DomainDriver>(
    domain: &Domain<D>,
    order: &CheckPlacements,
    cancel: &CancelFlag,
) -> Result<Option<Vec<Finding>>, DomainError> {
    let mut findings = Vec::new();
    for expected in &order.placements {
        if cancel.is_set() {
            return Ok(None);
        }
        if findings.len() >= FINDINGS_MAX {
            break;
        }
        let hashes = order.hashes;
        let mut check = Check { domain, expected, hashes, cancel, findings: &mut findings };
        match check.run().await {
            Ok(()) => {}
            Err(DomainError::Storage(error)) if error.is(StorageErrorKind::Stale) => return Err(error.into()),
            Err(error) => check.find(None, FindingReason::Unreadable, error.to_string()),
        }
    }
    Ok((!cancel.is_set()).then_some(findings))
}

struct Check<'c, D> {
    domain: &'c Domain<D>,
    expected: &'c ExpectedPlacement,
    hashes: bool,
    cancel: &'c CancelFlag,
    findings: &'c mut Vec<Finding>,
}

impl<D: DomainDriver> Check<'_, D> {
    fn find(&mut self, volume: Option<Uuid>, reason: FindingReason, words: impl Into<String>) {
        self.findings.push(Finding { placement: self.expected.placement, volume, reason, words: words.into() });
    }

    async fn run(&mut self) -> Result<(), DomainError> {
        let expected = self.expected;
        match self.domain.require_placement(expected.placement, &expected.token).await {
            Ok(_) => {}
            Err(DomainError::PlacementMissing(entry)) => {
                self.find(None, FindingReason::PlacementMissing, format!("there is no `{entry}`"));
                return Ok(());
            }
            Err(error @ (DomainError::EvidenceMismatch { .. } | DomainError::Corrupt { .. })) => {
                self.find(None, FindingReason::MarkWrong, error.to_string());
            }
            Err(error) if error.is_storage(StorageErrorKind::NotFound) => {
                self.find(None, FindingReason::MarkWrong, "its mark is missing");
            }
            Err(error) => return Err(error),
        }
        self.names().await?;
        let mut beneath = None;
        for spec in &expected.volumes {
            self.volume(spec, beneath).await?;
            self.metadata(spec).await?;
            beneath = Some(spec.volume);
        }
        Ok(())
    }

    async fn names(&mut self) -> Result<(), DomainError> {
        let folder = self.domain.image(&self.expected.placement.to_string())?;
        for entry in self.domain.driver().list(&folder).await? {
            let is_expected = match PlacementFile::of(&entry.name) {
                Some(PlacementFile::Mark | PlacementFile::NextMetadata | PlacementFile::StillOpen) => true,
                Some(PlacementFile::Volume | PlacementFile::Metadata | PlacementFile::Lease) => {
                    let stem = entry.name.split('.').next().unwrap_or_default();
                    self.expected.volumes.iter().any(|spec| spec.volume.to_string() == stem)
                }
                None => false,
            };
            if entry.kind != EntryKind::File || !is_expected {
                let words = format!("`{}` is {} that the catalog does not know", entry.name.escape_debug(), entry.kind);
                self.find(None, FindingReason::UnknownName, words);
            }
        }
        Ok(())
    }

    async fn volume(&mut self, spec: &VolumeSpec, beneath: Option<Uuid>) -> Result<(), DomainError> {
        let file = match self.domain.open_volume(self.expected.placement, spec.volume).await {
            Ok(file) => file,
            Err(error) if error.is_storage(StorageErrorKind::NotFound) => {
                self.find(Some(spec.volume), FindingReason::VolumeMissing, "its file is missing");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let bytes = file.stat()?.bytes;
        let wanted = spec.virtual_bytes.unwrap_or(0);
        let seen = match spec.format {
            VolumeFormat::Raw => bytes,
            VolumeFormat::Qcow2 => match self.qcow2(&file, beneath) {
                Ok(virtual_bytes) => virtual_bytes,
                Err(error) => {
                    let reason = match error {
                        qcow2::Qcow2Error::Dirty => FindingReason::NotClosed,
                        _ => FindingReason::FormatWrong,
                    };
                    self.find(Some(spec.volume), reason, error.to_string());
                    return Ok(());
                }
            },
        };
        let granularity = if spec.format == VolumeFormat::Raw { RAW_ALIGNMENT } else { 512 };
        if seen < wanted.next_multiple_of(granularity) {
            let words = format!("a guest sees {seen} bytes, not {wanted}");
            self.find(Some(spec.volume), FindingReason::SizeWrong, words);
        }
        let Some(hash) = spec.expected_hash.filter(|_| self.hashes) else { return Ok(()) };
        match hash_of(&file, bytes, self.cancel)? {
            Some(found) if found != hash => {
                let words = format!("its hash is {found}, not {hash}");
                self.find(Some(spec.volume), FindingReason::HashWrong, words);
            }
            _ => {}
        }
        Ok(())
    }

    /// All tables where files are read anyway, else the header.
    fn qcow2<F: DomainFile>(&self, file: &F, beneath: Option<Uuid>) -> Result<u64, qcow2::Qcow2Error> {
        let name = beneath.map(|beneath| beneath.to_string());
        let backing = name.as_deref().map_or(Backing::None, Backing::Named);
        let image = FileImage::new(file)?;
        if self.hashes {
            return qcow2::check_layer(&image, backing, self.cancel).map(|(header, _)| header.virtual_bytes);
        }
        qcow2::Header::read_layer(&image, backing).map(|header| header.virtual_bytes)
    }

    async fn metadata(&mut self, spec: &VolumeSpec) -> Result<(), DomainError> {
        let folder = self.domain.image(&self.expected.placement.to_string())?;
        let found = match read_metadata(self.domain.driver(), &folder, spec.volume).await {
            Ok(found) => found,
            Err(error @ DomainError::Corrupt { .. }) => {
                self.find(Some(spec.volume), FindingReason::MetadataWrong, error.to_string());
                return Ok(());
            }
            Err(error) if error.is_storage(StorageErrorKind::NotFound) => {
                self.find(Some(spec.volume), FindingReason::MetadataWrong, "its .meta is missing");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let illegal = found.legality == Legality::Illegal;
        // A name may have been cut to fit.
        let is_named = self.expected.disk_name.starts_with(&found.disk_name) && !found.disk_name.is_empty();
        let differing = [
            ("CAP", spec.virtual_bytes.is_some_and(|bytes| found.virtual_bytes < bytes)),
            ("FORMAT", found.format != spec.format),
            ("IMAGE", found.image != self.expected.placement),
            ("DOMAIN", found.domain != self.domain.root().domain),
            ("PUUID", found.parent != spec.parent),
            ("SEQ", found.sequence != spec.sequence),
            ("VOLTYPE", found.role != spec.role),
            ("LEGALITY", illegal != spec.illegal),
            ("TYPE", found.preallocated != spec.preallocated),
            ("DESCRIPTION", !is_named && !self.expected.disk_name.is_empty()),
        ];
        let keys: Vec<&str> = differing.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect();
        if !keys.is_empty() {
            let words = format!("its .meta says otherwise: {}", keys.join(", "));
            self.find(Some(spec.volume), FindingReason::MetadataWrong, words);
        }
        Ok(())
    }
}

/// The hash of a file; `None`: it was stopped.
fn hash_of<F: DomainFile>(file: &F, bytes: u64, cancel: &CancelFlag) -> Result<Option<FileHash>, DomainError> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; UNIT_BYTES];
    let mut at = 0;
    while at < bytes {
        if cancel.is_set() {
            return Ok(None);
        }
        let wanted = usize::try_from(bytes - at).unwrap_or(UNIT_BYTES).min(UNIT_BYTES);
        let read = file.read_at(buffer.get_mut(..wanted).unwrap_or_default(), at)?;
        hasher.update(buffer.get(..read).unwrap_or_default());
        if read < wanted {
            break;
        }
        at += read as u64;
    }
    Ok(Some(hasher.finalize().into()))
}
