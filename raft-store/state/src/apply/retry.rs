//! An operator has a transaction try again now instead of at its next retry.

use crate::apply::Turn;
use crate::reply::Reply;
use crate::state::State;
use crate::txns::Phase;
use crate::txns::Txn;
use crate::work::Owner;
use sdm_proto::ids::TxnId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

const NEW_ID: &str = "to ask for it once more, repeat the command under a new request id (sdm request-id)";

fn precondition(reason: &str, message: String, hint: String) -> Refusal {
    Refusal::new(Class::Precondition, reason, message).hint(hint)
}

impl State {
    /// The work that a retry would give to a worker now.
    ///
    /// # Errors
    /// There is no such transaction, or it does not wait for a retry: then what it waits for, and what to do.
    pub fn check_retry(&self, id: TxnId) -> Result<Owner, Refusal> {
        let txn = self.txns.get(&id).ok_or_else(|| {
            Refusal::new(Class::NotFound, "TXN_NOT_FOUND", format!("there is no transaction {id}")).hint("sdm txn list")
        })?;
        match &txn.phase {
            Phase::Committed(_) => {
                let message = format!("transaction {id} is done: {}", txn.summary);
                Err(precondition("TXN_FINAL", message, "there is nothing to retry".to_owned()))
            }
            Phase::Aborted(refusal) | Phase::Refused(refusal) => {
                let word = txn.phase.word();
                let message = format!("transaction {id} is over: {word}: {} [{}]", refusal.message, refusal.reason);
                Err(precondition("TXN_FINAL", message, NEW_ID.to_owned()))
            }
            Phase::Waiting { .. } => {
                let lock = txn.lock.unwrap_or_default();
                let message = format!("transaction {id} waits for its locks, not for a retry");
                Err(precondition(
                    "TXN_WAITS_FOR_LOCKS",
                    message,
                    format!("see who holds them: sdm lock explain {lock}"),
                ))
            }
            Phase::Running => self.check_retry_of_running(txn),
        }
    }

    fn check_retry_of_running(&self, txn: &Txn) -> Result<Owner, Refusal> {
        let id = txn.id;
        let owner = txn.job.map_or(Owner::Step(id), Owner::Job);
        if let Some((worker, session)) = self.writer_of(txn) {
            let name = self.worker_word(worker);
            if self.workers.get(&worker).is_none_or(|row| !row.is_live()) {
                let message = format!("transaction {id} waits for proof that worker {name} writes no more");
                let hint = format!(
                    "bring the worker back, or, when its host is down for sure: sdm worker confirm-down {name} --session \
                     {session} --reason WHY"
                );
                return Err(precondition("FENCE_REQUIRED", message, hint));
            }
            let message = format!("transaction {id} is being tried now, at worker {name}");
            return Err(precondition("TXN_RUNNING", message, format!("watch it: sdm txn watch {id}")));
        }
        Ok(owner)
    }

    pub(super) fn retry_asked(&mut self, turn: &mut Turn, id: TxnId, by: &str) -> Result<Reply, Refusal> {
        let owner = self.check_retry(id)?;
        if let Some(mut work) = self.work_of(owner).cloned() {
            work.retry_at_ms = 0;
            // Whoever asks has reason to think that things are better now: those who could not are asked again, and
            // the time to find somebody begins anew. How often it may be tried stays as it is.
            work.excluded.clear();
            work.unassigned_since_ms = self.meta.clock_ms;
            self.put_work(owner, work);
        }
        let by = if by.is_empty() { String::new() } else { format!(" by {by}") };
        self.note_txn(id, format!("tried at once, as asked{by}"));
        self.assign(turn, owner);
        Ok(Reply::Txn(id))
    }
}
