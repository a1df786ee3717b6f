//! An attachment as it is printed.

use super::list::Row;
use crate::output::or_dash;
use sdm_proto::wire::v1;
use serde::Serialize;

/// A host's right to use a disk.
#[derive(Serialize)]
pub struct AttachmentView {
    /// Its id, and the fencing token of its grant.
    pub token: String,
    /// Id of the disk.
    pub disk_id: String,
    /// The disk's name.
    pub disk: String,
    /// Id of the host's worker.
    pub worker_id: String,
    /// That worker's name.
    pub worker: String,
    /// read or write.
    pub access: String,
    /// The client's session that it is for; null: until it is detached.
    pub session_id: Option<String>,
    /// attached or unfenced.
    pub state: String,
    /// Cluster clock, milliseconds.
    pub since_ms: u64,
    /// Cluster clock, milliseconds; null unless it is unfenced.
    pub unfenced_since_ms: Option<u64>,
    /// What for.
    pub reason: String,
    /// Who asked.
    pub by: String,
    /// The transaction that gave it.
    pub transaction_id: String,
    /// The leaf's file as the host sees it.
    pub path: String,
    /// raw or qcow2: the host must not guess it.
    pub format: String,
    /// The next command of whoever wants it to end.
    pub hint: String,
}

impl AttachmentView {
    /// A token as text.
    #[must_use]
    pub fn token_text(token: v1::Token) -> String {
        format!("{}-{}-{}", token.epoch, token.index, token.ordinal)
    }
}

impl From<v1::Attachment> for AttachmentView {
    fn from(at: v1::Attachment) -> Self {
        let access = match at.access() {
            v1::AttachmentAccess::Read => "read",
            v1::AttachmentAccess::Write => "write",
            v1::AttachmentAccess::Unspecified => "",
        };
        Self {
            access: access.to_owned(),
            token: at.token.map(Self::token_text).unwrap_or_default(),
            disk_id: at.disk_id,
            disk: at.disk,
            worker_id: at.worker_id,
            worker: at.worker,
            session_id: Some(at.session_id).filter(|id| !id.is_empty()),
            state: at.state,
            since_ms: at.since_ms,
            unfenced_since_ms: Some(at.unfenced_since_ms).filter(|at| *at > 0),
            reason: at.reason,
            by: at.by,
            transaction_id: at.transaction_id,
            path: at.path,
            format: at.format,
            hint: at.hint,
        }
    }
}

impl Row for AttachmentView {
    const HEADINGS: &'static [&'static str] =
        &["DISK", "HOST", "ACCESS", "STATE", "OWNER", "TOKEN", "BY", "WHY", "FORMAT", "PATH"];
    const FIRST: &'static str = "give a host the right to use a disk: sdm disk attach DISK --host WORKER";

    fn cells(&self) -> Vec<String> {
        vec![
            self.disk.clone(),
            self.worker.clone(),
            self.access.clone(),
            self.state.clone(),
            self.session_id.as_ref().map_or_else(|| "durable".to_owned(), |id| format!("session {id}")),
            self.token.clone(),
            or_dash(&self.by),
            or_dash(&self.reason),
            self.format.clone(),
            or_dash(&self.path),
        ]
    }
}
