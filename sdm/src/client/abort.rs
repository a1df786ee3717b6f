//! Ending a transaction that has no outcome yet, for an operator who asks for it and for a command
//! that cannot do its own part any more.

use super::Cluster;
use super::mutation::initiator;
use crate::output::Failure;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::transaction_service_client::TransactionServiceClient;
use std::time::Duration;

/// How long a command that failed tries to end its transaction: the failure is what the user waits
/// for, and the transaction also ends by itself.
const OWN_ABORT_PATIENCE: Duration = Duration::from_secs(3);

/// Aborts a transaction; who asks is added to the reason. A repetition changes nothing.
///
/// # Errors
/// There is none, it is committed, or no member answers.
pub async fn abort(cluster: &Cluster, id: &str, reason: &str) -> Result<v1::Transaction, Failure> {
    let by = format!("by {}", initiator());
    let reason = if reason.is_empty() { by } else { format!("{reason} ({by})") };
    let request = v1::AbortTransactionRequest { id: id.to_owned(), reason, dry_run: false };
    let answer = cluster.call(async |link| {
        let mut client = TransactionServiceClient::new(link).max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
        client.abort_transaction(request.clone()).await
    });
    let missing = || Failure::new(Class::Internal, "EMPTY_ANSWER", "the member's answer holds no transaction");
    answer.await?.transaction.ok_or_else(missing).map_err(|failure| failure.of_request(id))
}

/// Ends the command's own transaction, as well as that goes in a short time; answers with whether it
/// has ended.
pub async fn abort_own(cluster: &Cluster, id: &str, why: &Failure) -> bool {
    let reason = format!("its command failed: [{}]", why.refusal.reason);
    let answer = tokio::time::timeout(OWN_ABORT_PATIENCE, abort(cluster, id, &reason)).await;
    matches!(answer, Ok(Ok(txn)) if matches!(txn.phase.as_str(), "aborted" | "refused"))
}
