//! A lock as it is printed.

use super::list::Row;
use crate::output::age_text;
use crate::output::or_dash;
use sdm_proto::wire::v1;
use serde::Serialize;

/// One lock set, held or waiting.
#[derive(Serialize)]
pub struct LockView {
    /// Token of its request.
    pub id: String,
    /// Fencing token; null while it waits.
    pub token: Option<String>,
    /// The whole set.
    pub resources: Vec<ResourceView>,
    /// held or waiting.
    pub state: String,
    /// transaction or session.
    pub owner_kind: String,
    /// Its id.
    pub owner_id: String,
    /// What for.
    pub why: String,
    /// Cluster clock, milliseconds.
    pub since_ms: u64,
    /// Milliseconds since then.
    pub age_ms: u64,
    /// Cluster clock, milliseconds: when the wait ends; 0 when held.
    pub deadline_ms: u64,
    /// What it waits for.
    pub blockers: Vec<BlockerView>,
}

/// One resource of a set.
#[derive(Serialize)]
pub struct ResourceView {
    resource: String,
    mode: String,
}

/// One thing in the way.
#[derive(Clone, Serialize)]
pub struct BlockerView {
    /// What it is.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// What it does there.
    pub description: String,
}

impl From<v1::Blocker> for BlockerView {
    fn from(blocker: v1::Blocker) -> Self {
        let v1::Blocker { kind, id, description } = blocker;
        Self { kind, id, description }
    }
}

impl From<v1::Lock> for LockView {
    fn from(lock: v1::Lock) -> Self {
        let resource = |v1::LockedResource { resource, mode }| ResourceView { resource, mode };
        Self {
            id: lock.id,
            token: Some(lock.token).filter(|token| !token.is_empty()),
            resources: lock.resources.into_iter().map(resource).collect(),
            state: lock.state,
            owner_kind: lock.owner_kind,
            owner_id: lock.owner_id,
            why: lock.why,
            since_ms: lock.since_ms,
            age_ms: lock.age_ms,
            deadline_ms: lock.deadline_ms,
            blockers: lock.blockers.into_iter().map(BlockerView::from).collect(),
        }
    }
}

impl Row for LockView {
    const HEADINGS: &'static [&'static str] =
        &["LOCK", "STATE", "RESOURCES", "OWNER", "WHY", ">SINCE", "TOKEN", "WAITS FOR"];

    fn cells(&self) -> Vec<String> {
        let resources: Vec<_> = self.resources.iter().map(|r| format!("{}:{}", r.resource, r.mode)).collect();
        let blockers: Vec<_> = self.blockers.iter().map(|b| format!("{} {}", b.kind, b.id)).collect();
        vec![
            self.id.clone(),
            self.state.clone(),
            resources.join(" "),
            format!("{} {}", self.owner_kind, self.owner_id),
            self.why.clone(),
            age_text(self.age_ms),
            or_dash(self.token.as_deref().unwrap_or_default()),
            or_dash(&blockers.join(", ")),
        ]
    }
}
