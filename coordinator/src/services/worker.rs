//! `WorkerService`: who works, what each reaches, and who is lost.

use crate::core::Core;
use crate::services::call::Call;
use crate::services::page::Page;
use crate::services::present;
use sdm_proto::ids::WorkerId;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::worker_service_server::WorkerService;
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
}

#[tonic::async_trait]
impl WorkerService for WorkerApi {
    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        self.list(request.into_inner()).await.map(Response::new).map_err(|refusal| to_status(&refusal))
    }
}
