//! Fencing tokens and the names on storage that are derived from them. A token is drawn by the
//! state (epoch of the cluster, index of the entry, ordinal within it), never repeats and never
//! goes back; so do the names.

use crate::ids::ClusterId;
use crate::ids::DomainId;
use crate::ids::PlacementId;
use serde::Deserialize;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// The number that orders grants and assignments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token {
    /// Rises with every restore from a backup.
    pub epoch: u64,
    /// Log index of the entry that gave it.
    pub index: u64,
    /// Which one of that entry's.
    pub ordinal: u32,
}

impl Token {
    fn bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.index.to_be_bytes());
        bytes[16..].copy_from_slice(&self.ordinal.to_be_bytes());
        bytes
    }

    /// The folder's name while an attempt with this token builds it. It begins with a dot, so
    /// oVirt's globs never see it, and carries eight digits of the cluster's id, so two clusters
    /// restored from one backup cannot meet under it.
    #[must_use]
    pub fn dot_name(self, cluster: ClusterId) -> String {
        let digest = cluster.uuid().simple().to_string();
        format!(".sdm-{self}-{}", &digest[..8])
    }

    /// The placement that an attempt with this token publishes.
    #[must_use]
    pub fn placement(self, cluster: ClusterId) -> PlacementId {
        PlacementId::derive("placement", &[cluster.uuid().as_bytes(), &self.bytes()])
    }

    /// The domain that an attempt with this token makes.
    #[must_use]
    pub fn domain(self, cluster: ClusterId) -> DomainId {
        DomainId::derive("domain", &[cluster.uuid().as_bytes(), &self.bytes()])
    }

    /// A secret that belongs to this token: who has not seen the entry's entropy cannot guess it.
    #[must_use]
    pub fn ticket(self, entropy: &[u8; 16], purpose: &str) -> Vec<u8> {
        let mut hasher = blake3::Hasher::new_derive_key("sdm 2026 transfer tickets");
        hasher.update(entropy);
        hasher.update(&self.bytes());
        hasher.update(purpose.as_bytes());
        hasher.finalize().as_bytes()[..16].to_vec()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.epoch, self.index, self.ordinal)
    }
}

/// The text is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a token (epoch-index-ordinal)")]
pub struct NotAToken {
    text: String,
}

impl FromStr for Token {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let wrong = || NotAToken { text: text.chars().take(64).collect() };
        let mut parts = text.split('-');
        let mut next = || parts.next().filter(|part| part.bytes().all(|b| b.is_ascii_digit()));
        let token = match (next(), next(), next()) {
            (Some(epoch), Some(index), Some(ordinal)) => Self {
                epoch: epoch.parse().map_err(|_| wrong())?,
                index: index.parse().map_err(|_| wrong())?,
                ordinal: ordinal.parse().map_err(|_| wrong())?,
            },
            _ => return Err(wrong()),
        };
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_ordered_by_epoch_then_index_then_ordinal() {
        let token = |epoch, index, ordinal| Token { epoch, index, ordinal };
        assert!(token(1, 9, 9) < token(2, 1, 0));
        assert!(token(1, 2, 0) < token(1, 2, 1));
        assert!(token(1, 2, 7) < token(1, 3, 0));
    }

    #[test]
    fn a_token_reads_back_from_its_text_and_nothing_else_does() {
        let token = Token { epoch: 1, index: 4711, ordinal: 2 };
        assert_eq!(token.to_string(), "1-4711-2");
        assert_eq!("1-4711-2".parse(), Ok(token));
        for text in ["", "1-2", "1-2-3-4", "1--2", "-1-2-3", "1-2-x", "1-2-+3", "1-99999999999999999999999-3"] {
            assert!(text.parse::<Token>().is_err(), "{text:?}");
        }
    }
}
