//! `apply`: one entry, one command, every decision. Time passes first (waits that end, work that
//! falls due), then the command is done, then whatever it freed is given on.

mod attachments;
mod begin;
mod chains;
mod cluster;
mod collect;
mod domains;
mod fencing;
mod finish;
mod garbage_orders;
mod handover;
mod hashes;
mod late_writing;
mod leading_on;
mod leaving;
mod lock_orders;
mod merging;
mod orphans;
mod passing;
mod projecting;
mod reports;
mod resize;
mod restore;
mod retry;
mod sessions;
mod settling;
mod trash;
mod under;
mod workers;

pub use restore::RestoreAs;

use crate::command::Command;
use crate::command::Entry;
use crate::reply::Reply;
use crate::state::State;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;

/// What one entry carries along while it is applied.
#[derive(Debug)]
pub(crate) struct Turn {
    /// Its random bytes.
    pub entropy: [u8; 16],
    ordinal: u32,
    /// Locks that were released; whoever waits for them is looked at before the entry ends.
    pub released: Vec<crate::locks::LockSet>,
    /// Something about workers changed: pending work may find one now.
    pub workers_changed: bool,
}

impl Turn {
    /// The next token of this entry.
    pub(crate) fn next_token(&mut self, state: &State) -> Token {
        let token = Token { epoch: state.meta.epoch, index: state.meta.applied_index, ordinal: self.ordinal };
        self.ordinal += 1;
        token
    }
}

impl State {
    /// Applies one committed entry. Total and deterministic: it depends on nothing but the state
    /// and the entry, never fails and never panics; a refusal is a value.
    ///
    /// `index` is the entry's log index; entries come in rising order.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Reply {
        self.index.touched.clear();
        let mut turn = Turn { entropy: entry.entropy, ordinal: 0, released: Vec::new(), workers_changed: false };
        let previous_index = std::mem::replace(&mut self.meta.applied_index, index);
        if self.meta.cluster_id.is_none() && !matches!(entry.command, Command::Found(_)) {
            return Reply::Refused(
                Refusal::new(Class::Unavailable, "NOT_FOUNDED", "this cluster has no first entry yet")
                    .hint("start one member with --bootstrap"),
            );
        }
        let step = self.meta.settings.clock_step_max_ms;
        self.meta.clock_ms = entry.stamp_ms.clamp(self.meta.clock_ms, self.meta.clock_ms.saturating_add(step));
        let level = self.meta.feature_level;
        self.begin_telling();
        self.pass_time(&mut turn);
        let reply = self.dispatch(&mut turn, &entry.command);
        self.settle_locks(&mut turn);
        if turn.workers_changed {
            self.assign_pending(&mut turn);
        }
        self.tell_level(level);
        self.end_telling();
        self.take_hash(previous_index);
        reply
    }

    fn dispatch(&mut self, turn: &mut Turn, command: &Command) -> Reply {
        if let Err(refusal) = self.check_feature_level(command) {
            return Reply::Refused(refusal);
        }
        let outcome = match command {
            Command::Found(found) => self.found(found),
            Command::Tick => Ok(Reply::Done),
            Command::AddMember(member) => self.add_member(member),
            Command::ReportMember { id, version, feature_level_max } => {
                self.report_member(*id, version, *feature_level_max)
            }
            Command::ReportStart { id, starts, address } => self.report_start(*id, *starts, address),
            Command::AnnounceMember(announced) => self.announce_member(announced),
            Command::RemoveMember { id } => self.remove_member(*id),
            Command::WithdrawMember { name } => self.withdraw_member(name),
            Command::ReportStateHash { member, index, hash } => self.report_state_hash(*member, *index, *hash),
            Command::RaiseFeatureLevel { level } => self.raise_feature_level(*level),
            Command::OpenSession(open) => self.open_session(turn, open),
            Command::CloseSession(session) => self.close_session(turn, *session),
            Command::ExpireSessions { sessions } => self.expire_sessions(turn, sessions),
            Command::AcquireLocks(acquire) => self.acquire_locks(turn, acquire),
            Command::ReleaseLocks { session, sequence, lock } => self.release_locks(turn, *session, *sequence, *lock),
            Command::ReportDomains { session, items } => self.report_domains(turn, *session, items),
            Command::ReportAttempt { session, token, report } => self.report_attempt(turn, *session, *token, report),
            Command::ReleaseLockOf { session, lock } => self.release_lock_of(turn, *session, *lock),
            Command::BreakLock(order) => self.break_lock(turn, order),
            Command::Begin(begin) => self.begin(turn, begin),
            Command::Abort { txn, reason } => self.abort_asked(turn, *txn, reason),
            Command::RetryTxn { txn, by } => self.retry_asked(turn, *txn, by),
            Command::Collect { garbage } => self.collect(turn, garbage),
            Command::Reconcile(step) => self.reconcile(turn, step),
        };
        outcome.unwrap_or_else(Reply::Refused)
    }
}
