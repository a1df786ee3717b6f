//! `sdm member`: the members of the cluster, and changes of who they are.

use crate::client::Begun;
use crate::client::all_pages;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::values::parse_address;
use crate::values::parse_name;
use crate::views::MemberView;
use crate::views::Votes;
use clap::Args;
use clap::Subcommand;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::cluster_service_client::ClusterServiceClient;
use serde::Serialize;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum MemberCommand {
    /// List the members, unreachable and expected ones too
    List,
    /// Expect a member to join under this name, and say as what; prints the command for its host
    ///
    /// Joining also works without it. With it, the name is kept for whoever joins from ADDRESS, and a
    /// learner stays one whatever its process is told. Repeated, it changes nothing.
    Add(AddMember),
    /// Make a learner that has caught up a voter
    Promote(NamedMember),
    /// Take a member, dead or alive, out of the cluster for good
    ///
    /// Refused where the voters that stay and answer were no majority. A leader hands over first. The
    /// removed process stops by itself, also when it is started again later. Its name is free again.
    Remove(NamedMember),
    /// Take one member out and a learner that has caught up in as a voter, in one step
    Replace(ReplaceMember),
    /// Have another voter lead
    TransferLeader(TransferLeader),
}

/// Which member.
#[derive(Args, Debug)]
pub struct NamedMember {
    /// Name or id
    member: String,
}

/// Options of `add`.
#[derive(Args, Debug)]
pub struct AddMember {
    /// Its name
    name: String,
    /// Where it will be reached, HOST:PORT; a join under its name from elsewhere is refused
    #[arg(long, value_name = "ADDR")]
    address: Option<String>,
    /// It shall keep a copy and serve, and not vote until it is promoted
    #[arg(long)]
    learner: bool,
}

/// Options of `replace`.
#[derive(Args, Debug)]
pub struct ReplaceMember {
    /// The one that goes: name or id
    old: String,
    /// The one that comes: name or id of a learner that has caught up
    #[arg(long, value_name = "NEW")]
    with: String,
}

/// Options of `transfer-leader`.
#[derive(Args, Debug)]
pub struct TransferLeader {
    /// Who shall lead: name or id [default: the voter that has the most of the log]
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
}

/// What a change prints.
#[derive(Serialize)]
struct MembershipChange {
    /// False: it was so already.
    changed: bool,
    /// What is so now.
    message: String,
    /// What remains to be done; may be empty.
    hint: String,
    /// Names of the voters now.
    voters: Vec<String>,
    /// The leader; null when none is known.
    leader: Option<String>,
    revision: u64,
}

impl From<v1::ChangeMembershipResponse> for MembershipChange {
    fn from(answer: v1::ChangeMembershipResponse) -> Self {
        let v1::ChangeMembershipResponse { changed, message, hint, revision, mut voters, leader } = answer;
        voters.sort_unstable();
        Self { changed, message, hint, voters, leader: Some(leader).filter(|leader| !leader.is_empty()), revision }
    }
}

impl Report for MembershipChange {
    fn text(&self) -> String {
        let already = if self.changed { "" } else { " (nothing was changed)" };
        let hint = if self.hint.is_empty() { String::new() } else { format!("  {}\n", self.hint) };
        format!("{}{already}\n{hint}voters: {}\n", self.message, self.voters.join(", "))
    }
}

/// Asks the same of the cluster until a member answers: every change may be repeated.
macro_rules! change {
    ($context:expr, $method:ident, $request:expr) => {{
        let request = $request;
        let ask = async |link| ClusterServiceClient::new(link).$method(request.clone()).await;
        $context.attachment.set(Begun::Change("sdm member list".to_owned()));
        let answer = $context.cluster.call(ask).await?;
        $context.printer.print(&MembershipChange::from(answer))
    }};
}

impl MemberCommand {
    /// Does it.
    ///
    /// # Errors
    /// No member answers, or the change is refused.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::List => list(context).await,
            Self::Add(AddMember { name, address, learner }) => {
                let name = parse_name("NAME", &name)?.to_string();
                let address = address.map(|address| parse_address("--address", &address)).transpose()?;
                let address = address.unwrap_or_default();
                change!(context, add_member, v1::AddMemberRequest { name, address, learner })
            }
            Self::Promote(NamedMember { member }) => {
                change!(context, promote_member, v1::PromoteMemberRequest { member })
            }
            Self::Remove(NamedMember { member }) => {
                change!(context, remove_member, v1::RemoveMemberRequest { member })
            }
            Self::Replace(ReplaceMember { old, with: new }) => {
                let status = async |link| ClusterServiceClient::new(link).get_status(v1::GetStatusRequest {}).await;
                let members = context.cluster.call(status).await?.members;
                // Kept through repetitions: on its way the cluster has two voters.
                let only_voter = is_only_voter(&members, &old);
                change!(context, replace_member, v1::ReplaceMemberRequest { old, new, only_voter })
            }
            Self::TransferLeader(TransferLeader { to }) => {
                let status = async |link| ClusterServiceClient::new(link).get_status(v1::GetStatusRequest {}).await;
                // Named, so that a repetition at the next endpoint does not hand over once more.
                let from = context.cluster.call(status).await?.leader;
                let to = to.unwrap_or_default();
                change!(context, transfer_leader, v1::TransferLeaderRequest { to, from: from.clone() })
            }
        }
    }
}

fn is_only_voter(members: &[v1::Member], who: &str) -> bool {
    let mut voters = members.iter().filter(|member| ["leader", "follower"].contains(&member.role.as_str()));
    let only = voters.next().filter(|_| voters.next().is_none());
    only.is_some_and(|member| member.name == who || who.parse() == Ok(member.id))
}

async fn list(context: &Context) -> Result<ExitCode, Failure> {
    let list = all_pages::<_, MemberView, _>(async |page| {
        let request = v1::ListMembersRequest { page: Some(page) };
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
