//! Disks that come, move and go: made empty, from a file, to a file, elsewhere, not at all.

use super::api::DiskApi;
use super::checks::SIZE_STEP;
use super::checks::check_size;
use super::checks::description;
use super::checks::format_of;
use super::checks::rounded;
use crate::core::Core;
use crate::services::mutation::Begun;
use crate::services::mutation::Mutation;
use crate::services::mutation::RequestHash;
use crate::services::resolve;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::txns::Spec;

impl DiskApi {
    pub(super) async fn create(&self, request: v1::CreateDiskRequest) -> Result<v1::CreateDiskResponse, Refusal> {
        let name = resolve::new_name(&request.name)?;
        let format = format_of(request.format)?;
        let size = rounded(request.size)?;
        let (preallocated, description) = (request.preallocate, description(request.description)?);
        let mut hash = RequestHash::of("disk-create")
            .text("name", name.as_str())
            .text("domain", &request.domain)
            .number("size", request.size)
            .text("format", format.word());
        // Requests of clients that know neither hash as they always did.
        if preallocated {
            hash = hash.number("preallocate", 1);
        }
        if !description.is_empty() {
            hash = hash.text("description", &description);
        }
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve = |state: &_| {
            let domain = resolve::domain(state, &request.domain)?.id;
            Ok(Spec::CreateDisk { name, domain, size, format, preallocated, description })
        };
        let Begun { transaction, plan } = mutation.begin(self.core(), resolve).await?;
        Ok(v1::CreateDiskResponse { transaction, plan })
    }

    pub(super) async fn import(&self, request: v1::ImportDiskRequest) -> Result<v1::ImportDiskResponse, Refusal> {
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
        let Begun { transaction, plan } = mutation.begin(self.core(), resolve).await?;
        Ok(v1::ImportDiskResponse { transaction, plan })
    }

    pub(super) async fn export(&self, request: v1::ExportDiskRequest) -> Result<v1::ExportDiskResponse, Refusal> {
        let hash = RequestHash::of("disk-export").text("disk", &request.disk);
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve = |state: &_| Ok(Spec::ExportDisk { disk: resolve::disk(state, &request.disk)?.id });
        let Begun { transaction, plan } = mutation.begin(self.core(), resolve).await?;
        Ok(v1::ExportDiskResponse { transaction, plan })
    }

    pub(super) async fn r#move(&self, request: v1::MoveDiskRequest) -> Result<v1::MoveDiskResponse, Refusal> {
        let hash = RequestHash::of("disk-move").text("disk", &request.disk).text("to", &request.to_domain);
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve = |state: &_| {
            let disk = resolve::disk(state, &request.disk)?.id;
            Ok(Spec::MoveDisk { disk, to: resolve::domain(state, &request.to_domain)?.id })
        };
        let Begun { transaction, plan } = mutation.begin(self.core(), resolve).await?;
        Ok(v1::MoveDiskResponse { transaction, plan })
    }

    pub(super) async fn delete(&self, request: v1::DeleteDiskRequest) -> Result<v1::DeleteDiskResponse, Refusal> {
        let hash = RequestHash::of("disk-delete").text("disk", &request.disk);
        let resolve = |state: &State| Ok(resolve::disk(state, &request.disk)?.id);
        let Begun { transaction, plan } = begin_deletion(self.core(), request.header, hash, resolve).await?;
        Ok(v1::DeleteDiskResponse { transaction, plan })
    }
}

/// Begins the deletion of the disk that is meant.
///
/// # Errors
/// There is none, or the transaction was refused.
pub(in crate::services) async fn begin_deletion(
    core: &Core,
    header: Option<v1::MutationHeader>,
    hash: RequestHash,
    which: impl FnOnce(&State) -> Result<sdm_proto::ids::DiskId, Refusal>,
) -> Result<Begun, Refusal> {
    let mutation = Mutation::parse(header, hash)?;
    mutation.begin(core, |state| Ok(Spec::DeleteDisk { disk: which(state)? })).await
}
