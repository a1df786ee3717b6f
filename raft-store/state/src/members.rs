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
    /// How often its folder was started, as it reported last; 0 before its first report. A folder that counts fewer is
    /// an old copy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub starts: u64,
    /// It was announced as one that does not vote.
    #[serde(default, skip_serializing_if = "is_false")]
    pub learner: bool,
}

/// A name that the operator announced: whoever joins under it is expected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnnouncedMember {
    /// Its name.
    pub name: Name,
    /// Where it will be reached; empty: anywhere.
    pub address: String,
    /// It shall not vote when it has joined.
    pub learner: bool,
}

/// A member that was removed, for people: that its id has no row any more is what counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemovedMember {
    /// Its id, never given again.
    pub id: u64,
    /// Its name, free again.
    pub name: Name,
    /// Index of the entry that removed it.
    pub index: u64,
}

/// Removed members that are remembered by name: a repeated removal within so many is no error.
pub const REMOVED_MEMBERS_KEPT: usize = 64;

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}
