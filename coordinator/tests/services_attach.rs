//! A detached domain is taken in as its catalog said when it was read, or not at all: the member names what it read, and
//! the worker takes the domain only while its mark says the same.

mod stage;

use sdm_proto::credentials::Guard;
use sdm_proto::credentials::OwnIdentity;
use sdm_proto::credentials::PeerIdentity;
use sdm_proto::ids::DomainId;
use sdm_proto::seams;
use sdm_proto::seams::Transport;
use sdm_proto::wire::internal::v1::AdoptDomainRequest;
use sdm_proto::wire::internal::v1::AdoptDomainResponse;
use sdm_proto::wire::internal::v1::Assignment;
use sdm_proto::wire::internal::v1::CheckPlacementsRequest;
use sdm_proto::wire::internal::v1::CheckPlacementsResponse;
use sdm_proto::wire::internal::v1::GetProgressRequest;
use sdm_proto::wire::internal::v1::GetProgressResponse;
use sdm_proto::wire::internal::v1::InspectDomainRequest;
use sdm_proto::wire::internal::v1::InspectDomainResponse;
use sdm_proto::wire::internal::v1::PullRequest;
use sdm_proto::wire::internal::v1::PullResponse;
use sdm_proto::wire::internal::v1::assignment::Order;
use sdm_proto::wire::internal::v1::inspect_domain_response::State as Found;
use sdm_proto::wire::internal::v1::report::Outcome;
use sdm_proto::wire::internal::v1::worker_data_service_server::WorkerDataService;
use sdm_proto::wire::internal::v1::worker_data_service_server::WorkerDataServiceServer;
use sdm_proto::wire::v1;
use stage::Stage;
use stage::begun;
use stage::secret;
use stage::worker::Scripted;
use stage::worker::hello;
use stage::worker::success;
use std::sync::Arc;
use std::sync::Mutex;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// A detached domain whose catalog the test changes.
struct Detached(Arc<Mutex<String>>);

#[tonic::async_trait]
impl WorkerDataService for Detached {
    type PullStream = tokio_stream::Empty<Result<PullResponse, Status>>;

    async fn pull(&self, _request: Request<PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        Err(Status::unimplemented("not on this stage"))
    }

    async fn get_progress(&self, _: Request<GetProgressRequest>) -> Result<Response<GetProgressResponse>, Status> {
        Err(Status::unimplemented("not on this stage"))
    }

    async fn inspect_domain(
        &self,
        _request: Request<InspectDomainRequest>,
    ) -> Result<Response<InspectDomainResponse>, Status> {
        let catalog = self.0.lock().expect("nobody panicked").clone();
        Ok(Response::new(InspectDomainResponse { state: Found::Released.into(), catalog, ..Default::default() }))
    }

    async fn adopt_domain(&self, _: Request<AdoptDomainRequest>) -> Result<Response<AdoptDomainResponse>, Status> {
        Err(Status::unimplemented("not on this stage"))
    }

    async fn check_placements(
        &self,
        _request: Request<CheckPlacementsRequest>,
    ) -> Result<Response<CheckPlacementsResponse>, Status> {
        Err(Status::unimplemented("not on this stage"))
    }
}

fn catalog(domain: DomainId, detached_at: u64) -> String {
    let nil = "00000000-0000-0000-0000-000000000000";
    format!(
        r#"{{"version":1,"pool":"{nil}","cluster":"{nil}","epoch":1,"domain":"{domain}","detached_at":{detached_at},
        "name":"carrier","contents":{{"disks":[],"volumes":[],"placements":[]}}}}"#
    )
}

async fn attach(stage: &Stage, domain: DomainId) -> v1::Transaction {
    let request = v1::AttachDomainRequest {
        path: "/srv/carrier".into(),
        domain_id: domain.to_string(),
        local: true,
        ..Default::default()
    };
    begun(stage.domains().attach_domain(request).await, |answer| answer.transaction).expect("it begins")
}

fn named_hash(assignment: &Assignment) -> &str {
    match &assignment.order {
        Some(Order::AttachDomain(order)) => &order.catalog_blake3,
        other => panic!("an attach was wanted, not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_is_taken_only_with_the_catalog_that_was_read() {
    let stage = Stage::open().await;
    let mut worker = Scripted::connect(&stage, hello("a")).await.unwrap();
    let domain = DomainId::derive("test", &[b"carrier"]);
    let text = Arc::new(Mutex::new(catalog(domain, 7)));
    let identity = OwnIdentity::default();
    identity.set(PeerIdentity {
        cluster_id: worker.welcome.cluster_id.clone(),
        epoch: worker.welcome.epoch,
        name: format!("worker/{}", hello("a").worker_id),
    });
    let data = Detached(Arc::clone(&text));
    let service = WorkerDataServiceServer::with_interceptor(data, Guard::internal(secret(), identity));
    let (_, incoming) = stage.network.host("a").listen(hello("a").address).await.unwrap();
    tokio::spawn(seams::server().add_service(service).serve_with_incoming(incoming));

    let first = attach(&stage, domain).await;
    let order = worker.only_assignment().await;
    let read = blake3::hash(catalog(domain, 7).as_bytes()).to_hex().to_string();
    assert_eq!(named_hash(&order), read, "the order names what was read");
    // Somebody attached and detached it meanwhile: the worker finds another mark.
    *text.lock().unwrap() = catalog(domain, 9);
    let changed = v1::Refusal {
        class: "precondition".into(),
        reason: "CATALOG_CHANGED".into(),
        message: "the domain was attached or detached by somebody since its catalog was read".into(),
        ..Default::default()
    };
    worker.report(&order.token, Outcome::Refused(changed)).await;
    let ended = stage.outcome(&first.id).await;
    let reason = ended.refusal.map(|refusal| refusal.reason);
    assert_eq!((ended.phase.as_str(), reason.as_deref()), ("aborted", Some("CATALOG_CHANGED")));
    let domains = stage.domains().list_domains(v1::ListDomainsRequest::default()).await.unwrap().into_inner();
    assert!(domains.items.is_empty(), "nothing of it is believed: {domains:?}");

    // Under a new id it is read again.
    let second = attach(&stage, domain).await;
    assert_ne!(second.id, first.id);
    let order = worker.only_assignment().await;
    assert_eq!(named_hash(&order), blake3::hash(catalog(domain, 9).as_bytes()).to_hex().to_string());
    worker.report(&order.token, success(&order)).await;
    assert_eq!(stage.outcome(&second.id).await.phase, "committed");
    assert_eq!(stage.domain("carrier").await.id, domain.to_string());
}
