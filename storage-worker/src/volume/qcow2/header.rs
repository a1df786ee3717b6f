//! The header gate: what a stranger's header may say before any table is looked at.

use super::Qcow2Error;
use super::be::u32_at;
use super::be::u64_at;
use super::extensions::BitmapsExtension;
use super::extensions::read_extensions;
use super::image::Image;
use super::image::read_bytes;
use crate::volume::VOLUME_BYTES_MAX;

/// What the gate may read of an image, in bytes from its beginning: the largest cluster, which holds the header, its
/// extensions and, as QEMU writes it, the name of a backing file.
pub const HEAD_BYTES: usize = 2 << 20;

const MAGIC: u32 = 0x5146_49FB;
const HEADER_V2_BYTES: usize = 72;
const HEADER_V3_BYTES: usize = 104;

/// QEMU's own limits: what it would not open, nobody needs here.
pub(super) const L1_BYTES_MAX: u64 = 32 << 20;
pub(super) const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
const SNAPSHOTS_MAX: u32 = 65536;
const BACKING_NAME_BYTES_MAX: u32 = 1023;

const INCOMPATIBLE_DIRTY: u64 = 1;
const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
const INCOMPATIBLE_KNOWN: u64 = (1 << 5) - 1;
const COMPATIBLE_LAZY_REFCOUNTS: u64 = 1;
const AUTOCLEAR_BITMAPS: u64 = 1;
const AUTOCLEAR_RAW_DATA_FILE: u64 = 1 << 1;

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Deflate.
    Zlib,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// As QEMU names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// What a header may say of a backing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing<'n> {
    /// Nothing: the image must stand alone.
    None,
    /// Exactly this name, as the layer beneath is called; nothing ever follows it.
    Named(&'n str),
}

/// A header that passed the gate: every number in it is within its limits, every table inside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// log2 of the cluster size, 9..=21.
    pub cluster_bits: u32,
    /// What a guest sees.
    pub virtual_bytes: u64,
    /// Entries of the active L1 table.
    pub l1_entries: u32,
    /// Where it lies.
    pub l1_offset: u64,
    /// Where the refcount table lies.
    pub refcount_table_offset: u64,
    /// Its length.
    pub refcount_table_clusters: u32,
    /// Internal snapshots.
    pub snapshots: u32,
    /// Where their table lies.
    pub snapshots_offset: u64,
    /// log2 of a refcount's width in bits, 0..=6.
    pub refcount_order: u32,
    /// How clusters are compressed.
    pub compression: Compression,
    /// 128-bit L2 entries with subclusters.
    pub extended_l2: bool,
    /// Lazy refcounts.
    pub lazy_refcounts: bool,
    /// The name of the backing file, which was the one allowed.
    pub backing: Option<String>,
    /// Where persistent bitmaps are listed.
    pub(super) bitmaps: Option<BitmapsExtension>,
}

impl Header {
    /// Size of a cluster.
    pub fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Size of an L2 entry.
    pub(super) fn l2_entry_bytes(&self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// Bytes of guest data that one L2 table maps.
    pub(super) fn l2_covers(&self) -> u64 {
        self.cluster_bytes() / self.l2_entry_bytes() * self.cluster_bytes()
    }

    /// Reads and judges the header of an image that must stand alone.
    ///
    /// # Errors
    /// The first rule that the header breaks.
    pub fn read<I: Image + ?Sized>(image: &I) -> Result<Self, Qcow2Error> {
        Self::read_layer(image, Backing::None)
    }

    /// Reads and judges an image's header.
    ///
    /// # Errors
    /// The first rule that the header breaks.
    pub fn read_layer<I: Image + ?Sized>(image: &I, allowed: Backing<'_>) -> Result<Self, Qcow2Error> {
        let file_bytes = image.bytes();
        if file_bytes == 0 {
            return Err(Qcow2Error::Empty);
        }
        let raw = read_bytes(image, 0, 512)?;
        if u32_at(&raw, 0) != Some(MAGIC) {
            return Err(Qcow2Error::NotQcow2);
        }
        let fields = Fields(&raw);
        let version = fields.u32(4);
        if !matches!(version, 2 | 3) {
            return Err(Qcow2Error::Version(version));
        }
        let least = if version == 2 { HEADER_V2_BYTES } else { HEADER_V3_BYTES };
        outside("the header", 0, least as u64, file_bytes)?;
        let backing = refuse_other_files(image, &fields, version, allowed)?;
        let cluster_bits = fields.u32(20);
        if !(9..=21).contains(&cluster_bits) {
            return Err(Qcow2Error::Invalid(format!("2^{cluster_bits} is not a possible cluster size")));
        }
        let mut header = Self {
            version,
            cluster_bits,
            virtual_bytes: fields.u64(24),
            l1_entries: fields.u32(36),
            l1_offset: fields.u64(40),
            refcount_table_offset: fields.u64(48),
            refcount_table_clusters: fields.u32(56),
            snapshots: fields.u32(60),
            snapshots_offset: fields.u64(64),
            refcount_order: 4,
            compression: Compression::Zlib,
            extended_l2: false,
            lazy_refcounts: false,
            backing,
            bitmaps: None,
        };
        let header_bytes = if version == 3 { header.read_version_3(&fields)? } else { HEADER_V2_BYTES as u64 };
        header.check_tables(file_bytes)?;
        let has_bitmaps = version == 3 && fields.u64(88) & AUTOCLEAR_BITMAPS != 0;
        let bitmaps = read_extensions(image, header_bytes, header.cluster_bytes())?;
        // Without its autoclear bit the extension is stale: some program wrote the image without knowing bitmaps.
        header.bitmaps = bitmaps.filter(|_| has_bitmaps);
        Ok(header)
    }

    /// Reads what version 3 added; returns the header's length.
    fn read_version_3(&mut self, fields: &Fields<'_>) -> Result<u64, Qcow2Error> {
        let incompatible = fields.u64(72);
        if incompatible & !INCOMPATIBLE_KNOWN != 0 {
            let bits = incompatible & !INCOMPATIBLE_KNOWN;
            return Err(Qcow2Error::Unsupported(format!("the incompatible feature {bits:#x}")));
        }
        if incompatible & INCOMPATIBLE_CORRUPT != 0 {
            return Err(Qcow2Error::MarkedCorrupt);
        }
        if incompatible & INCOMPATIBLE_DIRTY != 0 {
            return Err(Qcow2Error::Dirty);
        }
        self.extended_l2 = incompatible & INCOMPATIBLE_EXTENDED_L2 != 0;
        self.lazy_refcounts = fields.u64(80) & COMPATIBLE_LAZY_REFCOUNTS != 0;
        if self.extended_l2 && self.cluster_bits < 14 {
            return Err(Qcow2Error::Invalid("subclusters need clusters of at least 16 KiB".to_owned()));
        }
        self.refcount_order = fields.u32(96);
        if self.refcount_order > 6 {
            return Err(Qcow2Error::Invalid(format!("refcounts of 2^{} bits are not possible", self.refcount_order)));
        }
        let header_bytes = u64::from(fields.u32(100));
        if header_bytes < HEADER_V3_BYTES as u64 || header_bytes % 8 != 0 || header_bytes > self.cluster_bytes() {
            return Err(Qcow2Error::Invalid(format!("a header of {header_bytes} bytes is not possible")));
        }
        let compression = if header_bytes > HEADER_V3_BYTES as u64 { fields.u8(104) } else { 0 };
        let is_marked = incompatible & INCOMPATIBLE_COMPRESSION != 0;
        self.compression = match compression {
            0 => Compression::Zlib,
            1 => Compression::Zstd,
            other => return Err(Qcow2Error::Unsupported(format!("compression type {other}"))),
        };
        if is_marked != (self.compression != Compression::Zlib) {
            let text = "the compression type and its feature bit contradict each other";
            return Err(Qcow2Error::Invalid(text.to_owned()));
        }
        Ok(header_bytes)
    }

    fn check_tables(&self, file_bytes: u64) -> Result<(), Qcow2Error> {
        if self.virtual_bytes == 0 {
            return Err(Qcow2Error::Invalid("a virtual size of 0 bytes is not possible".to_owned()));
        }
        if self.virtual_bytes > VOLUME_BYTES_MAX {
            return Err(Qcow2Error::TooLarge { bytes: self.virtual_bytes, limit: VOLUME_BYTES_MAX });
        }
        let l1_bytes = u64::from(self.l1_entries) * 8;
        let needed = self.virtual_bytes.div_ceil(self.l2_covers());
        if u64::from(self.l1_entries) < needed {
            let text = format!("the L1 table has {} entries, {needed} are needed", self.l1_entries);
            return Err(Qcow2Error::Invalid(text));
        }
        let refcount_table_bytes = u64::from(self.refcount_table_clusters) << self.cluster_bits;
        if self.refcount_table_clusters == 0 {
            return Err(Qcow2Error::Invalid("there is no refcount table".to_owned()));
        }
        for (what, bytes, limit) in [
            ("the L1 table", l1_bytes, L1_BYTES_MAX),
            ("the refcount table", refcount_table_bytes, REFCOUNT_TABLE_BYTES_MAX),
            ("the number of snapshots", u64::from(self.snapshots), u64::from(SNAPSHOTS_MAX)),
        ] {
            if bytes > limit {
                return Err(Qcow2Error::Unsupported(format!("{what} with {bytes}, more than {limit},")));
            }
        }
        self.table("the L1 table", self.l1_offset, l1_bytes, file_bytes)?;
        self.table("the refcount table", self.refcount_table_offset, refcount_table_bytes, file_bytes)?;
        if self.snapshots > 0 {
            self.table("the snapshot table", self.snapshots_offset, 40, file_bytes)?;
        }
        Ok(())
    }

    /// A table begins at a cluster other than the header's and lies inside the file.
    pub(super) fn table(
        &self,
        what: &'static str,
        offset: u64,
        length: u64,
        file_bytes: u64,
    ) -> Result<(), Qcow2Error> {
        if offset == 0 || !offset.is_multiple_of(self.cluster_bytes()) {
            return Err(Qcow2Error::Misaligned { what, offset });
        }
        outside(what, offset, length, file_bytes)
    }
}

/// Refuses what the file does not hold.
pub(super) fn outside(what: &'static str, offset: u64, length: u64, file_bytes: u64) -> Result<(), Qcow2Error> {
    match offset.checked_add(length) {
        Some(end) if end <= file_bytes => Ok(()),
        _ => Err(Qcow2Error::OutsideFile { what, offset, length, file_bytes }),
    }
}

/// An image must be one file that anybody can read: no data file, no key, and no backing file but the one allowed,
/// whose name is returned.
fn refuse_other_files<I: Image + ?Sized>(
    image: &I,
    fields: &Fields<'_>,
    version: u32,
    allowed: Backing<'_>,
) -> Result<Option<String>, Qcow2Error> {
    let (backing_offset, backing_bytes) = (fields.u64(8), fields.u32(16));
    let mut backing = None;
    if backing_offset != 0 {
        let length = usize::try_from(backing_bytes.min(BACKING_NAME_BYTES_MAX)).unwrap_or(0);
        let name = read_bytes(image, backing_offset, length)?;
        match allowed {
            Backing::Named(wanted) if wanted.as_bytes() == name => backing = Some(wanted.to_owned()),
            _ => return Err(Qcow2Error::BackingFile(String::from_utf8_lossy(&name).escape_debug().to_string())),
        }
    } else if let Backing::Named(wanted) = allowed {
        let text = format!("it names no backing file, but `{wanted}` lies beneath it");
        return Err(Qcow2Error::Invalid(text));
    }
    match fields.u32(32) {
        0 => {}
        1 => return Err(Qcow2Error::Encrypted("AES")),
        2 => return Err(Qcow2Error::Encrypted("LUKS")),
        _ => return Err(Qcow2Error::Encrypted("an unknown method")),
    }
    let has_data_file =
        version == 3 && (fields.u64(72) & INCOMPATIBLE_DATA_FILE != 0 || fields.u64(88) & AUTOCLEAR_RAW_DATA_FILE != 0);
    if has_data_file {
        return Err(Qcow2Error::DataFile(String::new()));
    }
    Ok(backing)
}

/// Numbers of a header that was read in full (zeros stand for what the file lacks).
struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn u8(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    fn u32(&self, at: usize) -> u32 {
        u32_at(self.0, at).unwrap_or(0)
    }

    fn u64(&self, at: usize) -> u64 {
        u64_at(self.0, at).unwrap_or(0)
    }
}
