//! `sdm request-id`: an id that carries the cluster's clock.

use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use clap::Args;
use sdm_proto::wire::v1::IssueRequestIdRequest;
use sdm_proto::wire::v1::cluster_service_client::ClusterServiceClient;
use serde::Serialize;

/// It has no options.
#[derive(Args, Debug)]
pub struct RequestIdCommand {}

#[derive(Serialize)]
struct IssuedId {
    request_id: String,
    remembered_ms: u64,
}

impl Report for IssuedId {
    fn text(&self) -> String {
        format!("{}\n", self.request_id)
    }
}

impl RequestIdCommand {
    /// Asks for one and prints it.
    ///
    /// # Errors
    /// No member answers.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let issue = async |link| ClusterServiceClient::new(link).issue_request_id(IssueRequestIdRequest {}).await;
        let answer = context.cluster.call(issue).await?;
        context.printer.print(&IssuedId { request_id: answer.request_id, remembered_ms: answer.remembered_ms })
    }
}
