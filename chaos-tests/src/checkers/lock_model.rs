//! A lock of one holder with fencing tokens, as one sequential object.

use super::intervals::Model;
use sdm_proto::token::Token;

/// Who has it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Under which session.
    pub session: String,
    /// The id of the grant, where it was told.
    pub lock: Option<String>,
    /// Its token, where it was told.
    pub token: Option<Token>,
}

impl std::fmt::Debug for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.token {
            Some(token) => write!(f, "held by session {} with {token}", self.session),
            None => write!(f, "held by session {} with a token that nobody was told", self.session),
        }
    }
}

/// The lock.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Lock {
    /// Who has it.
    pub holder: Option<Holder>,
    /// The newest token that it gave, as far as it was told.
    pub newest: Token,
}

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.holder {
            Some(holder) => write!(f, "{holder:?}, newest token {}", self.newest),
            None => write!(f, "free, newest token {}", self.newest),
        }
    }
}

/// What is done to it.
#[derive(Clone, PartialEq, Eq)]
pub enum LockOp {
    /// Granted: only while nobody has it, under a token above all before.
    Acquire(Holder),
    /// Refused at once, because somebody has it.
    Locked,
    /// Given back by who has it.
    Release {
        /// Under which session.
        session: String,
        /// Which grant; any of the session where it was not said.
        lock: Option<String>,
    },
    /// A session ended, closed or because its lease ran out: what it has is free.
    End {
        /// Which session.
        session: String,
        /// Whether it was closed by who held it.
        closed: bool,
    },
    /// Somebody asked who has it.
    Read(Option<Holder>),
}

impl std::fmt::Debug for LockOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LockOp::Acquire(holder) => match &holder.token {
                Some(token) => write!(f, "acquire by session {} -> {token}", holder.session),
                None => write!(f, "acquire by session {} -> ?", holder.session),
            },
            LockOp::Locked => write!(f, "acquire -> LOCKED"),
            LockOp::Release { session, .. } => write!(f, "release by session {session}"),
            LockOp::End { session, closed: true } => write!(f, "close of session {session}"),
            LockOp::End { session, closed: false } => write!(f, "end of session {session}'s lease"),
            LockOp::Read(None) => write!(f, "read -> free"),
            LockOp::Read(Some(holder)) => write!(f, "read -> {holder:?}"),
        }
    }
}

/// The rules.
#[derive(Clone, Copy, Debug)]
pub struct LockModel;

impl Model for LockModel {
    type State = Lock;
    type Op = LockOp;

    fn initial(&self) -> Lock {
        Lock::default()
    }

    fn only_looks(&self, op: &LockOp) -> bool {
        matches!(op, LockOp::Locked | LockOp::Read(_))
    }

    fn apply(&self, lock: &Lock, op: &LockOp) -> Option<Lock> {
        let mut after = lock.clone();
        match op {
            LockOp::Acquire(holder) => {
                if lock.holder.is_some() {
                    return None;
                }
                if let Some(token) = holder.token {
                    if token <= lock.newest {
                        return None;
                    }
                    after.newest = token;
                }
                after.holder = Some(holder.clone());
            }
            LockOp::Locked => return lock.holder.is_some().then_some(after),
            LockOp::Release { session, lock: id } => {
                let holder = lock.holder.as_ref()?;
                let other = id.as_ref().zip(holder.lock.as_ref()).is_some_and(|(id, held)| id != held);
                if holder.session != *session || other {
                    return None;
                }
                after.holder = None;
            }
            LockOp::End { session, .. } => {
                if lock.holder.as_ref().is_some_and(|holder| holder.session == *session) {
                    after.holder = None;
                }
            }
            LockOp::Read(seen) => return is_what_was_read(lock, seen.as_ref(), after),
        }
        Some(after)
    }
}

/// Whether the lock is as it was read; whoever read may be the first who was told the token.
fn is_what_was_read(lock: &Lock, seen: Option<&Holder>, mut after: Lock) -> Option<Lock> {
    let (holder, seen) = match (&lock.holder, seen) {
        (None, None) => return Some(after),
        (Some(holder), Some(seen)) if holder.session == seen.session => (holder, seen),
        _ => return None,
    };
    match (holder.token, seen.token) {
        (Some(held), Some(read)) if held != read => return None,
        (None, Some(read)) if read <= lock.newest => return None,
        (None, Some(read)) => {
            after.newest = read;
            after.holder = Some(Holder { token: Some(read), ..holder.clone() });
        }
        _ => {}
    }
    Some(after)
}
