//! `sdm status`: the cluster on one screen.

use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::age_text;
use crate::values::milliseconds;
use crate::values::parse_duration;
use crate::views::StatusView;
use clap::Args;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1::GetStatusRequest;
use sdm_proto::wire::v1::GetStatusResponse;
use sdm_proto::wire::v1::cluster_service_client::ClusterServiceClient;
use std::time::Duration;

/// Its options.
#[derive(Args, Debug)]
pub struct StatusCommand {
    /// End with 10 when there are warnings and 11 when there are errors
    #[arg(long)]
    check: bool,
    /// Wait until a leader with a quorum answers [default: 30s]
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "30s")]
    wait: Option<String>,
}

/// How often it is asked while there is no leader. A cluster is founded in about a second.
const ASK_INTERVAL: Duration = Duration::from_millis(200);

impl StatusCommand {
    /// Prints the view of a member with a quorum, or else of any member, which then says so.
    ///
    /// # Errors
    /// No member answers at all; with `--wait`, none with a quorum in that time.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let status = match &self.wait {
            Some(text) => wait_for_leader(context, parse_duration("--wait", text)?).await?,
            None => status_of(context).await?,
        };
        let status = StatusView::from(status);
        context.printer.print(&status)?;
        Ok(if self.check { status.check() } else { ExitCode::Done })
    }
}

/// Asks until a leader is there that a quorum follows.
async fn wait_for_leader(context: &Context, patience: Duration) -> Result<GetStatusResponse, Failure> {
    let mut last = Failure::new(Class::Unavailable, "UNREACHABLE", "no member has answered");
    let asked = tokio::time::timeout(patience, async {
        loop {
            match status_of(context).await {
                Ok(status) if status.has_quorum && !status.leader.is_empty() => return Ok(status),
                Ok(status) => last = without_leader(&status),
                Err(failure) if failure.refusal.class == Class::Unavailable => last = failure,
                Err(failure) => return Err(failure),
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
    });
    match asked.await {
        Ok(ended) => ended,
        Err(_) => {
            let waited = age_text(milliseconds(patience));
            last.refusal.message = format!("no leader within {waited}: {}", last.refusal.message);
            Err(last)
        }
    }
}

fn without_leader(status: &GetStatusResponse) -> Failure {
    let message = format!("{} answers, and no leader that a quorum follows", status.answered_by);
    Refusal::new(Class::Unavailable, "NO_QUORUM", message).hint("start the members that are down: sdm status").into()
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
