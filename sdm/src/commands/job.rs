//! `sdm job`: the long, data-moving part of transactions.

use crate::client::all_pages;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::views::JobView;
use clap::Subcommand;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::wire::v1::ListJobsRequest;
use sdm_proto::wire::v1::job_service_client::JobServiceClient;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum JobCommand {
    /// List the jobs, with their live progress
    List,
}

impl JobCommand {
    /// Does it.
    ///
    /// # Errors
    /// No member answers.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let Self::List = self;
        let list = all_pages::<_, JobView, _>(async |page| {
            let request = ListJobsRequest { page: Some(page) };
            let answer = context.cluster.call(async |link| {
                let mut client = JobServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
                client.list_jobs(request.clone()).await
            });
            answer.await.map(|answer| (answer.items, answer.page))
        });
        context.printer.print(&list.await?)
    }
}
