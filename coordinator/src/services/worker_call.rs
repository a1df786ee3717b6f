//! Questions to workers that touch storage but are no transaction: which worker is asked, and how long
//! for an answer.

use crate::core::Core;
use sdm_proto::credentials::CallCredentials;
use sdm_proto::ids::WorkerId;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams;
use sdm_proto::status::from_status;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::worker_data_service_client::WorkerDataServiceClient;
use sdm_state::State;
use sdm_state::catalog::Domain;
use sdm_state::workers::Worker;
use std::future::Future;
use std::time::Duration;
use tonic::Response;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

/// Workers that are asked for one domain, one after another.
const WORKERS_ASKED_MAX: usize = 4;

/// How long a worker may take for one answer: longer than it waits for its storage.
const ANSWER_WITHIN: Duration = Duration::from_secs(130);

/// Speaks to one worker.
pub(super) type WorkerClient = WorkerDataServiceClient<InterceptedService<Channel, CallCredentials>>;

/// A worker and where it is.
pub(super) type WorkerAddress = (WorkerId, String);

/// The domain as workers are told of it.
pub(super) fn target(domain: &Domain) -> wire::DomainTarget {
    wire::DomainTarget { domain_id: domain.id.to_string(), path: domain.path.clone(), local: domain.local }
}

/// The first few of these workers.
pub(super) fn addresses<'a>(workers: impl Iterator<Item = &'a Worker>) -> Vec<WorkerAddress> {
    let known = workers.map(|worker| (worker.identity.id, worker.identity.address.clone()));
    known.take(WORKERS_ASKED_MAX).collect()
}

/// Live workers whose paths cover the domain, whether or not they reach it.
pub(super) fn owners(state: &State, domain: &Domain) -> Vec<WorkerAddress> {
    addresses(state.workers.values().filter(|worker| worker.is_live() && worker.owns_path(&domain.path)))
}

/// Asks one worker once.
///
/// # Errors
/// What it answered, or that it did not.
pub(super) async fn ask<T, F>(
    core: &Core,
    worker: WorkerId,
    address: &str,
    call: impl FnOnce(WorkerClient) -> F,
) -> Result<T, Refusal>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let unusable = |error: &dyn std::fmt::Display| {
        let message = format!("worker {worker} at {address}: {error}");
        Refusal::new(Class::Unavailable, "WORKER_UNREACHABLE", message).hint("see `sdm worker list`")
    };
    let channel = seams::channel(core.transport(), address).map_err(|error| unusable(&error))?;
    let credentials = core.credentials_internal(format!("worker/{worker}"));
    let client = WorkerDataServiceClient::with_interceptor(channel, credentials)
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
    match tokio::time::timeout(ANSWER_WITHIN, call(client)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(from_status(&status)),
        Err(_) => Err(unusable(&format!("no answer within {} s", ANSWER_WITHIN.as_secs()))),
    }
}
