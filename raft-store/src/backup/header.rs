//! What stands in front of a backup: enough to know whose it is without reading it all.

use super::FORMAT;
use super::HEADER_BYTES_MAX;
use super::MAGIC;
use super::check::BackupError;
use sdm_proto::ids::ClusterId;
use sdm_proto::ids::PoolId;
use serde::Deserialize;
use serde::Serialize;
use std::io;

/// Magic, length and checksum in front of the header's JSON.
pub(super) const FRONT_BYTES: usize = 16;

/// Whose backup it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHeader {
    /// Version of the file's layout.
    pub format: u32,
    /// The cluster that made it.
    pub cluster_id: ClusterId,
    /// Its pool.
    pub pool_id: PoolId,
    /// Its epoch then.
    pub epoch: u64,
    /// The last entry that it holds.
    pub index: u64,
    /// Its feature level then.
    pub feature_level: u32,
    /// Hash of the state, as hex digits.
    pub state_hash: String,
    /// Wall clock of the member that made it, milliseconds since 1970; shown, never compared.
    pub created_unix_ms: u64,
    /// That member.
    pub member: String,
    /// Its version of sdm.
    pub sdm_version: String,
}

/// The little of a header that every later version keeps.
#[derive(Deserialize)]
struct AnyHeader {
    format: u32,
}

pub(super) fn encode(header: &BackupHeader) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(header)?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    let sum = crc32c::crc32c(&json);
    Ok([MAGIC.as_slice(), &length.to_le_bytes(), &sum.to_le_bytes(), &json].concat())
}

/// Length and checksum of the header's JSON.
pub(super) fn decode_front(front: &[u8; FRONT_BYTES]) -> Result<(usize, u32), BackupError> {
    let [m0, m1, m2, m3, m4, m5, m6, m7, a, b, c, d, e, f, g, h] = *front;
    if [m0, m1, m2, m3, m4, m5, m6, m7] != *MAGIC {
        return Err(BackupError::Foreign);
    }
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > HEADER_BYTES_MAX {
        return Err(BackupError::Damaged("the length of its header is impossible".to_owned()));
    }
    Ok((length, u32::from_le_bytes([e, f, g, h])))
}

pub(super) fn decode(json: &[u8], sum: u32) -> Result<BackupHeader, BackupError> {
    if crc32c::crc32c(json) != sum {
        return Err(BackupError::Damaged("the checksum of its header is wrong".to_owned()));
    }
    let malformed = |error: serde_json::Error| BackupError::Damaged(format!("its header is malformed: {error}"));
    let AnyHeader { format } = serde_json::from_slice(json).map_err(malformed)?;
    if format > FORMAT {
        return Err(BackupError::Newer(format!("format {format}, this one reads up to {FORMAT}")));
    }
    serde_json::from_slice(json).map_err(malformed)
}
