//! What a request may contain: checked here, before it costs the cluster an entry.

use sdm_proto::names::LOCK_NAME_BYTES_MAX;
use sdm_proto::names::is_lock_name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_state::command::SessionRef;
use sdm_state::locks::Mode;
use sdm_state::locks::Resource;

/// Longest reason, in bytes: every member keeps it in memory as long as the lock.
const WHY_BYTES_MAX: usize = 256;

/// Longest label and nonce of a session, in bytes: every member keeps them as long as the session.
const LABEL_BYTES_MAX: usize = 128;
const NONCE_BYTES_MAX: usize = 128;

/// Resources that are read of a request: more than any cluster allows in one lock set, few enough to
/// cost nothing.
const RESOURCES_READ_MAX: usize = 256;

/// Longest wait: as long as a transaction may wait for its locks.
const WAIT_MAX_MS: u64 = 24 * 3_600_000;

/// Sessions in one keepalive: a message of some kilobytes, one round of the leader.
const SESSIONS_MAX: usize = 1_000;

/// The session that a request names.
///
/// # Errors
/// It names none.
pub(super) fn session(key: Option<v1::SessionKey>) -> Result<SessionRef, Refusal> {
    let key = key.filter(|key| key.id > 0);
    key.map(|key| SessionRef { id: key.id, epoch: key.epoch }).ok_or_else(|| {
        Refusal::new(Class::Invalid, "BAD_SESSION", "the request names no session").hint("open one: OpenSession")
    })
}

/// The sessions of a keepalive.
///
/// # Errors
/// They are too many, or one is none.
pub(super) fn sessions(keys: Vec<v1::SessionKey>) -> Result<Vec<SessionRef>, Refusal> {
    if keys.len() > SESSIONS_MAX {
        let message = format!("{} sessions in one keepalive, at most {SESSIONS_MAX} are taken", keys.len());
        return Err(Refusal::new(Class::Invalid, "TOO_MANY_SESSIONS", message).hint("send several"));
    }
    keys.into_iter().map(|key| session(Some(key))).collect()
}

/// A session's request number.
///
/// # Errors
/// It is 0, which stands for "none yet".
pub(super) fn sequence(sequence: u64) -> Result<u64, Refusal> {
    if sequence > 0 {
        return Ok(sequence);
    }
    Err(Refusal::new(Class::Invalid, "BAD_SEQUENCE", "a session's requests are numbered from 1")
        .hint("number them, each one higher than the one before"))
}

/// A lock set's id.
///
/// # Errors
/// It is none.
pub(super) fn lock_id(text: &str) -> Result<u64, Refusal> {
    text.parse().ok().filter(|id| *id > 0).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        Refusal::new(Class::Invalid, "BAD_LOCK_ID", format!("{shown:?} is not the id of a lock"))
            .hint("give the lock_id that Acquire answered; see sdm lock list")
    })
}

/// A lock set of users' names.
///
/// # Errors
/// A name, a mode or their number is wrong.
pub(super) fn lock_set(resources: &[v1::LockedResource]) -> Result<Vec<(Resource, Mode)>, Refusal> {
    lock_set_size(resources.len())?;
    resources.iter().map(|wanted| Ok((resource(&wanted.resource)?, mode(&wanted.mode)?))).collect()
}

/// Whether a lock set may have so many resources.
///
/// # Errors
/// None, or too many.
pub(super) fn lock_set_size(resources: usize) -> Result<(), Refusal> {
    if resources == 0 || resources > RESOURCES_READ_MAX {
        let message = format!("a lock set has 1 to {RESOURCES_READ_MAX} resources, not {resources}");
        return Err(Refusal::new(Class::Invalid, "BAD_LOCK_SET", message).hint("name at least one, or fewer"));
    }
    Ok(())
}

/// A name of a user's own.
///
/// # Errors
/// It is none.
pub(super) fn resource(text: &str) -> Result<Resource, Refusal> {
    let shown: String = text.chars().take(64).collect();
    let Some(name) = text.strip_prefix("user/") else {
        let message = format!("{shown:?} cannot be locked: it says neither whose name it is nor what it names");
        return Err(Refusal::new(Class::Invalid, "BAD_RESOURCE", message)
            .hint("the kinds are user/NAME (names of your own), disk/NAME, domain/NAME and name/disk/NAME"));
    };
    // After a colon stands a mode, wherever people write resources: a name with one in it is a slip.
    if !is_lock_name(name) || name.contains(':') {
        return Err(Refusal::new(Class::Invalid, "BAD_RESOURCE", format!("{shown:?} cannot be locked"))
            .hint(format!("a name is user/ and 1 to {LOCK_NAME_BYTES_MAX} letters, digits and ._@+-/")));
    }
    Ok(Resource::User(name.to_owned()))
}

/// A mode.
///
/// # Errors
/// It is none.
pub(super) fn mode(text: &str) -> Result<Mode, Refusal> {
    match text {
        "X" => Ok(Mode::Exclusive),
        "S" => Ok(Mode::Shared),
        "IX" => Ok(Mode::IntentExclusive),
        "IS" => Ok(Mode::IntentShared),
        other => {
            let message = format!("{:?} is not a lock mode", other.chars().take(16).collect::<String>());
            Err(Refusal::new(Class::Invalid, "BAD_MODE", message)
                .hint("X excludes everyone, S shares with other S, IX and IS announce work beneath"))
        }
    }
}

/// How long to wait.
///
/// # Errors
/// Longer than anybody remembers.
pub(super) fn wait_ms(wait_ms: u64) -> Result<u64, Refusal> {
    if wait_ms <= WAIT_MAX_MS {
        return Ok(wait_ms);
    }
    let message = format!("a lock can be waited for at most 24 h, not {} s", wait_ms / 1000);
    Err(Refusal::new(Class::Invalid, "BAD_LOCK_WAIT", message).hint("wait for less"))
}

/// What a lock is for.
///
/// # Errors
/// It is too long, or not one line of text.
pub(super) fn why(text: String) -> Result<String, Refusal> {
    line("reason", text, WHY_BYTES_MAX)
}

/// Who a session belongs to.
///
/// # Errors
/// It is too long, or not one line of text.
pub(super) fn label(text: String) -> Result<String, Refusal> {
    line("label", text, LABEL_BYTES_MAX)
}

/// What names the opening of a session. Marked as a client's: a worker's nonce is nobody else's.
///
/// # Errors
/// It is empty or too long.
pub(super) fn nonce(text: &str) -> Result<String, Refusal> {
    if !text.is_empty() && text.len() <= NONCE_BYTES_MAX {
        return Ok(format!("client/{text}"));
    }
    let message = format!("a session's nonce has 1 to {NONCE_BYTES_MAX} bytes, not {}", text.len());
    Err(Refusal::new(Class::Invalid, "BAD_NONCE", message).hint("draw one at random for each session"))
}

fn line(field: &str, text: String, most: usize) -> Result<String, Refusal> {
    if text.len() > most {
        let reason = format!("{}_TOO_LONG", field.to_ascii_uppercase());
        let message = format!("the {field} has {} bytes, at most {most} are kept", text.len());
        return Err(Refusal::new(Class::Invalid, &reason, message).hint(format!("shorten the {field}")));
    }
    if text.chars().any(char::is_control) {
        let reason = format!("BAD_{}", field.to_ascii_uppercase());
        let message = format!("the {field} contains a line break or another control character");
        return Err(Refusal::new(Class::Invalid, &reason, message).hint(format!("give the {field} as one line")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(resource: &str, mode: &str) -> v1::LockedResource {
        v1::LockedResource { resource: resource.to_owned(), mode: mode.to_owned() }
    }

    fn reason_of<T: std::fmt::Debug>(outcome: Result<T, Refusal>) -> String {
        let refusal = outcome.unwrap_err();
        assert!(!refusal.hint.is_empty(), "{refusal} says what to do");
        refusal.reason
    }

    #[test]
    fn names_of_users_are_taken_with_their_modes() {
        let set = lock_set(&[wanted("user/backup/db-1", "X"), wanted("user/a", "IS")]).unwrap();
        let expected = [("backup/db-1", Mode::Exclusive), ("a", Mode::IntentShared)];
        assert_eq!(set, expected.map(|(name, mode)| (Resource::User(name.to_owned()), mode)));
    }

    #[test]
    fn other_resources_bad_names_and_modes_are_refused() {
        for text in
            ["disk/x", "domain/x", "name/x", "backup", "", "user/", "user/a b", "user/a\n", "user/\u{e4}", "user/a:s"]
        {
            assert_eq!(reason_of(lock_set(&[wanted(text, "X")])), "BAD_RESOURCE", "{text:?}");
        }
        let long = format!("user/{}", "x".repeat(LOCK_NAME_BYTES_MAX + 1));
        assert_eq!(reason_of(lock_set(&[wanted(&long, "X")])), "BAD_RESOURCE");
        assert_eq!(reason_of(lock_set(&[wanted("user/a", "x")])), "BAD_MODE");
        assert_eq!(reason_of(lock_set(&[])), "BAD_LOCK_SET");
    }

    #[test]
    fn sessions_numbers_and_texts_have_limits() {
        assert_eq!(reason_of(session(None)), "BAD_SESSION");
        assert_eq!(reason_of(sequence(0)), "BAD_SEQUENCE");
        assert_eq!(reason_of(wait_ms(WAIT_MAX_MS + 1)), "BAD_LOCK_WAIT");
        assert_eq!(reason_of(why("x".repeat(WHY_BYTES_MAX + 1))), "REASON_TOO_LONG");
        assert_eq!(reason_of(label("a\u{1b}[31m".to_owned())), "BAD_LABEL");
        assert_eq!(reason_of(nonce("")), "BAD_NONCE");
        let key = v1::SessionKey { id: 1, epoch: 1 };
        assert_eq!(reason_of(sessions(vec![key; SESSIONS_MAX + 1])), "TOO_MANY_SESSIONS");
    }

    #[test]
    fn a_clients_nonce_is_never_a_workers() {
        assert_eq!(nonce("7").unwrap(), "client/7");
    }
}
