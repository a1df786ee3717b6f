//! One transaction told from its beginning: what `sdm txn show` prints.

use super::TransactionView;
use super::list::fields_text;
use crate::output::Report;
use crate::output::age_text;
use crate::output::bytes_text;
use crate::output::clock_text;
use crate::output::one_line;
use crate::output::or_dash;
use serde::Serialize;
use std::fmt::Write as _;

/// A transaction with its history and the clock of that view.
#[derive(Serialize)]
pub struct TransactionStory {
    /// All of it.
    #[serde(flatten)]
    pub transaction: TransactionView,
    /// The cluster's clock in milliseconds, for ages.
    pub clock_ms: u64,
}

type Field = (&'static str, String);

impl TransactionStory {
    fn header(&self) -> Vec<Field> {
        let txn = &self.transaction;
        let mut fields = vec![
            ("txn", txn.id.clone()),
            ("what", format!("{}   ({})", txn.what(), txn.kind)),
            ("phase", format!("{}   {}", txn.phase, txn.phase_reason)),
            ("asked by", or_dash(&txn.initiator)),
            ("began", self.began()),
        ];
        let mut put = |name, value: String| {
            if !value.is_empty() {
                fields.push((name, value));
            }
        };
        put("reason", txn.reason.clone());
        if txn.finished_ms > 0 {
            let took = age_text(txn.finished_ms.saturating_sub(txn.began_ms));
            put("ended", format!("{}   after {took}", clock_text(txn.finished_ms, self.clock_ms)));
        } else {
            if let Some(standing) = &txn.standing {
                put("stands", standing.words());
                put("awaits", standing.awaits.clone());
            }
            if txn.deadline_ms > 0 {
                put("deadline", clock_text(txn.deadline_ms, self.clock_ms));
            }
            if txn.retry_at_ms > 0 {
                put("next try", clock_text(txn.retry_at_ms, self.clock_ms));
            }
        }
        put("objects", txn.objects.join("  "));
        put("locks", txn.locks.join("  "));
        put("job", txn.job_id.clone().unwrap_or_default());
        put("attempt", self.attempt());
        put("last error", txn.last_error.clone());
        put(
            "under",
            txn.under_token.as_ref().map(|token| format!("the client's lock with token {token}")).unwrap_or_default(),
        );
        put("next", txn.standing.as_ref().map(|standing| standing.next_commands.join("   ")).unwrap_or_default());
        put("result", self.outcome());
        fields
    }

    fn began(&self) -> String {
        let ago = clock_text(self.transaction.began_ms, self.clock_ms);
        match &self.transaction.began_at {
            Some(at) => format!("{at}   {ago}"),
            None => ago,
        }
    }

    fn attempt(&self) -> String {
        let Some(attempt) = &self.transaction.attempt else { return String::new() };
        let source = attempt.source_worker.as_ref().map(|source| format!(", pulls from {source}")).unwrap_or_default();
        let durable = if attempt.total_bytes > 0 {
            format!(", {} of {} durable", bytes_text(attempt.checkpoint_bytes), bytes_text(attempt.total_bytes))
        } else {
            String::new()
        };
        format!("{} (token {}) on worker {}{source}{durable}", attempt.number, attempt.token, attempt.worker)
    }

    fn outcome(&self) -> String {
        let Some(outcome) = &self.transaction.outcome else { return String::new() };
        let parts = [
            ("domain", &outcome.domain_id),
            ("disk", &outcome.disk_id),
            ("placement", &outcome.placement_id),
            ("BLAKE3", &outcome.blake3),
            ("attachment", &outcome.attachment),
            ("worker", &outcome.worker_id),
        ];
        let mut text: Vec<String> =
            parts.iter().filter_map(|(name, id)| id.as_ref().map(|id| format!("{name} {id}"))).collect();
        if outcome.bytes > 0 {
            text.push(bytes_text(outcome.bytes));
        }
        text.join("  ")
    }
}

impl Report for TransactionStory {
    fn text(&self) -> String {
        let txn = &self.transaction;
        let mut text = fields_text(&self.header());
        if let Some(refusal) = &txn.refusal {
            // Writing to a String cannot fail, here and below.
            let (message, reason) = (one_line(&refusal.message), one_line(&refusal.reason));
            _ = writeln!(text, "{:<10}  {message}   [{reason}]", one_line(&txn.phase));
            for blocker in &refusal.blockers {
                let line = format!("{} {}: {}", blocker.kind, blocker.id, blocker.description);
                _ = writeln!(text, "  - {}", one_line(&line));
            }
            if !refusal.hint.is_empty() {
                _ = writeln!(text, "{:<10}  {}", "hint", one_line(&refusal.hint));
            }
        }
        if !txn.history.is_empty() {
            text.push_str("history\n");
        }
        for event in &txn.history {
            let since = format!("+{}", age_text(event.at_ms.saturating_sub(txn.began_ms)));
            _ = writeln!(text, "  {since:>8}  entry {:<6}  {}", event.index, one_line(&event.text));
        }
        text
    }
}
