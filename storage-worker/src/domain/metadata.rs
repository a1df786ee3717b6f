//! `dom_md/metadata`: the file by which vdsm knows a domain. One `KEY=VALUE` per line, sorted, with a checksum.

use std::collections::BTreeMap;

use sha1::Digest;
use sha1::Sha1;
use uuid::Uuid;

/// vdsm's limit for a domain's description.
const DESCRIPTION_BYTES_MAX: usize = 50;

/// Block size of domains before version 5, which do not state it.
pub(super) const DEFAULT_BLOCK_BYTES: u32 = 512;

const CHECKSUM: &str = "_SHA_CKSUM";

/// What a domain says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainMetadata {
    /// SDUUID.
    pub domain: Uuid,
    /// POOL_UUID; oVirt leaves it empty for a domain without a pool.
    pub pool: Option<Uuid>,
    /// DESCRIPTION.
    pub description: String,
    /// REMOTE_PATH.
    pub remote_path: String,
    /// BLOCK_SIZE: vdsm refuses a domain on which it finds another one.
    pub block_bytes: u32,
}

/// The text is not a domain's metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidMetadata(String);

impl DomainMetadata {
    /// The file's text.
    pub fn encode(&self) -> String {
        let pool = self.pool.map(|pool| pool.to_string()).unwrap_or_default();
        let description = one_line(&self.description, DESCRIPTION_BYTES_MAX);
        // Lease times are oVirt's defaults; LOCALFS has no leases, but vdsm wants the keys.
        let keys = BTreeMap::from([
            ("ALIGNMENT", "1048576".to_owned()),
            ("BLOCK_SIZE", self.block_bytes.to_string()),
            ("CLASS", "Data".to_owned()),
            ("DESCRIPTION", description),
            ("IOOPTIMEOUTSEC", "10".to_owned()),
            ("LEASERETRIES", "3".to_owned()),
            ("LEASETIMESEC", "60".to_owned()),
            ("LOCKPOLICY", String::new()),
            ("LOCKRENEWALINTERVALSEC", "5".to_owned()),
            ("POOL_UUID", pool),
            ("REMOTE_PATH", one_line(&self.remote_path, usize::MAX)),
            ("ROLE", "Regular".to_owned()),
            ("SDUUID", self.domain.to_string()),
            ("TYPE", "LOCALFS".to_owned()),
            ("VERSION", "5".to_owned()),
        ]);
        let lines: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("{}\n{CHECKSUM}={}\n", lines.join("\n"), checksum(lines.iter().map(String::as_str)))
    }

    /// Reads the file's text, ours or vdsm's.
    ///
    /// # Errors
    /// When the checksum is wrong (a missing one is trusted, as vdsm does) or an id is missing.
    pub fn decode(text: &str) -> Result<Self, InvalidMetadata> {
        let mut lines: Vec<&str> = text.lines().filter(|line| line.contains('=')).collect();
        lines.sort_unstable();
        let keys: BTreeMap<&str, &str> = lines.iter().filter_map(|line| line.split_once('=')).collect();
        if let Some(stated) = keys.get(CHECKSUM) {
            let found = checksum(lines.iter().copied().filter(|line| !line.starts_with(CHECKSUM)));
            if *stated != found {
                return Err(InvalidMetadata(format!("its checksum is {found}, but it states {stated}")));
            }
        }
        let value = |key| keys.get(key).copied().unwrap_or_default();
        let id = |key| Uuid::parse_str(value(key)).ok();
        Ok(Self {
            domain: id("SDUUID").ok_or_else(|| InvalidMetadata("SDUUID is missing or no UUID".to_owned()))?,
            pool: id("POOL_UUID"),
            description: value("DESCRIPTION").to_owned(),
            remote_path: value("REMOTE_PATH").to_owned(),
            block_bytes: value("BLOCK_SIZE").parse().unwrap_or(DEFAULT_BLOCK_BYTES),
        })
    }
}

/// The text with some keys changed; all other keys stay, whoever wrote them.
///
/// # Errors
/// When the text is no domain's metadata.
pub(super) fn edited(text: &str, changes: &[(&str, String)]) -> Result<String, InvalidMetadata> {
    DomainMetadata::decode(text)?;
    let mut keys: BTreeMap<&str, String> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| *key != CHECKSUM)
        .map(|(key, value)| (key, value.to_owned()))
        .collect();
    for (key, value) in changes {
        keys.insert(key, one_line(value, if *key == "DESCRIPTION" { DESCRIPTION_BYTES_MAX } else { usize::MAX }));
    }
    let lines: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Ok(format!("{}\n{CHECKSUM}={}\n", lines.join("\n"), checksum(lines.iter().map(String::as_str))))
}

/// The value of a key.
pub(super) fn value<'t>(text: &'t str, key: &str) -> &'t str {
    let found = text.lines().filter_map(|line| line.split_once('=')).find(|(known, _)| *known == key);
    found.map_or("", |(_, value)| value)
}

fn checksum<'l>(lines: impl Iterator<Item = &'l str>) -> String {
    let mut hasher = Sha1::new();
    lines.for_each(|line| hasher.update(line.as_bytes()));
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value must stay on its line: control characters become spaces; cut at a character's boundary.
fn one_line(text: &str, bytes_max: usize) -> String {
    let mut line = String::new();
    for character in text.chars().map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c })
    {
        if line.len() + character.len_utf8() > bytes_max {
            break;
        }
        line.push(character);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(description: &str) -> DomainMetadata {
        DomainMetadata {
            domain: Uuid::from_u128(1),
            pool: Some(Uuid::from_u128(2)),
            description: description.to_owned(),
            remote_path: "/mnt/a".to_owned(),
            block_bytes: 4096,
        }
    }

    #[test]
    fn metadata_reads_back_and_carries_vdsms_checksum() {
        let text = metadata("fast").encode();
        assert_eq!(DomainMetadata::decode(&text), Ok(metadata("fast")));
        assert_eq!(text.lines().last().map(|line| line.len()), Some("_SHA_CKSUM=".len() + 40));
    }

    #[test]
    fn the_checksum_is_over_the_sorted_lines_without_newlines() {
        // sha1("A=1B=2")
        assert_eq!(checksum(["A=1", "B=2"].into_iter()), "427b9406ba3a6c76b80bb671a9e40b8326143378".to_owned());
    }

    #[test]
    fn an_edit_changes_its_keys_and_keeps_those_of_others() {
        let text = metadata("fast").encode().replace("ROLE=Regular", "ROLE=Master\nX_OF_VDSM=1");
        let text = text.lines().filter(|line| !line.starts_with(CHECKSUM)).collect::<Vec<_>>().join("\n");
        let changed = edited(&text, &[("DESCRIPTION", "slow\nROLE=x".repeat(9)), ("POOL_UUID", String::new())]);
        let changed = changed.expect("it reads");
        let read = DomainMetadata::decode(&changed).expect("its checksum is right");
        assert_eq!((read.pool, read.description.len()), (None, 50));
        assert!(changed.contains("X_OF_VDSM=1\n") && changed.contains("\nROLE=Master\n"), "{changed}");
        assert!(edited("nothing", &[]).is_err());
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let text = metadata("fast").encode().replace("TYPE=LOCALFS", "TYPE=NFS");
        assert!(DomainMetadata::decode(&text).is_err());
    }

    #[test]
    fn a_description_cannot_inject_a_key() {
        let text = metadata("x\nSDUUID=00000000-0000-0000-0000-00000000dead").encode();
        assert_eq!(text.lines().filter(|line| line.starts_with("SDUUID=")).count(), 1);
        assert_eq!(DomainMetadata::decode(&text).map(|found| found.domain), Ok(Uuid::from_u128(1)));
    }
}
