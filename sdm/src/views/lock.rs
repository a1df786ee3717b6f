//! A lock as it is printed.

use super::list::Fields;
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
    /// What users call these resources, in their order.
    pub names: Vec<String>,
    /// held, waiting, stale (nobody works for its transaction now) or fencing (a lost worker may still write).
    pub state: String,
    /// transaction or session.
    pub owner_kind: String,
    /// Its id.
    pub owner_id: String,
    /// The holder in words.
    pub holder: String,
    /// Epoch of the owner's session; null for a transaction's.
    pub session_epoch: Option<u64>,
    /// The transaction that runs under a session's lock; null when none does.
    pub under_transaction_id: Option<String>,
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
    /// Place among those that wait, from 1; 0 when held.
    pub wait_position: u32,
    /// How many wait behind it.
    pub waiters: u32,
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
            names: lock.names,
            state: lock.state,
            owner_kind: lock.owner_kind,
            owner_id: lock.owner_id,
            holder: lock.holder,
            session_epoch: Some(lock.session_epoch).filter(|epoch| *epoch > 0),
            under_transaction_id: Some(lock.under_transaction_id).filter(|id| !id.is_empty()),
            why: lock.why,
            since_ms: lock.since_ms,
            age_ms: lock.age_ms,
            deadline_ms: lock.deadline_ms,
            blockers: lock.blockers.into_iter().map(BlockerView::from).collect(),
            wait_position: lock.wait_position,
            waiters: lock.waiters,
        }
    }
}

impl Row for LockView {
    const HEADINGS: &'static [&'static str] =
        &["LOCK", "STATE", "RESOURCES", "HOLDER", "WHY", ">SINCE", "TOKEN", ">PLACE", ">WAIT", "WAITS FOR"];
    const FIRST: &'static str = "run a command under one of your own: sdm lock acquire NAME -- COMMAND";

    fn cells(&self) -> Vec<String> {
        let resources = self.resource_words();
        let blockers: Vec<_> = self.blockers.iter().map(|b| format!("{} {}", b.kind, b.id)).collect();
        vec![
            self.id.clone(),
            self.state.clone(),
            resources.join(" "),
            self.holder.clone(),
            self.why.clone(),
            age_text(self.age_ms),
            or_dash(self.token.as_deref().unwrap_or_default()),
            if self.wait_position > 0 { self.wait_position.to_string() } else { "-".to_owned() },
            self.waiters.to_string(),
            or_dash(&blockers.join(", ")),
        ]
    }
}

impl LockView {
    /// Whether it is on this resource, by the name that users give it or by its id.
    pub fn is_on(&self, resource: &str) -> bool {
        self.names.iter().chain(self.resources.iter().map(|locked| &locked.resource)).any(|own| own == resource)
    }

    /// Each resource as users call it, with its mode.
    fn resource_words(&self) -> Vec<String> {
        let name = |(at, locked): (usize, &ResourceView)| {
            format!("{}:{}", self.names.get(at).unwrap_or(&locked.resource), locked.mode)
        };
        self.resources.iter().enumerate().map(name).collect()
    }
}

impl Fields for LockView {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("lock", self.id.clone()),
            ("state", format!("{} for {}", self.state, age_text(self.age_ms))),
            ("resources", self.resource_words().join("  ")),
            ("holder", self.holder.clone()),
            ("why", self.why.clone()),
            ("waiters", self.waiters.to_string()),
        ];
        let mut put = |name, value: Option<String>| fields.extend(value.map(|value| (name, value)));
        put("token", self.token.clone());
        put("session", self.session_epoch.map(|epoch| format!("{}/{epoch}", self.owner_id)));
        put("under it", self.under_transaction_id.as_ref().map(|id| format!("transaction {id}")));
        put("place", Some(self.wait_position).filter(|place| *place > 0).map(|place| place.to_string()));
        let blockers: Vec<_> =
            self.blockers.iter().map(|b| format!("{} {}: {}", b.kind, b.id, b.description)).collect();
        put("waits for", Some(blockers.join("; ")).filter(|text| !text.is_empty()));
        fields
    }
}
