//! What every operator's command works with: the cluster, the printer, the note of what it began, and
//! when it shall end early.

use crate::client::Attachment;
use crate::client::Cluster;
use crate::output::Failure;
use crate::output::Printer;
use crate::shutdown::Shutdown;
use crate::transfer::PartFiles;
use sdm_proto::credentials::ClusterSecret;
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

    /// Completes when the command shall end early: the user wants no more, or its time is over. The
    /// failure says what goes on without it.
    pub async fn unwanted(&self) -> Failure {
        let expired = async {
            match self.expires {
                Some((at, timeout)) => {
                    tokio::time::sleep_until(at).await;
                    timeout
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.shutdown.clone().requested() => self.attachment.interrupted(),
            timeout = expired => self.attachment.timed_out(timeout),
        }
    }
}
