//! Another layer beneath an image: its header's first sector is written anew, with another backing file or none.
//!
//! What a guest sees through both layers must be the same; that is the caller's affair. One sector is written whole or
//! not at all, so a power cut leaves the old name or the new one.

use super::Backing;
use super::FileImage;
use super::Header;
use super::Qcow2Error;
use super::be::u32_at;
use super::be::u64_at;
use super::encode::BACKING_FORMAT;
use super::encode::BackingFile;
use super::grow::SECTOR_BYTES;
use super::image::read_bytes;
use crate::driver::DomainFile;

const BACKING_OFFSET_AT: usize = 8;
const BACKING_LENGTH_AT: usize = 16;
const AUTOCLEAR_AT: usize = 88;
const HEADER_LENGTH_AT: usize = 100;

/// Names of features, for messages of programs that do not know them.
const FEATURE_NAMES: u32 = 0x6803_F857;
/// A list of bitmaps; where it is valid, the image is refused before.
const STALE_BITMAPS: u32 = 0x2385_2875;

/// Has an image lie over `to`. It may lie there already; else it must lie over `from`. Returns whether it was changed.
///
/// # Errors
/// When the header says something else, or holds what one sector does not, or the storage fails.
pub fn rebase<F: DomainFile>(file: &F, from: Backing<'_>, to: Option<&BackingFile>) -> Result<bool, Qcow2Error> {
    // Whatever it is to be right with must be durable before it.
    file.sync()?;
    let Some(sector) = new_sector(file, from, to)? else { return Ok(false) };
    file.write_at(&sector, 0)?;
    file.sync()?;
    Ok(true)
}

/// Refuses whatever `rebase` would refuse, and writes nothing.
///
/// # Errors
/// The same.
pub fn check_rebase<F: DomainFile>(file: &F, from: Backing<'_>, to: Option<&BackingFile>) -> Result<(), Qcow2Error> {
    new_sector(file, from, to).map(drop)
}

/// Whether an image's header says that this lies beneath it, whatever else may be wrong with the image.
///
/// # Errors
/// What the storage answers.
pub fn names_backing<F: DomainFile>(file: &F, to: Option<&str>) -> Result<bool, Qcow2Error> {
    let image = FileImage::new(file)?;
    let sector = read_bytes(&image, 0, SECTOR_BYTES)?;
    let offset = u64_at(&sector, BACKING_OFFSET_AT).unwrap_or(0);
    let Some(wanted) = to else { return Ok(offset == 0) };
    let length = u32_at(&sector, BACKING_LENGTH_AT).and_then(|length| usize::try_from(length).ok());
    if offset == 0 || length != Some(wanted.len()) {
        return Ok(false);
    }
    Ok(read_bytes(&image, offset, wanted.len())? == wanted.as_bytes())
}

/// The sector that makes the change; None where it was made already.
fn new_sector<F: DomainFile>(
    file: &F,
    from: Backing<'_>,
    to: Option<&BackingFile>,
) -> Result<Option<Vec<u8>>, Qcow2Error> {
    let image = FileImage::new(file)?;
    let wanted = to.map_or(Backing::None, |backing| Backing::Named(&backing.name));
    if Header::read_layer(&image, wanted).is_ok() {
        return Ok(None);
    }
    let header = Header::read_layer(&image, from)?;
    if header.version != 3 || header.bitmaps.is_some() || header.snapshots > 0 {
        let text = "another backing file of an image of version 2, or with bitmaps or internal snapshots,";
        return Err(Qcow2Error::Unsupported(text.to_owned()));
    }
    sector(&image, &header, to).map(Some)
}

fn sector<F: DomainFile>(
    image: &FileImage<'_, F>,
    header: &Header,
    to: Option<&BackingFile>,
) -> Result<Vec<u8>, Qcow2Error> {
    let too_long = || Qcow2Error::Unsupported("a header that does not fit into one sector".to_owned());
    let old = read_bytes(image, 0, usize::try_from(header.cluster_bytes()).unwrap_or(0))?;
    let length = u32_at(&old, HEADER_LENGTH_AT).and_then(|length| usize::try_from(length).ok()).unwrap_or(usize::MAX);
    refuse_unknown_extensions(&old, length)?;
    let mut sector = old.get(..length).ok_or_else(too_long)?.to_vec();
    if let Some(backing) = to {
        sector.extend(BACKING_FORMAT.to_be_bytes().iter().skip(4));
        sector.extend(u32::try_from(backing.format.len()).unwrap_or(0).to_be_bytes());
        sector.extend(backing.format.as_bytes());
        sector.resize(sector.len().next_multiple_of(8), 0);
    }
    sector.extend([0; 8]); // no more extensions
    let name_at = if to.is_some() { sector.len() as u64 } else { 0 };
    let name = to.map_or("", |backing| backing.name.as_str());
    sector.extend(name.as_bytes());
    if sector.len() > SECTOR_BYTES {
        return Err(too_long());
    }
    sector.resize(SECTOR_BYTES, 0);
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = sector.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(BACKING_OFFSET_AT, &name_at.to_be_bytes());
    put(BACKING_LENGTH_AT, &u32::try_from(name.len()).unwrap_or(0).to_be_bytes());
    // Features that a writer who does not know them takes away.
    put(AUTOCLEAR_AT, &0_u64.to_be_bytes());
    Ok(sector)
}

/// Extensions are not kept; those that may go are known.
fn refuse_unknown_extensions(header: &[u8], length: usize) -> Result<(), Qcow2Error> {
    let mut at = length;
    while let Some(kind) = u32_at(header, at).filter(|kind| *kind != 0) {
        if u64::from(kind) != BACKING_FORMAT && kind != FEATURE_NAMES && kind != STALE_BITMAPS {
            return Err(Qcow2Error::Unsupported(format!("the header extension {kind:#x} over another backing file")));
        }
        let bytes = u64_at(header, at).map_or(0, |both| both & u64::from(u32::MAX));
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).checked_next_multiple_of(8);
        at = bytes.and_then(|bytes| at.checked_add(8)?.checked_add(bytes)).unwrap_or(usize::MAX);
    }
    Ok(())
}
