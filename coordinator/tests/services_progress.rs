//! Live progress: asked from the worker that does the work, shown in lists and watches, and missed by
//! nobody when the worker does not answer.

mod stage;

use sdm_proto::credentials::Guard;
use sdm_proto::credentials::OwnIdentity;
use sdm_proto::credentials::PeerIdentity;
use sdm_proto::seams;
use sdm_proto::seams::Transport;
use sdm_proto::wire::internal::v1::AdoptDomainRequest;
use sdm_proto::wire::internal::v1::AdoptDomainResponse;
use sdm_proto::wire::internal::v1::CheckPlacementsRequest;
use sdm_proto::wire::internal::v1::CheckPlacementsResponse;
use sdm_proto::wire::internal::v1::GetProgressRequest;
use sdm_proto::wire::internal::v1::GetProgressResponse;
use sdm_proto::wire::internal::v1::InspectDomainRequest;
use sdm_proto::wire::internal::v1::InspectDomainResponse;
use sdm_proto::wire::internal::v1::PullRequest;
use sdm_proto::wire::internal::v1::PullResponse;
use sdm_proto::wire::internal::v1::worker_data_service_server::WorkerDataService;
use sdm_proto::wire::internal::v1::worker_data_service_server::WorkerDataServiceServer;
use sdm_proto::wire::v1;
use stage::PATIENCE;
use stage::Stage;
use stage::secret;
use stage::worker::Scripted;
use stage::worker::hello;
use tokio::sync::watch;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// Says of every attempt that it is half done.
struct HalfDone;

#[tonic::async_trait]
impl WorkerDataService for HalfDone {
    type PullStream = tokio_stream::Empty<Result<PullResponse, Status>>;

    async fn pull(&self, _request: Request<PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        Err(Status::unimplemented("not on this stage"))
    }

    async fn get_progress(
        &self,
        request: Request<GetProgressRequest>,
    ) -> Result<Response<GetProgressResponse>, Status> {
        let half = v1::JobProgress {
            done_bytes: 1 << 19,
            total_bytes: 1 << 20,
            checkpoint_bytes: 0,
            bytes_per_second: 1 << 18,
            phase: "copy".into(),
            attempt: 1,
        };
        let progress = request.into_inner().tokens.into_iter().map(|token| (token, half.clone())).collect();
        Ok(Response::new(GetProgressResponse { progress }))
    }

    async fn inspect_domain(
        &self,
        _request: Request<InspectDomainRequest>,
    ) -> Result<Response<InspectDomainResponse>, Status> {
        Err(Status::unimplemented("not on this stage"))
    }

    async fn adopt_domain(
        &self,
        _request: Request<AdoptDomainRequest>,
    ) -> Result<Response<AdoptDomainResponse>, Status> {
        Err(Status::unimplemented("not on this stage"))
    }

    async fn check_placements(
        &self,
        _request: Request<CheckPlacementsRequest>,
    ) -> Result<Response<CheckPlacementsResponse>, Status> {
        Err(Status::unimplemented("not on this stage"))
    }
}

/// A running move at an obedient worker, whose address answers or does not.
async fn moving(serves: bool) -> (Stage, v1::Transaction) {
    let stage = Stage::open().await;
    let (gate, jobs_end) = watch::channel(true);
    let worker = Scripted::connect(&stage, hello("a")).await.unwrap();
    if serves {
        let identity = OwnIdentity::default();
        identity.set(PeerIdentity {
            cluster_id: worker.welcome.cluster_id.clone(),
            epoch: worker.welcome.epoch,
            name: format!("worker/{}", hello("a").worker_id),
        });
        let service = WorkerDataServiceServer::with_interceptor(HalfDone, Guard::internal(secret(), identity));
        let (_, incoming) = stage.network.host("a").listen(hello("a").address).await.unwrap();
        tokio::spawn(seams::server().add_service(service).serve_with_incoming(incoming));
    }
    tokio::spawn(worker.obey(jobs_end));
    for domain in ["nfs1", "nfs2"] {
        stage.make_domain(domain).await;
    }
    stage.make_disk("web-01").await;
    gate.send_replace(false);
    let moving = stage.move_disk("web-01", "nfs2", None).await.unwrap();
    (stage, moving)
}

async fn jobs(stage: &Stage) -> Vec<v1::Job> {
    stage.jobs().list_jobs(v1::ListJobsRequest::default()).await.unwrap().into_inner().items
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_job_shows_how_far_its_worker_is() {
    let (stage, moving) = moving(true).await;
    let listed = jobs(&stage).await;
    assert_eq!(listed[0].progress.as_ref().map(|progress| progress.done_bytes), Some(1 << 19));
    let request = v1::WatchTransactionRequest { id: moving.id };
    let mut told = stage.transactions().watch_transaction(request).await.unwrap().into_inner();
    let seen = async {
        loop {
            if let Some(progress) = told.message().await.unwrap().unwrap().progress {
                return progress;
            }
        }
    };
    let progress = tokio::time::timeout(PATIENCE, seen).await.expect("progress is told");
    assert_eq!((progress.done_bytes, progress.phase.as_str()), (1 << 19, "copy"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_does_not_answer_has_no_progress_and_holds_up_nothing() {
    let (stage, moving) = moving(false).await;
    let listed = jobs(&stage).await;
    assert_eq!((listed.len(), listed[0].state.as_str(), &listed[0].progress), (1, "running", &None));
    assert_eq!(listed[0].transaction_id, moving.id);
}
