//! ClusterService: the cluster as this member sees it. Status answers also without a quorum, and
//! says so.

use crate::comparing;
use crate::core::Core;
use crate::leadership::Leadership;
use crate::membership;
use crate::reachability;
use crate::reachability::PING_TIME;
use crate::reachability::Ping;
use crate::report;
use crate::services::care_checks::care_checks;
use crate::services::member;
use crate::services::page::Page;
use openraft::async_runtime::WatchReceiver;
use sdm_proto::limits;
use sdm_proto::request_id;
use sdm_proto::status::to_status;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::change_membership_request::Change;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::cluster_service_server::ClusterService;
use sdm_raft_store::NodeId;
use sdm_raft_store::StateView;
use sdm_state::State;
use sdm_state::catalog::Domain;
use sdm_state::hashes::hex;
use sdm_state::members::AnnouncedMember;
use std::sync::Arc;
use tokio::time::Instant;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// The service.
#[derive(Clone, Debug)]
pub struct ClusterApi {
    core: Core,
}

impl ClusterApi {
    /// Over this member's core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { core }
    }
}

#[tonic::async_trait]
impl ClusterService for ClusterApi {
    async fn get_status(
        &self,
        _request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let core = &self.core;
        let (read, pings) =
            tokio::join!(core.read(Instant::now() + PING_TIME), reachability::ping_all(core, PING_TIME));
        let has_quorum = read.is_ok();
        let view = read.unwrap_or_else(|_| core.view());
        let leadership = core.inner.leadership.borrow().clone();
        let members = members(core, &leadership, &view, &pings);
        let mut checks = checks(&leadership, has_quorum, &members, &view.state, core.member_name().as_str());
        state_checks(&view, &mut checks);
        let meta = &view.state.meta;
        Ok(Response::new(v1::GetStatusResponse {
            cluster_id: meta.cluster_id.map(|id| id.to_string()).unwrap_or_default(),
            pool_id: meta.pool_id.to_string(),
            epoch: meta.epoch,
            revision: view.applied_index().unwrap_or_default(),
            feature_level: meta.feature_level,
            clock_ms: core.shown_clock_ms(&view.state),
            has_quorum,
            leader: leading(&members),
            term: leadership.term,
            answered_by: core.member_name().to_string(),
            state_hash: hex(&view.state.hash()),
            counts: Some(counts(&view.state)),
            members,
            checks,
        }))
    }

    async fn list_members(
        &self,
        request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        let page = Page::parse("members", request.get_ref().page.as_ref()).map_err(|refusal| to_status(&refusal))?;
        let core = &self.core;
        let pings = reachability::ping_all(core, PING_TIME).await;
        let leadership = core.inner.leadership.borrow().clone();
        let view = core.view();
        let members = members(core, &leadership, &view, &pings);
        // Those that are only expected have no id yet and come last.
        let place =
            |(at, member): (usize, v1::Member)| (if member.id == 0 { u64::MAX - at as u64 } else { member.id }, member);
        let mut rows: Vec<_> = members.into_iter().enumerate().map(place).collect();
        rows.sort_by_key(|(place, _)| *place);
        let (items, page) = page.take(rows.into_iter(), view.applied_index().unwrap_or_default());
        Ok(Response::new(v1::ListMembersResponse { items, page: Some(page) }))
    }

    async fn add_member(
        &self,
        request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::ChangeMembershipResponse>, Status> {
        let v1::AddMemberRequest { name, address, learner } = request.into_inner();
        self.change(Change::Add(wire::change_membership_request::Add { name, address, learner })).await
    }

    async fn promote_member(
        &self,
        request: Request<v1::PromoteMemberRequest>,
    ) -> Result<Response<v1::ChangeMembershipResponse>, Status> {
        self.change(Change::Promote(request.into_inner().member)).await
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::ChangeMembershipResponse>, Status> {
        self.change(Change::Remove(request.into_inner().member)).await
    }

    async fn replace_member(
        &self,
        request: Request<v1::ReplaceMemberRequest>,
    ) -> Result<Response<v1::ChangeMembershipResponse>, Status> {
        let v1::ReplaceMemberRequest { old, new, only_voter } = request.into_inner();
        let only_voter = only_voter || membership::is_only_voter(&self.core, &old);
        self.change(Change::Replace(wire::change_membership_request::Replace { old, new, only_voter })).await
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::ChangeMembershipResponse>, Status> {
        let v1::TransferLeaderRequest { to, mut from } = request.into_inner();
        if from.is_empty() {
            from = self.core.inner.leadership.borrow().leader_name().unwrap_or_default().to_owned();
        }
        self.change(Change::TransferLeader(wire::change_membership_request::TransferLeader { to, from })).await
    }

    async fn issue_request_id(
        &self,
        _request: Request<v1::IssueRequestIdRequest>,
    ) -> Result<Response<v1::IssueRequestIdResponse>, Status> {
        let view = self.core.read(Instant::now() + limits::LEADER_WAIT).await.map_err(|refusal| to_status(&refusal))?;
        let meta = &view.state.meta;
        Ok(Response::new(v1::IssueRequestIdResponse {
            request_id: request_id::issue(meta.clock_ms, rand::random()).to_string(),
            remembered_ms: meta.settings.request_window_ms,
        }))
    }
}

impl ClusterApi {
    async fn change(&self, change: Change) -> Result<Response<v1::ChangeMembershipResponse>, Status> {
        let changed = membership::change(&self.core, change).await.map_err(|refusal| to_status(&refusal))?;
        let leadership = self.core.inner.leadership.borrow().clone();
        let voters = leadership.seats.values().filter(|seat| seat.voter).map(|seat| seat.node.name.clone());
        Ok(Response::new(v1::ChangeMembershipResponse {
            changed: changed.changed,
            message: changed.message,
            hint: changed.hint,
            revision: self.core.view().applied_index().unwrap_or_default(),
            voters: voters.collect(),
            leader: leadership.leader_name().unwrap_or_default().to_owned(),
        }))
    }
}

const LEADER: &str = "leader";
const ANNOUNCED: &str = "announced";

/// The leader's name.
fn leading(members: &[v1::Member]) -> String {
    members.iter().find(|member| member.role == LEADER).map(|member| member.name.clone()).unwrap_or_default()
}

/// Who leads: whoever answers that it does, and has a majority. Of two, where one has not noticed
/// yet that it was replaced, the one of the later term.
fn leader_of(core: &Core, own_term: u64, pings: &[Ping]) -> Option<NodeId> {
    let answers = pings.iter().filter_map(|ping| Some((ping.id, ping.answer.as_ref().ok()?)));
    let others = answers.filter(|(_, answer)| answer.role == LEADER).map(|(id, answer)| (answer.term, id));
    let own = (member::role(core) == LEADER).then(|| (own_term, core.node_id()));
    others.chain(own).max().map(|(_, id)| id)
}

/// All members: those with a seat, and those that joined and have none yet. Unreachable ones too.
fn members(core: &Core, leadership: &Leadership, view: &Arc<StateView>, pings: &[Ping]) -> Vec<v1::Member> {
    let own = member::ping(core);
    let answers = pings.iter().filter_map(|ping| ping.answer.as_ref().ok());
    let committed = answers.map(|answer| answer.committed_index).chain([own.committed_index]).max().unwrap_or_default();
    let leader = leader_of(core, leadership.term, pings);
    let matched = core.inner.raft.data_metrics().borrow_watched().replication.clone().unwrap_or_default();
    let role = |id: NodeId| match leadership.seats.get(&id) {
        _ if leader == Some(id) => LEADER,
        Some(seat) if seat.voter => "follower",
        Some(_) => "learner",
        None => "joining",
    };
    let own_address = leadership.seats.get(&core.node_id()).map(|seat| seat.node.address.clone());
    let (hash_index, state_hash) = last_hash(&own);
    let mut members = vec![v1::Member {
        name: core.member_name().to_string(),
        id: core.node_id(),
        address: own_address.unwrap_or_default(),
        role: role(core.node_id()).to_owned(),
        reachable: true,
        applied_index: own.applied_index,
        lag: committed.saturating_sub(own.applied_index),
        version: own.version,
        feature_level_max: own.feature_level_max,
        hash_index,
        state_hash,
        error: String::new(),
    }];
    for ping in pings {
        let mut row = v1::Member {
            name: ping.node.name.clone(),
            id: ping.id,
            address: ping.node.address.clone(),
            role: role(ping.id).to_owned(),
            version: view.state.members.get(&ping.id).map(|known| known.version.clone()).unwrap_or_default(),
            feature_level_max: view.state.members.get(&ping.id).map_or(0, |known| known.feature_level_max),
            ..v1::Member::default()
        };
        match &ping.answer {
            Ok(answer) => {
                row.reachable = true;
                row.applied_index = answer.applied_index;
                row.lag = committed.saturating_sub(answer.applied_index);
                row.version.clone_from(&answer.version);
                row.feature_level_max = answer.feature_level_max;
                (row.hash_index, row.state_hash) = last_hash(answer);
            }
            Err(refusal) => {
                // Only the leader knows how far it got before it fell silent.
                let reached = matched.get(&ping.id).copied().flatten();
                row.lag = reached.map_or(0, |at| committed.saturating_sub(at.index));
                row.error.clone_from(&refusal.message);
            }
        }
        if !leadership.seats.contains_key(&ping.id) && row.error.is_empty() {
            "it has an id and no seat yet: it is being admitted, or removed".clone_into(&mut row.error);
        }
        members.push(row);
    }
    members.sort_by_key(|member| member.id);
    members.extend(view.state.meta.announced_members.iter().map(announced));
    members
}

/// Somebody who is expected.
fn announced(expected: &AnnouncedMember) -> v1::Member {
    let role = if expected.learner { "learner" } else { "voter" };
    v1::Member {
        name: expected.name.to_string(),
        address: expected.address.clone(),
        role: ANNOUNCED.to_owned(),
        error: format!("it has not joined yet; it will be a {role}"),
        ..v1::Member::default()
    }
}

/// The last entry after which members compare their states, and the hash of this one's.
fn last_hash(answer: &wire::PingResponse) -> (u64, String) {
    let last = answer.hashes.last();
    last.map(|point| (point.index, hex(&point.hash.as_ref().try_into().unwrap_or_default()))).unwrap_or_default()
}

fn check(code: &str, severity: &str, message: String, hint: impl Into<String>) -> v1::HealthCheck {
    v1::HealthCheck { code: code.to_owned(), severity: severity.to_owned(), message, hint: hint.into() }
}

/// What is not as it should be.
fn checks(
    leadership: &Leadership,
    has_quorum: bool,
    members: &[v1::Member],
    state: &State,
    answered_by: &str,
) -> Vec<v1::HealthCheck> {
    let mut checks = Vec::new();
    let voters = leadership.seats.values().filter(|seat| seat.voter).count();
    if !has_quorum {
        let message = format!("no leader confirmed this answer: it is what {answered_by} knows, perhaps old");
        let hint =
            format!("{} of {voters} voters must run and reach each other; start the missing ones", voters / 2 + 1);
        checks.push(check("NO_QUORUM", "error", message, hint));
    }
    for member in members.iter().filter(|member| !member.reachable && member.role != ANNOUNCED) {
        let message = format!("member {} at {} does not answer: {}", member.name, member.address, member.error);
        let hint = format!(
            "start it on its data folder, or mend the network; if it is lost for good: `sdm member remove {0}`, or `sdm member replace {0} --with NEW`",
            member.name
        );
        checks.push(check("MEMBER_UNREACHABLE", "warn", message, hint));
    }
    if voters == 1 {
        let message = "there is one voter: if it is lost, the cluster is".to_owned();
        checks.push(check("SINGLE_VOTER", "warn", message, "add two members with `sdm coordinator --join`"));
    } else if voters > 0 && voters % 2 == 0 {
        let message =
            format!("there are {voters} voters: the cluster survives no more losses than {} would", voters - 1);
        checks.push(check("EVEN_VOTERS", "warn", message, "add one member, or remove one: `sdm member remove NAME`"));
    }
    worker_checks(state, &mut checks);
    illegal_check(state, &mut checks);
    checks
}

fn state_checks(view: &StateView, checks: &mut Vec<v1::HealthCheck>) {
    if let Err(refusal) = view.state.refuse_suspended() {
        checks.push(check(&refusal.reason, "error", refusal.message, refusal.hint));
    }
    if let Some(refusal) = comparing::disagreement(view) {
        checks.push(check(&refusal.reason, "error", refusal.message, refusal.hint));
    }
    checks.extend(care_checks(&view.state));
    if let Some((level, members)) = report::held_back(&view.state) {
        let message = format!(
            "the feature level is {}, and {level} only once these members support it: {}",
            view.state.meta.feature_level,
            members.join(", ")
        );
        checks.push(check("FEATURE_LEVEL", "warn", message, "upgrade them; the level is raised by itself then"));
    }
}

fn illegal_check(state: &State, checks: &mut Vec<v1::HealthCheck>) {
    let illegal = state.illegal_volumes();
    if illegal > 0 {
        let message = format!(
            "{illegal} volumes are illegal: an operator said so, or they were not on the storage when that was read"
        );
        let hint = "`sdm disk list` shows whose (STATE), `sdm disk show DISK` which; when the volume is sound again: \
                    `sdm volume set-legal VOLUME --reason TEXT`; after a restore, bring the files back and repeat \
                    `sdm backup reconcile`; or delete the disks";
        checks.push(check("ILLEGAL_VOLUMES", "warn", message, hint));
    }
}

fn worker_checks(state: &State, checks: &mut Vec<v1::HealthCheck>) {
    let live = state.live_workers();
    if live == 0 && !state.workers.is_empty() {
        let message = format!("all {} workers are lost: nothing can be done on any storage", state.workers.len());
        checks.push(check(
            "NO_WORKER",
            "error",
            message,
            "start `sdm worker` on its data folder, on at least one host",
        ));
    }
    for worker in state.workers.values().filter(|worker| !worker.is_live()) {
        let message = format!("worker {} is lost: nothing was heard of it within its lease", worker.identity.name);
        let hint = format!("start it on its data folder (it was at {})", worker.identity.address);
        checks.push(check("WORKER_LOST", "warn", message, hint));
    }
    let reached = |domain: &Domain| state.workers_reaching(domain.id).next().is_some();
    let unreached: Vec<&Domain> = state.domains.values().filter(|domain| !reached(domain)).collect();
    let severity = if unreached.len() == state.domains.len() { "error" } else { "warn" };
    for domain in unreached {
        let message = format!("no worker reaches domain {} ({})", domain.name, domain.path);
        checks.push(check("DOMAIN_UNREACHABLE", severity, message, format!("sdm domain show {}", domain.name)));
    }
}

fn counts(state: &State) -> v1::Counts {
    let count = |n: usize| n as u64;
    let held = state.locks_held();
    v1::Counts {
        domains: count(state.domains.len()),
        disks: count(state.disks.len()),
        volumes: count(state.volumes.len()),
        workers_live: count(state.live_workers()),
        workers: count(state.workers.len()),
        workers_draining: count(state.workers.values().filter(|row| row.is_live() && row.draining.is_some()).count()),
        locks_held: count(held),
        locks_waiting: count(state.locks.len() - held),
        transactions_open: count(state.open_txns()),
        jobs: count(state.jobs.len()),
        garbage: count(state.garbage.len()),
        sessions: count(state.sessions.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    fn severities(sample: &Sample) -> Vec<(String, String)> {
        let mut checks = Vec::new();
        worker_checks(&sample.state, &mut checks);
        checks.into_iter().map(|check| (check.code, check.severity)).collect()
    }

    fn found(code: &str, severity: &str) -> (String, String) {
        (code.to_owned(), severity.to_owned())
    }

    #[test]
    fn one_loss_is_a_warning_and_the_loss_of_all_an_error() {
        let mut sample = Sample::new();
        assert_eq!(severities(&sample), []);
        sample.see("a", "nfs1", Some("stale handle"));
        assert_eq!(severities(&sample), [found("DOMAIN_UNREACHABLE", "warn")]);
        sample.arrive("b");
        sample.see("b", "nfs1", None);
        sample.lose("a");
        assert_eq!(severities(&sample), [found("WORKER_LOST", "warn"), found("DOMAIN_UNREACHABLE", "warn")]);
        sample.lose("b");
        let all = severities(&sample);
        assert_eq!(all[0], found("NO_WORKER", "error"));
        assert_eq!(all.iter().filter(|check| **check == found("DOMAIN_UNREACHABLE", "error")).count(), 2);
    }
}
