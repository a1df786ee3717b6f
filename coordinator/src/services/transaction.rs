//! `TransactionService`: showing transactions and watching them. A watch may be asked again at any
//! other member: all of it is derived from the state.

use crate::core::Core;
use crate::services::call::Call;
use crate::services::mutation::Begun;
use crate::services::noop;
use crate::services::page::Page;
use crate::services::present;
use crate::services::progress::ProgressReader;
use crate::services::resolve;
use crate::services::transaction_watch::TransactionWatch;
use futures_util::Stream;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::transaction_service_server::TransactionService;
use sdm_state::Command;
use sdm_state::State;
use sdm_state::txns::Phase;
use sdm_state::txns::Txn;
use std::pin::Pin;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// The service.
#[derive(Clone)]
pub struct TransactionApi {
    core: Core,
    progress: ProgressReader,
}

impl TransactionApi {
    /// Over this member's core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { progress: ProgressReader::new(core.clone()), core }
    }

    async fn get(&self, request: v1::GetTransactionRequest) -> Result<v1::GetTransactionResponse, Refusal> {
        let id = resolve::txn_id(&request.id)?;
        let view = Call::begin(&self.core).read().await?;
        let state = &view.state;
        let txn = state.txns.get(&id).ok_or_else(|| resolve::unknown_txn(state, id))?;
        Ok(v1::GetTransactionResponse {
            transaction: Some(present::transaction(state, txn)),
            revision: state.applied_index(),
            clock_ms: self.core.shown_clock_ms(state),
        })
    }

    async fn list(&self, request: v1::ListTransactionsRequest) -> Result<v1::ListTransactionsResponse, Refusal> {
        let mut asked = request.page.clone().unwrap_or_default();
        if request.with_history {
            asked.page_size = asked.page_size.clamp(1, STORIES_MAX);
        }
        let page = Page::<u64>::parse("transactions", Some(&asked))?;
        let view = Call::begin(&self.core).read().await?;
        let state = &view.state;
        let rows = state
            .txns_from(page.first_key())
            .filter(|txn| wanted(&request, txn, state.meta.clock_ms))
            .map(|txn| (txn.began_index, txn));
        let (rows, next) = page.take(rows, state.applied_index());
        let show = if request.with_history { present::transaction } else { present::without_history };
        let items = rows.into_iter().map(|txn| show(state, txn)).collect();
        Ok(v1::ListTransactionsResponse { items, page: Some(next), clock_ms: self.core.shown_clock_ms(state) })
    }

    async fn watch(&self, request: v1::WatchTransactionRequest) -> Result<TransactionWatch, Refusal> {
        let id = resolve::txn_id(&request.id)?;
        let view = Call::begin(&self.core).read().await?;
        if !view.state.txns.contains(&id) {
            return Err(resolve::unknown_txn(&view.state, id));
        }
        Ok(TransactionWatch::new(self.core.clone(), self.progress.clone(), id))
    }
}

/// Transactions of one page that are told with their histories: those are bounded, and so is a message.
const STORIES_MAX: u32 = 100;

/// Longest reason of an abort, in bytes; it stands in the transaction's history for as long as that.
const REASON_BYTES_MAX: usize = 1024;

impl TransactionApi {
    async fn abort(&self, request: v1::AbortTransactionRequest) -> Result<v1::AbortTransactionResponse, Refusal> {
        let txn = resolve::txn_id(&request.id)?;
        if request.reason.len() > REASON_BYTES_MAX {
            let message = format!("the reason has {} bytes, at most {REASON_BYTES_MAX} are kept", request.reason.len());
            return Err(Refusal::new(Class::Invalid, "REASON_TOO_LONG", message).hint("shorten the reason"));
        }
        if request.dry_run {
            let view = Call::begin(&self.core).read().await?;
            let state = &view.state;
            let row = state.txns.get(&txn).ok_or_else(|| resolve::unknown_txn(state, txn))?;
            let would = would_abort(state, row);
            return Ok(v1::AbortTransactionResponse { transaction: Some(present::transaction(state, row)), would });
        }
        let answered = Call::begin(&self.core).propose(Command::Abort { txn, reason: request.reason }).await?;
        let state = &answered.view.state;
        let row = state.txns.get(&txn).ok_or_else(|| resolve::unknown_txn(state, txn))?;
        let transaction = Some(present::transaction(state, row));
        Ok(v1::AbortTransactionResponse { transaction, would: Vec::new() })
    }

    async fn retry(&self, request: v1::RetryTransactionRequest) -> Result<v1::RetryTransactionResponse, Refusal> {
        let txn = resolve::txn_id(&request.id)?;
        let by: String = request.initiator.chars().filter(|c| !c.is_control()).take(REASON_BYTES_MAX / 16).collect();
        if request.dry_run {
            let view = Call::begin(&self.core).read().await?;
            let state = &view.state;
            state.check_retry(txn)?;
            let row = state.txns.get(&txn).ok_or_else(|| resolve::unknown_txn(state, txn))?;
            let would = vec![format!("transaction {txn} would be tried at once: {}", row.summary)];
            return Ok(v1::RetryTransactionResponse { transaction: Some(present::transaction(state, row)), would });
        }
        let answered = Call::begin(&self.core).propose(Command::RetryTxn { txn, by }).await?;
        let state = &answered.view.state;
        let row = state.txns.get(&txn).ok_or_else(|| resolve::unknown_txn(state, txn))?;
        let transaction = Some(present::transaction(state, row));
        Ok(v1::RetryTransactionResponse { transaction, would: Vec::new() })
    }
}

/// Whether a list that was asked for so shows it.
fn wanted(request: &v1::ListTransactionsRequest, txn: &Txn, now_ms: u64) -> bool {
    let of_object = |object: &String| {
        object == &request.object || object.split_once('/').is_some_and(|(_, name)| name == request.object)
    };
    !(request.open_only && txn.phase.is_final())
        && txn.spec.kind().starts_with(&request.kind)
        && (request.object.is_empty() || txn.objects.iter().any(of_object))
        && (request.within_ms == 0 || now_ms.saturating_sub(txn.began_ms) <= request.within_ms)
        && txn.initiator.contains(&request.actor)
}

/// What an abort would do, in words.
fn would_abort(state: &State, txn: &Txn) -> Vec<String> {
    if let Some(why) = present::aborted_later(state, txn) {
        return vec![format!("transaction {} would not be aborted at once: {why}", txn.id)];
    }
    let mut lines = match &txn.phase {
        Phase::Committed(_) => vec![format!("transaction {} is committed: an abort would be refused", txn.id)],
        Phase::Aborted(_) | Phase::Refused(_) => vec![format!("nothing: transaction {} is over", txn.id)],
        Phase::Waiting { .. } => vec![format!("transaction {} would stop waiting: {}", txn.id, txn.summary)],
        Phase::Running => vec![format!("transaction {} would be aborted: {}", txn.id, txn.summary)],
    };
    if let Some(attempt) = present::current_work(state, txn).and_then(|work| work.attempt.as_ref()) {
        let worker = state.worker_word(attempt.worker);
        lines.push(format!(
            "attempt {} at worker {worker} would be closed; what it made becomes garbage",
            attempt.number
        ));
    }
    if let Some(lock) = txn.lock.and_then(|id| state.locks.get(&id)) {
        lines.push(format!("its locks would be released: {}", state.resources_in_words(lock)));
    }
    lines
}

#[tonic::async_trait]
impl TransactionService for TransactionApi {
    type WatchTransactionStream = Pin<Box<dyn Stream<Item = Result<v1::WatchTransactionResponse, Status>> + Send>>;

    async fn get_transaction(
        &self,
        request: Request<v1::GetTransactionRequest>,
    ) -> Result<Response<v1::GetTransactionResponse>, Status> {
        self.get(request.into_inner()).await.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    async fn list_transactions(
        &self,
        request: Request<v1::ListTransactionsRequest>,
    ) -> Result<Response<v1::ListTransactionsResponse>, Status> {
        self.list(request.into_inner()).await.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    async fn abort_transaction(
        &self,
        request: Request<v1::AbortTransactionRequest>,
    ) -> Result<Response<v1::AbortTransactionResponse>, Status> {
        self.abort(request.into_inner()).await.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    async fn retry_transaction(
        &self,
        request: Request<v1::RetryTransactionRequest>,
    ) -> Result<Response<v1::RetryTransactionResponse>, Status> {
        self.retry(request.into_inner()).await.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    async fn begin_noop(
        &self,
        request: Request<v1::BeginNoopRequest>,
    ) -> Result<Response<v1::BeginNoopResponse>, Status> {
        let begun = noop::begin(&self.core, request.into_inner()).await;
        let answer = begun.map(|Begun { transaction, plan }| v1::BeginNoopResponse { transaction, plan });
        answer.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    async fn watch_transaction(
        &self,
        request: Request<v1::WatchTransactionRequest>,
    ) -> Result<Response<Self::WatchTransactionStream>, Status> {
        let watch = self.watch(request.into_inner()).await.map_err(|refusal| to_status(&refusal))?;
        Ok(Response::new(Box::pin(watch.into_stream())))
    }
}
