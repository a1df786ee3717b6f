//! `LockService`: who holds what, and who waits for whom.

use crate::core::Core;
use crate::services::call::Call;
use crate::services::page::Page;
use crate::services::present;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::lock_service_server::LockService;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// The service.
#[derive(Clone)]
pub struct LockApi {
    core: Core,
}

impl LockApi {
    /// Over this member's core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { core }
    }

    async fn list(&self, request: v1::ListLocksRequest) -> Result<v1::ListLocksResponse, Refusal> {
        let page = Page::<u64>::parse("locks", request.page.as_ref())?;
        let view = Call::begin(&self.core).read().await?;
        let state = &view.state;
        let rows = state.locks.from_key(&page.first_key()).map(|(id, row)| (*id, row));
        let (rows, next) = page.take(rows, state.applied_index());
        let now_ms = self.core.shown_clock_ms(state);
        let items = rows.into_iter().map(|row| present::lock(state, row, now_ms)).collect();
        Ok(v1::ListLocksResponse { items, page: Some(next) })
    }
}

#[tonic::async_trait]
impl LockService for LockApi {
    async fn list_locks(
        &self,
        request: Request<v1::ListLocksRequest>,
    ) -> Result<Response<v1::ListLocksResponse>, Status> {
        self.list(request.into_inner()).await.map(Response::new).map_err(|refusal| to_status(&refusal))
    }
}
