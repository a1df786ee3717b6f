//! The operator: waits until the cluster has formed and makes the domains; and at the end, after everything was healed,
//! demands what a user would: service through every member, nothing open, nothing locked, no garbage, and everything
//! that was acknowledged.

use super::disk_client::Shelf;
use super::hosts::Ended;
use super::network::SimTransport;
use super::observer;
use super::plan::Workload;
use super::shared::Phase;
use super::shared::Shared;
use super::verdict;
use crate::client::Answer;
use crate::client::Endpoints;
use crate::client::cluster;
use crate::client::domains;
use crate::client::transactions;
use crate::history::Promise;
use sdm_proto::wire::v1;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The operator's host.
pub const NAME: &str = "operator";

/// Beneath this folder workers work.
pub const SHARE: &str = "/srv";

/// The domains, and the folders in which they lie.
pub const DOMAINS: [(&str, &str); 2] = [("east", "/srv/east"), ("west", "/srv/west")];

/// How long the cluster may take to form, and to converge after everything was healed.
const FORM_TIME: Duration = Duration::from_secs(120);
const CONVERGE_TIME: Duration = Duration::from_secs(150);

/// Between two looks.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long one question is asked.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Forms, and judges at the end.
pub async fn host(shared: Arc<Shared>, shelf: Arc<Shelf>) -> Ended {
    let transport = SimTransport::of(NAME, &shared.cuts);
    let mut members = Endpoints::over(&transport, &shared.plan.addresses(), 0)?;
    match tokio::time::timeout(FORM_TIME, form(&shared, &mut members)).await {
        Ok(Ok(())) => shared.enter(Phase::Working),
        Ok(Err(why)) => return over(&shared, &format!("the cluster does not form: {why}")),
        Err(_) => return over(&shared, "the cluster does not form in time"),
    }
    shared.wait_for(Phase::Checking).await;
    match tokio::time::timeout(CONVERGE_TIME, agreement(&shared, &members)).await {
        Ok(()) => verdict::judge(&shared, &mut members, &shelf).await,
        Err(_) => shared.violated(Promise::Serves, "the members do not come to agree after everything was healed"),
    }
    shared.enter(Phase::Over);
    Ok(())
}

fn over(shared: &Shared, why: &str) -> Ended {
    shared.violated(Promise::Serves, why);
    shared.enter(Phase::Over);
    Ok(())
}

async fn status(member: &Endpoints) -> Result<v1::GetStatusResponse, String> {
    let call = |channel| async move { cluster(channel).get_status(v1::GetStatusRequest {}).await };
    match member.ask(call).await {
        Answer::Done(status) => Ok(status),
        other => Err(format!("{}: {other:?}", member.address())),
    }
}

fn complete(shared: &Shared, status: &v1::GetStatusResponse) -> bool {
    let voter = |member: &&v1::Member| member.reachable && matches!(member.role.as_str(), "leader" | "follower");
    let voters: BTreeSet<&str> = status.members.iter().filter(voter).map(|member| member.name.as_str()).collect();
    let roster = shared.roster();
    let all = roster.members.len();
    let known = roster.members.iter().all(|name| voters.contains(name.as_str()));
    status.has_quorum && !status.leader.is_empty() && known && status.members.len() == all
}

async fn form(shared: &Shared, members: &mut Endpoints) -> Result<(), String> {
    for member in shared.standing(members) {
        while !status(&member).await.is_ok_and(|status| complete(shared, &status)) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    if shared.plan.workload == Workload::Locks {
        return Ok(());
    }
    for (name, path) in DOMAINS {
        shared.storage.files.mount(path.as_ref()).map_err(|error| error.to_string())?;
        while let Err(why) = create_domain(shared, members, name, path).await {
            tracing::info!(name, why, "the domain is not there yet");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

async fn create_domain(shared: &Shared, members: &mut Endpoints, name: &str, path: &str) -> Result<(), String> {
    let id = uuid::Uuid::from_bytes(rand::random()).to_string();
    shared.history.record().request_ids.insert(id.clone());
    let header = Some(v1::MutationHeader { request_id: id.clone(), ..v1::MutationHeader::default() });
    let call = |channel| {
        let request = v1::CreateDomainRequest {
            header: header.clone(),
            name: name.to_owned(),
            path: path.to_owned(),
            local: false,
        };
        async move { domains(channel).create_domain(request).await }
    };
    match members.insist(PATIENCE, call).await.0 {
        Answer::Done(_) => {}
        other => return Err(format!("{other:?}")),
    }
    loop {
        let call = |channel| {
            let request = v1::GetTransactionRequest { id: id.clone() };
            async move { transactions(channel).get_transaction(request).await }
        };
        match members.insist(PATIENCE, call).await.0 {
            Answer::Done(v1::GetTransactionResponse { transaction: Some(now), .. }) => match now.phase.as_str() {
                "committed" => return Ok(()),
                "aborted" | "refused" => return Err(format!("{:?}", now.refusal)),
                _ => {}
            },
            other => return Err(format!("{other:?}")),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until all members serve, see each other, and are at one index with one state.
pub async fn agreement(shared: &Shared, members: &Endpoints) {
    loop {
        let mut states = Vec::new();
        let standing = shared.standing(members);
        for member in &standing {
            match status(member).await {
                Ok(status) if complete(shared, &status) => {
                    observer::note(shared, &status);
                    states.push((status.revision, status.state_hash));
                }
                Ok(status) => tracing::info!(?status, "not complete yet"),
                Err(why) => tracing::info!(why, "no answer yet"),
            }
        }
        let same = states.first().is_some_and(|first| states.iter().all(|state| state == first));
        if states.len() == standing.len() && same {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
