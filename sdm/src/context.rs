//! What every operator's command works with: the cluster, the printer, the note of what it began, and
//! when it shall end early.

use crate::client::Attachment;
use crate::client::Cluster;
use crate::client::LOOK;
use crate::client::abort_own;
use crate::client::trouble_of;
use crate::client::with_trouble;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Printer;
use crate::shutdown::Shutdown;
use crate::transfer::PartFiles;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams::Transport;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// See the file's first lines.
pub struct Context {
    /// The members.
    pub cluster: Cluster,
    /// Where results go.
    pub printer: Printer,
    /// What goes on when the command ends early.
    pub attachment: Attachment,
    /// Temporary files to remove when the command ends early.
    pub parts: Arc<PartFiles>,
    /// Whether the user wants no more.
    pub shutdown: Shutdown,
    /// When `--timeout` is over, and how long it is.
    expires: Option<(Instant, Duration)>,
}

impl Context {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// An address does not read as one.
    pub fn new(
        addresses: &[String],
        secret: ClusterSecret,
        transport: Arc<dyn Transport>,
        printer: Printer,
        shutdown: Shutdown,
    ) -> Result<Self, Failure> {
        let cluster = Cluster::new(addresses, secret, transport)?;
        let (attachment, parts) = (Attachment::default(), Arc::default());
        Ok(Self { cluster, printer, attachment, parts, shutdown, expires: None })
    }

    /// The same with a time, from now on, after which it shall end.
    #[must_use]
    pub fn within(mut self, timeout: Option<Duration>) -> Self {
        self.expires = timeout.and_then(|timeout| Some((Instant::now().checked_add(timeout)?, timeout)));
        self
    }

    /// The last word of a command that the user interrupted: a transaction that needs this command's bytes is ended with
    /// it, so that its locks are nobody's at once. A second Ctrl-C does not wait for that.
    pub async fn let_go(&self, failure: Failure) -> Failure {
        let Some(id) = self.attachment.transfer().filter(|_| failure.exit_code == ExitCode::Interrupted) else {
            return failure;
        };
        let why = Failure::new(Class::Unavailable, "INTERRUPTED", "the user interrupted it");
        let ended = tokio::select! {
            ended = abort_own(&self.cluster, &id, &why) => ended,
            () = self.shutdown.clone().requested_times(2) => false,
        };
        if ended { self.attachment.interrupted_and_aborted(&id) } else { failure }
    }

    /// Completes when the command shall end early: the user wants no more, or its time is over. The
    /// failure says what goes on without it.
    pub async fn unwanted(&self) -> Failure {
        tokio::select! {
            () = self.shutdown.clone().requested() => self.attachment.interrupted(),
            (timeout, trouble) = self.expired() => with_trouble(self.attachment.timed_out(timeout), trouble),
        }
    }

    /// Completes when `--timeout` is over, with its length and why no member serves, where none does. The last moments
    /// before it are used to ask them.
    pub async fn expired(&self) -> (Duration, Option<Refusal>) {
        let Some((at, timeout)) = self.expires else { return std::future::pending().await };
        tokio::time::sleep_until(at - timeout.min(LOOK)).await;
        let trouble = trouble_of(&self.cluster).await;
        tokio::time::sleep_until(at).await;
        (timeout, trouble)
    }
}
