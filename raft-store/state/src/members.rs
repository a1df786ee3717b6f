//! Members as the state knows them: ids that are used once, unique names, and which feature levels
//! each supports. Who votes is Raft's membership, not this.

use sdm_proto::names::Name;
use serde::Deserialize;
use serde::Serialize;

/// Highest feature level that this build supports.
pub const FEATURE_LEVEL_MAX: u32 = 2;

/// A member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// 1 for the first member, else the index of the entry that added it.
    pub id: u64,
    /// Unique.
    pub name: Name,
    /// Where the others reach it.
    pub address: String,
    /// Drawn once, kept in its folder: tells a repeated join from a newcomer under a taken name.
    pub incarnation: String,
    /// Its program version, for people.
    pub version: String,
    /// Highest feature level it supports.
    pub feature_level_max: u32,
}
