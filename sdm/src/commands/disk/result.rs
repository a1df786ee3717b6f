//! What the commands on disks print: the transaction, and the disk as it is afterwards.

use super::shown::disk_of;
use crate::context::Context;
use crate::output::Report;
use crate::output::age_text;
use crate::output::bytes_text;
use crate::output::one_line;
use crate::transfer::ContentHash;
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
    /// The file that was imported: its length and hash; null of what was no file, or is gone.
    file_bytes: Option<u64>,
    file_blake3: Option<String>,
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
        Self {
            verb,
            transaction: txn.into(),
            disk,
            clone_kind: None,
            clone_reason: None,
            file_bytes: None,
            file_blake3: None,
        }
    }

    /// The same of a clone of this kind.
    #[must_use]
    pub fn cloned(mut self, kind: Option<&'static str>, why: &str) -> Self {
        self.clone_kind = kind;
        self.clone_reason = kind.map(|_| why.to_owned());
        self
    }

    /// The same of a disk that was this file.
    #[must_use]
    pub fn of_file(mut self, content: Option<ContentHash>) -> Self {
        self.file_bytes = content.map(|content| content.bytes);
        self.file_blake3 = content.map(|content| content.file.to_hex().to_string());
        self
    }

    /// Of an import: the file's own hash, which an export gives back, and the other one that its padding has on the
    /// storage.
    fn imported(&self) -> (String, String) {
        let stored = self.transaction.outcome.as_ref().and_then(|outcome| outcome.blake3.as_deref());
        match (self.file_blake3.as_deref(), stored) {
            (Some(file), Some(stored)) if file != stored => {
                let bytes = self.file_bytes.unwrap_or_default();
                let padded =
                    format!("its {bytes} bytes are padded with zeros to a multiple of 4 KiB there: BLAKE3 {stored}\n");
                (format!(", verified by BLAKE3 {file}"), padded)
            }
            _ => (self.verified(), String::new()),
        }
    }

    /// Whether a deleted disk can be put back.
    fn way_back(&self) -> String {
        let outcome = self.transaction.outcome.as_ref();
        match outcome.and_then(|outcome| Some((outcome.trash_id.as_deref()?, outcome.kept_ms))) {
            None => "it is gone for good: its domain keeps no deleted disks (sdm domain set DOMAIN --retention 7d)\n"
                .to_owned(),
            Some((id, kept_ms)) => {
                format!("it can be put back for {}: sdm gc trash restore {id}\n", age_text(kept_ms))
            }
        }
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
        let mark = txn.mark();
        let Some(disk) = &self.disk else {
            let next = if self.verb == Verb::Delete { self.way_back() } else { String::new() };
            return format!("done: {}{mark}\n{next}", one_line(&txn.summary));
        };
        let (name, domain, format, id) = (&disk.name, &disk.domain, &disk.format, &disk.id);
        let size = bytes_text(disk.virtual_size);
        let show = format!("next: sdm disk show {name}\n");
        let attach = format!("next: sdm disk attach {name} --host WORKER\n");
        match self.verb {
            Verb::Move => format!("disk {name} is on {domain} ({size}{}){mark}\n{show}", self.verified()),
            Verb::Import => {
                let (verified, padded) = self.imported();
                format!("disk {name} is on {domain} ({format}, {size}{verified})   id {id}{mark}\n{padded}{attach}")
            }
            Verb::Clone => {
                let kind = self.clone_kind.unwrap_or("new");
                let why = self.clone_reason.as_deref().unwrap_or_default();
                format!(
                    "disk {name} is on {domain} ({format}, {size}), a {kind} clone: {why}   id {id}{mark}\n{attach}"
                )
            }
            Verb::Change => {
                format!("done: {}{mark}\ndisk {name} is on {domain} ({format}, {size})\n{show}", one_line(&txn.summary))
            }
            Verb::Create | Verb::Delete => {
                format!("disk {name} is on {domain} ({format}, {size})   id {id}{mark}\n{attach}")
            }
        }
    }
}
