//! Plans of changes of a worker's standing.

use super::Plan;
use super::plan;
use crate::locks::BLOCKERS_SHOWN;
use crate::locks::Mode;
use crate::locks::Resource;
use crate::state::State;
use crate::work::Owner;
use crate::workers::Worker;
use crate::workers::WorkerChange;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

impl State {
    pub(super) fn plan_worker_change(&self, change: &WorkerChange) -> Result<Plan, Refusal> {
        let worker = self.known_worker(change.worker())?;
        let name = &worker.identity.name;
        let summary = match change {
            WorkerChange::Drain { .. } => format!("drain worker {name}"),
            WorkerChange::Undrain { .. } => format!("give worker {name} work again"),
            WorkerChange::Remove { .. } => {
                self.check_removable(worker)?;
                format!("remove worker {name}")
            }
            WorkerChange::ConfirmDown { session, .. } => {
                self.check_down(worker, *session)?;
                format!("confirm that worker {name} is down (session {session})")
            }
        };
        let resource = Resource::Name(format!("worker/{}", worker.identity.id));
        Ok(plan(vec![(resource, Mode::Exclusive)], summary, &[format!("worker/{name}")]))
    }

    fn check_removable(&self, worker: &Worker) -> Result<(), Refusal> {
        let (id, name) = (worker.identity.id, &worker.identity.name);
        if worker.takes_work() {
            let message = format!("worker {name} is live and takes work");
            return Err(Refusal::new(Class::Precondition, "WORKER_LIVE", message)
                .hint(format!("sdm worker drain {name}, and repeat it when it has nothing to do any more")));
        }
        let mut refusal = Refusal::new(
            Class::Precondition,
            "WORKER_IN_USE",
            format!("worker {name} cannot be removed: something names it; nothing was changed"),
        )
        .hint("clear what is listed, then repeat it under a new request id");
        for (token, owner) in self.attempts_of(id).take(BLOCKERS_SHOWN) {
            let words = match (owner, self.txn_of(owner)) {
                (_, Some(txn)) => format!("it works for transaction {txn}; wait, or sdm txn abort {txn}"),
                (Owner::Deletion(garbage), None) => format!("it deletes garbage {garbage}; wait"),
                (_, None) => "it writes what the catalog says to the storage; wait".to_owned(),
            };
            refusal = refusal.blocker("attempt", token.to_string(), words);
        }
        for txn in self.txns_pinned_to(id).take(BLOCKERS_SHOWN) {
            let words = format!("it alone may go on with what it wrote in place; wait, or sdm txn abort {txn}");
            refusal = refusal.blocker("transaction", txn.to_string(), words);
        }
        for attachment in self.attachments_at(id).take(BLOCKERS_SHOWN) {
            let disk = self.disks.get(&attachment.disk).map_or_else(String::new, |disk| disk.name.to_string());
            let words = format!(
                "disk {disk} is {}; {}",
                self.attachment_words(attachment),
                self.way_to_detach(attachment, &disk)
            );
            refusal = refusal.blocker("attachment", attachment.token.to_string(), words);
        }
        refusal.blockers.truncate(BLOCKERS_SHOWN);
        if refusal.blockers.is_empty() { Ok(()) } else { Err(refusal) }
    }

    /// An operator says that a host is down. What is live is not, and whoever read an older session has not looked at
    /// what happened since.
    fn check_down(&self, worker: &Worker, session: u64) -> Result<(), Refusal> {
        let name = &worker.identity.name;
        if let Some(live) = worker.session {
            let message = format!("worker {name} is live: its session {live} is");
            return Err(Refusal::new(Class::Precondition, "WORKER_LIVE", message).hint(format!(
                "stop it, or its host, and wait until its session ends; `sdm worker show {name}` shows it"
            )));
        }
        let last = worker.last_session().unwrap_or_default();
        if session != last {
            let message = format!("session {session} is not the one that worker {name} had last");
            return Err(Refusal::new(Class::Precondition, "WRONG_SESSION", message).hint(format!(
                "look again whether that host is down; `sdm worker show {name}` shows its session now"
            )));
        }
        Ok(())
    }
}
