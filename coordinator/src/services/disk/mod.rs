//! `DiskService`: making, changing, copying, moving, deleting and showing disks. Bytes never pass a
//! member: an import and an export name the worker to which the command connects.

mod api;
mod changing;
mod checks;
mod copying;
mod making;
mod showing;

pub(crate) use api::DiskApi;
pub(super) use checks::description;
pub(super) use checks::format_if_any;
pub(super) use copying::Copying;
pub(super) use copying::begin_copy;
pub(super) use making::begin_deletion;
pub(super) use showing::list_disks;
