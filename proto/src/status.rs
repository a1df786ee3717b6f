//! Refusals on the wire: google.rpc.Status with ErrorInfo (reason, hint), PreconditionFailure (one
//! violation a blocker) and RequestInfo. Both directions stand here, so that they stay each other's
//! inverse.

use crate::refusal::Blocker;
use crate::refusal::Class;
use crate::refusal::Refusal;
use crate::wire::v1;
use std::collections::HashMap;
use tonic::Code;
use tonic::Status;
use tonic_types::ErrorDetails;
use tonic_types::PreconditionViolation;
use tonic_types::StatusExt;

/// `ErrorInfo.domain` of every refusal.
pub const ERROR_DOMAIN: &str = "sdm";

const CODES: &[(Class, Code, &str)] = &[
    (Class::Invalid, Code::InvalidArgument, "invalid"),
    (Class::NotFound, Code::NotFound, "not_found"),
    (Class::Conflict, Code::AlreadyExists, "conflict"),
    (Class::Precondition, Code::FailedPrecondition, "precondition"),
    (Class::Denied, Code::PermissionDenied, "denied"),
    (Class::Exhausted, Code::ResourceExhausted, "exhausted"),
    (Class::Aborted, Code::Aborted, "aborted"),
    (Class::Timeout, Code::DeadlineExceeded, "timeout"),
    (Class::Unavailable, Code::Unavailable, "unavailable"),
    (Class::Unsupported, Code::Unimplemented, "unsupported"),
    (Class::Internal, Code::Internal, "internal"),
];

/// The gRPC code of a class.
#[must_use]
pub fn code_of(class: Class) -> Code {
    CODES.iter().find(|(of, _, _)| *of == class).map_or(Code::Unknown, |(_, code, _)| *code)
}

/// A word for a class, as it stands in JSON and in `Refusal` messages.
#[must_use]
pub fn word_of(class: Class) -> &'static str {
    CODES.iter().find(|(of, _, _)| *of == class).map_or("internal", |(_, _, word)| *word)
}

/// The class of a gRPC code.
#[must_use]
pub fn class_of(code: Code) -> Class {
    match code {
        Code::Unauthenticated => Class::Denied,
        Code::OutOfRange => Class::Invalid,
        Code::Cancelled => Class::Unavailable,
        code => CODES.iter().find(|(_, of, _)| *of == code).map_or(Class::Internal, |(class, _, _)| *class),
    }
}

/// A refusal as a gRPC status with details.
#[must_use]
pub fn to_status(refusal: &Refusal) -> Status {
    let mut metadata = HashMap::new();
    metadata.insert("hint".to_owned(), refusal.hint.clone());
    let mut details = ErrorDetails::with_error_info(refusal.reason.clone(), ERROR_DOMAIN, metadata);
    if !refusal.blockers.is_empty() {
        let violations = refusal.blockers.iter();
        details.set_precondition_failure(
            violations
                .map(|b| PreconditionViolation::new(b.kind.clone(), b.id.clone(), b.description.clone()))
                .collect::<Vec<_>>(),
        );
    }
    Status::with_error_details(code_of(refusal.class), refusal.message.clone(), details)
}

/// The refusal that a gRPC status carries. None when it has no details of ours: then nobody of sdm
/// said it (a broken connection, a deadline of the way, a foreign server), and whether the call was
/// carried out is not known.
#[must_use]
pub fn refusal_in(status: &Status) -> Option<Refusal> {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == ERROR_DOMAIN)?;
    let blockers = details.precondition_failure().map_or_else(Vec::new, |failure| {
        let violations = failure.violations.iter();
        violations
            .map(|v| Blocker { kind: v.r#type.clone(), id: v.subject.clone(), description: v.description.clone() })
            .collect()
    });
    Some(Refusal {
        class: class_of(status.code()),
        reason: info.reason.clone(),
        message: status.message().to_owned(),
        hint: info.metadata.get("hint").cloned().unwrap_or_default(),
        blockers,
    })
}

/// The refusal that a gRPC status carries, or one of our making when it carries none: UNREACHABLE
/// for a connection that broke or was never there, RPC_FAILED for what a stranger said.
#[must_use]
pub fn from_status(status: &Status) -> Refusal {
    refusal_in(status).unwrap_or_else(|| {
        let message = format!("{} ({:?})", status.message(), status.code());
        match status.code() {
            // A connection that is reset in the middle of a call is any of these.
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal => {
                Refusal::new(Class::Unavailable, "UNREACHABLE", message)
            }
            code => Refusal::new(class_of(code), "RPC_FAILED", message),
        }
    })
}

impl From<&Refusal> for v1::Refusal {
    fn from(refusal: &Refusal) -> Self {
        Self {
            class: word_of(refusal.class).to_owned(),
            reason: refusal.reason.clone(),
            message: refusal.message.clone(),
            hint: refusal.hint.clone(),
            blockers: refusal.blockers.iter().map(v1::Blocker::from).collect(),
        }
    }
}

impl From<&Blocker> for v1::Blocker {
    fn from(blocker: &Blocker) -> Self {
        Self { kind: blocker.kind.clone(), id: blocker.id.clone(), description: blocker.description.clone() }
    }
}

impl From<&v1::Refusal> for Refusal {
    fn from(refusal: &v1::Refusal) -> Self {
        let blockers = refusal.blockers.iter();
        Self {
            class: CODES
                .iter()
                .find(|(_, _, word)| *word == refusal.class)
                .map_or(Class::Internal, |(class, _, _)| *class),
            reason: refusal.reason.clone(),
            message: refusal.message.clone(),
            hint: refusal.hint.clone(),
            blockers: blockers
                .map(|b| Blocker { kind: b.kind.clone(), id: b.id.clone(), description: b.description.clone() })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(class: Class) -> Refusal {
        Refusal::new(class, "DISK_IN_USE", "disk web-01 cannot be deleted: job-3 copies it")
            .hint("sdm job list")
            .blocker("job", "job-3", "copies it to nfs2")
            .blocker("lock", "17", "held since 4 s")
    }

    #[test]
    fn every_class_survives_the_wire() {
        for (class, _, _) in CODES {
            assert_eq!(from_status(&to_status(&sample(*class))), sample(*class));
            assert_eq!(Refusal::from(&v1::Refusal::from(&sample(*class))), sample(*class));
        }
    }

    #[test]
    fn a_foreign_status_becomes_a_refusal_without_losing_its_words() {
        let refusal = from_status(&Status::unavailable("tcp connect error"));
        assert_eq!(refusal.class, Class::Unavailable);
        assert!(refusal.message.contains("tcp connect error"));
    }

    #[test]
    fn a_connection_that_broke_is_told_from_what_one_of_ours_said() {
        for status in
            [Status::unknown("h2"), Status::cancelled("reset"), Status::internal("h2"), Status::unavailable("x")]
        {
            assert_eq!(refusal_in(&status), None, "{status:?}");
            let refusal = from_status(&status);
            assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Unavailable, "UNREACHABLE"), "{status:?}");
        }
        let ours = sample(Class::Internal);
        assert_eq!(refusal_in(&to_status(&ours)), Some(ours));
        assert_eq!(from_status(&Status::unimplemented("x")).reason, "RPC_FAILED");
    }
}
