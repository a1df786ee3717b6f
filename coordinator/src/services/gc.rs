//! `GcService`: what is garbage, what may come back, and having it deleted now rather than when the
//! collectors come to it. Deletion itself is the workers' work and goes on behind.

use crate::core::Core;
use crate::services::audit::Audit;
use crate::services::call::Call;
use crate::services::gc_orders;
use crate::services::gc_status;
use crate::services::mutation::Begun;
use crate::services::page::Page;
use crate::services::present;
use sdm_proto::ids::DomainId;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::token::Token;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::gc_service_server::GcService;
use sdm_state::Command;
use sdm_state::State;
use sdm_state::garbage::Garbage;
use sdm_state::gc_plans::GcPlan;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// Findings of an audit that wait for a slow reader.
const FINDINGS_WAITING_MAX: usize = 64;

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
        let kind = gc_orders::kind_of(&request.kind)?;
        let view = Call::begin(&self.core).read().await?;
        let state = &view.state;
        let domain = gc_orders::domain_of(state, &request.domain)?;
        let wanted = |row: &Garbage| {
            let here = domain.is_none_or(|domain| row.place.domain == domain && !row.place.whole_domain);
            here && kind.is_none_or(|kind| row.kind == kind) && (!request.trash || row.trash.is_some())
        };
        let rows = state.garbage.from_key(&page.first_key()).filter(|(_, row)| wanted(row));
        let (rows, next) = page.take(rows.map(|(id, row)| (*id, row)), state.applied_index());
        let items = rows.into_iter().map(|row| present::garbage(state, row)).collect();
        Ok(v1::ListGarbageResponse { items, page: Some(next) })
    }

    async fn get(&self, request: v1::GetGarbageRequest) -> Result<v1::GetGarbageResponse, Refusal> {
        let id = gc_orders::garbage_id(&request.id)?;
        let view = Call::begin(&self.core).read().await?;
        let state = &view.state;
        let garbage = Some(present::garbage(state, state.known_garbage(id)?));
        Ok(v1::GetGarbageResponse { garbage, clock_ms: state.meta.clock_ms, revision: state.applied_index() })
    }

    async fn get_plan(&self, request: v1::GetCollectionPlanRequest) -> Result<v1::GetCollectionPlanResponse, Refusal> {
        let view = Call::begin(&self.core).read().await?;
        let state = &view.state;
        let by_txn = |plan: &&GcPlan| plan.txn.to_string() == request.transaction_id;
        let known = state.gc_plans.get(&request.id).or_else(|| state.gc_plans.values().find(by_txn));
        let plan = match known {
            Some(plan) => plan,
            None => state.open_gc_plan(request.id)?,
        };
        let collection = Some(present::collection_plan(state, plan));
        Ok(v1::GetCollectionPlanResponse { collection, revision: state.applied_index() })
    }

    async fn run(&self, request: v1::RunCollectionRequest) -> Result<v1::RunCollectionResponse, Refusal> {
        let call = Call::begin(&self.core);
        let mut view = call.read().await?;
        view.state.refuse_suspended()?;
        let due = due(&view.state, gc_orders::domain_of(&view.state, &request.domain)?);
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
fn due(state: &State, domain: Option<DomainId>) -> Vec<Token> {
    let now = state.meta.clock_ms;
    match domain {
        Some(domain) => state.garbage_in(domain).filter(|row| row.due_ms <= now).map(|row| row.id).collect(),
        None => state.garbage.iter().filter(|(_, row)| row.due_ms <= now).map(|(id, _)| *id).collect(),
    }
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

    async fn get_garbage(
        &self,
        request: Request<v1::GetGarbageRequest>,
    ) -> Result<Response<v1::GetGarbageResponse>, Status> {
        answered(self.get(request.into_inner()).await)
    }

    async fn get_garbage_status(
        &self,
        _request: Request<v1::GetGarbageStatusRequest>,
    ) -> Result<Response<v1::GetGarbageStatusResponse>, Status> {
        answered(Call::begin(&self.core).read().await.map(|view| gc_status::of(&view.state)))
    }

    async fn run_collection(
        &self,
        request: Request<v1::RunCollectionRequest>,
    ) -> Result<Response<v1::RunCollectionResponse>, Status> {
        answered(self.run(request.into_inner()).await)
    }

    async fn restore_trash(
        &self,
        request: Request<v1::RestoreTrashRequest>,
    ) -> Result<Response<v1::RestoreTrashResponse>, Status> {
        let begun = gc_orders::restore(&self.core, request.into_inner()).await;
        answered(begun.map(|Begun { transaction, plan }| v1::RestoreTrashResponse { transaction, plan }))
    }

    async fn purge_trash(
        &self,
        request: Request<v1::PurgeTrashRequest>,
    ) -> Result<Response<v1::PurgeTrashResponse>, Status> {
        let begun = gc_orders::purge(&self.core, request.into_inner()).await;
        answered(begun.map(|(Begun { transaction, plan }, more)| v1::PurgeTrashResponse { transaction, plan, more }))
    }

    async fn hold_garbage(
        &self,
        request: Request<v1::HoldGarbageRequest>,
    ) -> Result<Response<v1::HoldGarbageResponse>, Status> {
        let begun = gc_orders::hold(&self.core, request.into_inner()).await;
        answered(begun.map(|Begun { transaction, plan }| v1::HoldGarbageResponse { transaction, plan }))
    }

    async fn unhold_garbage(
        &self,
        request: Request<v1::UnholdGarbageRequest>,
    ) -> Result<Response<v1::UnholdGarbageResponse>, Status> {
        let begun = gc_orders::unhold(&self.core, request.into_inner()).await;
        answered(begun.map(|Begun { transaction, plan }| v1::UnholdGarbageResponse { transaction, plan }))
    }

    async fn plan_collection(
        &self,
        request: Request<v1::PlanCollectionRequest>,
    ) -> Result<Response<v1::PlanCollectionResponse>, Status> {
        answered(gc_orders::plan(&self.core, request.into_inner()).await)
    }

    async fn get_collection_plan(
        &self,
        request: Request<v1::GetCollectionPlanRequest>,
    ) -> Result<Response<v1::GetCollectionPlanResponse>, Status> {
        answered(self.get_plan(request.into_inner()).await)
    }

    async fn apply_collection_plan(
        &self,
        request: Request<v1::ApplyCollectionPlanRequest>,
    ) -> Result<Response<v1::ApplyCollectionPlanResponse>, Status> {
        let begun = gc_orders::apply(&self.core, request.into_inner()).await;
        answered(begun.map(|Begun { transaction, plan }| v1::ApplyCollectionPlanResponse { transaction, plan }))
    }

    type AuditDomainStream = ReceiverStream<Result<v1::AuditDomainResponse, Status>>;

    async fn audit_domain(
        &self,
        request: Request<v1::AuditDomainRequest>,
    ) -> Result<Response<Self::AuditDomainStream>, Status> {
        let audit =
            Audit::begin(self.core.clone(), request.into_inner()).await.map_err(|refusal| to_status(&refusal))?;
        let (to, stream) = mpsc::channel(FINDINGS_WAITING_MAX);
        let closing = self.core.closing().clone();
        tokio::spawn(closing.run_until_cancelled_owned(audit.run(to)));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn answered<T>(answer: Result<T, Refusal>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(|refusal| to_status(&refusal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn a_run_waits_for_what_is_deleted_already_and_assigns_only_the_rest() {
        let mut sample = Sample::with_disk();
        sample.delete("web-01");
        let all = due(&sample.state, None);
        assert_eq!(all.len(), 1);
        let (here, other) = (sample.domain("nfs1").id, sample.domain("nfs2").id);
        assert_eq!((due(&sample.state, Some(here)), due(&sample.state, Some(other))), (all.clone(), Vec::new()));
        assert_eq!(batches(&sample.state, &all), std::slice::from_ref(&all));
        sample.collect();
        assert_eq!(due(&sample.state, None), all);
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
        let all = due(&sample.state, None);
        assert!(all.len() >= 3);
        let batches = batches(&sample.state, &all);
        assert!(batches.iter().all(|batch| batch.len() <= 2));
        assert_eq!(batches.concat(), all);
    }
}
