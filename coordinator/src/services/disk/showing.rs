//! Disks as they are shown, one or all.

use super::api::DiskApi;
use crate::core::Core;
use crate::services::call::Call;
use crate::services::page::Page;
use crate::services::present;
use crate::services::resolve;
use sdm_proto::ids::DiskId;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_state::catalog::Disk;

impl DiskApi {
    pub(super) async fn get(&self, request: v1::GetDiskRequest) -> Result<v1::GetDiskResponse, Refusal> {
        let view = Call::begin(self.core()).read().await?;
        let disk = resolve::disk(&view.state, &request.disk)?;
        let disk = Some(present::disk(&view.state, disk));
        Ok(v1::GetDiskResponse { disk, revision: view.state.applied_index() })
    }

    pub(super) async fn list(&self, request: v1::ListDisksRequest) -> Result<v1::ListDisksResponse, Refusal> {
        let wanted = |disk: &Disk| disk.template || !request.templates_only;
        let (items, page) = list_disks(self.core(), request.page.as_ref(), &request.domain, wanted).await?;
        Ok(v1::ListDisksResponse { items, page: Some(page) })
    }
}

/// A page of those disks of a domain, or of all, that are wanted.
///
/// # Errors
/// There is no such domain or page.
pub(in crate::services) async fn list_disks(
    core: &Core,
    page: Option<&v1::PageRequest>,
    domain: &str,
    wanted: impl Fn(&Disk) -> bool,
) -> Result<(Vec<v1::Disk>, v1::PageResponse), Refusal> {
    let page = Page::<DiskId>::parse("disks", page)?;
    let view = Call::begin(core).read().await?;
    let state = &view.state;
    let first = page.first_key();
    let wanted = |disk: &Disk| wanted(disk) && !state.is_hidden(disk);
    let (rows, next) = match domain {
        "" => {
            let rows = state.disks.from_key(&first).map(|(id, row)| (*id, row)).filter(|(_, row)| wanted(row));
            page.take(rows, state.applied_index())
        }
        text => {
            let domain = resolve::domain(state, text)?.id;
            let rows = state.disks_in_from(domain, first).map(|row| (row.id, row)).filter(|(_, row)| wanted(row));
            page.take(rows, state.applied_index())
        }
    };
    Ok((rows.into_iter().map(|row| present::disk(state, row)).collect(), next))
}
