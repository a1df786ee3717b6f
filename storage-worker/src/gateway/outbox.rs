//! Reports and domain states that the cluster is to learn. Only the newest of each kind counts. A
//! token's last word is repeated until the supervisor forgets the token, which it does when a set no
//! longer names it.

use sdm_proto::wire::internal::v1::DomainReport;
use sdm_proto::wire::internal::v1::DomainReports;
use sdm_proto::wire::internal::v1::Report;
use sdm_proto::wire::internal::v1::WorkerMessage;
use sdm_proto::wire::internal::v1::report::Outcome;
use sdm_proto::wire::internal::v1::worker_message::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use tokio::sync::Notify;

/// A report may be lost with its member or its leader; this often it is sent again.
const REPEAT_MS: u64 = 2_000;

/// States that are not the last word are repeated less often: they change nothing that waits.
const REPEAT_STATE_MS: u64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Checkpoint,
    Sender,
    LastWord,
}

fn slot_of(outcome: &Outcome) -> Slot {
    match outcome {
        Outcome::Checkpoint(_) => Slot::Checkpoint,
        Outcome::Sender(_) => Slot::Sender,
        Outcome::Done(_) | Outcome::Refused(_) | Outcome::Failed(_) | Outcome::Stopped(_) => Slot::LastWord,
    }
}

#[derive(Debug)]
struct Pending {
    report: Report,
    sent_ms: Option<u64>,
}

impl Pending {
    fn due_ms(&self, slot: Slot) -> u64 {
        let repeat = if slot == Slot::LastWord { REPEAT_MS } else { REPEAT_STATE_MS };
        self.sent_ms.map_or(0, |sent| sent + repeat)
    }
}

#[derive(Debug, Default)]
struct Content {
    sequence: u64,
    reports: BTreeMap<(String, Slot), Pending>,
    domains: BTreeMap<String, DomainReport>,
    domains_to_send: BTreeMap<String, ()>,
}

impl Content {
    fn forget(&mut self, token: &str) {
        for slot in [Slot::Checkpoint, Slot::Sender, Slot::LastWord] {
            self.reports.remove(&(token.to_owned(), slot));
        }
    }
}

/// The shared outbox: the supervisor fills it, the gateway empties it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox {
    content: Arc<Mutex<Content>>,
    filled: Arc<Notify>,
}

impl Outbox {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has this reported. A last word replaces everything said before about the token.
    pub(crate) fn report(&self, token: &str, outcome: Outcome) {
        let mut content = self.content();
        content.sequence += 1;
        let slot = slot_of(&outcome);
        if slot == Slot::LastWord {
            content.forget(token);
        }
        let report = Report { token: token.to_owned(), sequence: content.sequence, outcome: Some(outcome) };
        content.reports.insert((token.to_owned(), slot), Pending { report, sent_ms: None });
        drop(content);
        self.filled.notify_one();
    }

    /// The cluster no longer asks about this token.
    pub(crate) fn forget(&self, token: &str) {
        self.content().forget(token);
    }

    /// Has a domain's state reported.
    pub(crate) fn domain(&self, report: DomainReport) {
        let mut content = self.content();
        content.sequence += 1;
        let report = DomainReport { sequence: content.sequence, ..report };
        content.domains_to_send.insert(report.domain_id.clone(), ());
        content.domains.insert(report.domain_id.clone(), report);
        drop(content);
        self.filled.notify_one();
    }

    /// The domain is probed no more.
    pub(crate) fn forget_domain(&self, domain_id: &str) {
        let mut content = self.content();
        content.domains.remove(domain_id);
        content.domains_to_send.remove(domain_id);
    }

    /// Everything counts as unsent: another member listens now.
    pub(super) fn rewind(&self) {
        let mut content = self.content();
        content.reports.values_mut().for_each(|pending| pending.sent_ms = None);
        content.domains_to_send = content.domains.keys().map(|id| (id.clone(), ())).collect();
    }

    /// Messages that are due, at most so many.
    pub(super) fn due(&self, now_ms: u64, limit: usize) -> Vec<WorkerMessage> {
        let mut content = self.content();
        let mut messages = Vec::new();
        if limit > 0 && !content.domains_to_send.is_empty() {
            let ids = std::mem::take(&mut content.domains_to_send);
            let items = ids.into_keys().filter_map(|id| content.domains.get(&id).cloned()).collect();
            messages.push(WorkerMessage { message: Some(Message::Domains(DomainReports { items })) });
        }
        for ((_, slot), pending) in &mut content.reports {
            if messages.len() >= limit {
                break;
            }
            if pending.due_ms(*slot) <= now_ms {
                pending.sent_ms = Some(now_ms);
                messages.push(WorkerMessage { message: Some(Message::Report(pending.report.clone())) });
            }
        }
        messages
    }

    /// When the next repetition is due.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.content().reports.iter().map(|((_, slot), pending)| pending.due_ms(*slot)).min()
    }

    /// Completes when something new was put in since the last time it completed.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdm_proto::wire::internal::v1::Checkpoint;
    use sdm_proto::wire::internal::v1::Done;

    fn sequences(outbox: &Outbox, now_ms: u64) -> Vec<u64> {
        let messages = outbox.due(now_ms, 100);
        messages
            .into_iter()
            .filter_map(|message| match message.message {
                Some(Message::Report(report)) => Some(report.sequence),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_last_word_is_repeated_with_its_sequence_until_it_is_forgotten() {
        let outbox = Outbox::default();
        outbox.report("1-2-3", Outcome::Checkpoint(Checkpoint { durable_bytes: 7 }));
        outbox.report("1-2-3", Outcome::Done(Done::default()));
        assert_eq!(sequences(&outbox, 100), [2]);
        assert!(sequences(&outbox, 101).is_empty());
        assert_eq!(outbox.next_due_ms(), Some(100 + REPEAT_MS));
        assert_eq!(sequences(&outbox, 100 + REPEAT_MS), [2]);
        outbox.forget("1-2-3");
        assert!(sequences(&outbox, 1_000_000).is_empty());
    }

    #[test]
    fn a_new_member_gets_everything_again() {
        let outbox = Outbox::default();
        outbox.report("1-2-3", Outcome::Done(Done::default()));
        outbox.domain(DomainReport { domain_id: "d".into(), ..DomainReport::default() });
        assert_eq!(outbox.due(0, 100).len(), 2);
        assert_eq!(outbox.due(0, 100).len(), 0);
        outbox.rewind();
        assert_eq!(outbox.due(0, 100).len(), 2);
    }
}
