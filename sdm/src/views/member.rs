//! A member of the cluster as it is printed.

use super::list::Row;
use crate::output::or_dash;
use sdm_proto::wire::v1;
use serde::Serialize;
use std::fmt;

/// One line of `sdm member list`, one object of `members` in `sdm status`.
#[derive(Serialize)]
pub struct MemberView {
    /// Its name.
    pub name: String,
    /// Its node id.
    pub id: u64,
    /// Where it listens for others.
    pub address: String,
    /// leader, follower, learner, joining or announced.
    pub role: String,
    /// Whether the answering member reaches it.
    pub reachable: bool,
    /// Log index that it has applied; 0 when unreachable.
    pub applied_index: u64,
    /// Entries behind.
    pub lag: u64,
    /// Its release.
    pub version: String,
    /// Why it is unreachable; empty otherwise.
    pub error: String,
    /// Highest feature level that it supports; 0 when not known.
    pub feature_level_max: u32,
    /// The last entry after which members compare their states; 0: none yet.
    pub hash_index: u64,
    /// Hash of its state after that entry, in hex.
    pub state_hash: String,
}

impl From<v1::Member> for MemberView {
    fn from(member: v1::Member) -> Self {
        let v1::Member { name, id, address, role, reachable, applied_index, lag, version, error, .. } = member;
        let v1::Member { feature_level_max, hash_index, state_hash, .. } = member;
        Self {
            name,
            id,
            address,
            role,
            reachable,
            applied_index,
            lag,
            version,
            error,
            feature_level_max,
            hash_index,
            state_hash,
        }
    }
}

/// The voters, and how many of them answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Votes {
    voters: usize,
    reachable: usize,
}

impl Votes {
    /// Of these members.
    #[must_use]
    pub fn of(members: &[MemberView]) -> Self {
        let voters = members.iter().filter(|member| matches!(member.role.as_str(), "leader" | "follower"));
        let reachable = voters.clone().filter(|member| member.reachable);
        Self { voters: voters.count(), reachable: reachable.count() }
    }

    /// How many of those that answer may fail before there is no majority; None when there is none now.
    #[must_use]
    pub fn spare(self) -> Option<usize> {
        self.reachable.checked_sub(self.voters / 2 + 1)
    }
}

impl fmt::Display for Votes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} voters", self.reachable, self.voters)
    }
}

impl Row for MemberView {
    const HEADINGS: &'static [&'static str] =
        &["NAME", ">ID", "ADDRESS", "ROLE", "STATE", ">APPLIED", ">LAG", "VERSION", ">LEVEL", "WHY"];

    fn cells(&self) -> Vec<String> {
        let number = |value: u64| if self.reachable { value.to_string() } else { "-".to_owned() };
        vec![
            self.name.clone(),
            self.id.to_string(),
            self.address.clone(),
            self.role.clone(),
            match (self.reachable, self.role.as_str()) {
                (true, _) => "ok",
                (false, "announced") => "-",
                (false, _) => "unreachable",
            }
            .to_owned(),
            number(self.applied_index),
            number(self.lag),
            or_dash(&self.version),
            if self.feature_level_max == 0 { "-".to_owned() } else { self.feature_level_max.to_string() },
            self.error.clone(),
        ]
    }
}
