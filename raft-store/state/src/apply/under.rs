//! Locks on the catalog that clients' sessions take, and the transactions that run under them. A session locks a
//! disk as an operation would: with its domain in the matching intent. A transaction under such a lock takes none
//! of its own: the session's set covers all it needs, or it is refused, so nobody holds one lock while he waits
//! for another.

use crate::apply::Turn;
use crate::command::Under;
use crate::locks::LockSet;
use crate::locks::Mode;
use crate::locks::Owner as LockOwner;
use crate::locks::Resource;
use crate::reply::Reply;
use crate::state::State;
use crate::txns::Txn;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
use std::collections::BTreeMap;

/// Waiters that are counted at one resource: a list shows a thousand lock sets, and a queue can be as long as the table.
const COUNTED_MAX: usize = 500;

const NEW_ID: &str = "a repetition needs a new request id (sdm request-id)";

type Resources = BTreeMap<Resource, Mode>;

fn covers(set: &Resources, resource: &Resource, mode: Mode) -> bool {
    set.get(resource).is_some_and(|held| held.joined_with(mode) == *held)
}

fn stale(token: Token, why: &str) -> Refusal {
    Refusal::new(Class::Precondition, "TOKEN_STALE", format!("token {token} is not valid any more: {why}"))
        .hint("whoever took the lock since may be at work: stop, and take the lock anew (sdm lock acquire)")
}

/// What a lock on a disk needs on its domain.
fn intent_of(mode: Mode) -> Mode {
    match mode {
        Mode::Exclusive | Mode::IntentExclusive => Mode::IntentExclusive,
        Mode::Shared | Mode::IntentShared => Mode::IntentShared,
    }
}

impl State {
    /// The whole set that a session's request means: as it was asked for, with the domains of its disks.
    pub(super) fn session_set(&self, asked: &[(Resource, Mode)]) -> Result<Resources, Refusal> {
        let mut set = asked.to_vec();
        for (resource, mode) in asked {
            match resource {
                Resource::User(_) => {}
                Resource::Domain(id) => _ = self.known_domain(*id)?,
                Resource::Disk(id) if matches!(mode, Mode::Exclusive | Mode::Shared) => {
                    let (_, domain) = self.known_disk(*id)?;
                    set.push((Resource::Domain(domain.id), intent_of(*mode)));
                }
                Resource::Disk(_) => {
                    let message = format!("a disk is locked X or S, not {mode}: nothing beneath it is locked");
                    return Err(Refusal::new(Class::Invalid, "BAD_MODE", message));
                }
                Resource::Name(name) => {
                    let bare = name.strip_prefix("disk/").or_else(|| name.strip_prefix("domain/"));
                    if bare.is_none_or(|bare| bare.parse::<Name>().is_err()) {
                        let message = format!("name/{name} is not the name of a disk or a domain");
                        return Err(Refusal::new(Class::Invalid, "BAD_LOCK_SET", message)
                            .hint("name/disk/NAME, name/domain/NAME"));
                    }
                }
            }
        }
        Ok(crate::locks::joined(set))
    }

    /// Whether a session's set that waited is still the one that it would have to be.
    fn check_session_set(&self, lock: &LockSet) -> Result<(), Refusal> {
        let asked: Vec<(Resource, Mode)> =
            lock.resources.iter().map(|(resource, mode)| (resource.clone(), *mode)).collect();
        if self.session_set(&asked)? == lock.resources {
            return Ok(());
        }
        Err(Refusal::new(Class::Precondition, "OTHER_LOCKS", "its disk lies in another domain now"))
    }

    /// A session's wait is over. What it waited for may be another by now: then it is refused, as a transaction is.
    pub(super) fn granted_to_session(&mut self, turn: &mut Turn, lock: u64, session: u64) {
        if self.meta.feature_level < 2 {
            return;
        }
        let Some(held) = self.locks.get(&lock) else { return };
        let Err(cause) = self.check_session_set(held) else { return };
        let message = format!("while it waited for its locks, things changed: {}", cause.message);
        let refusal = Refusal::new(Class::Precondition, "CHANGED_WHILE_WAITING", message)
            .hint("look again (sdm disk list), then ask for the lock anew");
        if let Some(mut row) = self.sessions.get(&session).cloned()
            && matches!(row.last_reply, Some(Reply::Lock { id, .. }) if id == lock)
        {
            row.last_reply = Some(Reply::Refused(refusal));
            self.put_session(row);
        }
        self.release(turn, lock);
    }

    /// The lock set of the client's session under which a transaction with these locks is to run. None where it takes
    /// its own: a session that holds nothing but `user/` names vouches with its token for no more than that it lives.
    ///
    /// # Errors
    /// The token is stale, the set does not cover the locks, or another transaction runs under it.
    pub fn lock_under(&self, under: &Under, locks: &Resources) -> Result<Option<u64>, Refusal> {
        let lock = self.lock_of_token(under)?;
        let missing: Vec<_> =
            locks.iter().filter(|(resource, mode)| !covers(&lock.resources, resource, **mode)).collect();
        if missing.is_empty() {
            return match lock.txn {
                None => Ok(Some(lock.id)),
                Some(other) => Err(Refusal::new(
                    Class::Precondition,
                    "TOKEN_IN_USE",
                    format!("transaction {other} runs under token {} already: one at a time", under.token),
                )
                .hint(format!("wait for it: sdm txn watch {other}; {NEW_ID}"))
                .blocker("transaction", other.to_string(), "runs under the same token")),
            };
        }
        let users_own = lock.resources.keys().all(|resource| matches!(resource, Resource::User(_)));
        if users_own && locks.keys().all(|resource| !lock.resources.contains_key(resource)) {
            return Ok(None);
        }
        let words: Vec<String> =
            missing.iter().map(|(resource, mode)| format!("{}:{mode}", self.resource_word(resource))).collect();
        let message = format!(
            "lock {} (token {}) does not cover all it needs: {} is missing",
            lock.id,
            under.token,
            words.join(", ")
        );
        Err(Refusal::new(Class::Precondition, "TOKEN_DOES_NOT_COVER", message).hint(format!(
            "take the whole set at once: sdm lock acquire {} {} -- COMMAND; or give this lock back first: the command \
             then takes locks of its own; {NEW_ID}",
            self.set_in_words(lock),
            words.join(" ")
        )))
    }

    /// Whether the token that a transaction was begun under still vouches for it: it may have waited for locks of its
    /// own while its client lost the one that it named, and another took that.
    ///
    /// # Errors
    /// The token is stale.
    pub(super) fn check_vouched(&self, txn: &Txn) -> Result<(), Refusal> {
        let (Some(token), Some(id)) = (txn.under, txn.vouched_by) else { return Ok(()) };
        let lock = self.locks.get(&id);
        if lock.and_then(|lock| lock.granted).is_some_and(|granted| granted.token == token) {
            return Ok(());
        }
        Err(stale(token, &format!("lock {id} was lost while transaction {} was under way", txn.id)))
    }

    pub(crate) fn lock_of_token(&self, under: &Under) -> Result<&LockSet, Refusal> {
        let stale = |why: String| stale(under.token, &why);
        let session = self
            .live_session(under.session)
            .map_err(|_| stale(format!("session {} that held it is over", under.session.id)))?;
        let own = self.index.session_locks.get(&session.id);
        let held = own.into_iter().flat_map(|own| own.iter()).filter_map(|id| self.locks.get(&id));
        held.into_iter().find(|lock| lock.granted.is_some_and(|granted| granted.token == under.token)).ok_or_else(
            || match session.broken.last() {
                Some(broken) => stale(format!("lock {} was broken by {}: {}", broken.lock, broken.by, broken.reason)),
                None => stale(format!("session {} holds no lock under it", session.id)),
            },
        )
    }

    /// A resource as users name it.
    #[must_use]
    pub fn resource_word(&self, resource: &Resource) -> String {
        match resource {
            Resource::Domain(id) => {
                self.domains.get(id).map_or_else(|| resource.to_string(), |domain| format!("domain/{}", domain.name))
            }
            Resource::Disk(id) => {
                self.disks.get(id).map_or_else(|| resource.to_string(), |disk| format!("disk/{}", disk.name))
            }
            Resource::Name(_) | Resource::User(_) => resource.to_string(),
        }
    }

    /// The resources of a lock set as users name them, a few of them.
    #[must_use]
    pub fn resources_in_words(&self, lock: &LockSet) -> String {
        const SHOWN: usize = 3;
        let mut words: Vec<String> =
            lock.resources.keys().take(SHOWN).map(|resource| self.resource_word(resource)).collect();
        if lock.resources.len() > SHOWN {
            words.push(format!("{} more", lock.resources.len() - SHOWN));
        }
        words.join(", ")
    }

    /// The same with their modes, as `sdm lock acquire` takes them.
    fn set_in_words(&self, lock: &LockSet) -> String {
        let words = lock.resources.iter().map(|(resource, mode)| format!("{}:{mode}", self.resource_word(resource)));
        words.collect::<Vec<_>>().join(" ")
    }

    /// Its place among those that wait, from 1; 0 when it is held. Not counted beyond some hundreds.
    #[must_use]
    pub fn wait_position(&self, lock: &LockSet) -> usize {
        if lock.granted.is_some() {
            return 0;
        }
        1 + self.index.lock_queues.before(lock, COUNTED_MAX).len()
    }

    /// Those who wait because of what this lock set holds, or wants before them, in the order of their requests; of
    /// each resource at most so many.
    #[must_use]
    pub fn waiters_behind(&self, lock: &LockSet, most: usize) -> Vec<&LockSet> {
        self.index.lock_queues.behind(lock, most).iter().filter_map(|id| self.locks.get(id)).collect()
    }

    /// How many they are. Not counted beyond some hundreds.
    #[must_use]
    pub fn waiter_count(&self, lock: &LockSet) -> usize {
        self.index.lock_queues.behind(lock, COUNTED_MAX).len()
    }

    /// The lock sets that hold or wait for a resource, holders first, each in the order of their requests.
    #[must_use]
    pub fn locks_at(&self, resource: &Resource) -> Vec<&LockSet> {
        let mut found: Vec<&LockSet> =
            self.index.lock_queues.at(resource).into_iter().filter_map(|id| self.locks.get(&id)).collect();
        found.sort_by_key(|lock| (lock.granted.is_none(), lock.id));
        found
    }

    /// The lock sets of a session, in the order of their requests.
    #[must_use]
    pub fn locks_of_session(&self, session: u64) -> Vec<&LockSet> {
        let own = self.index.session_locks.get(&session);
        own.into_iter().flat_map(|own| own.iter()).filter_map(|id| self.locks.get(&id)).collect()
    }

    /// Whether a lock set is a session's.
    #[must_use]
    pub fn session_of(&self, lock: &LockSet) -> Option<u64> {
        match lock.owner {
            LockOwner::Session(id) => Some(id),
            LockOwner::Txn(_) => None,
        }
    }
}
