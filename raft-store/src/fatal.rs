//! The first failure of this member's disk, kept for good. After it nothing is written or
//! acknowledged any more; whoever runs the member waits for it and ends the process. It says what
//! failed and what the operator does next, it never tries again: after a failed fsync the kernel
//! may have dropped the data and report success the next time. A new start is another matter: it
//! reads the log from the disk, without the kernel's copy, and knows only what is durable.

use std::fmt;
use std::io;
use std::sync::Arc;
use tokio::sync::watch;

/// What an operator does with a member whose disk lost what it had acknowledged. It must not start
/// again: it could vote twice, or take part in a majority without what it acknowledged.
pub(crate) const REPLACE_MEMBER: &str = "keep the data folder for analysis and do not start it again; start a new member under another name with an \
     empty folder and --join, then give it the old one's place: sdm member replace OLD --with NEW";

/// Why the member stopped.
#[derive(Clone, Debug)]
pub struct FatalError {
    operation: String,
    kind: io::ErrorKind,
    source: Arc<io::Error>,
}

impl FatalError {
    /// What failed (as in "writing the log") and the error that it met.
    pub fn new(operation: impl Into<String>, error: io::Error) -> Self {
        FatalError { operation: operation.into(), kind: error.kind(), source: Arc::new(error) }
    }

    /// The kind of the error underneath.
    pub fn kind(&self) -> io::ErrorKind {
        self.kind
    }

    fn hint(&self) -> String {
        match self.kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free space on the file system of the data folder, then start this member again".to_owned()
            }
            io::ErrorKind::InvalidData => format!("what was read is damaged: {REPLACE_MEMBER}"),
            io::ErrorKind::Unsupported => "start this member with the newer version of sdm".to_owned(),
            _ => format!(
                "check the disk of the data folder (dmesg, smartctl) and start this member again; if the disk is \
                 broken: {REPLACE_MEMBER}"
            ),
        }
    }
}

impl fmt::Display for FatalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "this member stops: {} failed: {}. What was acknowledged before is safe; nothing was \
             acknowledged since. Next: {}",
            self.operation,
            self.source,
            self.hint()
        )
    }
}

impl std::error::Error for FatalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.source.as_ref())
    }
}

impl From<&FatalError> for io::Error {
    fn from(error: &FatalError) -> Self {
        io::Error::new(error.kind, error.clone())
    }
}

/// A handle on the member's first disk failure. Clones share it.
#[derive(Clone, Debug)]
pub struct Fatal {
    first: Arc<watch::Sender<Option<FatalError>>>,
}

impl Default for Fatal {
    fn default() -> Self {
        Fatal { first: Arc::new(watch::Sender::new(None)) }
    }
}

impl Fatal {
    /// Records the failure if it is the first, and returns the first as an I/O error.
    pub fn fail(&self, operation: &str, error: io::Error) -> io::Error {
        self.first.send_if_modified(|first| {
            if first.is_some() {
                return false;
            }
            let fatal = FatalError::new(operation, error);
            tracing::error!(operation, error = %fatal.source, "{fatal}");
            *first = Some(fatal);
            true
        });
        self.check().err().unwrap_or_else(|| io::Error::other("a recorded failure was lost"))
    }

    /// Ok while nothing failed.
    ///
    /// # Errors
    /// The first failure.
    pub fn check(&self) -> io::Result<()> {
        match self.first.borrow().as_ref() {
            None => Ok(()),
            Some(first) => Err(first.into()),
        }
    }

    /// The first failure, if there was one.
    pub fn get(&self) -> Option<FatalError> {
        self.first.borrow().clone()
    }

    /// Waits for the first failure.
    pub async fn wait(&self) -> FatalError {
        let mut first = self.first.subscribe();
        loop {
            if let Some(fatal) = first.borrow_and_update().clone() {
                return fatal;
            }
            // The sender lives in `self`, so this ends only with a change.
            if first.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_failure_stays_and_says_what_to_do() {
        let fatal = Fatal::default();
        assert!(fatal.check().is_ok());
        fatal.fail("writing the log", io::Error::from(io::ErrorKind::StorageFull));
        let later = fatal.fail("reading the log", io::Error::other("something else"));
        assert_eq!(later.kind(), io::ErrorKind::StorageFull);
        let text = fatal.wait().await.to_string();
        assert!(text.contains("writing the log") && text.contains("free space"), "{text}");
    }
}
