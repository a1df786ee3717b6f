//! The service's calls and the list of locks. What the calls of sessions and of locks do is next
//! door.

use super::acquire;
use super::orders;
use super::session;
use super::stream;
use super::watch;
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
use tonic::Streaming;

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

fn answer<T>(outcome: Result<T, Refusal>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(|refusal| to_status(&refusal))
}

#[tonic::async_trait]
impl LockService for LockApi {
    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        answer(session::open(&self.core, request.into_inner()).await)
    }

    async fn keep_alive(
        &self,
        request: Request<v1::KeepAliveRequest>,
    ) -> Result<Response<v1::KeepAliveResponse>, Status> {
        answer(session::keep_alive(&self.core, request.into_inner()).await)
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        answer(session::close(&self.core, request.into_inner()).await)
    }

    async fn acquire(&self, request: Request<v1::AcquireRequest>) -> Result<Response<v1::AcquireResponse>, Status> {
        answer(acquire::acquire(&self.core, request.into_inner()).await)
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Result<Response<v1::ReleaseResponse>, Status> {
        answer(acquire::release(&self.core, request.into_inner()).await)
    }

    type LockStream = stream::Answers;

    async fn lock(&self, request: Request<Streaming<v1::LockCalls>>) -> Result<Response<Self::LockStream>, Status> {
        Ok(Response::new(stream::answers(self.core.clone(), request.into_inner())))
    }

    type WatchLockStream = watch::LockStream;

    async fn watch_lock(
        &self,
        request: Request<v1::WatchLockRequest>,
    ) -> Result<Response<Self::WatchLockStream>, Status> {
        answer(watch::watch(&self.core, request.into_inner()).await)
    }

    async fn get_lock(&self, request: Request<v1::GetLockRequest>) -> Result<Response<v1::GetLockResponse>, Status> {
        answer(orders::get(&self.core, request.into_inner()).await)
    }

    async fn release_lock_of(
        &self,
        request: Request<v1::ReleaseLockOfRequest>,
    ) -> Result<Response<v1::ReleaseLockOfResponse>, Status> {
        answer(orders::release_of(&self.core, request.into_inner()).await)
    }

    async fn break_lock(
        &self,
        request: Request<v1::BreakLockRequest>,
    ) -> Result<Response<v1::BreakLockResponse>, Status> {
        answer(orders::break_lock(&self.core, request.into_inner()).await)
    }

    async fn list_locks(
        &self,
        request: Request<v1::ListLocksRequest>,
    ) -> Result<Response<v1::ListLocksResponse>, Status> {
        answer(self.list(request.into_inner()).await)
    }
}
