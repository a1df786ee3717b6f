//! The hash of a volume's file: BLAKE3 of its bytes from 0 to its size, holes read as zeros.
//!
//! It says nothing about what a guest sees (a qcow2 file rewritten with the same content hashes differently).

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;

/// BLAKE3 of a file's bytes, equal to what `b3sum FILE` prints. Serialized as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileHash(pub [u8; 32]);

/// The text is not 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a file hash: 64 hex digits are wanted")]
pub struct ParseFileHashError(String);

impl From<blake3::Hash> for FileHash {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl fmt::Display for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileHash({self})")
    }
}

impl FromStr for FileHash {
    type Err = ParseFileHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        blake3::Hash::from_hex(text).map(Self::from).map_err(|_| ParseFileHashError(text.to_owned()))
    }
}

impl Serialize for FileHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_written_and_read_as_hex() {
        let hash = FileHash::from(blake3::hash(b"abc"));
        assert_eq!(hash.to_string().parse::<FileHash>(), Ok(hash));
        let json = serde_json::to_string(&hash).expect("a hash serializes");
        assert_eq!(serde_json::from_str::<FileHash>(&json).expect("and reads back"), hash);
        assert!("xyz".parse::<FileHash>().is_err());
    }
}
