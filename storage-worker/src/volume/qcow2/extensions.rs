//! Header extensions: typed records between the header and the end of its cluster.

use super::Qcow2Error;
use super::be::u32_at;
use super::be::u64_at;
use super::image::Image;
use super::image::read_bytes;

const END: u32 = 0;
const BITMAPS: u32 = 0x2385_2875;
const ENCRYPTION: u32 = 0x0537_BE77;
const DATA_FILE_NAME: u32 = 0x4441_5441;

/// Where persistent bitmaps are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BitmapsExtension {
    pub count: u32,
    pub directory_bytes: u64,
    pub directory_offset: u64,
}

/// Walks the extensions. Those that name another file or a key are refused; unknown ones may be ignored by the format.
pub(super) fn read_extensions<I: Image + ?Sized>(
    image: &I,
    header_bytes: u64,
    cluster_bytes: u64,
) -> Result<Option<BitmapsExtension>, Qcow2Error> {
    let end = cluster_bytes.min(image.bytes());
    let length = usize::try_from(end.saturating_sub(header_bytes)).unwrap_or(0);
    let area = read_bytes(image, header_bytes, length)?;
    let mut at = 0_usize;
    let mut bitmaps = None;
    while let (Some(kind), Some(length)) = (u32_at(&area, at), u32_at(&area, at.saturating_add(4))) {
        if kind == END {
            break;
        }
        let start = at.saturating_add(8);
        let content = usize::try_from(length).ok().and_then(|length| area.get(start..start.checked_add(length)?));
        let Some(content) = content else {
            return Err(Qcow2Error::Invalid(format!("the header extension {kind:#x} reaches out of its cluster")));
        };
        match kind {
            ENCRYPTION => return Err(Qcow2Error::Encrypted("a key header")),
            DATA_FILE_NAME => {
                let name = String::from_utf8_lossy(content).escape_debug().to_string();
                return Err(Qcow2Error::DataFile(format!(": `{name}`")));
            }
            BITMAPS => bitmaps = Some(read_bitmaps(content)?),
            _ => {}
        }
        at = start.saturating_add(content.len().next_multiple_of(8));
    }
    Ok(bitmaps)
}

fn read_bitmaps(content: &[u8]) -> Result<BitmapsExtension, Qcow2Error> {
    match (content.len(), u32_at(content, 0), u64_at(content, 8), u64_at(content, 16)) {
        (24, Some(count), Some(directory_bytes), Some(directory_offset)) => {
            Ok(BitmapsExtension { count, directory_bytes, directory_offset })
        }
        _ => Err(Qcow2Error::Invalid("the bitmaps extension has a wrong length".to_owned())),
    }
}
