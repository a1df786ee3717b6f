//! `JobService`: the data-moving parts of running transactions, with live progress.

use crate::core::Core;
use crate::services::call::Call;
use crate::services::page::Page;
use crate::services::present;
use crate::services::progress::ProgressReader;
use crate::services::progress::Question;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::job_service_server::JobService;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// The service.
#[derive(Clone)]
pub struct JobApi {
    core: Core,
    progress: ProgressReader,
}

impl JobApi {
    /// Over this member's core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { progress: ProgressReader::new(core.clone()), core }
    }

    async fn list(&self, request: v1::ListJobsRequest) -> Result<v1::ListJobsResponse, Refusal> {
        let page = Page::<u64>::parse("jobs", request.page.as_ref())?;
        let view = Call::begin(&self.core).read().await?;
        let state = &view.state;
        let rows = state.jobs.from_key(&page.first_key()).map(|(id, row)| (*id, row));
        let (rows, next) = page.take(rows, state.applied_index());
        let attempts = rows.iter().filter_map(|job| job.work.attempt.as_ref());
        let mut progress = self.progress.ask(Question::about(state, attempts)).await;
        let items = rows
            .into_iter()
            .map(|job| {
                let token = job.work.attempt.as_ref().map(|attempt| attempt.token.to_string());
                let live = token.and_then(|token| progress.remove(&token));
                present::job(state, job, live)
            })
            .collect();
        Ok(v1::ListJobsResponse { items, page: Some(next) })
    }
}

#[tonic::async_trait]
impl JobService for JobApi {
    async fn list_jobs(&self, request: Request<v1::ListJobsRequest>) -> Result<Response<v1::ListJobsResponse>, Status> {
        self.list(request.into_inner()).await.map(Response::new).map_err(|refusal| to_status(&refusal))
    }
}
