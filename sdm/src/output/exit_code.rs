//! Exit codes. They are a promise to scripts: none changes its meaning.

use sdm_proto::refusal::Class;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// Done.
    Done,
    /// A defect of ours.
    Internal,
    /// The command line or the request is wrong.
    Usage,
    /// What it names does not exist.
    NotFound,
    /// It exists already, with other content.
    Conflict,
    /// Locked, in use, or in the wrong state.
    Precondition,
    /// No permission, or no secret.
    Denied,
    /// No space, or over a limit.
    Exhausted,
    /// The operation failed or was aborted, or what was read is damaged.
    Aborted,
    /// Timed out; what was begun goes on.
    TimedOut,
    /// `status --check`: warnings.
    HealthWarning,
    /// `status --check`: errors.
    HealthError,
    /// `lock acquire`: the session was lost, and with it the lock.
    SessionLost,
    /// `lock acquire`: as the command ended, or 126 and 127 when it could not be run.
    OfCommand(u8),
    /// Nobody answers, or no leader.
    Unavailable,
    /// A version or feature level does not know it.
    Unsupported,
    /// Ctrl-C; what was begun goes on.
    Interrupted,
}

/// Every code with its meaning, in the order of the numbers.
pub const EXIT_CODES: &[(ExitCode, u8, &str)] = &[
    (ExitCode::Done, 0, "done"),
    (ExitCode::Internal, 1, "unexpected: a defect of sdm"),
    (ExitCode::Usage, 2, "usage: the command line or the request is wrong"),
    (ExitCode::NotFound, 3, "not found"),
    (ExitCode::Conflict, 4, "exists already with other content"),
    (ExitCode::Precondition, 5, "precondition: locked, in use, or in the wrong state"),
    (ExitCode::Denied, 6, "no permission, or not the cluster's secret"),
    (ExitCode::Exhausted, 7, "no space, or over a limit"),
    (
        ExitCode::Aborted,
        8,
        "the operation failed or was aborted, for a reason that has no code of its own; or what was read is damaged",
    ),
    (ExitCode::TimedOut, 9, "timed out; what was begun goes on"),
    (ExitCode::HealthWarning, 10, "status --check: warnings"),
    (ExitCode::HealthError, 11, "status --check: errors"),
    (ExitCode::SessionLost, 12, "lock acquire: the session was lost and with it the lock; COMMAND was ended"),
    (ExitCode::Unavailable, 20, "cannot connect, or no leader"),
    (ExitCode::Unsupported, 21, "not supported by this version or feature level"),
    (
        ExitCode::OfCommand(126),
        126,
        "lock acquire: COMMAND cannot be executed (else its own exit code, 128 + N for signal N)",
    ),
    (ExitCode::OfCommand(127), 127, "lock acquire: COMMAND is not found"),
    (ExitCode::Interrupted, 130, "interrupted; what was begun goes on, and the message says how to look"),
];

impl ExitCode {
    /// The number.
    #[must_use]
    pub fn number(self) -> u8 {
        if let Self::OfCommand(code) = self {
            return code;
        }
        EXIT_CODES.iter().find(|(code, _, _)| *code == self).map_or(1, |(_, number, _)| *number)
    }
}

impl From<Class> for ExitCode {
    fn from(class: Class) -> Self {
        match class {
            Class::Invalid => Self::Usage,
            Class::NotFound => Self::NotFound,
            Class::Conflict => Self::Conflict,
            Class::Precondition => Self::Precondition,
            Class::Denied => Self::Denied,
            Class::Exhausted => Self::Exhausted,
            Class::Aborted => Self::Aborted,
            Class::Timeout => Self::TimedOut,
            Class::Unavailable => Self::Unavailable,
            Class::Unsupported => Self::Unsupported,
            Class::Internal => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_ends_with_the_number_promised_for_it() {
        let expected = [
            (Class::Invalid, 2),
            (Class::NotFound, 3),
            (Class::Conflict, 4),
            (Class::Precondition, 5),
            (Class::Denied, 6),
            (Class::Exhausted, 7),
            (Class::Aborted, 8),
            (Class::Timeout, 9),
            (Class::Unavailable, 20),
            (Class::Unsupported, 21),
            (Class::Internal, 1),
        ];
        for (class, number) in expected {
            assert_eq!(ExitCode::from(class).number(), number, "{class:?}");
        }
        assert_eq!(ExitCode::Interrupted.number(), 130);
    }

    #[test]
    fn numbers_are_used_once_and_rise() {
        assert!(EXIT_CODES.windows(2).all(|pair| pair[0].1 < pair[1].1));
    }
}
