//! `<volume>.meta`: a volume as vdsm sees it. A projection of the catalog, never read to decide.
//!
//! Thirteen keys, sorted, `EOF`, at most 512 bytes so that vdsm can write it atomically.

use std::collections::BTreeMap;
use std::fmt::Write;

use uuid::Uuid;

use crate::work::VolumeFormat;
use crate::work::VolumeRole;

/// vdsm's limit for the whole file.
const RECORD_BYTES_MAX: usize = 512;
/// vdsm's limit for DESCRIPTION.
const DESCRIPTION_BYTES_MAX: usize = 210;

/// LEGALITY: may the volume be used?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Legality {
    /// It may.
    Legal,
    /// It may not: it is in the trash, or a merge left it behind.
    Illegal,
}

/// The content of a `.meta` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMetadata {
    /// CAP: what a guest sees, in bytes.
    pub virtual_bytes: u64,
    /// CTIME: seconds since 1970.
    pub created_at_s: u64,
    /// The disk's name; DESCRIPTION holds it as JSON.
    pub disk_name: String,
    /// What users wrote about the disk; DESCRIPTION holds it too, as far as it fits behind the name.
    pub disk_description: String,
    /// DOMAIN.
    pub domain: Uuid,
    /// FORMAT.
    pub format: VolumeFormat,
    /// GEN: vdsm's operation counter, 0..999.
    pub generation: u16,
    /// IMAGE: the folder's name.
    pub image: Uuid,
    /// LEGALITY.
    pub legality: Legality,
    /// PUUID.
    pub parent: Option<Uuid>,
    /// TYPE is PREALLOCATED.
    pub preallocated: bool,
    /// SEQ.
    pub sequence: u32,
    /// VOLTYPE.
    pub role: VolumeRole,
}

/// GEN wraps after this.
const GENERATION_MAX: u16 = 999;

/// The text is not a volume's metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVolumeMetadata {
    /// Longer than vdsm reads.
    #[error("it has {0} bytes, more than {RECORD_BYTES_MAX}")]
    TooLong(usize),
    /// Its end is missing.
    #[error("it does not end with EOF")]
    NoEnd,
    /// A key is missing or has a value that it cannot have.
    #[error("{0} is missing or has a value that it cannot have")]
    Key(&'static str),
}

impl VolumeMetadata {
    /// The file's text.
    pub fn encode(&self) -> String {
        let fixed = self.record("");
        let room = RECORD_BYTES_MAX.saturating_sub(fixed.len()).min(DESCRIPTION_BYTES_MAX);
        self.record(&description(&self.disk_name, &self.disk_description, room))
    }

    /// Counts one more finished data operation, as vdsm does.
    pub fn count_operation(&mut self) {
        self.generation = if self.generation >= GENERATION_MAX { 0 } else { self.generation + 1 };
    }

    fn record(&self, description: &str) -> String {
        let format = match self.format {
            VolumeFormat::Raw => "RAW",
            VolumeFormat::Qcow2 => "COW",
        };
        let legality = match self.legality {
            Legality::Legal => "LEGAL",
            Legality::Illegal => "ILLEGAL",
        };
        let allocation = if self.preallocated { "PREALLOCATED" } else { "SPARSE" };
        let role = match self.role {
            VolumeRole::Leaf => "LEAF",
            VolumeRole::Internal => "INTERNAL",
            VolumeRole::Shared => "SHARED",
        };
        format!(
            "CAP={}\nCTIME={}\nDESCRIPTION={description}\nDISKTYPE=DATA\nDOMAIN={}\nFORMAT={format}\nGEN={}\n\
             IMAGE={}\nLEGALITY={legality}\nPUUID={}\nSEQ={}\nTYPE={allocation}\nVOLTYPE={role}\nEOF\n",
            self.virtual_bytes,
            self.created_at_s,
            self.domain,
            self.generation,
            self.image,
            self.parent.unwrap_or(Uuid::nil()),
            self.sequence,
        )
    }

    /// Reads the file's text, ours or vdsm's. Keys that are not ours are ignored.
    ///
    /// # Errors
    /// When it is too long, is cut off, or a key is missing or impossible.
    pub fn decode(text: &str) -> Result<Self, InvalidVolumeMetadata> {
        if text.len() > RECORD_BYTES_MAX {
            return Err(InvalidVolumeMetadata::TooLong(text.len()));
        }
        let (body, _) = text.split_once("\nEOF").ok_or(InvalidVolumeMetadata::NoEnd)?;
        let keys: BTreeMap<&str, &str> = body.split('\n').filter_map(|line| line.split_once('=')).collect();
        let value = |key: &'static str| keys.get(key).copied().ok_or(InvalidVolumeMetadata::Key(key));
        Ok(Self {
            virtual_bytes: number(value("CAP")?, "CAP")?,
            created_at_s: number(value("CTIME")?, "CTIME")?,
            disk_name: text_of(value("DESCRIPTION")?, "DiskAlias"),
            disk_description: text_of(value("DESCRIPTION")?, "DiskDescription"),
            domain: id(value("DOMAIN")?, "DOMAIN")?,
            format: match value("FORMAT")? {
                "RAW" => VolumeFormat::Raw,
                "COW" => VolumeFormat::Qcow2,
                _ => return Err(InvalidVolumeMetadata::Key("FORMAT")),
            },
            generation: number(value("GEN")?, "GEN")?,
            image: id(value("IMAGE")?, "IMAGE")?,
            legality: match value("LEGALITY")? {
                "LEGAL" => Legality::Legal,
                "ILLEGAL" => Legality::Illegal,
                _ => return Err(InvalidVolumeMetadata::Key("LEGALITY")),
            },
            parent: Some(id(value("PUUID")?, "PUUID")?).filter(|parent| !parent.is_nil()),
            preallocated: match value("TYPE")? {
                "PREALLOCATED" => true,
                "SPARSE" => false,
                _ => return Err(InvalidVolumeMetadata::Key("TYPE")),
            },
            sequence: number(value("SEQ")?, "SEQ")?,
            role: match value("VOLTYPE")? {
                "LEAF" => VolumeRole::Leaf,
                "INTERNAL" => VolumeRole::Internal,
                "SHARED" => VolumeRole::Shared,
                _ => return Err(InvalidVolumeMetadata::Key("VOLTYPE")),
            },
        })
    }
}

fn number<T: std::str::FromStr>(text: &str, key: &'static str) -> Result<T, InvalidVolumeMetadata> {
    text.parse().map_err(|_| InvalidVolumeMetadata::Key(key))
}

fn id(text: &str, key: &'static str) -> Result<Uuid, InvalidVolumeMetadata> {
    Uuid::parse_str(text).map_err(|_| InvalidVolumeMetadata::Key(key))
}

/// oVirt's JSON for a disk's name and description, cut so that it fits; the name comes first.
fn description(name: &str, words: &str, bytes_max: usize) -> String {
    const BEFORE: &str = "{\"DiskAlias\":\"";
    const BETWEEN: &str = "\",\"DiskDescription\":\"";
    const AFTER: &str = "\"}";
    let room = bytes_max.saturating_sub(BEFORE.len() + BETWEEN.len() + AFTER.len());
    let name = escaped(name, room);
    let words = escaped(words, room - name.len());
    format!("{BEFORE}{name}{BETWEEN}{words}{AFTER}")
}

/// The inside of a JSON string of at most so many bytes. All but printable ASCII is escaped: some of the rest would end a
/// line for a reader in Python.
fn escaped(text: &str, bytes_max: usize) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        let mut one = String::new();
        match character {
            '"' | '\\' => one.extend(['\\', character]),
            ' '..='~' => one.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    let _ = write!(one, "\\u{unit:04x}");
                }
            }
        }
        if escaped.len() + one.len() > bytes_max {
            break;
        }
        escaped.push_str(&one);
    }
    escaped
}

fn text_of(description: &str, key: &str) -> String {
    serde_json::from_str::<serde_json::Value>(description)
        .ok()
        .and_then(|json| json.get(key)?.as_str().map(str::to_owned))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn metadata(disk_name: &str) -> VolumeMetadata {
        VolumeMetadata {
            virtual_bytes: u64::MAX,
            created_at_s: u64::MAX,
            disk_name: disk_name.to_owned(),
            disk_description: String::new(),
            domain: Uuid::max(),
            format: VolumeFormat::Qcow2,
            generation: 999,
            image: Uuid::max(),
            legality: Legality::Illegal,
            parent: Some(Uuid::max()),
            preallocated: true,
            sequence: u32::MAX,
            role: VolumeRole::Internal,
        }
    }

    #[test]
    fn metadata_has_vdsms_thirteen_keys_in_order() {
        let text = metadata("web-01").encode();
        let keys: Vec<&str> = text.lines().map(|line| line.split('=').next().unwrap_or_default()).collect();
        let expected = "CAP CTIME DESCRIPTION DISKTYPE DOMAIN FORMAT GEN IMAGE LEGALITY PUUID SEQ TYPE VOLTYPE EOF";
        assert_eq!(keys.join(" "), expected);
        assert_eq!(VolumeMetadata::decode(&text), Ok(metadata("web-01")));
    }

    #[test]
    fn a_name_with_newlines_injects_no_key() {
        let text = metadata("x\nCAP=0\u{2028}\u{85}LEGALITY=LEGAL\"").encode();
        assert_eq!(text.lines().count(), 14);
        assert_eq!(VolumeMetadata::decode(&text), Ok(metadata("x\nCAP=0\u{2028}\u{85}LEGALITY=LEGAL\"")));
    }

    #[test]
    fn a_description_takes_what_the_name_leaves() {
        let metadata = VolumeMetadata { disk_description: "data \"of\" web".repeat(40), ..metadata("web-01") };
        let read = VolumeMetadata::decode(&metadata.encode()).expect("what was written is read");
        assert_eq!(read.disk_name, "web-01");
        assert!(read.disk_description.len() > 20 && metadata.disk_description.starts_with(&read.disk_description));
        assert!(metadata.encode().len() <= RECORD_BYTES_MAX);
    }

    #[test]
    fn operations_are_counted_and_the_counter_wraps() {
        let mut metadata = VolumeMetadata { generation: 998, ..metadata("a") };
        metadata.count_operation();
        assert_eq!(metadata.generation, 999);
        metadata.count_operation();
        assert_eq!(metadata.generation, 0);
    }

    proptest! {
        #[test]
        fn any_name_fits_and_stays_on_its_line(name in "\\PC{0,300}|[\\x00-\\x1f\u{1F600}]{0,200}") {
            let text = metadata(&name).encode();
            prop_assert!(text.len() <= RECORD_BYTES_MAX);
            prop_assert!(text.is_ascii());
            let read = VolumeMetadata::decode(&text).expect("what was written is read");
            prop_assert!(name.starts_with(&read.disk_name));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,600}") {
            let _ = VolumeMetadata::decode(&text);
        }
    }
}
