//! `sdm member`: the members of the cluster.

use crate::client::all_pages;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::views::MemberView;
use crate::views::Votes;
use clap::Subcommand;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::wire::v1::ListMembersRequest;
use sdm_proto::wire::v1::cluster_service_client::ClusterServiceClient;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum MemberCommand {
    /// List the members, unreachable ones too
    List,
}

impl MemberCommand {
    /// Does it.
    ///
    /// # Errors
    /// No member answers.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let Self::List = self;
        let list = all_pages::<_, MemberView, _>(async |page| {
            let request = ListMembersRequest { page: Some(page) };
            let answer = context.cluster.call(async |link| {
                let mut client = ClusterServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
                client.list_members(request.clone()).await
            });
            answer.await.map(|answer| (answer.items, answer.page))
        });
        let list = list.await?.sorted_by(|member| &member.name);
        let votes = Votes::of(&list.items);
        if votes.spare().is_none() {
            let message = format!("NO QUORUM: the member that answered reaches {votes}; nothing can be changed now");
            context.printer.warn(&message, "start the members that are down, or mend the network between them");
        }
        context.printer.print(&list)
    }
}
