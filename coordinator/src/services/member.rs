//! MemberService: what members say among themselves besides Raft, and the two questions of a
//! process that wants to become one.

use crate::admission;
use crate::check_in;
use crate::core::Core;
use crate::forward;
use crate::keepalive;
use crate::membership;
use crate::propose;
use crate::read;
use crate::services::insiders::node_id_of;
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use sdm_proto::credentials::Caller;
use sdm_proto::credentials::Guard;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::member_service_server::MemberService;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::command::AddMember;
use sdm_state::envelope;
use sdm_state::members::FEATURE_LEVEL_MAX;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::service::Interceptor;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct MemberApi {
    core: Core,
    /// The interceptor in front lets newcomers in, for `join`; all else is for this cluster alone.
    guard: Guard,
}

impl MemberApi {
    pub fn new(core: Core) -> Self {
        let guard = Guard::internal(core.secret().clone(), core.identity().clone());
        Self { core, guard }
    }

    /// The calling member of this cluster.
    fn member<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let mut head = Request::new(());
        *head.metadata_mut() = request.metadata().clone();
        let checked = self.guard.clone().call(head)?;
        let caller = checked.extensions().get::<Caller>().cloned();
        caller.filter(|caller| caller.0.starts_with("member/")).ok_or_else(|| {
            let refusal = Refusal::new(Class::Denied, "NOT_A_MEMBER", "only members of this cluster may call this");
            to_status(&refusal)
        })
    }
}

fn refused(refusal: Refusal) -> Status {
    to_status(&refusal)
}

/// A leader that no majority has followed for this long is none, whatever it thinks: several
/// heartbeats, and longer than a busy disk takes for one.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(3);

/// Whether this member leads, and a majority followed it a moment ago.
fn leads(core: &Core) -> bool {
    let alone = {
        let leadership = core.inner.leadership.borrow();
        if leadership.own.is_none() {
            return false;
        }
        leadership.seats.values().filter(|seat| seat.voter).count() <= 1
    };
    let acked = core.inner.raft.data_metrics().borrow_watched().last_quorum_acked;
    alone || acked.is_some_and(|at| at.elapsed() < FOLLOWED_WITHIN)
}

/// Role of a member as others are told.
pub(crate) fn role(core: &Core) -> &'static str {
    let leads = leads(core);
    let leadership = core.inner.leadership.borrow();
    match leadership.seats.get(&core.node_id()) {
        _ if leads => "leader",
        Some(seat) if seat.voter => "follower",
        _ => "learner",
    }
}

/// What this member is right now.
pub(crate) fn ping(core: &Core) -> wire::PingResponse {
    let view = core.view();
    let applied_index = view.applied_index().unwrap_or_default();
    let committed = core.inner.raft.data_metrics().borrow_watched().cluster_committed;
    let leadership = core.inner.leadership.borrow();
    wire::PingResponse {
        name: core.member_name().to_string(),
        node_id: core.node_id(),
        applied_index,
        committed_index: committed.map_or(applied_index, |id| id.index.max(applied_index)),
        term: leadership.term,
        leader_id: leadership.leader.unwrap_or_default(),
        role: String::new(),
        version: crate::join::VERSION.to_owned(),
        feature_level_max: FEATURE_LEVEL_MAX,
        state: Some(state_hash(view.state.applied_index(), view.state.hash())),
        hashes: view.state.hashes.values().map(|point| state_hash(point.index, point.own)).collect(),
        leader_lost: false,
    }
}

fn state_hash(index: u64, hash: [u8; 32]) -> wire::StateHash {
    wire::StateHash { index, hash: hash.to_vec().into() }
}

#[tonic::async_trait]
impl MemberService for MemberApi {
    async fn forward(&self, request: Request<wire::ForwardRequest>) -> Result<Response<wire::ForwardResponse>, Status> {
        self.member(&request)?;
        let proposed = propose::propose_called(&self.core, request.get_ref()).await.map_err(refused)?;
        let reply = envelope::encode_reply(&proposed.reply).into();
        Ok(Response::new(wire::ForwardResponse { index: proposed.index, reply }))
    }

    type ForwardStreamStream = forward::Answers;

    async fn forward_stream(
        &self,
        request: Request<tonic::Streaming<wire::ForwardBatch>>,
    ) -> Result<Response<Self::ForwardStreamStream>, Status> {
        self.member(&request)?;
        forward::serve(&self.core, request.into_inner()).map(Response::new).map_err(refused)
    }

    async fn read_index(
        &self,
        request: Request<wire::ReadIndexRequest>,
    ) -> Result<Response<wire::ReadIndexResponse>, Status> {
        self.member(&request)?;
        read::confirm_for_peer(&self.core).await.map(Response::new).map_err(refused)
    }

    async fn keep_alive(
        &self,
        request: Request<wire::KeepAliveRequest>,
    ) -> Result<Response<wire::KeepAliveResponse>, Status> {
        self.member(&request)?;
        let acknowledged = keepalive::renew_for_peer(&self.core, &request.get_ref().sessions).await.map_err(refused)?;
        Ok(Response::new(wire::KeepAliveResponse { acknowledged }))
    }

    async fn ping(&self, request: Request<wire::PingRequest>) -> Result<Response<wire::PingResponse>, Status> {
        self.member(&request)?;
        let leader = request.get_ref().leader;
        let leader_lost = leader != 0 && forward::lifeline::has_lost(&self.core, leader).await;
        let role = role(&self.core).to_owned();
        Ok(Response::new(wire::PingResponse { role, leader_lost, ..ping(&self.core) }))
    }

    async fn join(&self, request: Request<wire::JoinRequest>) -> Result<Response<wire::JoinResponse>, Status> {
        let request = request.into_inner();
        tracing::info!(name = request.name, address = request.address, "somebody asks to join");
        join(&self.core, request).await.map(Response::new).map_err(refused)
    }

    async fn admit(&self, request: Request<wire::AdmitRequest>) -> Result<Response<wire::AdmitResponse>, Status> {
        let caller = self.member(&request)?;
        let request = request.into_inner();
        // Who asks for itself is helped to the leader; who asks for another one has done that.
        let forwarded = caller.0 != format!("member/{}", request.node_id);
        let role = admission::admit(&self.core, request.node_id, request.stay_learner, forwarded).await;
        Ok(Response::new(wire::AdmitResponse { role: role.map_err(refused)?.to_owned() }))
    }

    async fn change_membership(
        &self,
        request: Request<wire::ChangeMembershipRequest>,
    ) -> Result<Response<wire::ChangeMembershipResponse>, Status> {
        self.member(&request)?;
        let Some(change) = request.into_inner().change else {
            return Err(refused(Refusal::new(
                Class::Invalid,
                "BAD_CHANGE",
                "a change of the membership that says none",
            )));
        };
        membership::change_forwarded(&self.core, &change).await.map(Response::new).map_err(refused)
    }

    async fn check_in(
        &self,
        request: Request<wire::CheckInRequest>,
    ) -> Result<Response<wire::CheckInResponse>, Status> {
        let caller = self.member(&request)?;
        let request = request.into_inner();
        if node_id_of(&caller) != Some(request.node_id) {
            let message = format!("{} checks in as member {}", caller.0, request.node_id);
            return Err(refused(Refusal::new(Class::Invalid, "BAD_CHECK_IN", message)));
        }
        check_in::answer(&self.core, &request).await.map(Response::new).map_err(refused)
    }
}

async fn join(core: &Core, request: wire::JoinRequest) -> Result<wire::JoinResponse, Refusal> {
    let invalid = |message: String| Refusal::new(Class::Invalid, "BAD_JOIN", message);
    let name = request.name.parse().map_err(|error| invalid(format!("{error}")))?;
    if request.incarnation.is_empty() || request.address.is_empty() {
        return Err(invalid("a join carries an address and an incarnation".to_owned()));
    }
    let command = Command::AddMember(AddMember {
        name,
        address: request.address,
        incarnation: request.incarnation,
        version: request.version,
        feature_level_max: request.feature_level_max,
    });
    let proposed = core.propose(command, Instant::now() + limits::LEADER_WAIT).await?;
    let view = core.view();
    let meta = &view.state.meta;
    match proposed.reply {
        Reply::Member(node_id) => Ok(wire::JoinResponse {
            node_id,
            cluster_id: view.state.cluster_id().to_string(),
            pool_id: meta.pool_id.to_string(),
            // The epoch that the cluster was made with: reconciliation raises only that of the storage.
            epoch: core.identity().get().map_or(meta.epoch, |own| own.epoch),
        }),
        // The founder is at it this very moment.
        Reply::Refused(refusal) if refusal.reason == "NOT_FOUNDED" => {
            Err(Refusal { class: Class::Unavailable, ..refusal })
        }
        Reply::Refused(refusal) => Err(refusal),
        reply => Err(Refusal::new(Class::Internal, "UNEXPECTED_REPLY", format!("a join was answered with: {reply}"))),
    }
}
