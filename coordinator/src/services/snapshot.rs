//! `SnapshotService`: how disks were at a moment, kept as frozen volumes of their chains.

use crate::core::Core;
use crate::services::call::Call;
use crate::services::call::answer;
use crate::services::disk::description;
use crate::services::mutation::Begun;
use crate::services::mutation::Mutation;
use crate::services::mutation::RequestHash;
use crate::services::page::Page;
use crate::services::present;
use crate::services::resolve;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::snapshot_service_server::SnapshotService;
use sdm_state::txns::Spec;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// The service.
#[derive(Clone)]
pub struct SnapshotApi {
    core: Core,
}

impl SnapshotApi {
    /// Over this member's core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { core }
    }

    async fn create(&self, request: v1::CreateSnapshotRequest) -> Result<v1::CreateSnapshotResponse, Refusal> {
        let name = resolve::new_name(&request.name)?;
        let description = description(request.description)?;
        let hash = RequestHash::of("snapshot-create")
            .text("disk", &request.disk)
            .text("name", name.as_str())
            .text("description", &description);
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve = |state: &_| {
            let disk = resolve::disk(state, &request.disk)?.id;
            Ok(Spec::CreateSnapshot { disk, name, description })
        };
        let Begun { transaction, plan } = mutation.begin(&self.core, resolve).await?;
        Ok(v1::CreateSnapshotResponse { transaction, plan })
    }

    async fn delete(&self, request: v1::DeleteSnapshotRequest) -> Result<v1::DeleteSnapshotResponse, Refusal> {
        let in_place = request.in_place;
        let hash = RequestHash::of("snapshot-delete")
            .text("disk", &request.disk)
            .text("snapshot", &request.snapshot)
            .number("in-place", u64::from(in_place));
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve = |state: &_| {
            let disk = resolve::disk(state, &request.disk)?;
            let volume = resolve::snapshot(state, disk, &request.snapshot)?.id;
            Ok(Spec::DeleteSnapshot { disk: disk.id, volume, in_place })
        };
        let Begun { transaction, plan } = mutation.begin(&self.core, resolve).await?;
        Ok(v1::DeleteSnapshotResponse { transaction, plan })
    }

    async fn revert(&self, request: v1::RevertSnapshotRequest) -> Result<v1::RevertSnapshotResponse, Refusal> {
        let discard_newer = request.discard_newer;
        let hash = RequestHash::of("snapshot-revert")
            .text("disk", &request.disk)
            .text("snapshot", &request.snapshot)
            .number("discard-newer", u64::from(discard_newer));
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve = |state: &_| {
            let disk = resolve::disk(state, &request.disk)?;
            let volume = resolve::snapshot(state, disk, &request.snapshot)?.id;
            Ok(Spec::RevertSnapshot { disk: disk.id, volume, discard_newer })
        };
        let Begun { transaction, plan } = mutation.begin(&self.core, resolve).await?;
        Ok(v1::RevertSnapshotResponse { transaction, plan })
    }

    async fn get(&self, request: v1::GetSnapshotRequest) -> Result<v1::GetSnapshotResponse, Refusal> {
        let view = Call::begin(&self.core).read().await?;
        let disk = resolve::disk(&view.state, &request.disk)?;
        let volume = resolve::snapshot(&view.state, disk, &request.snapshot)?;
        let snapshot = present::snapshot(&view.state, disk, volume);
        Ok(v1::GetSnapshotResponse { snapshot, revision: view.state.applied_index() })
    }

    async fn list(&self, request: v1::ListSnapshotsRequest) -> Result<v1::ListSnapshotsResponse, Refusal> {
        let page = Page::<u64>::parse("snapshots", request.page.as_ref())?;
        let view = Call::begin(&self.core).read().await?;
        let disk = resolve::disk(&view.state, &request.disk)?;
        // By their place in the chain, from 1: a chain is short, and where it changes between two pages the
        // revision tells.
        let rows = (1_u64..).zip(present::snapshots(&view.state, disk));
        let (items, next) = page.take(rows, view.state.applied_index());
        Ok(v1::ListSnapshotsResponse { items, page: Some(next) })
    }
}

#[tonic::async_trait]
impl SnapshotService for SnapshotApi {
    async fn create_snapshot(
        &self,
        request: Request<v1::CreateSnapshotRequest>,
    ) -> Result<Response<v1::CreateSnapshotResponse>, Status> {
        answer(self.create(request.into_inner()).await)
    }

    async fn delete_snapshot(
        &self,
        request: Request<v1::DeleteSnapshotRequest>,
    ) -> Result<Response<v1::DeleteSnapshotResponse>, Status> {
        answer(self.delete(request.into_inner()).await)
    }

    async fn revert_snapshot(
        &self,
        request: Request<v1::RevertSnapshotRequest>,
    ) -> Result<Response<v1::RevertSnapshotResponse>, Status> {
        answer(self.revert(request.into_inner()).await)
    }

    async fn get_snapshot(
        &self,
        request: Request<v1::GetSnapshotRequest>,
    ) -> Result<Response<v1::GetSnapshotResponse>, Status> {
        answer(self.get(request.into_inner()).await)
    }

    async fn list_snapshots(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        answer(self.list(request.into_inner()).await)
    }
}
