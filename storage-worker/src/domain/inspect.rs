//! Reading a domain (after a restore from a backup, before an attach, for an audit): whose it is, and what lies in it, a
//! page at a time. What the names mean to the catalog is not known here.

use sdm_proto::ids::ClusterId;
use sdm_proto::token::Token;
use uuid::Uuid;

use crate::driver::DomainDriver;
use crate::driver::Entry;
use crate::driver::EntryKind;
use crate::driver::EntryPath;
use crate::driver::Storage;
use crate::driver::StorageErrorKind;
use crate::work::DomainState;
use crate::work::FoundImage;
use crate::work::FoundKind;
use crate::work::FoundMetadata;
use crate::work::FoundVolume;
use crate::work::InspectDomain;
use crate::work::InspectionPage;

use super::Domain;
use super::DomainError;
use super::DotName;
use super::Legality;
use super::attempt::read_mark;
use super::names::CATALOG;
use super::names::PlacementFile;
use super::names::is_plain_uuid;
use super::open::Owner;
use super::open::images;
use super::project::read_metadata;
use super::small_file::read_text_up_to;

/// Bytes that one page takes at most, roughly: it travels in one frame.
const PAGE_BYTES: usize = 96 << 10;

/// What a name costs besides its texts and volumes.
const IMAGE_BYTES: usize = 192;

/// What a volume's id costs.
const VOLUME_BYTES: usize = 40;

/// What a volume in detail costs besides its texts.
const DETAIL_BYTES: usize = 200;

/// Longest catalog that is read: what a detach writes at most.
const CATALOG_BYTES_MAX: u64 = 1 << 20;

/// Longest text about a name that is nothing of ours.
const WORDS_MAX: usize = 256;

/// Reads a page.
///
/// # Errors
/// When the domain is not there, is not this pool's, or cannot be read.
pub async fn inspect_domain<S: Storage>(storage: &S, order: &InspectDomain) -> Result<InspectionPage, DomainError> {
    let (domain, owner) = Domain::find(storage, &order.domain).await?;
    let state = state_of(&owner, order)?;
    let entries = domain.driver().list(&images()).await?;
    let mut page = InspectionPage {
        cluster: owner.identity.as_ref().map_or(Uuid::nil(), |identity| identity.cluster),
        epoch: owner.identity.as_ref().map_or(0, |identity| identity.epoch),
        images: Vec::new(),
        next_after: None,
        state,
        description: owner.metadata.description.clone(),
        catalog: if order.after.is_empty() { read_catalog(&domain).await? } else { String::new() },
    };
    let mut bytes = page.catalog.len();
    for entry in entries.into_iter().filter(|entry| entry.name > order.after) {
        if bytes >= PAGE_BYTES {
            page.next_after = page.images.last().map(|image| image.name.clone());
            break;
        }
        let image = FoundImage { kind: kind_of(&domain, &entry, order, state).await?, name: entry.name };
        bytes += cost(&image);
        page.images.push(image);
    }
    Ok(page)
}

fn cost(image: &FoundImage) -> usize {
    let texts = match &image.kind {
        FoundKind::Placement { volumes, details, .. } => {
            volumes.len() * VOLUME_BYTES + details.iter().map(detail_cost).sum::<usize>()
        }
        FoundKind::Image { details } => details.iter().map(detail_cost).sum(),
        FoundKind::DotName => 0,
        FoundKind::Other(words) => words.len(),
    };
    IMAGE_BYTES + image.name.len() + texts
}

fn detail_cost(volume: &FoundVolume) -> usize {
    let texts = match &volume.metadata {
        Ok(metadata) => metadata.disk_name.len() + metadata.disk_description.len(),
        Err(words) => words.len(),
    };
    DETAIL_BYTES + texts
}

/// Whose it is, as far as the order asks for such a one.
fn state_of(owner: &Owner, order: &InspectDomain) -> Result<DomainState, DomainError> {
    let has_pool = owner.metadata.pool.is_some_and(|pool| !pool.is_nil());
    match &owner.identity {
        Some(identity) if identity.released && order.free_too => Ok(DomainState::Released),
        None if order.free_too && !has_pool => Ok(DomainState::Free),
        _ => owner.require_pool(&order.domain).map(|_| DomainState::Ours),
    }
}

/// What the last detach wrote; it says nothing of a domain that is in use again, but does no harm there.
async fn read_catalog<D: DomainDriver>(domain: &Domain<D>) -> Result<String, DomainError> {
    let path = EntryPath::root().join("dom_md")?.join(CATALOG)?;
    match read_text_up_to(domain.driver(), &path, CATALOG_BYTES_MAX).await {
        Err(error) if error.is_storage(StorageErrorKind::NotFound) => Ok(String::new()),
        // It is an aid; without it the marks and `.meta` files tell.
        Err(DomainError::Corrupt { .. }) => Ok(String::new()),
        text => text,
    }
}

/// Whether `.meta` files are read too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Details {
    No,
    Yes,
}

async fn kind_of<D: DomainDriver>(
    domain: &Domain<D>,
    entry: &Entry,
    order: &InspectDomain,
    state: DomainState,
) -> Result<FoundKind, DomainError> {
    if entry.kind != EntryKind::Folder {
        return Ok(FoundKind::Other(entry.kind.to_string()));
    }
    if entry.name.parse::<DotName>().is_ok() {
        return Ok(FoundKind::DotName);
    }
    if !is_plain_uuid(&entry.name) {
        return Ok(FoundKind::Other("a folder whose name is none of ours".to_owned()));
    }
    let details = if order.volumes { Details::Yes } else { Details::No };
    let found = match placement(domain, &entry.name, details).await {
        Err(error) if error.is_storage(StorageErrorKind::NotFound) && state == DomainState::Free => {
            let folder = domain.image(&entry.name)?;
            volumes_of(domain, &folder, details).await.map(|(_, details)| FoundKind::Image { details })
        }
        found => found,
    };
    match found {
        // The storage itself fails: what was read so far says nothing about the rest.
        Err(DomainError::Storage(error)) if error.is(StorageErrorKind::Io) || error.is(StorageErrorKind::Stale) => {
            Err(error.into())
        }
        Err(error) => Ok(FoundKind::Other(error.to_string().chars().take(WORDS_MAX).collect())),
        found => found,
    }
}

async fn placement<D: DomainDriver>(
    domain: &Domain<D>,
    name: &str,
    details: Details,
) -> Result<FoundKind, DomainError> {
    let folder = domain.image(name)?;
    let Some(mark) = read_mark(domain, &folder).await? else {
        return Ok(FoundKind::Other("it went away while it was read".to_owned()));
    };
    let derived = mark.token.parse::<Token>().ok().map(|token| token.placement(ClusterId::from_uuid(mark.cluster)));
    if !domain.knows_pool(mark.pool) || derived.is_none_or(|derived| derived.to_string() != name) {
        return Ok(FoundKind::Other(format!("a folder whose mark is of pool {} and token {}", mark.pool, mark.token)));
    }
    let (volumes, details) = volumes_of(domain, &folder, details).await?;
    Ok(FoundKind::Placement {
        cluster: mark.cluster,
        token: mark.token,
        transaction: mark.transaction,
        volumes,
        epoch: mark.epoch,
        disk: mark.disk,
        details,
    })
}

/// The volumes in a folder, and, where asked for, their files and `.meta`, base first.
async fn volumes_of<D: DomainDriver>(
    domain: &Domain<D>,
    folder: &EntryPath,
    details: Details,
) -> Result<(Vec<Uuid>, Vec<FoundVolume>), DomainError> {
    let names = domain.driver().list(folder).await?;
    let is_volume =
        |entry: &&Entry| entry.kind == EntryKind::File && PlacementFile::of(&entry.name) == Some(PlacementFile::Volume);
    let volumes: Vec<Uuid> =
        names.iter().filter(is_volume).filter_map(|entry| Uuid::parse_str(&entry.name).ok()).collect();
    let mut found = Vec::new();
    for volume in volumes.iter().filter(|_| details == Details::Yes) {
        // One that went away meanwhile is being deleted.
        if let Some(stat) = domain.driver().stat(&folder.join(&volume.to_string())?).await? {
            let metadata = found_metadata(domain, folder, *volume).await?;
            found.push(FoundVolume {
                volume: *volume,
                file_bytes: stat.bytes,
                allocated_bytes: stat.allocated_bytes,
                links: stat.links,
                metadata,
            });
        }
    }
    found.sort_by_key(|volume| volume.metadata.as_ref().map_or(u32::MAX, |metadata| metadata.sequence));
    Ok((volumes, found))
}

async fn found_metadata<D: DomainDriver>(
    domain: &Domain<D>,
    folder: &EntryPath,
    volume: Uuid,
) -> Result<Result<FoundMetadata, String>, DomainError> {
    match read_metadata(domain.driver(), folder, volume).await {
        Ok(metadata) => Ok(Ok(FoundMetadata {
            format: metadata.format,
            virtual_bytes: metadata.virtual_bytes,
            parent: metadata.parent,
            sequence: metadata.sequence,
            role: metadata.role,
            illegal: metadata.legality == Legality::Illegal,
            preallocated: metadata.preallocated,
            disk_name: metadata.disk_name,
            disk_description: metadata.disk_description,
        })),
        Err(DomainError::Corrupt { reason, .. }) => Ok(Err(reason)),
        Err(error) if error.is_storage(StorageErrorKind::NotFound) => Ok(Err("its .meta is missing".to_owned())),
        Err(error) => Err(error),
    }
}
