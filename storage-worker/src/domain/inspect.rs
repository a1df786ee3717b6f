//! Reading a domain after a restore from a backup: whose it is, and what lies in it, a page at a time. What the names
//! mean to the catalog is not known here.

use sdm_proto::ids::ClusterId;
use sdm_proto::token::Token;
use uuid::Uuid;

use crate::driver::DomainDriver;
use crate::driver::Entry;
use crate::driver::EntryKind;
use crate::driver::Storage;
use crate::driver::StorageErrorKind;
use crate::work::FoundImage;
use crate::work::FoundKind;
use crate::work::InspectDomain;
use crate::work::InspectionPage;

use super::Domain;
use super::DomainError;
use super::DotName;
use super::attempt::read_mark;
use super::names::PlacementFile;
use super::names::is_plain_uuid;
use super::open::images;

/// Bytes that one page takes at most, roughly: it travels in one frame.
const PAGE_BYTES: usize = 96 << 10;

/// What a name costs besides its texts and volumes.
const IMAGE_BYTES: usize = 192;

/// What a volume's id costs.
const VOLUME_BYTES: usize = 40;

/// Longest text about a name that is nothing of ours.
const WORDS_MAX: usize = 256;

/// Reads a page.
///
/// # Errors
/// When the domain is not there, is not this pool's, or cannot be read.
pub async fn inspect_domain<S: Storage>(storage: &S, order: &InspectDomain) -> Result<InspectionPage, DomainError> {
    let (domain, owner) = Domain::find(storage, &order.domain).await?;
    let identity = owner.require_pool(&order.domain)?;
    let entries = domain.driver().list(&images()).await?;
    let mut page =
        InspectionPage { cluster: identity.cluster, epoch: identity.epoch, images: Vec::new(), next_after: None };
    let mut bytes = 0;
    for entry in entries.into_iter().filter(|entry| entry.name > order.after) {
        if bytes >= PAGE_BYTES {
            page.next_after = page.images.last().map(|image| image.name.clone());
            break;
        }
        let image = FoundImage { kind: kind_of(&domain, &entry).await?, name: entry.name };
        bytes += cost(&image);
        page.images.push(image);
    }
    Ok(page)
}

fn cost(image: &FoundImage) -> usize {
    let texts = match &image.kind {
        FoundKind::Placement { volumes, .. } => volumes.len() * VOLUME_BYTES,
        FoundKind::DotName => 0,
        FoundKind::Other(words) => words.len(),
    };
    IMAGE_BYTES + image.name.len() + texts
}

async fn kind_of<D: DomainDriver>(domain: &Domain<D>, entry: &Entry) -> Result<FoundKind, DomainError> {
    if entry.kind != EntryKind::Folder {
        return Ok(FoundKind::Other(entry.kind.to_string()));
    }
    if entry.name.parse::<DotName>().is_ok() {
        return Ok(FoundKind::DotName);
    }
    if !is_plain_uuid(&entry.name) {
        return Ok(FoundKind::Other("a folder whose name is none of ours".to_owned()));
    }
    match placement(domain, &entry.name).await {
        // The storage itself fails: what was read so far says nothing about the rest.
        Err(DomainError::Storage(error)) if error.is(StorageErrorKind::Io) || error.is(StorageErrorKind::Stale) => {
            Err(error.into())
        }
        Err(error) => Ok(FoundKind::Other(error.to_string().chars().take(WORDS_MAX).collect())),
        found => found,
    }
}

async fn placement<D: DomainDriver>(domain: &Domain<D>, name: &str) -> Result<FoundKind, DomainError> {
    let folder = domain.image(name)?;
    let Some(mark) = read_mark(domain, &folder).await? else {
        return Ok(FoundKind::Other("it went away while it was read".to_owned()));
    };
    let derived = mark.token.parse::<Token>().ok().map(|token| token.placement(ClusterId::from_uuid(mark.cluster)));
    if mark.pool != domain.root().pool || derived.is_none_or(|derived| derived.to_string() != name) {
        return Ok(FoundKind::Other(format!("a folder whose mark is of pool {} and token {}", mark.pool, mark.token)));
    }
    let names = domain.driver().list(&folder).await?;
    let volumes = names
        .iter()
        .filter(|entry| entry.kind == EntryKind::File && PlacementFile::of(&entry.name) == Some(PlacementFile::Volume));
    Ok(FoundKind::Placement {
        cluster: mark.cluster,
        token: mark.token,
        transaction: mark.transaction,
        volumes: volumes.filter_map(|entry| Uuid::parse_str(&entry.name).ok()).collect(),
    })
}
