//! `DiskService`: making, moving, deleting and showing disks. Bytes never pass a member: an import
//! and an export name the worker to which the command connects.

use crate::core::Core;
use crate::services::call::Call;
use crate::services::mutation::Begun;
use crate::services::mutation::Mutation;
use crate::services::mutation::RequestHash;
use crate::services::page::Page;
use crate::services::present;
use crate::services::resolve;
use sdm_proto::ids::DiskId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::disk_service_server::DiskService;
use sdm_state::catalog::Format;
use sdm_state::txns::Spec;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// A new disk's size is rounded up to this: the largest block of storage in use.
const SIZE_STEP: u64 = 4096;

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

    async fn create(&self, request: v1::CreateDiskRequest) -> Result<Begun, Refusal> {
        let name = resolve::new_name(&request.name)?;
        let format = format_of(request.format)?;
        let size = check_size(request.size)?.checked_next_multiple_of(SIZE_STEP).ok_or_else(|| {
            let message = format!("{} bytes are more than a disk may have", request.size);
            Refusal::new(Class::Invalid, "SIZE_TOO_LARGE", message).hint("give a smaller size")
        })?;
        let hash = RequestHash::of("disk-create")
            .text("name", name.as_str())
            .text("domain", &request.domain)
            .number("size", request.size)
            .text("format", format.word());
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve = |state: &_| {
            let domain = resolve::domain(state, &request.domain)?.id;
            Ok(Spec::CreateDisk { name, domain, size, format, preallocated: false, description: String::new() })
        };
        mutation.begin(&self.core, resolve).await
    }

    async fn import(&self, request: v1::ImportDiskRequest) -> Result<Begun, Refusal> {
        let name = resolve::new_name(&request.name)?;
        let format = format_of(request.format)?;
        let file_size = check_size(request.file_size)?;
        // Blocks beyond the file's end are not sent, so no space is needed for them.
        let allocated_bytes = request.allocated_bytes.min(file_size.saturating_add(SIZE_STEP - 1));
        // What is allocated is the sender's file system's affair: a copy of the file on another one
        // is the same request.
        let hash = RequestHash::of("disk-import")
            .text("name", name.as_str())
            .text("domain", &request.domain)
            .text("format", format.word())
            .number("file-size", file_size);
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve = |state: &_| {
            let domain = resolve::domain(state, &request.domain)?.id;
            Ok(Spec::ImportDisk { name, domain, format, file_size, allocated_bytes })
        };
        mutation.begin(&self.core, resolve).await
    }

    async fn export(&self, request: v1::ExportDiskRequest) -> Result<Begun, Refusal> {
        let hash = RequestHash::of("disk-export").text("disk", &request.disk);
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve = |state: &_| Ok(Spec::ExportDisk { disk: resolve::disk(state, &request.disk)?.id });
        mutation.begin(&self.core, resolve).await
    }

    async fn r#move(&self, request: v1::MoveDiskRequest) -> Result<Begun, Refusal> {
        let hash = RequestHash::of("disk-move").text("disk", &request.disk).text("to", &request.to_domain);
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve = |state: &_| {
            let disk = resolve::disk(state, &request.disk)?.id;
            Ok(Spec::MoveDisk { disk, to: resolve::domain(state, &request.to_domain)?.id })
        };
        mutation.begin(&self.core, resolve).await
    }

    async fn delete(&self, request: v1::DeleteDiskRequest) -> Result<Begun, Refusal> {
        let hash = RequestHash::of("disk-delete").text("disk", &request.disk);
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve = |state: &_| Ok(Spec::DeleteDisk { disk: resolve::disk(state, &request.disk)?.id });
        mutation.begin(&self.core, resolve).await
    }

    async fn get(&self, request: v1::GetDiskRequest) -> Result<v1::GetDiskResponse, Refusal> {
        let view = Call::begin(&self.core).read().await?;
        let disk = resolve::disk(&view.state, &request.disk)?;
        let disk = Some(present::disk(&view.state, disk));
        Ok(v1::GetDiskResponse { disk, revision: view.state.applied_index() })
    }

    async fn list(&self, request: v1::ListDisksRequest) -> Result<v1::ListDisksResponse, Refusal> {
        let page = Page::<DiskId>::parse("disks", request.page.as_ref())?;
        let view = Call::begin(&self.core).read().await?;
        let state = &view.state;
        let first = page.first_key();
        let (rows, next) = match request.domain.as_str() {
            "" => page.take(state.disks.from_key(&first).map(|(id, row)| (*id, row)), state.applied_index()),
            text => {
                let domain = resolve::domain(state, text)?.id;
                let rows = state.disks_in_from(domain, first).map(|row| (row.id, row));
                page.take(rows, state.applied_index())
            }
        };
        let items = rows.into_iter().map(|row| present::disk(state, row)).collect();
        Ok(v1::ListDisksResponse { items, page: Some(next) })
    }
}

fn format_of(format: i32) -> Result<Format, Refusal> {
    match v1::DiskFormat::try_from(format) {
        Ok(v1::DiskFormat::Raw) => Ok(Format::Raw),
        Ok(v1::DiskFormat::Qcow2) => Ok(Format::Qcow2),
        Ok(v1::DiskFormat::Unspecified) | Err(_) => {
            let message =
                if format == 0 { "no format is given".to_owned() } else { format!("there is no format {format}") };
            Err(Refusal::new(Class::Invalid, "BAD_FORMAT", message)
                .hint("say raw or qcow2; it is never guessed from the bytes, which a guest may have written"))
        }
    }
}

fn check_size(bytes: u64) -> Result<u64, Refusal> {
    if bytes == 0 {
        return Err(Refusal::new(Class::Invalid, "SIZE_ZERO", "a disk of 0 bytes holds nothing")
            .hint("give a size of at least 4 KiB, or a file that is not empty"));
    }
    Ok(bytes)
}

fn status(refusal: Refusal) -> Status {
    to_status(&refusal)
}

#[tonic::async_trait]
impl DiskService for DiskApi {
    async fn create_disk(
        &self,
        request: Request<v1::CreateDiskRequest>,
    ) -> Result<Response<v1::CreateDiskResponse>, Status> {
        let Begun { transaction, plan } = self.create(request.into_inner()).await.map_err(status)?;
        Ok(Response::new(v1::CreateDiskResponse { transaction, plan }))
    }

    async fn import_disk(
        &self,
        request: Request<v1::ImportDiskRequest>,
    ) -> Result<Response<v1::ImportDiskResponse>, Status> {
        let Begun { transaction, plan } = self.import(request.into_inner()).await.map_err(status)?;
        Ok(Response::new(v1::ImportDiskResponse { transaction, plan }))
    }

    async fn export_disk(
        &self,
        request: Request<v1::ExportDiskRequest>,
    ) -> Result<Response<v1::ExportDiskResponse>, Status> {
        let Begun { transaction, plan } = self.export(request.into_inner()).await.map_err(status)?;
        Ok(Response::new(v1::ExportDiskResponse { transaction, plan }))
    }

    async fn move_disk(&self, request: Request<v1::MoveDiskRequest>) -> Result<Response<v1::MoveDiskResponse>, Status> {
        let Begun { transaction, plan } = self.r#move(request.into_inner()).await.map_err(status)?;
        Ok(Response::new(v1::MoveDiskResponse { transaction, plan }))
    }

    async fn delete_disk(
        &self,
        request: Request<v1::DeleteDiskRequest>,
    ) -> Result<Response<v1::DeleteDiskResponse>, Status> {
        let Begun { transaction, plan } = self.delete(request.into_inner()).await.map_err(status)?;
        Ok(Response::new(v1::DeleteDiskResponse { transaction, plan }))
    }

    async fn get_disk(&self, request: Request<v1::GetDiskRequest>) -> Result<Response<v1::GetDiskResponse>, Status> {
        self.get(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn list_disks(
        &self,
        request: Request<v1::ListDisksRequest>,
    ) -> Result<Response<v1::ListDisksResponse>, Status> {
        self.list(request.into_inner()).await.map(Response::new).map_err(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_said_not_guessed() {
        assert_eq!(format_of(v1::DiskFormat::Raw as i32), Ok(Format::Raw));
        assert_eq!(format_of(v1::DiskFormat::Qcow2 as i32), Ok(Format::Qcow2));
        for unknown in [0, 3, -1] {
            assert_eq!(format_of(unknown).unwrap_err().reason, "BAD_FORMAT");
        }
    }

    #[test]
    fn a_disk_of_nothing_is_refused() {
        assert_eq!(check_size(0).unwrap_err().reason, "SIZE_ZERO");
        assert_eq!(check_size(1), Ok(1));
    }
}
