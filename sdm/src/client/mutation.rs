//! The header of a mutation: its request id, who asks and why, and how long it waits for locks.

use crate::values::draw_request_id;
use crate::values::milliseconds;
use crate::values::parse_duration;
use crate::values::parse_request_id;
use clap::Args;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1::MutationHeader;
use sdm_proto::wire::v1::UnderToken;

/// Options of every command that changes something.
#[derive(Args, Debug, Clone, Default)]
pub struct Mutation {
    /// Name this request: the same command with the same id changes nothing twice [default: a random one]
    #[arg(long, value_name = "UUID", help_heading = "Change options")]
    request_id: Option<String>,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", help_heading = "Change options")]
    reason: Option<String>,
    /// How long to wait for locks that others hold [default: 5m]
    #[arg(long, value_name = "DURATION", conflicts_with = "no_wait_lock", help_heading = "Change options")]
    wait_lock: Option<String>,
    /// Refuse at once, naming the holder, instead of waiting for a lock
    #[arg(long, help_heading = "Change options")]
    no_wait_lock: bool,
    /// Print what would be done - locks, steps, space, who is in the way - and do nothing
    #[arg(long, help_heading = "Change options")]
    dry_run: bool,
}

/// The fencing token of the lock under which a command runs, as `sdm lock acquire` sets it ...
pub const LOCK_TOKEN_VARIABLE: &str = "SDM_LOCK_TOKEN";

/// ... the session that holds the lock ...
pub const LOCK_SESSION_VARIABLE: &str = "SDM_LOCK_SESSION";

/// ... and that session's epoch.
pub const LOCK_EPOCH_VARIABLE: &str = "SDM_LOCK_EPOCH";

/// Longest reason, in bytes: it is kept in every member's memory as long as the transaction.
const REASON_BYTES_MAX: usize = 1024;

impl Mutation {
    /// Whether the user gave the id, so that an earlier command may have used it.
    #[must_use]
    pub fn is_repetition(&self) -> bool {
        self.request_id.is_some()
    }

    /// The header, with a fresh request id if none was given.
    ///
    /// # Errors
    /// An option does not read as what it should be.
    pub fn header(&self) -> Result<MutationHeader, Refusal> {
        let lock_wait_ms = match &self.wait_lock {
            Some(text) => milliseconds(parse_duration("--wait-lock", text)?),
            None => 0,
        };
        let reason = self.reason.clone().unwrap_or_default();
        if reason.len() > REASON_BYTES_MAX {
            let message = format!("--reason: {} bytes, at most {REASON_BYTES_MAX} are kept", reason.len());
            return Err(Refusal::new(Class::Invalid, "REASON_TOO_LONG", message));
        }
        Ok(MutationHeader {
            request_id: match &self.request_id {
                Some(text) => parse_request_id(text)?,
                None => draw_request_id(),
            },
            lock_wait_ms,
            // A wait of no time is the same as none; on the wire 0 would mean the default.
            no_wait_lock: self.no_wait_lock || (self.wait_lock.is_some() && lock_wait_ms == 0),
            initiator: initiator(),
            reason,
            dry_run: self.dry_run,
            under: under_token()?,
        })
    }
}

/// The lock under which `sdm lock acquire` runs this command; None where none does.
fn under_token() -> Result<Option<UnderToken>, Refusal> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(token) = variable(LOCK_TOKEN_VARIABLE) else { return Ok(None) };
    let session = variable(LOCK_SESSION_VARIABLE).and_then(|text| text.parse().ok());
    let epoch = variable(LOCK_EPOCH_VARIABLE).and_then(|text| text.parse().ok());
    let Some(session_id) = session else {
        let message = format!("{LOCK_TOKEN_VARIABLE} is set, and {LOCK_SESSION_VARIABLE} is not the id of a session");
        return Err(Refusal::new(Class::Invalid, "BAD_LOCK_TOKEN", message)
            .hint("`sdm lock acquire` sets both; unset both to run without its lock"));
    };
    Ok(Some(UnderToken { token, session_id, session_epoch: epoch.unwrap_or(session_id) }))
}

/// user@host:pid, as shown to others.
#[must_use]
pub fn initiator() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| format!("uid{}", rustix::process::getuid().as_raw()));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{user}@{host}:{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_carries_what_was_given_and_draws_what_was_not() {
        let header = Mutation::default().header().unwrap();
        assert!(parse_request_id(&header.request_id).is_ok());
        assert_eq!((header.lock_wait_ms, header.no_wait_lock), (0, false));
        let mutation =
            Mutation { wait_lock: Some("30s".into()), reason: Some("disk swap".into()), ..Default::default() };
        let header = mutation.header().unwrap();
        assert_eq!((header.lock_wait_ms, header.reason.as_str()), (30_000, "disk swap"));
    }

    #[test]
    fn a_wait_of_no_time_means_not_to_wait() {
        let mutation = Mutation { wait_lock: Some("0s".into()), ..Default::default() };
        assert!(mutation.header().unwrap().no_wait_lock);
    }

    #[test]
    fn bad_options_are_refused_by_name() {
        let bad_id = Mutation { request_id: Some("x".into()), ..Default::default() };
        assert_eq!(bad_id.header().unwrap_err().reason, "BAD_REQUEST_ID");
        let bad_wait = Mutation { wait_lock: Some("5".into()), ..Default::default() };
        assert!(bad_wait.header().unwrap_err().message.starts_with("--wait-lock"));
    }
}
