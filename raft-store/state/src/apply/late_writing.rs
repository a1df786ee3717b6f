//! Attempts that were given up and may still write what others read (`.meta`, a domain's name). Nobody waits for those,
//! so they are written anew elsewhere at once; but a rename that hung can come after that and bring back the old words.
//! So the host is remembered, and the words are written once more when it can write no more: another attempt of its own
//! is done there (attempts on one host take turns), it is fenced, or it was removed.
//!
//! ```text
//!           given up                    done elsewhere
//! assigned ──────────▶ late: the host ──────────────────▶ at rest; looked at again after a while
//!    ▲                    │ done there                        │ the host reaches the domain again
//!    └────────────────────┼───────────────────────────────────┘
//!                         ▼ nobody is late any more
//!                      written for good
//! ```

use crate::apply::Turn;
use crate::state::State;
use crate::work::Attempt;
use crate::work::Owner;
use crate::work::Pin;
use crate::work::Work;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::WorkerId;

impl Owner {
    /// Whether an attempt of it may be given up although it changes what is there already.
    fn may_be_late(self) -> bool {
        matches!(self, Self::Projection(_) | Self::Describe(_))
    }
}

impl State {
    /// The current attempt is about to be given up without its worker's word.
    pub(crate) fn leave_late_writer(&mut self, owner: Owner) {
        let Some(mut work) = self.work_of(owner).filter(|_| owner.may_be_late()).cloned() else { return };
        if let Some(late) = work.attempt.as_ref().and_then(|attempt| self.late_writer(attempt)) {
            work.late.retain(|known| known.worker != late.worker);
            work.late.push(late);
            self.put_work(owner, work);
        }
    }

    fn late_writer(&self, attempt: &Attempt) -> Option<Pin> {
        let row = self.workers.get(&attempt.worker)?;
        let session = row.last_session().unwrap_or_default();
        Some(Pin { worker: attempt.worker, session, boot_id: row.identity.boot_id.clone() })
    }

    /// A host whose word about this work is still missing and that could give it now; not the one that failed last.
    pub(crate) fn late_writer_reaching(&self, work: &Work, domain: DomainId) -> Option<WorkerId> {
        let at_hand = |late: &&Pin| {
            let row = self.workers.get(&late.worker);
            // Also when it is drained: nobody else can.
            work.failed_at.last() != Some(&late.worker)
                && row.is_some_and(|row| row.reaches(domain) && row.identity.boot_id == late.boot_id)
        };
        work.late.iter().find(at_hand).map(|late| late.worker)
    }

    /// An attempt wrote what was wanted from this entry on. Answers with whether that is for good; else its work waits
    /// for the next one.
    pub(crate) fn is_written_for_good(&mut self, owner: Owner, attempt: &Attempt, wanted_index: u64) -> bool {
        let Some(mut work) = self.work_of(owner).cloned() else { return false };
        let boot = self.workers.get(&attempt.worker).map(|row| row.identity.boot_id.clone());
        work.late.retain(|late| late.worker != attempt.worker || Some(&late.boot_id) != boot.as_ref());
        let is_newest = attempt.token.index >= wanted_index.max(work.again_from);
        if is_newest && work.late.is_empty() {
            return true;
        }
        let now = self.meta.clock_ms;
        work.attempt = None;
        work.unassigned_since_ms = now;
        work.last_error = None;
        work.failed_at.clear();
        let domain = match owner {
            Owner::Projection(id) => self.domain_of_placement(id),
            Owner::Describe(id) => Some(id),
            _ => None,
        };
        let at_hand = domain.and_then(|domain| self.late_writer_reaching(&work, domain)).is_some();
        let pause = if is_newest && !at_hand { self.meta.settings.late_writers_look_ms } else { 0 };
        work.retry_at_ms = now.saturating_add(pause);
        self.put_work(owner, work);
        false
    }

    /// Whether all is written as far as anybody can tell now, and only a late writer could still change it.
    #[must_use]
    pub fn rests(&self, work: &Work) -> bool {
        work.attempt.is_none()
            && !work.late.is_empty()
            && work.failed_at.is_empty()
            && work.retry_at_ms > self.meta.clock_ms
    }

    /// The host sees its domains again: what rests until it says its word goes on.
    pub(crate) fn wake_late_writer(&mut self, worker: WorkerId) {
        for owner in self.late_at(worker) {
            let Some(mut work) = self.work_of(owner).filter(|work| self.rests(work)).cloned() else { continue };
            let domain = match owner {
                Owner::Projection(id) => self.domain_of_placement(id),
                Owner::Describe(id) => Some(id),
                _ => None,
            };
            if domain.and_then(|domain| self.late_writer_reaching(&work, domain)) == Some(worker) {
                work.retry_at_ms = self.meta.clock_ms;
                self.put_work(owner, work);
            }
        }
    }

    /// The host writes no more. What it wrote last may have come after what others wrote: once more, by anybody.
    pub(crate) fn settle_late_writer(&mut self, turn: &mut Turn, worker: WorkerId) {
        for owner in self.late_at(worker) {
            let Some(mut work) = self.work_of(owner).cloned() else { continue };
            work.late.retain(|late| late.worker != worker);
            work.again_from = self.meta.applied_index;
            if work.attempt.is_none() {
                work.retry_at_ms = self.meta.clock_ms;
                turn.workers_changed = true;
            }
            self.put_work(owner, work);
        }
    }

    /// What may still be written by attempts of this worker that were given up.
    pub(crate) fn late_at(&self, worker: WorkerId) -> Vec<Owner> {
        let least = Owner::Step(sdm_proto::ids::TxnId::default());
        let own = self.index.late_writers.range((worker, least)..).take_while(|(of, _)| *of == worker);
        own.map(|(_, owner)| *owner).collect()
    }

    /// Who may still write although it was given up, and the way to an end of that, in words; None when nobody may.
    #[must_use]
    pub fn late_words(&self, owner: Owner) -> Option<String> {
        let late = self.work_of(owner)?.late.first()?;
        let name = self.worker_word(late.worker);
        let session = self.workers.get(&late.worker).and_then(crate::workers::Worker::last_session);
        let session = session.unwrap_or(late.session);
        Some(format!(
            "worker {name} was given up while it wrote there and may still write: start it again, or, when its host is \
             down for sure: sdm worker confirm-down {name} --session {session} --reason WHY"
        ))
    }
}
