//! What a command has begun, so that whoever ends the command early (Ctrl-C, `--timeout`) can say what
//! goes on without it and how to look.

use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::age_text;
use crate::values::milliseconds;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// What goes on when the command ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// One that no member has confirmed yet.
    Asked(String),
    /// A transaction that needs nobody.
    Transaction(String),
    /// One that ends unless somebody sends or reads its bytes.
    Transfer(String),
    /// The deletion of garbage.
    Collection,
    /// A change without a transaction, which may be repeated; with the command that shows it.
    Change(String),
    /// A folder that is being made, without any member.
    Folder(String),
}

/// The command's slot for it.
#[derive(Debug, Default)]
pub struct Attachment {
    begun: Mutex<Option<Begun>>,
}

impl Attachment {
    /// Notes what was begun.
    pub fn set(&self, begun: Begun) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
    }

    fn get(&self) -> Option<Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The transaction that needs this command's bytes, if there is one.
    #[must_use]
    pub fn transfer(&self) -> Option<String> {
        match self.get() {
            Some(Begun::Transfer(id)) => Some(id),
            _ => None,
        }
    }

    /// The failure after Ctrl-C when the transaction was ended, too.
    #[must_use]
    pub fn interrupted_and_aborted(&self, id: &str) -> Failure {
        let message = format!("interrupted; transaction {id} was aborted, and its locks are released");
        let hint = "to begin anew: the same command without --request-id, or with a new one";
        let refusal = Refusal::new(Class::Unavailable, "INTERRUPTED", message).hint(hint);
        Failure::from(refusal).of_request(id).ending(ExitCode::Interrupted)
    }

    /// The failure after Ctrl-C.
    #[must_use]
    pub fn interrupted(&self) -> Failure {
        self.ended("interrupted", Class::Unavailable, "INTERRUPTED").ending(ExitCode::Interrupted)
    }

    /// The failure after `--timeout`.
    #[must_use]
    pub fn timed_out(&self, after: Duration) -> Failure {
        let what = format!("timed out after {}", age_text(milliseconds(after)));
        self.ended(&what, Class::Timeout, "TIMED_OUT")
    }

    fn ended(&self, what: &str, class: Class, reason: &str) -> Failure {
        let (goes_on, hint, request_id) = match self.get() {
            None => {
                let hint = "repeat the command; `sdm status` tells whether the members answer";
                ("; nothing was begun".to_owned(), hint.to_owned(), None)
            }
            Some(Begun::Change(look)) => {
                let hint = format!("look: {look}; or repeat the command: nothing is done twice");
                ("; whether it was done is not known".to_owned(), hint, None)
            }
            Some(Begun::Folder(folder)) => {
                let hint = format!("look into {folder}; when it holds nothing else, remove it and repeat");
                (format!("; {folder} may hold a part of what was to be made"), hint, None)
            }
            Some(Begun::Collection) => ("; the deletion goes on".to_owned(), "look: sdm gc list".to_owned(), None),
            Some(Begun::Asked(id)) => {
                let hint = format!("look: sdm txn show {id}, or {}", repeat_hint(&id));
                (format!("; whether transaction {id} has begun is not known"), hint, Some(id))
            }
            Some(Begun::Transaction(id)) => {
                let hint = format!("look: sdm txn show {id}; end it: sdm txn abort {id}");
                (format!("; transaction {id} goes on"), hint, Some(id))
            }
            Some(Begun::Transfer(id)) => {
                let hint =
                    format!("end it now: sdm txn abort {id}; or take it over: the same command with --request-id {id}");
                (format!("; transaction {id} waits a minute for its other end, then aborts"), hint, Some(id))
            }
        };
        let mut failure = Failure::from(Refusal::new(class, reason, format!("{what}{goes_on}")).hint(hint));
        failure.request_id = request_id;
        failure
    }
}

/// How to ask again without doing anything twice.
#[must_use]
pub fn repeat_hint(id: &str) -> String {
    format!("repeat the command with --request-id {id}: nothing is done twice")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_before_the_beginning_says_that_nothing_was_begun() {
        let failure = Attachment::default().interrupted();
        assert_eq!(failure.exit_code.number(), 130);
        assert!(failure.refusal.message.contains("nothing was begun") && !failure.refusal.hint.is_empty());
    }

    #[test]
    fn a_change_that_may_be_repeated_is_neither_denied_nor_promised() {
        let attachment = Attachment::default();
        attachment.set(Begun::Change("sdm member list".into()));
        let failure = attachment.interrupted();
        assert_eq!(failure.refusal.message, "interrupted; whether it was done is not known");
        assert!(failure.refusal.hint.contains("sdm member list"), "{failure:?}");
    }

    #[test]
    fn what_nobody_confirmed_is_not_promised_to_go_on() {
        let attachment = Attachment::default();
        attachment.set(Begun::Asked("6b1e".into()));
        let failure = attachment.interrupted();
        assert_eq!(failure.refusal.message, "interrupted; whether transaction 6b1e has begun is not known");
        assert!(failure.refusal.hint.contains("--request-id 6b1e"));
    }

    #[test]
    fn what_goes_on_is_named_with_the_way_to_look() {
        let attachment = Attachment::default();
        attachment.set(Begun::Transaction("6b1e".into()));
        let failure = attachment.timed_out(Duration::from_secs(30));
        assert_eq!(failure.exit_code.number(), 9);
        assert_eq!(failure.refusal.message, "timed out after 30s; transaction 6b1e goes on");
        assert_eq!(failure.refusal.hint, "look: sdm txn show 6b1e; end it: sdm txn abort 6b1e");
        assert_eq!(failure.request_id.as_deref(), Some("6b1e"));
    }
}
