//! `WorkerService`: who works, what each reaches, who is lost; and what operators decide about that.

use crate::core::Core;
use crate::services::attachment::require_reason;
use crate::services::call::Call;
use crate::services::call::answer;
use crate::services::mutation::Begun;
use crate::services::mutation::Mutation;
use crate::services::mutation::RequestHash;
use crate::services::page::Page;
use crate::services::present;
use crate::services::resolve;
use sdm_proto::ids::WorkerId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::worker_service_server::WorkerService;
use sdm_state::txns::Spec;
use sdm_state::workers::WorkerChange;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// The service.
#[derive(Clone)]
pub struct WorkerApi {
    core: Core,
}

impl WorkerApi {
    /// Over this member's core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { core }
    }

    async fn list(&self, request: v1::ListWorkersRequest) -> Result<v1::ListWorkersResponse, Refusal> {
        let page = Page::<WorkerId>::parse("workers", request.page.as_ref())?;
        let view = Call::begin(&self.core).read().await?;
        let state = &view.state;
        let rows = state.workers.from_key(&page.first_key()).map(|(id, row)| (*id, row));
        let (rows, next) = page.take(rows, state.applied_index());
        let items = rows.into_iter().map(|row| present::worker(state, row)).collect();
        Ok(v1::ListWorkersResponse { items, page: Some(next) })
    }

    async fn get(&self, request: v1::GetWorkerRequest) -> Result<v1::GetWorkerResponse, Refusal> {
        let view = Call::begin(&self.core).read().await?;
        let state = &view.state;
        let worker = Some(present::worker(state, resolve::worker(state, &request.worker)?));
        Ok(v1::GetWorkerResponse { worker, revision: state.applied_index() })
    }

    async fn change(
        &self,
        header: Option<v1::MutationHeader>,
        kind: &str,
        worker: &str,
        change: impl FnOnce(WorkerId) -> WorkerChange,
    ) -> Result<Begun, Refusal> {
        let mutation = Mutation::parse(header, RequestHash::of(kind).text("worker", worker))?;
        let resolve = |state: &_| Ok(Spec::Worker(change(resolve::worker(state, worker)?.identity.id)));
        mutation.begin(&self.core, resolve).await
    }

    async fn confirm_down(
        &self,
        request: v1::ConfirmWorkerDownRequest,
    ) -> Result<v1::ConfirmWorkerDownResponse, Refusal> {
        require_reason(request.header.as_ref(), "that a host is down")?;
        let session = request.session_id.parse().map_err(|_| {
            Refusal::new(Class::Invalid, "BAD_SESSION", "the session that was looked at is needed")
                .hint(format!("`sdm worker show {}` shows it", request.worker.chars().take(64).collect::<String>()))
        })?;
        let hash = RequestHash::of("worker-confirm-down").text("worker", &request.worker).number("session", session);
        let mutation = Mutation::parse(request.header, hash)?;
        let begun = mutation.begin(&self.core, |state| {
            let worker = resolve::worker(state, &request.worker)?.identity.id;
            Ok(Spec::Worker(WorkerChange::ConfirmDown { worker, session }))
        });
        let Begun { transaction, plan } = begun.await?;
        Ok(v1::ConfirmWorkerDownResponse { transaction, plan })
    }
}

#[tonic::async_trait]
impl WorkerService for WorkerApi {
    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        answer(self.list(request.into_inner()).await)
    }

    async fn get_worker(
        &self,
        request: Request<v1::GetWorkerRequest>,
    ) -> Result<Response<v1::GetWorkerResponse>, Status> {
        answer(self.get(request.into_inner()).await)
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        let request = request.into_inner();
        let drain = |worker| WorkerChange::Drain { worker };
        let begun = self.change(request.header, "worker-drain", &request.worker, drain).await;
        answer(begun.map(|Begun { transaction, plan }| v1::DrainWorkerResponse { transaction, plan }))
    }

    async fn undrain_worker(
        &self,
        request: Request<v1::UndrainWorkerRequest>,
    ) -> Result<Response<v1::UndrainWorkerResponse>, Status> {
        let request = request.into_inner();
        let undrain = |worker| WorkerChange::Undrain { worker };
        let begun = self.change(request.header, "worker-undrain", &request.worker, undrain).await;
        answer(begun.map(|Begun { transaction, plan }| v1::UndrainWorkerResponse { transaction, plan }))
    }

    async fn remove_worker(
        &self,
        request: Request<v1::RemoveWorkerRequest>,
    ) -> Result<Response<v1::RemoveWorkerResponse>, Status> {
        let request = request.into_inner();
        let remove = |worker| WorkerChange::Remove { worker };
        let begun = self.change(request.header, "worker-remove", &request.worker, remove).await;
        answer(begun.map(|Begun { transaction, plan }| v1::RemoveWorkerResponse { transaction, plan }))
    }

    async fn confirm_worker_down(
        &self,
        request: Request<v1::ConfirmWorkerDownRequest>,
    ) -> Result<Response<v1::ConfirmWorkerDownResponse>, Status> {
        answer(self.confirm_down(request.into_inner()).await)
    }
}
