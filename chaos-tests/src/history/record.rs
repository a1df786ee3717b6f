//! What the clients were told: every acknowledged operation, every one whose outcome is not known, and
//! what was seen to contradict a promise. Kept in this process's memory, which no cut reaches.
//!
//! An operation counts as acknowledged when its answer came, as refused when the state machine said
//! no, and as unknown in every other case: then either outcome is right until the cluster shows which.

use super::event::Event;
use super::event::Kind;
use super::event::Process;
use super::lines::write_event;
use sdm_proto::token::Token;
use sdm_proto::wire::v1::SessionKey;
use std::collections::BTreeMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Events kept for evidence: the last minute or more of a run.
const EVENTS_MAX: usize = 100_000;

/// Results of transactions that are compared. The cluster remembers 10,000, of all clients together.
const TXNS_MAX: usize = 6_000;

/// Results of noops that are compared. The cluster remembers 1,000.
const NOOPS_MAX: usize = 600;

/// Violations that are listed; one fault usually shows in many places.
const VIOLATIONS_MAX: usize = 50;

/// Which promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// What was acknowledged is there.
    Kept,
    /// What is there was asked for, and what was ended stays so.
    NoPhantom,
    /// Tokens rise and are never given twice; two never hold one lock.
    Tokens,
    /// A repeated request gets the recorded answer.
    Idempotent,
    /// A member opens its folder again.
    Opens,
    /// The cluster serves again in time.
    Serves,
    /// At an equal index all members have equal states.
    EqualStates,
    /// Nothing on the storage is changed by an attempt that is not its own.
    Fenced,
    /// What was told can be put into one order that the calls allow.
    Linearizable,
}

/// A promise that was broken, and how it was seen.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.promise, self.what)
    }
}

/// A lock set that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its id.
    pub lock: String,
    /// Its fencing token.
    pub token: Token,
    /// Its resource.
    pub resource: String,
}

/// A request of a session whose outcome is not known.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its number. Once a later one is acknowledged it cannot take effect any more.
    pub sequence: u64,
    /// What it asked.
    pub asked: Asked,
}

/// What a request asked.
#[derive(Clone, Debug)]
pub enum Asked {
    /// A lock on this resource, when no token above this one had been seen.
    Acquire {
        /// The resource.
        resource: String,
        /// The newest token that was known then.
        floor: Token,
    },
    /// To give this one back.
    Release(Grant),
}

/// A request that may be repeated, with the answer that must come again.
#[derive(Clone, Debug)]
pub enum Repeatable {
    /// Granted under this number.
    Acquire(u64, Grant),
    /// Released under this number.
    Release(u64, Grant),
}

impl Repeatable {
    /// Its number.
    pub fn sequence(&self) -> u64 {
        match self {
            Repeatable::Acquire(sequence, _) | Repeatable::Release(sequence, _) => *sequence,
        }
    }
}

/// What one client knows of its session.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Its session.
    pub session: Option<SessionKey>,
    /// What it holds, by lock id.
    pub held: BTreeMap<String, Grant>,
    /// What it does not know.
    pub open: Vec<Question>,
    /// Number of the last request that was answered ...
    pub answered: u64,
    /// ... and the request, if nothing was asked since.
    pub last: Option<Repeatable>,
}

/// A transaction that was answered.
#[derive(Clone, Debug)]
pub struct KnownTxn {
    /// Its request id.
    pub id: String,
    /// The name that the request gave.
    pub name: String,
    /// How it ended: committed, aborted or refused.
    pub phase: String,
    /// The reason of its refusal or abort; empty when it committed.
    pub reason: String,
    /// Index of its last change, once it was told.
    pub revision: Option<u64>,
}

/// Counts for the summary.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Operations that were answered, refusals by the state included.
    pub acknowledged: u64,
    /// Operations that the client gave up without an answer.
    pub unknown: u64,
    /// Operations that were answered only when repeated.
    pub repeated: u64,
    /// Comparisons of an acknowledged operation with what a member said afterwards.
    pub compared: u64,
}

/// Everything, behind one lock.
#[derive(Debug, Default)]
pub struct Record {
    /// By client.
    pub books: Vec<Book>,
    /// Ids of sessions that were closed.
    pub closed: HashSet<u64>,
    /// Who holds a shared resource, as far as it was told and has not begun to give it back.
    pub shared: BTreeMap<String, usize>,
    /// Transactions that were answered, oldest first.
    pub txns: VecDeque<KnownTxn>,
    /// The same of kind noop, which a worker took part in.
    pub noops: VecDeque<KnownTxn>,
    /// The same of changes of the catalog.
    pub changes: VecDeque<KnownTxn>,
    /// Request ids that were ever used.
    pub request_ids: HashSet<String>,
    /// How often the power was cut: clients repeat their last request after each cut.
    pub cuts: u64,
    /// Counts for the summary.
    pub counts: Counts,
    newest: Token,
    tokens: HashSet<Token>,
    violations: Vec<Violation>,
    events: VecDeque<Event>,
    numbered: u64,
}

impl Record {
    /// Notes that a promise was broken.
    pub fn violated(&mut self, promise: Promise, what: impl Into<String>) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation { promise, what: what.into() });
        }
    }

    /// The newest token that anybody was told.
    pub fn newest_token(&self) -> Token {
        self.newest
    }

    /// A grant was told: its token is new, and above what was known when it was asked for.
    pub fn granted(&mut self, client: usize, grant: &Grant, floor: Token) {
        if grant.token <= floor {
            let what = format!("client {client} got {} on {} after {floor} was given", grant.token, grant.resource);
            self.violated(Promise::Tokens, what);
        }
        if !self.tokens.insert(grant.token) {
            let what = format!("client {client} got {} on {}, which was given before", grant.token, grant.resource);
            self.violated(Promise::Tokens, what);
        }
        self.newest = self.newest.max(grant.token);
        if is_shared(&grant.resource)
            && let Some(other) = self.shared.insert(grant.resource.clone(), client)
        {
            let what = format!("clients {other} and {client} hold {} at once", grant.resource);
            self.violated(Promise::Tokens, what);
        }
    }

    /// A lock is about to be given back: from now on somebody else may get it.
    pub fn giving_back(&mut self, client: usize, resource: &str) {
        if self.shared.get(resource) == Some(&client) {
            self.shared.remove(resource);
        }
    }

    /// A transaction was answered.
    pub fn txn_answered(&mut self, txn: KnownTxn) {
        if self.txns.len() >= TXNS_MAX {
            self.txns.pop_front();
        }
        self.txns.push_back(txn);
    }

    /// A noop was answered.
    pub fn noop_answered(&mut self, noop: KnownTxn) {
        if self.noops.len() >= NOOPS_MAX {
            self.noops.pop_front();
        }
        self.noops.push_back(noop);
    }

    /// A change of the catalog came to its end.
    pub fn change_ended(&mut self, change: KnownTxn) {
        if self.changes.len() >= TXNS_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
    }

    /// What was broken so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}

/// Whether several clients ask for this resource.
pub fn is_shared(resource: &str) -> bool {
    resource.starts_with(SHARED)
}

/// What the names of resources that all clients want begin with.
pub const SHARED: &str = "user/chaos/shared/";

/// What the events' times are counted on.
#[derive(Debug)]
enum Time {
    /// This process's own clock since then.
    Since(Instant),
    /// A simulation's clock, in nanoseconds.
    Simulated(Arc<AtomicU64>),
}

/// The record, shared by all clients and the checks.
#[derive(Debug)]
pub struct History {
    record: Mutex<Record>,
    time: Time,
}

impl History {
    /// An empty one.
    pub fn new(clients: usize) -> Self {
        Self::on(clients, Time::Since(Instant::now()))
    }

    /// An empty one of a simulation, whose clock this is.
    pub fn of_simulation(clients: usize, now_ns: Arc<AtomicU64>) -> Self {
        Self::on(clients, Time::Simulated(now_ns))
    }

    fn on(clients: usize, time: Time) -> Self {
        let record = Record { books: vec![Book::default(); clients], ..Record::default() };
        Self { record: Mutex::new(record), time }
    }

    /// The record, for a moment.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an event down: `kind` is invoke, ok, fail or info, `process` who did it, `f` what, `key` on what. A
    /// process does one thing at a time, and invoke is followed by one of the others of the same `f`; an info of who
    /// asked for nothing is a note.
    pub fn event(&self, kind: &str, process: &str, f: &str, key: &str, value: serde_json::Value) {
        let time = match &self.time {
            Time::Since(begun) => u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX),
            Time::Simulated(now_ns) => now_ns.load(Ordering::Relaxed),
        };
        let kind = match kind {
            "invoke" => Kind::Invoke,
            "ok" => Kind::Ok,
            "fail" => Kind::Fail,
            _ => Kind::Info,
        };
        let mut record = self.record();
        let index = record.numbered;
        record.numbered += 1;
        if record.events.len() >= EVENTS_MAX {
            record.events.pop_front();
        }
        let (process, f, key) = (Process::of(process), f.to_owned(), key.to_owned());
        record.events.push_back(Event { index, time, kind, process, f, key, value });
    }

    /// The last events, a line each.
    pub fn events(&self) -> String {
        let mut all = Vec::new();
        for event in &self.record().events {
            // Writing to memory does not fail.
            let _ = write_event(&mut all, event);
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    /// The last events; the first of them has the number 0 where none was dropped.
    pub fn recorded(&self) -> Vec<Event> {
        self.record().events.iter().cloned().collect()
    }

    /// Notes that a promise was broken.
    pub fn violated(&self, promise: Promise, what: impl Into<String>) {
        self.record().violated(promise, what);
    }

    /// What was broken so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.record().violations().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(index: u64, resource: &str) -> Grant {
        Grant { lock: index.to_string(), token: Token { epoch: 1, index, ordinal: 0 }, resource: resource.to_owned() }
    }

    fn broken(record: &Record) -> Vec<Promise> {
        record.violations().iter().map(|violation| violation.promise).collect()
    }

    #[test]
    fn a_token_that_repeats_or_goes_back_is_seen() {
        let mut record = Record::default();
        record.granted(0, &grant(5, "user/a"), Token::default());
        assert_eq!(broken(&record), []);
        let floor = record.newest_token();
        record.granted(1, &grant(4, "user/b"), floor);
        assert_eq!(broken(&record), [Promise::Tokens]);
        record.granted(1, &grant(5, "user/c"), Token::default());
        assert_eq!(broken(&record).len(), 2);
    }

    #[test]
    fn a_token_below_one_that_was_told_after_the_request_is_fine() {
        let mut record = Record::default();
        let floor = record.newest_token();
        record.granted(0, &grant(7, "user/a"), floor);
        record.granted(1, &grant(6, "user/b"), floor);
        assert_eq!(broken(&record), []);
    }

    #[test]
    fn two_holders_of_one_lock_are_seen_and_a_handover_is_not() {
        let shared = format!("{SHARED}1");
        let mut record = Record::default();
        record.granted(0, &grant(1, &shared), Token::default());
        record.giving_back(0, &shared);
        record.granted(1, &grant(2, &shared), Token::default());
        assert_eq!(broken(&record), []);
        record.granted(2, &grant(3, &shared), Token::default());
        assert_eq!(broken(&record), [Promise::Tokens]);
    }
}
