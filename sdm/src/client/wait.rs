//! Waiting for the outcome of a transaction that needs nobody's help, with its progress shown to people.

use super::Cluster;
use super::TransactionWatch;
use super::watch::Told;
use super::watch::outcome_of;
use crate::output::Failure;
use crate::output::Format;
use crate::output::Progress;
use sdm_proto::wire::v1;

/// Waits until the transaction has ended and answers with it.
///
/// # Errors
/// It was refused or aborted, or nobody can tell any more.
pub async fn wait_for_outcome(
    cluster: &Cluster,
    begun: v1::Transaction,
    label: &str,
    format: Format,
) -> Result<v1::Transaction, Failure> {
    if let Some(outcome) = outcome_of(&begun) {
        return outcome.map(|()| begun);
    }
    let mut progress = Progress::begin(label, format);
    let mut watch = TransactionWatch::new(cluster, &begun.id);
    loop {
        let update = match watch.next().await? {
            Told::MemberLost(address, cause) => {
                progress.note(&format!("member at {address} no longer tells ({cause}); asking the next one"));
                continue;
            }
            Told::Update(update) => update,
        };
        let Some(txn) = update.transaction else { continue };
        if let Some(outcome) = outcome_of(&txn) {
            progress.end();
            return outcome.map(|()| txn);
        }
        show(&mut progress, &txn, update.progress.as_ref());
    }
}

/// Shows where a transaction stands: its bytes while there are any, else its phase.
pub fn show(progress: &mut Progress, txn: &v1::Transaction, live: Option<&v1::JobProgress>) {
    match live.filter(|live| live.total_bytes > 0) {
        Some(live) => {
            let attempt = if live.attempt > 1 { format!(" (attempt {})", live.attempt) } else { String::new() };
            let phase = format!("{}{attempt}", live.phase);
            progress.bytes(&phase, live.done_bytes, live.total_bytes, live.bytes_per_second);
        }
        None if txn.phase_reason.is_empty() => progress.state(&txn.phase),
        None => progress.state(&format!("{}: {}", txn.phase, txn.phase_reason)),
    }
}
