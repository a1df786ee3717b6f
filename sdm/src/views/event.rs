//! An event of the cluster as it is printed: a line of its own, so that events can be followed.

use super::list::Row;
use crate::output::Report;
use crate::output::clock_text;
use crate::output::one_line;
use sdm_proto::wire::v1;
use serde::Serialize;

/// One event.
#[derive(Clone, Serialize)]
pub struct ClusterEventView {
    /// Log index of the entry in which it happened.
    pub index: u64,
    /// Its number within that entry.
    pub ordinal: u32,
    /// Cluster clock, milliseconds.
    pub at_ms: u64,
    /// What kind of thing: txn-finished, disk-made, worker-lost ...
    pub kind: String,
    /// To what.
    pub object: String,
    /// Whose doing; null when it is no transaction's.
    pub transaction_id: Option<String>,
    /// In words.
    pub text: String,
    #[serde(skip)]
    clock_ms: u64,
}

impl ClusterEventView {
    /// As seen at this moment of the cluster's clock.
    #[must_use]
    pub fn new(event: v1::ClusterEvent, clock_ms: u64) -> Self {
        Self {
            index: event.index,
            ordinal: event.ordinal,
            at_ms: event.at_ms,
            kind: event.kind,
            object: event.object,
            transaction_id: Some(event.transaction_id).filter(|id| !id.is_empty()),
            text: event.text,
            clock_ms,
        }
    }
}

impl Report for ClusterEventView {
    fn text(&self) -> String {
        let ago = clock_text(self.at_ms, self.clock_ms);
        let (kind, object) = (one_line(&self.kind), one_line(&self.object));
        format!("{:>7}  {ago:>10}  {kind:<17}  {object}  {}\n", self.index, one_line(&self.text))
    }
}

impl Row for ClusterEventView {
    const HEADINGS: &'static [&'static str] = &[">INDEX", ">AT", "KIND", "OBJECT", "WHAT"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.index.to_string(),
            clock_text(self.at_ms, self.clock_ms),
            self.kind.clone(),
            self.object.clone(),
            self.text.clone(),
        ]
    }
}
