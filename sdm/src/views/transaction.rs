//! A transaction as it is printed in lists and in JSON.

use super::AttachmentView;
use super::BlockerView;
use super::hex;
use super::list::Row;
use crate::output::or_dash;
use crate::output::utc_text;
use sdm_proto::wire::v1;
use serde::Serialize;

/// One transaction.
#[derive(Clone, Serialize)]
pub struct TransactionView {
    /// Its id: the id of the request that began it.
    pub id: String,
    /// domain-create, disk-move ...
    pub kind: String,
    /// The request in words.
    pub summary: String,
    /// Who asked.
    pub initiator: String,
    /// Why, as the user said.
    pub reason: String,
    /// waiting, running, committed, aborted or refused.
    pub phase: String,
    /// Why it is in that phase.
    pub phase_reason: String,
    /// Cluster clock, milliseconds; 0 when none, as with the following three.
    pub began_ms: u64,
    /// Wall clock of the member that took the request, milliseconds since 1970; 0 when not known.
    pub began_unix_ms: u64,
    /// The same in UTC, RFC 3339 to seconds; null when not known.
    pub began_at: Option<String>,
    /// When it ended.
    pub finished_ms: u64,
    /// Until when it may go on.
    pub deadline_ms: u64,
    /// When it is tried again.
    pub retry_at_ms: u64,
    /// What failed last; empty otherwise.
    pub last_error: String,
    /// What it works on.
    pub objects: Vec<String>,
    /// Its locks.
    pub locks: Vec<String>,
    /// The current attempt.
    pub attempt: Option<AttemptView>,
    /// How many there were.
    pub attempts: u32,
    /// Set when it was refused or aborted.
    pub refusal: Option<RefusalView>,
    /// Set when it committed.
    pub outcome: Option<OutcomeView>,
    /// Where the bytes go or come from, while they can.
    pub transfer: Option<TransferView>,
    /// What happened, oldest first; empty in lists.
    pub history: Vec<EventView>,
    /// Log index of the last change.
    pub revision: u64,
    /// The job that moves its data; null when none.
    pub job_id: Option<String>,
    /// Who has to act next, until when, and what then; null once it has its outcome.
    pub standing: Option<StandingView>,
    /// The client's token under which it was begun; null when it has locks of its own.
    pub under_token: Option<String>,
}

/// Where an open transaction stands.
#[derive(Clone, Serialize)]
pub struct StandingView {
    /// waiting_for_locks, unassigned, retrying, waiting_for_peer, running or fencing.
    pub state: String,
    owner_kind: String,
    owner: String,
    deadline_ms: u64,
    at_deadline: String,
    next_retry_ms: u64,
    attempt: u32,
    attempts_max: u32,
    last_error: String,
    waits_for: Vec<BlockerView>,
    /// What would end this state.
    pub awaits: String,
    /// What happens at its deadline is in `at_deadline`; these are for whoever does not want to wait.
    pub next_commands: Vec<String>,
}

impl From<v1::Standing> for StandingView {
    fn from(standing: v1::Standing) -> Self {
        Self {
            state: standing.state,
            owner_kind: standing.owner_kind,
            owner: standing.owner,
            deadline_ms: standing.deadline_ms,
            at_deadline: standing.at_deadline,
            next_retry_ms: standing.next_retry_ms,
            attempt: standing.attempt,
            attempts_max: standing.attempts_max,
            last_error: standing.last_error,
            waits_for: standing.waits_for.into_iter().map(BlockerView::from).collect(),
            awaits: standing.awaits,
            next_commands: standing.next_commands,
        }
    }
}

impl StandingView {
    /// Who has to act, and what comes by itself.
    pub(super) fn words(&self) -> String {
        let who = match (self.owner_kind.as_str(), self.owner.as_str()) {
            ("nobody", _) | (_, "") => self.owner_kind.clone(),
            (kind, owner) => format!("{kind} {owner}"),
        };
        let attempt = match self.attempt {
            0 => String::new(),
            attempt => format!(", attempt {attempt} of {}", self.attempts_max),
        };
        format!("{}   owner: {who}{attempt}", self.state)
    }
}

/// One attempt of a step or job.
#[derive(Clone, Serialize)]
pub struct AttemptView {
    pub(super) token: String,
    pub(super) number: u32,
    pub(super) worker_id: String,
    pub(super) worker: String,
    pub(super) source_worker: Option<String>,
    pub(super) assigned_ms: u64,
    pub(super) checkpoint_bytes: u64,
    pub(super) total_bytes: u64,
}

/// Why it was refused or aborted.
#[derive(Clone, Serialize)]
pub struct RefusalView {
    pub(super) class: String,
    /// In a word.
    pub reason: String,
    /// In words.
    pub message: String,
    pub(super) hint: String,
    pub(super) blockers: Vec<BlockerView>,
}

/// What it made.
#[derive(Clone, Serialize)]
pub struct OutcomeView {
    /// The domain; null when it made none, as with the following ones.
    pub domain_id: Option<String>,
    /// The disk.
    pub disk_id: Option<String>,
    /// Its placement.
    pub placement_id: Option<String>,
    /// Its volumes.
    pub volume_ids: Vec<String>,
    /// Bytes that were written.
    pub bytes: u64,
    /// BLAKE3 of them.
    pub blake3: Option<String>,
    /// Token of the attachment that it gave or took.
    pub attachment: Option<String>,
    /// The worker whose standing it changed.
    pub worker_id: Option<String>,
    /// The trash out of which a disk that it deleted can be put back.
    pub trash_id: Option<String>,
    /// For how long after it; 0: it cannot.
    pub kept_ms: u64,
}

/// Ticket for a byte stream.
#[derive(Clone, Serialize)]
pub struct TransferView {
    address: String,
    ticket: String,
    token: String,
    volume_id: String,
}

/// One thing that happened.
#[derive(Clone, Serialize)]
pub struct EventView {
    /// Cluster clock, milliseconds.
    pub at_ms: u64,
    /// Log index.
    pub index: u64,
    /// In words.
    pub text: String,
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl From<v1::Transaction> for TransactionView {
    fn from(txn: v1::Transaction) -> Self {
        Self {
            id: txn.id,
            kind: txn.kind,
            summary: txn.summary,
            initiator: txn.initiator,
            reason: txn.reason,
            phase: txn.phase,
            phase_reason: txn.phase_reason,
            began_ms: txn.began_ms,
            began_unix_ms: txn.began_unix_ms,
            began_at: Some(txn.began_unix_ms).filter(|ms| *ms > 0).map(utc_text),
            finished_ms: txn.finished_ms,
            deadline_ms: txn.deadline_ms,
            retry_at_ms: txn.retry_at_ms,
            last_error: txn.last_error,
            objects: txn.objects,
            locks: txn.locks,
            attempt: txn.attempt.map(AttemptView::from),
            attempts: txn.attempts,
            refusal: txn.refusal.map(RefusalView::from),
            outcome: txn.outcome.map(OutcomeView::from),
            transfer: txn.transfer.map(TransferView::from),
            history: txn.history.into_iter().map(EventView::from).collect(),
            standing: txn.standing.map(StandingView::from),
            under_token: some(txn.under_token),
            revision: txn.revision,
            job_id: some(txn.job_id),
        }
    }
}

impl From<v1::Attempt> for AttemptView {
    fn from(attempt: v1::Attempt) -> Self {
        Self {
            token: attempt.token,
            number: attempt.number,
            worker_id: attempt.worker_id,
            worker: attempt.worker,
            source_worker: some(attempt.source_worker),
            assigned_ms: attempt.assigned_ms,
            checkpoint_bytes: attempt.checkpoint_bytes,
            total_bytes: attempt.total_bytes,
        }
    }
}

impl From<v1::Refusal> for RefusalView {
    fn from(refusal: v1::Refusal) -> Self {
        Self {
            class: refusal.class,
            reason: refusal.reason,
            message: refusal.message,
            hint: refusal.hint,
            blockers: refusal.blockers.into_iter().map(BlockerView::from).collect(),
        }
    }
}

impl From<v1::Outcome> for OutcomeView {
    fn from(outcome: v1::Outcome) -> Self {
        Self {
            domain_id: some(outcome.domain_id),
            disk_id: some(outcome.disk_id),
            placement_id: some(outcome.placement_id),
            volume_ids: outcome.volume_ids,
            bytes: outcome.bytes,
            blake3: some(outcome.blake3),
            trash_id: some(outcome.trash_id),
            kept_ms: outcome.kept_ms,
            attachment: outcome.attachment.map(AttachmentView::token_text),
            worker_id: some(outcome.worker_id),
        }
    }
}

impl From<v1::Transfer> for TransferView {
    fn from(transfer: v1::Transfer) -> Self {
        let v1::Transfer { address, ticket, token, volume_id } = transfer;
        Self { address, ticket: hex(&ticket), token, volume_id }
    }
}

impl From<v1::Event> for EventView {
    fn from(event: v1::Event) -> Self {
        let v1::Event { at_ms, index, text } = event;
        Self { at_ms, index, text }
    }
}

impl TransactionView {
    /// The request in words; of one that was refused before it had any, what it would have worked on.
    pub(super) fn what(&self) -> String {
        if self.summary.is_empty() { or_dash(&self.objects.join(" ")) } else { self.summary.clone() }
    }
}

impl TransactionView {
    /// How a result names the transaction that it is of.
    #[must_use]
    pub fn mark(&self) -> String {
        format!("   txn {}", self.id)
    }
}

impl Row for TransactionView {
    const HEADINGS: &'static [&'static str] = &["TXN", "KIND", "BEGAN", "PHASE", "WHAT", "BY", "REASON", "WHY"];
    const FIRST: &'static str = "every change appears here; anything at all: sdm status";

    fn cells(&self) -> Vec<String> {
        let why = match &self.refusal {
            Some(refusal) => format!("[{}] {}", refusal.reason, refusal.message),
            None if self.last_error.is_empty() => self.phase_reason.clone(),
            None => format!("{}; last error: {}", self.phase_reason, self.last_error),
        };
        vec![
            self.id.clone(),
            self.kind.clone(),
            or_dash(self.began_at.as_deref().unwrap_or_default()),
            self.phase.clone(),
            self.what(),
            or_dash(&self.initiator),
            or_dash(&self.reason),
            why,
        ]
    }
}
