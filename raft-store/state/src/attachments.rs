//! Attachments: a host's right to use a disk. While one stands, operations on the disk's data are
//! refused, with who has it and how it is given back.
//!
//! ```text
//!                    its session ended, for writing           resumed
//! attach ──▶ Attached ─────────────────────────────▶ Unfenced ───────▶ Attached
//!               │ detach, or the session ended (reading)  │ the host is fenced, confirmed down, or looked at
//!               ▼                                         ▼
//!             gone                                      gone
//! ```

use crate::catalog::Disk;
use crate::command::SessionRef;
use crate::events::Kind;
use crate::locks::BLOCKERS_SHOWN;
use crate::state::State;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::WorkerId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
use serde::Deserialize;
use serde::Serialize;

/// How a disk is used: by a host, or by an operation on its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Access {
    /// Its bytes are read.
    Read,
    /// They change.
    Write,
}

impl Access {
    /// As users read it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Whose attachment it is: how long it stays by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AttachmentOwner {
    /// A client's session; whoever opens a session with the same nonce again gets it back.
    Session {
        /// The session.
        id: u64,
        /// What its opener drew.
        nonce: String,
    },
    /// Nobody's lease: it stays until it is detached.
    Durable,
}

/// Where an attachment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttachmentState {
    /// The host may use the disk.
    Attached,
    /// Its owner is gone, and nothing proves yet that the host writes no more.
    Unfenced {
        /// Since when, on the cluster's clock.
        since_ms: u64,
    },
}

impl AttachmentState {
    /// As users read it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Unfenced { .. } => "unfenced",
        }
    }
}

/// A host's right to use a disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its id, and the fencing token of its grant.
    pub token: Token,
    /// Which disk.
    pub disk: DiskId,
    /// At which host, named by its worker.
    pub worker: WorkerId,
    /// How.
    pub access: Access,
    /// Whose.
    pub owner: AttachmentOwner,
    /// Where it stands.
    pub state: AttachmentState,
    /// When it was given, on the cluster's clock.
    pub since_ms: u64,
    /// What for, in words.
    pub why: String,
    /// Who asked, for people.
    pub by: String,
    /// The transaction that gave it.
    pub txn: TxnId,
}

impl Attachment {
    /// The client's session that it is for.
    #[must_use]
    pub fn session(&self) -> Option<u64> {
        match self.owner {
            AttachmentOwner::Session { id, .. } => Some(id),
            AttachmentOwner::Durable => None,
        }
    }

    /// Whether nothing proves that the host writes no more, although its owner is gone.
    #[must_use]
    pub fn is_unfenced(&self) -> bool {
        matches!(self.state, AttachmentState::Unfenced { .. })
    }
}

/// A change of a disk's attachments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AttachmentChange {
    /// Gives a host the right to use a disk.
    Attach {
        /// Which disk.
        disk: DiskId,
        /// At which host.
        worker: WorkerId,
        /// How.
        access: Access,
        /// For as long as this client's session; None: until it is detached.
        session: Option<SessionRef>,
    },
    /// Takes the right back.
    Detach {
        /// Which disk.
        disk: DiskId,
        /// At which host; None where there is one attachment only.
        worker: Option<WorkerId>,
        /// Somebody looked at the host and says that nothing there uses the disk any more: what an unfenced
        /// attachment needs.
        stopped: bool,
    },
}

impl AttachmentChange {
    /// The kind of its transaction as users read it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Attach { .. } => "disk-attach",
            Self::Detach { .. } => "disk-detach",
        }
    }
}

impl State {
    /// A disk's attachments, by rising token.
    pub fn attachments_of(&self, disk: DiskId) -> impl Iterator<Item = &Attachment> + '_ {
        let from = (disk, Token::default());
        let own = self.index.attachments_by_disk.range(from..).take_while(move |(of, _)| *of == disk);
        own.filter_map(|(_, token)| self.attachments.get(token))
    }

    /// The attachments at a host, by rising token.
    pub fn attachments_at(&self, worker: WorkerId) -> impl Iterator<Item = &Attachment> + '_ {
        let from = (worker, Token::default());
        let own = self.index.attachments_by_worker.range(from..).take_while(move |(at, _)| *at == worker);
        own.filter_map(|(_, token)| self.attachments.get(token))
    }

    /// Attachments that are unfenced, by rising token.
    pub fn unfenced_attachments(&self) -> impl ExactSizeIterator<Item = &Token> + '_ {
        self.index.unfenced_attachments.iter()
    }

    pub(crate) fn put_attachment(&mut self, attachment: Attachment) {
        self.tell_attachment(&attachment);
        self.unindex_attachment(attachment.token);
        if let Some(domain) = self.domain_of_attached(attachment.disk) {
            self.index.attachments_in.insert((domain, attachment.token));
        }
        let (token, index) = (attachment.token, &mut self.index);
        index.attachments_by_disk.insert((attachment.disk, token));
        index.attachments_by_worker.insert((attachment.worker, token));
        if attachment.is_unfenced() {
            index.unfenced_attachments.insert(token);
            if let AttachmentOwner::Session { nonce, .. } = &attachment.owner {
                index.unfenced_by_nonce.insert((nonce.clone(), token));
            }
        } else if let AttachmentOwner::Session { id, .. } = attachment.owner {
            index.attachments_by_session.insert((id, token));
        }
        self.attachments.put(token, attachment);
    }

    pub(crate) fn remove_attachment(&mut self, token: Token) {
        let Some(old) = self.attachments.get(&token).cloned() else { return };
        self.unindex_attachment(token);
        self.attachments.remove(&token);
        let text = format!("detached from host {}", self.worker_word(old.worker));
        self.tell(Kind::Detached, self.disk_object(old.disk), None, text);
    }

    fn unindex_attachment(&mut self, token: Token) {
        let Some(old) = self.attachments.get(&token) else { return };
        let domain = self.domain_of_attached(old.disk);
        let index = &mut self.index;
        if let Some(domain) = domain {
            index.attachments_in.remove(&(domain, token));
        }
        index.attachments_by_disk.remove(&(old.disk, token));
        index.attachments_by_worker.remove(&(old.worker, token));
        index.unfenced_attachments.remove(&token);
        if let AttachmentOwner::Session { id, nonce } = &old.owner {
            index.attachments_by_session.remove(&(*id, token));
            index.unfenced_by_nonce.remove(&(nonce.clone(), token));
        }
    }

    fn domain_of_attached(&self, disk: DiskId) -> Option<DomainId> {
        Some(self.placements.get(&self.disks.get(&disk)?.placement)?.domain)
    }

    /// The attachments of disks in a domain, by rising token.
    pub fn attachments_in(&self, domain: DomainId) -> impl Iterator<Item = &Attachment> + '_ {
        let from = (domain, Token::default());
        let own = self.index.attachments_in.range(from..).take_while(move |(of, _)| *of == domain);
        own.filter_map(|(_, token)| self.attachments.get(token))
    }

    fn tell_attachment(&mut self, attachment: &Attachment) {
        let known = self.attachments.get(&attachment.token);
        if known == Some(attachment) {
            return;
        }
        let text = self.attachment_words(attachment);
        self.tell(Kind::Attached, self.disk_object(attachment.disk), Some(attachment.txn), text);
    }

    fn disk_object(&self, disk: DiskId) -> String {
        self.disks.get(&disk).map_or_else(|| format!("disk/{disk}"), |row| format!("disk/{}", row.name))
    }

    /// Refuses an operation on the data of a disk that a host has attached: one that changes it by any
    /// attachment, one that reads it by a writing one.
    ///
    /// # Errors
    /// `ATTACHED`, with who has it and the command that gives it back.
    pub fn refuse_attached(&self, disk: &Disk, wanted: Access) -> Result<(), Refusal> {
        let in_the_way = |at: &&Attachment| wanted == Access::Write || at.access == Access::Write;
        let mut found = self.attachments_of(disk.id).filter(in_the_way).peekable();
        let Some(first) = found.peek() else { return Ok(()) };
        let message = format!("disk {} is {}", disk.name, self.attachment_words(first));
        let hint = self.way_to_detach(first, disk.name.as_str());
        let mut refusal = Refusal::new(Class::Precondition, "ATTACHED", message).hint(hint);
        for attachment in found.take(BLOCKERS_SHOWN) {
            let words = self.attachment_words(attachment);
            refusal = refusal.blocker("attachment", attachment.token.to_string(), words);
        }
        Err(refusal)
    }

    /// An attachment in words: where, how, since when, whose, why.
    #[must_use]
    pub fn attachment_words(&self, attachment: &Attachment) -> String {
        let seconds = self.meta.clock_ms.saturating_sub(attachment.since_ms) / 1000;
        let whose = match &attachment.owner {
            AttachmentOwner::Session { id, .. } => format!("for session {id}"),
            AttachmentOwner::Durable => "durably".to_owned(),
        };
        let why = if attachment.why.is_empty() { String::new() } else { format!(" ({})", attachment.why) };
        let by = if attachment.by.is_empty() { String::new() } else { format!(" by {}", attachment.by) };
        let unfenced = if attachment.is_unfenced() { ", unfenced since that session ended" } else { "" };
        format!(
            "attached to host {} for {} for {seconds} s, {whose}{by}{why}{unfenced}",
            self.worker_word(attachment.worker),
            if attachment.access == Access::Write { "writing" } else { "reading" },
        )
    }

    /// The next command of whoever wants an attachment to end.
    #[must_use]
    pub fn way_to_detach(&self, attachment: &Attachment, disk: &str) -> String {
        let host = self.worker_word(attachment.worker);
        let looked = format!("sdm disk detach {disk} --host {host} --stopped --reason TEXT");
        if !attachment.is_unfenced() && !self.may_write_lost(attachment) {
            return format!("when nothing there uses it any more: sdm disk detach {disk} --host {host}");
        }
        match self.workers.get(&attachment.worker) {
            Some(worker) if !worker.is_live() => {
                let session = worker.last_session().unwrap_or_default();
                let down = format!(
                    "when that host is down for sure: sdm worker confirm-down {host} --session {session} --reason TEXT"
                );
                if attachment.is_unfenced() {
                    return down;
                }
                format!("{down}; when it runs, and you saw that nothing there uses the disk: {looked}")
            }
            _ => format!("when nothing on that host uses it any more: {looked}"),
        }
    }

    /// Whether its host is lost, and nothing proves that a guest there writes no more.
    pub(crate) fn may_write_lost(&self, attachment: &Attachment) -> bool {
        attachment.access == Access::Write
            && self.workers.get(&attachment.worker).is_some_and(|host| {
                !host.is_live() && !self.fenced(attachment.worker, host.last_session().unwrap_or_default())
            })
    }
}
