//! `sdm status`: the cluster on one screen.

use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::views::StatusView;
use clap::Args;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::wire::v1::GetStatusRequest;
use sdm_proto::wire::v1::GetStatusResponse;
use sdm_proto::wire::v1::cluster_service_client::ClusterServiceClient;

/// Its options.
#[derive(Args, Debug)]
pub struct StatusCommand {
    /// End with 10 when there are warnings and 11 when there are errors
    #[arg(long)]
    check: bool,
}

impl StatusCommand {
    /// Prints the view of a member with a quorum, or else of any member, which then says so.
    ///
    /// # Errors
    /// No member answers at all.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let status = StatusView::from(status_of(context).await?);
        context.printer.print(&status)?;
        Ok(if self.check { status.check() } else { ExitCode::Done })
    }
}

/// The best answer that the endpoints give.
///
/// # Errors
/// None of them answers.
pub async fn status_of(context: &Context) -> Result<GetStatusResponse, Failure> {
    let mut best: Option<GetStatusResponse> = None;
    let asked = context.cluster.ask_all(
        async |link| {
            let mut client = ClusterServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            client.get_status(GetStatusRequest {}).await
        },
        |answer: GetStatusResponse| {
            let has_quorum = answer.has_quorum;
            if has_quorum || best.as_ref().is_none_or(|best| answer.revision > best.revision) {
                best = Some(answer);
            }
            has_quorum
        },
    );
    asked.await?;
    Ok(best.unwrap_or_default())
}
