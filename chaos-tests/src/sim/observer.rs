//! The observer: asks every member again and again how it is, notes who leads, and compares the hashes that members
//! have of their states at one index. No fault reaches its links to the members' services.

use super::hosts::Ended;
use super::network::SimTransport;
use super::shared::Phase;
use super::shared::Shared;
use crate::client::Answer;
use crate::client::Endpoints;
use crate::client::cluster;
use crate::history::Promise;
use sdm_proto::wire::v1;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// The observer's host.
pub const NAME: &str = "observer";

/// Between two looks at one member.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looks until the run is over.
pub async fn host(shared: Arc<Shared>) -> Ended {
    let transport = SimTransport::of(NAME, &shared.cuts);
    let looking = Endpoints::over(&transport, &shared.plan.addresses(), 0)?.each().into_iter().map(|member| {
        let shared = shared.clone();
        tokio::spawn(async move {
            loop {
                let call = |channel| async move { cluster(channel).get_status(v1::GetStatusRequest {}).await };
                if let Answer::Done(status) = member.ask(call).await {
                    note(&shared, &status);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    });
    let looking: Vec<_> = looking.collect();
    shared.wait_for(Phase::Over).await;
    for look in looking {
        look.abort();
    }
    Ok(())
}

/// What one member said of itself.
pub fn note(shared: &Shared, status: &v1::GetStatusResponse) {
    let mut differs = None;
    let mut leads = None;
    {
        let mut seen = shared.seen();
        if !status.leader.is_empty() && seen.leader.as_ref().is_none_or(|(term, _)| *term < status.term) {
            seen.leader = Some((status.term, status.leader.clone()));
            leads = Some((status.term, status.leader.clone()));
        }
        if !status.state_hash.is_empty() {
            let said = (status.state_hash.clone(), status.answered_by.clone());
            let first = seen.hashes.entry(status.revision).or_insert_with(|| said.clone());
            if first.0 != said.0 {
                differs = Some(first.clone());
            }
        }
    }
    if let Some((term, name)) = leads {
        shared.coverage().count("leaders");
        shared.history.event("info", "observer", "leader", &name, json!({ "term": term }));
    }
    if let Some((hash, who)) = differs {
        let what = format!(
            "at index {} {} has the state {}, and {who} had {hash}",
            status.revision, status.answered_by, status.state_hash
        );
        shared.violated(Promise::EqualStates, what);
    }
}
