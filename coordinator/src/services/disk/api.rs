//! The service's calls. What each does is next door.

use crate::core::Core;
use crate::services::call::answer;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::disk_service_server::DiskService;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// The service.
#[derive(Clone)]
pub struct DiskApi {
    core: Core,
}

impl DiskApi {
    /// Over this member's core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { core }
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }
}

#[tonic::async_trait]
impl DiskService for DiskApi {
    async fn create_disk(
        &self,
        request: Request<v1::CreateDiskRequest>,
    ) -> Result<Response<v1::CreateDiskResponse>, Status> {
        answer(self.create(request.into_inner()).await)
    }

    async fn import_disk(
        &self,
        request: Request<v1::ImportDiskRequest>,
    ) -> Result<Response<v1::ImportDiskResponse>, Status> {
        answer(self.import(request.into_inner()).await)
    }

    async fn export_disk(
        &self,
        request: Request<v1::ExportDiskRequest>,
    ) -> Result<Response<v1::ExportDiskResponse>, Status> {
        answer(self.export(request.into_inner()).await)
    }

    async fn move_disk(&self, request: Request<v1::MoveDiskRequest>) -> Result<Response<v1::MoveDiskResponse>, Status> {
        answer(self.r#move(request.into_inner()).await)
    }

    async fn delete_disk(
        &self,
        request: Request<v1::DeleteDiskRequest>,
    ) -> Result<Response<v1::DeleteDiskResponse>, Status> {
        answer(self.delete(request.into_inner()).await)
    }

    async fn rename_disk(
        &self,
        request: Request<v1::RenameDiskRequest>,
    ) -> Result<Response<v1::RenameDiskResponse>, Status> {
        answer(self.rename(request.into_inner()).await)
    }

    async fn describe_disk(
        &self,
        request: Request<v1::DescribeDiskRequest>,
    ) -> Result<Response<v1::DescribeDiskResponse>, Status> {
        answer(self.describe(request.into_inner()).await)
    }

    async fn resize_disk(
        &self,
        request: Request<v1::ResizeDiskRequest>,
    ) -> Result<Response<v1::ResizeDiskResponse>, Status> {
        answer(self.resize(request.into_inner()).await)
    }

    async fn copy_disk(&self, request: Request<v1::CopyDiskRequest>) -> Result<Response<v1::CopyDiskResponse>, Status> {
        answer(self.copy(request.into_inner()).await)
    }

    async fn clone_disk(
        &self,
        request: Request<v1::CloneDiskRequest>,
    ) -> Result<Response<v1::CloneDiskResponse>, Status> {
        answer(self.clone_of(request.into_inner()).await)
    }

    async fn convert_disk(
        &self,
        request: Request<v1::ConvertDiskRequest>,
    ) -> Result<Response<v1::ConvertDiskResponse>, Status> {
        answer(self.convert(request.into_inner()).await)
    }

    async fn flatten_disk(
        &self,
        request: Request<v1::FlattenDiskRequest>,
    ) -> Result<Response<v1::FlattenDiskResponse>, Status> {
        answer(self.flatten(request.into_inner()).await)
    }

    async fn get_disk(&self, request: Request<v1::GetDiskRequest>) -> Result<Response<v1::GetDiskResponse>, Status> {
        answer(self.get(request.into_inner()).await)
    }

    async fn list_disks(
        &self,
        request: Request<v1::ListDisksRequest>,
    ) -> Result<Response<v1::ListDisksResponse>, Status> {
        answer(self.list(request.into_inner()).await)
    }
}
