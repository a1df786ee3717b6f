//! What every operator's command works with: the cluster, the printer, and the note of what it began.

use crate::client::Attachment;
use crate::client::Cluster;
use crate::output::Failure;
use crate::output::Printer;
use crate::transfer::PartFiles;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::seams::Transport;
use std::sync::Arc;

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
    ) -> Result<Self, Failure> {
        let cluster = Cluster::new(addresses, secret, transport)?;
        Ok(Self { cluster, printer, attachment: Attachment::default(), parts: Arc::default() })
    }
}
