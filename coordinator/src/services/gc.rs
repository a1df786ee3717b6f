//! `GcService`: what is garbage, and having it deleted now rather than when the collectors come to
//! it. Deletion itself is the workers' work and goes on behind.

use crate::core::Core;
use crate::services::call::Call;
use crate::services::page::Page;
use crate::services::present;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::token::Token;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::gc_service_server::GcService;
use sdm_state::Command;
use sdm_state::State;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// The service.
#[derive(Clone)]
pub struct GcApi {
    core: Core,
}

impl GcApi {
    /// Over this member's core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { core }
    }

    async fn list(&self, request: v1::ListGarbageRequest) -> Result<v1::ListGarbageResponse, Refusal> {
        let page = Page::<Token>::parse("garbage", request.page.as_ref())?;
        let view = Call::begin(&self.core).read().await?;
        let state = &view.state;
        let rows = state.garbage.from_key(&page.first_key()).map(|(id, row)| (*id, row));
        let (rows, next) = page.take(rows, state.applied_index());
        let items = rows.into_iter().map(|row| present::garbage(state, row)).collect();
        Ok(v1::ListGarbageResponse { items, page: Some(next) })
    }

    async fn run(&self) -> Result<v1::RunCollectionResponse, Refusal> {
        let call = Call::begin(&self.core);
        let mut view = call.read().await?;
        view.state.refuse_suspended()?;
        let due = due(&view.state);
        let batches = batches(&view.state, &due);
        for garbage in batches {
            view = call.propose(Command::Collect { garbage }).await?.view;
        }
        tracing::info!(garbage = due.len(), "collection was asked for");
        // What was deleted meanwhile needs no waiting for.
        let garbage_ids = due.iter().filter(|id| view.state.garbage.contains(id)).map(ToString::to_string).collect();
        Ok(v1::RunCollectionResponse { garbage_ids, revision: view.state.applied_index() })
    }
}

/// All that is due: being deleted, about to be, in a pause after a failure, or out of everybody's
/// reach (its row says so). Whoever waits for a collection waits for all of that.
fn due(state: &State) -> Vec<Token> {
    let now = state.meta.clock_ms;
    state.garbage.iter().filter(|(_, row)| row.due_ms <= now).map(|(id, _)| *id).collect()
}

/// What can be assigned now, in portions that one entry may do.
fn batches(state: &State, due: &[Token]) -> Vec<Vec<Token>> {
    let most = usize::try_from(state.meta.settings.work_per_entry).unwrap_or(usize::MAX).max(1);
    let collectable = |id: &&Token| state.garbage.get(id).is_some_and(|row| state.is_collectable(row));
    let collectable: Vec<Token> = due.iter().filter(collectable).copied().collect();
    collectable.chunks(most).map(<[Token]>::to_vec).collect()
}

#[tonic::async_trait]
impl GcService for GcApi {
    async fn list_garbage(
        &self,
        request: Request<v1::ListGarbageRequest>,
    ) -> Result<Response<v1::ListGarbageResponse>, Status> {
        self.list(request.into_inner()).await.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    async fn run_collection(
        &self,
        _request: Request<v1::RunCollectionRequest>,
    ) -> Result<Response<v1::RunCollectionResponse>, Status> {
        self.run().await.map(Response::new).map_err(|refusal| to_status(&refusal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn a_run_waits_for_what_is_deleted_already_and_assigns_only_the_rest() {
        let mut sample = Sample::with_disk();
        sample.delete("web-01");
        let all = due(&sample.state);
        assert_eq!(all.len(), 1);
        assert_eq!(batches(&sample.state, &all), std::slice::from_ref(&all));
        sample.collect();
        assert_eq!(due(&sample.state), all);
        assert_eq!(batches(&sample.state, &all), Vec::<Vec<Token>>::new());
    }

    #[test]
    fn one_entry_is_never_asked_for_more_than_it_may_do() {
        let mut sample = Sample::with_disk();
        for round in 0..3 {
            sample.begin_import(&format!("db-{round}"), "nfs1");
            sample.lose("a");
            sample.arrive("a");
            sample.see("a", "nfs1", None);
        }
        sample.state.meta.settings.work_per_entry = 2;
        let all = due(&sample.state);
        assert!(all.len() >= 3);
        let batches = batches(&sample.state, &all);
        assert!(batches.iter().all(|batch| batch.len() <= 2));
        assert_eq!(batches.concat(), all);
    }
}
