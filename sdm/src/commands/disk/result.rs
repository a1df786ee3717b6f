//! What the commands on disks print: the transaction, and the disk as it is afterwards.

use super::shown::disk_of;
use crate::context::Context;
use crate::output::Report;
use crate::output::bytes_text;
use crate::views::DiskView;
use crate::views::TransactionView;
use sdm_proto::wire::v1;
use serde::Serialize;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A new disk.
    Create,
    /// A disk from a file, or a copy of one.
    Import,
    /// A disk in another domain.
    Move,
    /// A new disk from another one.
    Clone,
    /// The same disk, changed.
    Change,
    /// A disk that is gone.
    Delete,
}

/// The result.
#[derive(Serialize)]
pub struct DiskResult {
    #[serde(skip)]
    verb: Verb,
    /// The transaction.
    pub transaction: TransactionView,
    /// The disk as it is now; null while the transaction goes on, and when there is none any more.
    pub disk: Option<DiskView>,
    /// linked or full, and why that; null of what is no clone.
    clone_kind: Option<&'static str>,
    clone_reason: Option<String>,
}

impl DiskResult {
    /// Asks for the disk that the transaction made. Should that fail, the transaction is told alone:
    /// it is what the user asked for.
    pub async fn of(context: &Context, verb: Verb, txn: v1::Transaction) -> Self {
        let made = txn.outcome.as_ref().map(|outcome| outcome.disk_id.clone()).filter(|id| !id.is_empty());
        let disk = match made {
            Some(id) if verb != Verb::Delete => disk_of(context, &id).await.ok(),
            _ => None,
        };
        Self { verb, transaction: txn.into(), disk, clone_kind: None, clone_reason: None }
    }

    /// The same of a clone of this kind.
    #[must_use]
    pub fn cloned(mut self, kind: Option<&'static str>, why: &str) -> Self {
        self.clone_kind = kind;
        self.clone_reason = kind.map(|_| why.to_owned());
        self
    }

    fn verified(&self) -> String {
        let Some(outcome) = &self.transaction.outcome else { return String::new() };
        match &outcome.blake3 {
            Some(hash) => format!(", verified by BLAKE3 {hash}"),
            None => String::new(),
        }
    }
}

impl Report for DiskResult {
    fn text(&self) -> String {
        let txn = &self.transaction;
        if txn.phase != "committed" {
            return format!("transaction {} is {}; look: sdm txn show {0}\n", txn.id, txn.phase);
        }
        let Some(disk) = &self.disk else { return format!("done: {}\n", txn.summary) };
        let (name, domain, format) = (&disk.name, &disk.domain, &disk.format);
        let size = bytes_text(disk.virtual_size);
        match self.verb {
            Verb::Move => format!("disk {name} is on {domain} ({size}{})\n", self.verified()),
            Verb::Import => {
                format!("disk {name} is on {domain} ({format}, {size}{})   id {}\n", self.verified(), disk.id)
            }
            Verb::Clone => {
                let kind = self.clone_kind.unwrap_or("new");
                let why = self.clone_reason.as_deref().unwrap_or_default();
                format!("disk {name} is on {domain} ({format}, {size}), a {kind} clone: {why}   id {}\n", disk.id)
            }
            Verb::Change => format!("done: {}\ndisk {name} is on {domain} ({format}, {size})\n", txn.summary),
            Verb::Create | Verb::Delete => format!("disk {name} is on {domain} ({format}, {size})   id {}\n", disk.id),
        }
    }
}
