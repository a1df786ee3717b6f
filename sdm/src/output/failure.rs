//! How a command fails: a refusal, the request it belongs to, and the exit code. Rendered as text or
//! as one JSON object, both on stderr.

use super::ExitCode;
use super::Format;
use super::human::sizes_told;
use super::one_line;
use sdm_proto::refusal::Blocker;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::word_of;
use serde::Serialize;
use std::error::Error;
use std::fmt::Write as _;

/// A command that did not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{refusal}")]
pub struct Failure {
    /// What was refused, why, and what to do next.
    pub refusal: Box<Refusal>,
    /// The request that it belongs to, if one was begun.
    pub request_id: Option<String>,
    /// How the process ends.
    pub exit_code: ExitCode,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let exit_code = refusal.class.into();
        Self { refusal: Box::new(refusal), request_id: None, exit_code }
    }
}

impl Failure {
    /// Without a hint.
    #[must_use]
    pub fn new(class: Class, reason: &str, message: impl Into<String>) -> Self {
        Refusal::new(class, reason, message).into()
    }

    /// The same with the request that it belongs to.
    #[must_use]
    pub fn of_request(mut self, request_id: &str) -> Self {
        self.request_id = Some(request_id.to_owned());
        self
    }

    /// The same ending with another code than its class would.
    #[must_use]
    pub fn ending(mut self, exit_code: ExitCode) -> Self {
        self.exit_code = exit_code;
        self
    }

    /// As it stands on stderr, with a line feed at the end.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Table => sizes_told(&self.text()),
            Format::Json | Format::Jsonl => self.json(),
        }
    }

    fn text(&self) -> String {
        let Refusal { reason, message, hint, blockers, .. } = &*self.refusal;
        let mut text = format!("error: {}   [{}]\n", one_line(message), one_line(reason));
        for blocker in blockers {
            let Blocker { kind, id, description } = blocker;
            // A String never refuses to be written to; the same holds below.
            _ = writeln!(text, "  - {}", one_line(&format!("{kind} {id}: {description}")));
        }
        if !hint.is_empty() {
            _ = writeln!(text, "hint: {}", one_line(hint));
        }
        if let Some(request_id) = &self.request_id {
            _ = writeln!(text, "request {request_id}   exit {}", self.exit_code.number());
        }
        text
    }

    fn json(&self) -> String {
        let object = ErrorObject { error: self.into() };
        let text = serde_json::to_string(&object).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
        text + "\n"
    }
}

/// An error with all its causes, outermost first, none told twice.
#[must_use]
pub fn causes_text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let own = error.to_string();
        if !text.contains(&own) {
            text.push_str(": ");
            text.push_str(&own);
        }
        cause = error.source();
    }
    text
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    error: ErrorView<'a>,
}

#[derive(Serialize)]
struct ErrorView<'a> {
    class: &'static str,
    reason: &'a str,
    message: &'a str,
    hint: &'a str,
    blockers: Vec<BlockerView<'a>>,
    request_id: Option<&'a str>,
    exit_code: u8,
}

#[derive(Serialize)]
struct BlockerView<'a> {
    kind: &'a str,
    id: &'a str,
    description: &'a str,
}

impl<'a> From<&'a Failure> for ErrorView<'a> {
    fn from(failure: &'a Failure) -> Self {
        let view = |b: &'a Blocker| BlockerView { kind: &b.kind, id: &b.id, description: &b.description };
        Self {
            class: word_of(failure.refusal.class),
            reason: &failure.refusal.reason,
            message: &failure.refusal.message,
            hint: &failure.refusal.hint,
            blockers: failure.refusal.blockers.iter().map(view).collect(),
            request_id: failure.request_id.as_deref(),
            exit_code: failure.exit_code.number(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_use() -> Failure {
        let message = "disk web-01 cannot be deleted: 1 thing uses it";
        let refusal = Refusal::new(Class::Precondition, "DISK_IN_USE", message).hint("sdm job list").blocker(
            "job",
            "job-3",
            "copies it to nfs2",
        );
        Failure::from(refusal).of_request("6b1e")
    }

    #[test]
    fn text_names_the_reason_each_blocker_the_way_out_and_the_request() {
        let expected = "error: disk web-01 cannot be deleted: 1 thing uses it   [DISK_IN_USE]\n  \
                        - job job-3: copies it to nfs2\nhint: sdm job list\nrequest 6b1e   exit 5\n";
        assert_eq!(in_use().render(Format::Table), expected);
    }

    #[test]
    fn text_leaves_out_what_there_is_not() {
        let failure = Failure::new(Class::Invalid, "BAD_SIZE", "--size: no");
        assert_eq!(failure.render(Format::Table), "error: --size: no   [BAD_SIZE]\n");
    }

    #[test]
    fn json_is_one_object_that_omits_nothing() {
        let json: serde_json::Value = serde_json::from_str(&in_use().render(Format::Json)).unwrap();
        let expected = serde_json::json!({"error": {
            "class": "precondition",
            "reason": "DISK_IN_USE",
            "message": "disk web-01 cannot be deleted: 1 thing uses it",
            "hint": "sdm job list",
            "blockers": [{"kind": "job", "id": "job-3", "description": "copies it to nfs2"}],
            "request_id": "6b1e",
            "exit_code": 5,
        }});
        assert_eq!(json, expected);
        let bare = Failure::new(Class::Internal, "X", "").render(Format::Json);
        let json: serde_json::Value = serde_json::from_str(&bare).unwrap();
        assert!(json["error"]["request_id"].is_null());
        assert_eq!(json["error"]["blockers"], serde_json::json!([]));
        assert_eq!(json["error"]["hint"], "");
    }

    #[test]
    fn an_ending_of_its_own_wins_over_the_class() {
        let failure = Failure::new(Class::Unavailable, "INTERRUPTED", "").ending(ExitCode::Interrupted);
        assert_eq!(failure.exit_code.number(), 130);
    }
}
