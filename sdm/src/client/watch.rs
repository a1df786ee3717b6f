//! A transaction as it changes, whichever member tells: when the stream breaks or falls silent, it is
//! asked for again at the next endpoint.

use super::Cluster;
use super::Link;
use super::cluster_error::Passed;
use super::cluster_error::Verdict;
use super::cluster_error::WAITING_PATIENCE;
use super::cluster_error::WATCH_SILENCE;
use super::cluster_error::judge;
use super::cluster_error::nobody_answered;
use crate::output::ExitCode;
use crate::output::Failure;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::WatchTransactionResponse;
use sdm_proto::wire::v1::transaction_service_client::TransactionServiceClient;
use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;
use tonic::Status;
use tonic::Streaming;

/// Pause before the next endpoint is asked.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// What a watch tells.
pub enum Told {
    /// The transaction now.
    Update(Box<WatchTransactionResponse>),
    /// The member that told does so no longer: its address, and why.
    MemberLost(String, String),
}

/// One transaction, watched.
pub struct TransactionWatch<'a> {
    cluster: &'a Cluster,
    id: String,
    stream: Option<Open>,
    silent_since: Instant,
    passed: BTreeMap<String, Passed>,
}

struct Open {
    at: usize,
    address: String,
    stream: Streaming<WatchTransactionResponse>,
}

impl<'a> TransactionWatch<'a> {
    /// Begins to watch; nothing is asked before the first `next`.
    #[must_use]
    pub fn new(cluster: &'a Cluster, id: &str) -> Self {
        Self { cluster, id: id.to_owned(), stream: None, silent_since: Instant::now(), passed: BTreeMap::new() }
    }

    /// What is told next. May be dropped while it waits, without losing an update that matters: the
    /// next one holds the whole transaction again.
    ///
    /// # Errors
    /// A member refused, or no endpoint has served for a minute.
    pub async fn next(&mut self) -> Result<Told, Failure> {
        loop {
            let Some(open) = &mut self.stream else {
                self.open().await?;
                continue;
            };
            let told = tokio::time::timeout(WATCH_SILENCE, open.stream.message()).await;
            let (at, address) = (open.at, open.address.clone());
            let status = match told {
                Ok(Ok(Some(update))) => {
                    self.silent_since = Instant::now();
                    self.passed.clear();
                    return Ok(Told::Update(Box::new(update)));
                }
                // The member ended the stream although the transaction goes on: it is stopping.
                Ok(Ok(None)) => Status::unavailable("it ended the watch"),
                Ok(Err(status)) => status,
                Err(_) => {
                    // Perhaps there is nothing to tell. Asking elsewhere finds out, without a word.
                    self.stream = None;
                    self.cluster.pass_over(at);
                    continue;
                }
            };
            self.stream = None;
            let cause = self.passed_over(at, &address, Some(&status), WATCH_SILENCE)?;
            return Ok(Told::MemberLost(address, cause));
        }
    }

    async fn open(&mut self) -> Result<(), Failure> {
        let Some((at, address, link)) = self.cluster.current_link() else {
            return Err(nobody_answered(&[]).into());
        };
        let address = address.to_owned();
        match tokio::time::timeout(limits::CALL_TIMEOUT, ask(link, self.id.clone())).await {
            Ok(Ok(stream)) => {
                self.stream = Some(Open { at, address, stream });
                return Ok(());
            }
            Ok(Err(status)) => self.passed_over(at, &address, Some(&status), limits::CALL_TIMEOUT)?,
            Err(_) => self.passed_over(at, &address, None, limits::CALL_TIMEOUT)?,
        };
        if self.silent_since.elapsed() >= WAITING_PATIENCE {
            let passed: Vec<_> = self.passed.values().cloned().collect();
            return Err(self.detached(nobody_answered(&passed)));
        }
        tokio::time::sleep(RETRY_PAUSE).await;
        Ok(())
    }

    fn passed_over(
        &mut self,
        at: usize,
        address: &str,
        status: Option<&Status>,
        waited: Duration,
    ) -> Result<String, Failure> {
        match judge(address, status, waited) {
            Verdict::Final(refusal) => Err(Failure::from(refusal).of_request(&self.id)),
            Verdict::PassOver(passed) => {
                self.cluster.pass_over(at);
                let cause = passed.refusal.message.clone();
                self.passed.insert(address.to_owned(), passed);
                Ok(cause)
            }
        }
    }

    fn detached(&self, mut refusal: Refusal) -> Failure {
        refusal.hint = format!("the transaction goes on; look when a member answers: sdm txn show {}", self.id);
        Failure::from(refusal).of_request(&self.id)
    }
}

async fn ask(link: Link, id: String) -> Result<Streaming<WatchTransactionResponse>, Status> {
    let request = v1::WatchTransactionRequest { id };
    let mut client = TransactionServiceClient::new(link).max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
    client.watch_transaction(request).await.map(tonic::Response::into_inner)
}

/// How a transaction ended: None while it goes on.
#[must_use]
pub fn outcome_of(txn: &v1::Transaction) -> Option<Result<(), Failure>> {
    let refusal = || match &txn.refusal {
        Some(refusal) => Refusal::from(refusal),
        None => {
            let message = format!("{} was {}: {}", txn.summary, txn.phase, txn.phase_reason);
            Refusal::new(Class::Aborted, "ABORTED", message)
        }
    };
    match txn.phase.as_str() {
        "committed" => Some(Ok(())),
        "aborted" | "refused" => Some(Err(failure_of(txn, refusal()))),
        _ => None,
    }
}

fn failure_of(txn: &v1::Transaction, mut refusal: Refusal) -> Failure {
    if refusal.hint.is_empty() {
        refusal.hint = format!("what happened: sdm txn show {}", txn.id);
    }
    // The operation ended. That nobody could be reached in it is not "try another endpoint", and that
    // its time was over does not mean that it goes on.
    let ending = match refusal.class {
        Class::Timeout if refusal.reason == "LOCK_WAIT_OVER" => Some(ExitCode::Precondition),
        Class::Timeout | Class::Unavailable => Some(ExitCode::Aborted),
        _ => None,
    };
    let failure = Failure::from(refusal).of_request(&txn.id);
    match ending {
        Some(code) => failure.ending(code),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txn(phase: &str, refusal: Option<v1::Refusal>) -> v1::Transaction {
        v1::Transaction { id: "6b1e".into(), phase: phase.into(), refusal, ..Default::default() }
    }

    fn code(txn: &v1::Transaction) -> Option<u8> {
        outcome_of(txn).map(|outcome| outcome.err().map_or(0, |failure| failure.exit_code.number()))
    }

    #[test]
    fn a_transaction_ends_with_the_code_of_its_refusal() {
        let refusal = |class: &str| {
            Some(v1::Refusal { class: class.into(), reason: "X".into(), message: "x".into(), ..Default::default() })
        };
        assert_eq!(code(&txn("running", None)), None);
        assert_eq!(code(&txn("waiting", None)), None);
        assert_eq!(code(&txn("committed", None)), Some(0));
        assert_eq!(code(&txn("aborted", None)), Some(8));
        assert_eq!(code(&txn("aborted", refusal("exhausted"))), Some(7));
        assert_eq!(code(&txn("refused", refusal("precondition"))), Some(5));
        assert_eq!(code(&txn("aborted", refusal("unavailable"))), Some(8));
        assert_eq!(code(&txn("aborted", refusal("timeout"))), Some(8));
        let waited = v1::Refusal { class: "timeout".into(), reason: "LOCK_WAIT_OVER".into(), ..Default::default() };
        assert_eq!(code(&txn("refused", Some(waited))), Some(5));
    }

    #[test]
    fn an_abort_without_a_hint_points_to_its_story() {
        let failure = outcome_of(&txn("aborted", None)).and_then(Result::err).unwrap();
        assert_eq!(failure.refusal.hint, "what happened: sdm txn show 6b1e");
        assert_eq!(failure.request_id.as_deref(), Some("6b1e"));
    }
}
