//! The service: from words to the one thing that they mean, and to its explanation.

use super::catalog;
use super::cluster;
use super::lock;
use super::lookup;
use super::lookup::Thing;
use super::transaction;
use crate::core::Core;
use crate::services::call::Call;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::explain_service_server::ExplainService;
use sdm_state::State;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// The service.
#[derive(Clone)]
pub struct ExplainApi {
    core: Core,
}

impl ExplainApi {
    /// Over this member's core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { core }
    }

    async fn asked(&self, request: v1::ExplainRequest) -> Result<v1::ExplainResponse, Refusal> {
        let view = Call::begin(&self.core).read().await?;
        let state = &view.state;
        let clock_ms = self.core.shown_clock_ms(state);
        let mut found = lookup::find(state, request.object.trim())?;
        let one = if found.len() == 1 { found.pop() } else { None };
        let candidates = found.iter().map(|thing| lookup::candidate(state, thing)).collect();
        let explanation = one.map(|thing| explained(state, &thing, clock_ms));
        Ok(v1::ExplainResponse { explanation, candidates, revision: state.applied_index(), clock_ms })
    }
}

fn explained(state: &State, thing: &Thing, now_ms: u64) -> v1::Explanation {
    match thing {
        Thing::Lock(id) => lock::of_lock(state, *id, now_ms),
        Thing::Resource(resource) => lock::of_resource(state, resource, now_ms),
        Thing::Session(id) => lock::of_session(state, *id),
        Thing::Txn(id) => transaction::of_txn(state, *id),
        Thing::Job(id) => transaction::of_job(state, *id),
        Thing::Attempt(token) => transaction::of_attempt(state, *token),
        Thing::Event(index) => transaction::of_events(state, *index),
        Thing::Member(id) => cluster::of_member(state, *id),
        Thing::Worker(id) => cluster::of_worker(state, *id),
        Thing::Domain(id) => catalog::of_domain(state, *id),
        Thing::Disk(id) => catalog::of_disk(state, *id, now_ms),
        Thing::Volume(id) => catalog::of_volume(state, *id),
        Thing::Placement(id) => catalog::of_placement(state, *id),
        Thing::Garbage(id) => catalog::of_garbage(state, *id),
        Thing::Attachment(id) => catalog::of_attachment(state, *id),
    }
}

#[tonic::async_trait]
impl ExplainService for ExplainApi {
    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        self.asked(request.into_inner()).await.map(Response::new).map_err(|refusal| to_status(&refusal))
    }
}
