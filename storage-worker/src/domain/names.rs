//! Names that this project gives to what it keeps in a domain.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::aside::is_aside;

/// What every name of a folder that is being built or deleted begins with. oVirt's globs skip it.
const DOT_PREFIX: &str = ".sdm-";

/// Longest rest of a dot name: three 64-bit numbers with dashes fit.
const DOT_REST_BYTES_MAX: usize = 64;

/// The mark's name in `dom_md` and in each placement.
pub(crate) const MARK: &str = ".sdm";

/// The mark that takes the place of the one in `dom_md` when another cluster adopts the domain. Only who created it
/// may rename it, so two cannot adopt at once.
pub(crate) const NEXT_MARK: &str = ".sdm.next";

/// The file by which vdsm knows a domain, in `dom_md`.
pub(crate) const DOMAIN_METADATA: &str = "metadata";

/// What a detach leaves in `dom_md` of the domain's disks, for a later attach.
pub(crate) const CATALOG: &str = ".sdm-catalog";

/// The same, being written.
pub(crate) const NEXT_CATALOG: &str = ".sdm-catalog.new";

/// A further piece of a large catalog, from 1.
pub(crate) fn catalog_piece(piece: u32) -> String {
    format!("{CATALOG}.{piece}")
}

/// Whether a name in `dom_md` is that of such a piece, or of one being written.
pub(crate) fn is_catalog_piece(name: &str) -> bool {
    let rest = name.strip_prefix(CATALOG).and_then(|rest| rest.strip_prefix('.')).unwrap_or_default();
    let number = rest.strip_suffix(".new").unwrap_or(rest);
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// A folder name derived from a token: `.sdm-1-4711-0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DotName(String);

/// The text is no dot name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a dot name: `.sdm-` and letters, digits or dashes are wanted", .0.escape_debug())]
pub struct InvalidDotName(String);

impl DotName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DotName {
    type Err = InvalidDotName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix(DOT_PREFIX).unwrap_or_default();
        let is_valid = (1..=DOT_REST_BYTES_MAX).contains(&rest.len())
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if is_valid { Ok(Self(text.to_owned())) } else { Err(InvalidDotName(text.to_owned())) }
    }
}

impl fmt::Display for DotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name that may lie in a placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlacementFile {
    /// A volume's bytes.
    Volume,
    /// `<volume>.meta`.
    Metadata,
    /// `<volume>.meta.new-<token>`: about to take the place of the one before.
    NextMetadata,
    /// `<volume>.lease`, of oVirt.
    Lease,
    /// `.sdm`.
    Mark,
    /// `.nfsXXXX`: the NFS client keeps a deleted file that somebody has open.
    StillOpen,
}

impl PlacementFile {
    /// Sorts a name; `None` for one that nobody of ours makes.
    pub fn of(name: &str) -> Option<Self> {
        if name == MARK {
            return Some(Self::Mark);
        }
        if name.starts_with(".nfs") {
            return Some(Self::StillOpen);
        }
        if let Some((stem, _)) = name.split_once(".meta.") {
            let is_next = is_plain_uuid(stem) && is_aside(name, &format!("{stem}.meta"));
            return is_next.then_some(Self::NextMetadata);
        }
        let (stem, file) = match name.rsplit_once('.') {
            None => (name, Self::Volume),
            Some((stem, "meta")) => (stem, Self::Metadata),
            Some((stem, "lease")) => (stem, Self::Lease),
            Some(_) => return None,
        };
        is_plain_uuid(stem).then_some(file)
    }
}

/// Only the dashed, lower-case form is a name of ours; the parser alone takes others too.
pub(crate) fn is_plain_uuid(text: &str) -> bool {
    Uuid::parse_str(text).is_ok_and(|id| id.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_names_are_ours_or_refused() {
        assert!(".sdm-1-4711-0".parse::<DotName>().is_ok());
        for bad in
            ["", ".sdm-", ".sdm", "sdm-1", ".sdm-1/2", ".sdm-..", ".sdm-1\n", &format!(".sdm-{}", "1".repeat(65))]
        {
            assert!(bad.parse::<DotName>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn only_known_names_lie_in_a_placement() {
        let id = Uuid::from_u128(0xABCD).to_string();
        assert_eq!(PlacementFile::of(&id), Some(PlacementFile::Volume));
        assert_eq!(PlacementFile::of(&format!("{id}.meta")), Some(PlacementFile::Metadata));
        assert_eq!(PlacementFile::of(&format!("{id}.lease")), Some(PlacementFile::Lease));
        for next in ["new", "new-1-7-0"] {
            assert_eq!(PlacementFile::of(&format!("{id}.meta.{next}")), Some(PlacementFile::NextMetadata));
        }
        assert_eq!(PlacementFile::of(".sdm"), Some(PlacementFile::Mark));
        assert_eq!(PlacementFile::of(".nfs0001"), Some(PlacementFile::StillOpen));
        let strange = [format!("{id}.meta.new-"), format!("{id}.meta.new-1 7"), format!("{id}.meta.old")];
        for bad in strange.iter().map(String::as_str) {
            assert_eq!(PlacementFile::of(bad), None, "{bad}");
        }
        for bad in ["passwd", &format!("{id}.qcow2"), &id.replace('-', ""), &id.to_uppercase()] {
            assert_eq!(PlacementFile::of(bad), None, "{bad}");
        }
    }
}
