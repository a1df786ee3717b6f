//! Every mutation's way in: its request id is looked up before any name is resolved, so that a
//! repetition gets the recorded answer whatever happened to the names since; only then names become
//! ids and the transaction is proposed. `apply` looks the id up again and decides.

use crate::core::Core;
use crate::services::call::Call;
use crate::services::present;
use crate::services::resolve;
use sdm_proto::ids::TxnId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::request_id;
use sdm_proto::wire::v1;
use sdm_state::Command;
use sdm_state::State;
use sdm_state::command::Begin;
use sdm_state::command::SessionRef;
use sdm_state::command::Under;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;

/// How long a mutation waits for locks when it does not say.
const LOCK_WAIT_DEFAULT_MS: u64 = 5 * 60_000;

/// Longest wait for locks: nobody remembers a longer one, nor does the cluster its request id.
const LOCK_WAIT_MAX_MS: u64 = 24 * 3_600_000;

/// A copy of a request that reaches the log later than this is refused as too old. Long enough for an
/// idle cluster, whose clock was last moved up to a minute ago and jumps by two with the next entry;
/// short enough that no copy outlives the memory of the first one's result.
const LATE_COPY_MAX_MS: u64 = 10 * 60_000;

/// Longest initiator and reason, in bytes: every member keeps them in memory as long as the
/// transaction.
const INITIATOR_BYTES_MAX: usize = 256;
const REASON_BYTES_MAX: usize = 1024;

/// Tells two requests under one id apart: the request as the user gave it, names and all. How long it
/// waits and who asks do not count, so a repetition may come from elsewhere and with more patience.
pub(crate) struct RequestHash(blake3::Hasher);

impl RequestHash {
    /// Of a request of this kind.
    pub(crate) fn of(kind: &str) -> Self {
        let hash = Self(blake3::Hasher::new_derive_key("sdm 2026 request hash"));
        hash.text("kind", kind)
    }

    /// With this text.
    pub(crate) fn text(mut self, field: &str, value: &str) -> Self {
        for part in [field, value] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part.as_bytes());
        }
        self
    }

    /// With this number.
    pub(crate) fn number(self, field: &str, value: u64) -> Self {
        self.text(field, &value.to_string())
    }

    fn finish(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

/// A mutation whose request was found to be well-formed.
pub(crate) struct Mutation {
    /// None lets the member draw one.
    id: Option<TxnId>,
    request_hash: [u8; 32],
    initiator: String,
    reason: String,
    lock_wait_ms: u64,
    dry_run: bool,
    under: Option<Under>,
}

/// What a mutation is answered with: the transaction, or its plan if it was to be done for show.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    /// As it is now.
    pub transaction: Option<v1::Transaction>,
    /// Of a dry run.
    pub plan: Option<v1::DryRun>,
}

impl Mutation {
    /// From its header and the hash of all else in it.
    ///
    /// # Errors
    /// Something in the header is not what it should be.
    pub(crate) fn parse(header: Option<v1::MutationHeader>, hash: RequestHash) -> Result<Self, Refusal> {
        let header = header.unwrap_or_default();
        let id = if header.request_id.is_empty() { None } else { Some(request_id_of(&header.request_id)?) };
        check_length("initiator", &header.initiator, INITIATOR_BYTES_MAX)?;
        check_length("reason", &header.reason, REASON_BYTES_MAX)?;
        let lock_wait_ms = match header.lock_wait_ms {
            _ if header.no_wait_lock => 0,
            0 => LOCK_WAIT_DEFAULT_MS,
            given if given > LOCK_WAIT_MAX_MS => {
                let message = format!("a lock can be waited for at most 24 h, not {} s", given / 1000);
                return Err(Refusal::new(Class::Invalid, "BAD_LOCK_WAIT", message).hint("wait for less"));
            }
            given => given,
        };
        let (initiator, reason, dry_run) = (header.initiator, header.reason, header.dry_run);
        let under = header.under.map(under_of).transpose()?;
        Ok(Self { id, request_hash: hash.finish(), initiator, reason, lock_wait_ms, dry_run, under })
    }

    /// Begins the transaction, or finds the one that is known under the request's id, and answers
    /// with it as it is then. A dry run answers with the plan, from the same view and the same code.
    ///
    /// # Errors
    /// The recorded or the new refusal, or why nothing could be asked.
    pub(crate) async fn begin(
        self,
        core: &Core,
        resolve: impl FnOnce(&State) -> Result<Spec, Refusal>,
    ) -> Result<Begun, Refusal> {
        let call = Call::begin(core);
        let view = call.read().await?;
        let state = &view.state;
        let id = self.id.unwrap_or_else(|| request_id::issue(state.meta.clock_ms, rand::random()));
        if let Some(recorded) = self.recorded(state, id) {
            return recorded.map(|transaction| self.of_known(state, transaction));
        }
        let spec = resolve(state)?;
        if self.dry_run {
            let plan = state.dry_run(&spec, self.under)?;
            return Ok(Begun { transaction: None, plan: Some(present::dry_run(state, plan)) });
        }
        tracing::info!(txn = %id, kind = spec.kind(), initiator = self.initiator, "proposing a transaction");
        let begin = self.command(state, id, spec);
        let answered = call.propose(Command::Begin(begin)).await?;
        let state = &answered.view.state;
        let txn = state.txns.get(&id).ok_or_else(|| resolve::unknown_txn(state, id))?;
        match &txn.phase {
            Phase::Refused(refusal) => Err(refusal.clone()),
            _ => Ok(Begun { transaction: Some(present::transaction(state, txn)), plan: None }),
        }
    }

    /// The answer to a repetition; of a dry run, that there is nothing to do any more.
    fn of_known(&self, state: &State, transaction: v1::Transaction) -> Begun {
        if !self.dry_run {
            return Begun { transaction: Some(transaction), plan: None };
        }
        let known = format!(
            "request id {} is known, its transaction is {}: a repetition changes nothing and answers with it",
            transaction.id, transaction.phase
        );
        let (summary, objects, revision) = (transaction.summary, transaction.objects, state.applied_index());
        let plan = v1::DryRun { summary, objects, warnings: vec![known], revision, ..Default::default() };
        Begun { transaction: None, plan: Some(plan) }
    }

    /// Its id, where whoever asks has given one.
    pub(crate) fn id(&self) -> Option<TxnId> {
        self.id
    }

    /// Whether nothing is to be done.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Begins a transaction that resolves no names and may be forgotten and done again: nothing is
    /// read before it is proposed. Answers with its id, new or known.
    ///
    /// # Errors
    /// The recorded or the new refusal, or why nothing could be asked.
    pub(crate) async fn begin_unread(self, core: &Core, spec: Spec) -> Result<TxnId, Refusal> {
        let view = core.view();
        let id = self.id.unwrap_or_else(|| request_id::issue(view.state.meta.clock_ms, rand::random()));
        let begin = self.command(&view.state, id, spec);
        drop(view);
        let answered = Call::begin(core).propose(Command::Begin(begin)).await?;
        let state = &answered.view.state;
        match state.txns.get(&id).map(|txn| &txn.phase) {
            Some(Phase::Refused(refusal)) => Err(refusal.clone()),
            Some(_) => Ok(id),
            None => Err(resolve::unknown_txn(state, id)),
        }
    }

    fn command(self, state: &State, id: TxnId, spec: Spec) -> Begin {
        Begin {
            id,
            request_hash: self.request_hash,
            not_after_ms: not_after_ms(state),
            looked_up_ms: state.meta.clock_ms,
            unix_ms: unix_ms(),
            initiator: self.initiator,
            reason: self.reason,
            lock_wait_ms: self.lock_wait_ms,
            spec,
            under: self.under,
        }
    }

    /// What is known under this id; None when it is new.
    fn recorded(&self, state: &State, id: TxnId) -> Option<Result<v1::Transaction, Refusal>> {
        let known = state.txns.get(&id)?;
        if known.request_hash != self.request_hash {
            let message = format!("request id {id} was used for another request: {}", known.summary);
            return Some(Err(Refusal::new(Class::Conflict, "REQUEST_ID_REUSED", message).hint(NEW_ID)));
        }
        Some(match &known.phase {
            Phase::Refused(refusal) => Err(as_recorded(refusal)),
            _ => Ok(present::transaction(state, known)),
        })
    }
}

/// The client's lock under which it is to run.
fn under_of(under: v1::UnderToken) -> Result<Under, Refusal> {
    let token = under.token.parse().map_err(|_| {
        let shown: String = under.token.chars().take(64).collect();
        Refusal::new(Class::Invalid, "BAD_TOKEN", format!("{shown:?} is not a fencing token"))
            .hint("it is epoch-index-ordinal, as Acquire answered it; `sdm lock acquire` sets SDM_LOCK_TOKEN to it")
    })?;
    Ok(Under { session: SessionRef { id: under.session_id, epoch: under.session_epoch }, token })
}

const NEW_ID: &str = "repeat it under a new request id (sdm request-id)";

/// The recorded refusal is what a repetition gets, for ever; only a new id asks anew.
fn as_recorded(refusal: &Refusal) -> Refusal {
    if refusal.hint.contains("new request id") {
        return refusal.clone();
    }
    let again = "this is the recorded answer; for another try use a new request id (sdm request-id)";
    let hint = if refusal.hint.is_empty() { again.to_owned() } else { format!("{}; {again}", refusal.hint) };
    refusal.clone().hint(hint)
}

/// The last moment at which this copy may enter the log: within the time for which results are
/// remembered, counted from a read that did not know the id.
fn not_after_ms(state: &State) -> u64 {
    let window = state.meta.settings.request_window_ms;
    state.meta.clock_ms.saturating_add(LATE_COPY_MAX_MS.min(window / 2))
}

/// For people only; a clock before 1970 shows as none.
fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

fn request_id_of(text: &str) -> Result<TxnId, Refusal> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Refusal::new(Class::Invalid, "BAD_REQUEST_ID", format!("{shown:?} is not a request id"))
            .hint("it is a UUID; draw one with sdm request-id, or leave it out")
    })
}

fn check_length(field: &str, text: &str, most: usize) -> Result<(), Refusal> {
    if text.len() <= most {
        return Ok(());
    }
    let reason = format!("{}_TOO_LONG", field.to_ascii_uppercase());
    let message = format!("the {field} has {} bytes, at most {most} are kept", text.len());
    Err(Refusal::new(Class::Invalid, &reason, message).hint(format!("shorten the {field}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use sdm_state::txns::Txn;

    fn hash() -> RequestHash {
        RequestHash::of("disk-create").text("name", "a").number("size", 7)
    }

    fn refused(header: v1::MutationHeader) -> String {
        Mutation::parse(Some(header), hash()).map(|_| ()).unwrap_err().reason
    }

    #[test]
    fn the_hash_depends_on_the_kind_each_field_and_where_fields_end() {
        let same = hash().finish();
        assert_eq!(same, hash().finish());
        for other in [
            RequestHash::of("disk-import").text("name", "a").number("size", 7),
            RequestHash::of("disk-create").text("name", "b").number("size", 7),
            RequestHash::of("disk-create").text("name", "a").number("size", 8),
            RequestHash::of("disk-create").text("namea", "").number("size", 7),
            RequestHash::of("disk-create").text("name", "a"),
        ] {
            assert_ne!(same, other.finish());
        }
    }

    #[test]
    fn bad_headers_are_refused_by_reason() {
        let header = v1::MutationHeader::default;
        assert_eq!(refused(v1::MutationHeader { request_id: "7".into(), ..header() }), "BAD_REQUEST_ID");
        assert_eq!(refused(v1::MutationHeader { initiator: "x".repeat(257), ..header() }), "INITIATOR_TOO_LONG");
        assert_eq!(refused(v1::MutationHeader { reason: "x".repeat(1025), ..header() }), "REASON_TOO_LONG");
        assert_eq!(refused(v1::MutationHeader { lock_wait_ms: u64::MAX, ..header() }), "BAD_LOCK_WAIT");
    }

    #[test]
    fn waiting_for_locks_has_a_default_and_can_be_declined() {
        let wait = |lock_wait_ms, no_wait_lock| {
            let header = v1::MutationHeader { lock_wait_ms, no_wait_lock, ..Default::default() };
            Mutation::parse(Some(header), hash()).unwrap().lock_wait_ms
        };
        assert_eq!(wait(0, false), LOCK_WAIT_DEFAULT_MS);
        assert_eq!(wait(7, false), 7);
        assert_eq!(wait(7, true), 0);
    }

    fn mutation_like(txn: &Txn) -> Mutation {
        let mut mutation = Mutation::parse(None, hash()).unwrap();
        mutation.request_hash = txn.request_hash;
        mutation
    }

    #[test]
    fn a_repetition_gets_the_recorded_transaction_and_another_request_under_its_id_does_not() {
        let sample = Sample::with_disk();
        let txn = sample.state.txns.values().next().unwrap();
        let mutation = mutation_like(txn);
        let recorded = mutation.recorded(&sample.state, txn.id).unwrap().unwrap();
        assert_eq!((recorded.id, recorded.phase.as_str()), (txn.id.to_string(), "committed"));
        let other = Mutation::parse(None, hash()).unwrap();
        let refusal = other.recorded(&sample.state, txn.id).unwrap().unwrap_err();
        assert_eq!(refusal.reason, "REQUEST_ID_REUSED");
        assert!(mutation.recorded(&sample.state, TxnId::default()).is_none());
    }

    #[test]
    fn a_recorded_refusal_says_once_that_another_try_needs_another_id() {
        let refusal = Refusal::new(Class::Conflict, "DISK_EXISTS", "there is one").hint("choose another name");
        let recorded = as_recorded(&refusal);
        assert!(recorded.hint.starts_with("choose another name; "));
        assert_eq!(as_recorded(&recorded), recorded);
    }
}
