//! Disks made from disks: copies, clones, templates; a disk in another format, or with layers of its own.

use super::api::DiskApi;
use super::checks::description;
use super::checks::format_if_any;
use super::checks::format_of;
use super::checks::format_word;
use crate::core::Core;
use crate::services::mutation::Begun;
use crate::services::mutation::Mutation;
use crate::services::mutation::RequestHash;
use crate::services::resolve;
use sdm_proto::ids::VolumeId;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::catalog::Disk;
use sdm_state::catalog::Format;
use sdm_state::txns::Spec;

/// A new disk with a disk's content, as users say it.
pub(in crate::services) struct Copying {
    /// For its request's hash.
    pub kind: &'static str,
    /// The source.
    pub disk: String,
    /// A snapshot of it; empty: as it is now.
    pub snapshot: String,
    /// The new one's.
    pub name: Name,
    /// The new one's.
    pub description: String,
    /// Empty: where the source lies.
    pub to_domain: String,
    /// None: the source's.
    pub format: Option<Format>,
    /// Allocate all blocks.
    pub preallocated: bool,
    /// A chain may become one volume.
    pub collapse: bool,
    /// A template.
    pub template: bool,
}

impl Copying {
    fn hash(&self) -> RequestHash {
        RequestHash::of(self.kind)
            .text("disk", &self.disk)
            .text("snapshot", &self.snapshot)
            .text("name", self.name.as_str())
            .text("description", &self.description)
            .text("to", &self.to_domain)
            .text("format", format_word(self.format))
            .number("preallocate", u64::from(self.preallocated))
            .number("collapse", u64::from(self.collapse))
    }

    fn spec(self, state: &State) -> Result<Spec, Refusal> {
        let disk = resolve::disk(state, &self.disk)?;
        let to = match self.to_domain.as_str() {
            "" => resolve::domain_of(state, disk)?.id,
            text => resolve::domain(state, text)?.id,
        };
        Ok(Spec::CopyDisk {
            disk: disk.id,
            snapshot: resolve::snapshot_if_any(state, disk, &self.snapshot)?,
            name: self.name,
            description: self.description,
            to,
            format: self.format,
            preallocated: self.preallocated,
            collapse: self.collapse,
            template: self.template,
        })
    }
}

/// Begins it.
///
/// # Errors
/// Something in it is not there, or the transaction was refused.
pub(in crate::services) async fn begin_copy(
    core: &Core,
    header: Option<v1::MutationHeader>,
    copying: Copying,
) -> Result<Begun, Refusal> {
    let mutation = Mutation::parse(header, copying.hash())?;
    mutation.begin(core, |state| copying.spec(state)).await
}

impl DiskApi {
    pub(super) async fn copy(&self, request: v1::CopyDiskRequest) -> Result<v1::CopyDiskResponse, Refusal> {
        let copying = Copying {
            kind: "disk-copy",
            name: resolve::new_name(&request.name)?,
            description: description(request.description)?,
            format: format_if_any(request.format)?,
            disk: request.disk,
            snapshot: request.snapshot,
            to_domain: request.to_domain,
            preallocated: request.preallocate,
            collapse: request.collapse,
            template: false,
        };
        let Begun { transaction, plan } = begin_copy(self.core(), request.header, copying).await?;
        Ok(v1::CopyDiskResponse { transaction, plan })
    }

    pub(super) async fn clone_of(&self, request: v1::CloneDiskRequest) -> Result<v1::CloneDiskResponse, Refusal> {
        let name = resolve::new_name(&request.name)?;
        let description = description(request.description)?;
        let asked = clone_kind(request.kind)?;
        let hash = RequestHash::of("disk-clone")
            .text("disk", &request.disk)
            .text("snapshot", &request.snapshot)
            .text("name", name.as_str())
            .text("description", &description)
            .text("clone-kind", asked.as_str_name());
        let mutation = Mutation::parse(request.header, hash)?;
        let mut chosen = None;
        let resolve = |state: &State| {
            let disk = resolve::disk(state, &request.disk)?;
            let snapshot = resolve::snapshot_if_any(state, disk, &request.snapshot)?;
            let (kind, why) = choose_kind(asked, disk, snapshot.is_some());
            chosen = Some((kind, format!("{why}{}", new_format(state, kind, disk, snapshot))));
            if kind == v1::CloneKind::Linked {
                return Ok(Spec::CloneLinked { disk: disk.id, snapshot, name, description });
            }
            let to = resolve::domain_of(state, disk)?.id;
            let (format, preallocated, collapse, template) = (None, false, true, false);
            let disk = disk.id;
            Ok(Spec::CopyDisk { disk, snapshot, name, description, to, format, preallocated, collapse, template })
        };
        let Begun { transaction, plan } = mutation.begin(self.core(), resolve).await?;
        let (kind, kind_reason) = chosen.unwrap_or_else(|| recorded_kind(transaction.as_ref()));
        Ok(v1::CloneDiskResponse { transaction, plan, kind: kind.into(), kind_reason })
    }

    pub(super) async fn convert(&self, request: v1::ConvertDiskRequest) -> Result<v1::ConvertDiskResponse, Refusal> {
        let format = format_of(request.format)?;
        let preallocated = request.preallocate;
        let hash = RequestHash::of("disk-convert")
            .text("disk", &request.disk)
            .text("format", format.word())
            .number("preallocate", u64::from(preallocated));
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve =
            |state: &_| Ok(Spec::ConvertDisk { disk: resolve::disk(state, &request.disk)?.id, format, preallocated });
        let Begun { transaction, plan } = mutation.begin(self.core(), resolve).await?;
        Ok(v1::ConvertDiskResponse { transaction, plan })
    }

    pub(super) async fn flatten(&self, request: v1::FlattenDiskRequest) -> Result<v1::FlattenDiskResponse, Refusal> {
        let hash = RequestHash::of("disk-flatten").text("disk", &request.disk);
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve = |state: &_| Ok(Spec::FlattenDisk { disk: resolve::disk(state, &request.disk)?.id });
        let Begun { transaction, plan } = mutation.begin(self.core(), resolve).await?;
        Ok(v1::FlattenDiskResponse { transaction, plan })
    }
}

fn clone_kind(kind: i32) -> Result<v1::CloneKind, Refusal> {
    v1::CloneKind::try_from(kind).map_err(|_| {
        Refusal::new(Class::Invalid, "BAD_CLONE_KIND", format!("there is no kind {kind} of clones"))
            .hint("say linked or full, or nothing")
    })
}

/// Which kind, and why that one.
fn choose_kind(asked: v1::CloneKind, disk: &Disk, of_snapshot: bool) -> (v1::CloneKind, &'static str) {
    match asked {
        v1::CloneKind::Unspecified if disk.template => (v1::CloneKind::Linked, "a template is there to be shared"),
        v1::CloneKind::Unspecified if of_snapshot => {
            (v1::CloneKind::Linked, "what a snapshot froze can be shared at no cost")
        }
        v1::CloneKind::Unspecified => {
            (v1::CloneKind::Full, "a disk that goes on being written can be shared only at the cost of one more layer")
        }
        asked => (asked, "as asked"),
    }
}

/// Of a clone that was begun earlier.
fn recorded_kind(txn: Option<&v1::Transaction>) -> (v1::CloneKind, String) {
    let (kind, why) = match txn.map(|txn| txn.kind.as_str()) {
        Some("disk-clone") => (v1::CloneKind::Linked, "as it was begun"),
        Some(_) => (v1::CloneKind::Full, "as it was begun"),
        None => (v1::CloneKind::Unspecified, "it was begun earlier"),
    };
    (kind, why.to_owned())
}

/// That a clone which shares a raw volume is qcow2 all the same, and of a live disk the source, too.
fn new_format(state: &State, kind: v1::CloneKind, disk: &Disk, snapshot: Option<VolumeId>) -> &'static str {
    let seen = snapshot.or_else(|| disk.volumes.last().copied()).and_then(|id| state.volumes.get(&id));
    match seen.filter(|row| kind == v1::CloneKind::Linked && row.format == Format::Raw) {
        Some(_) if snapshot.is_none() && !disk.template => {
            "; its own layer is qcow2, over what is raw in the source, which has a new layer in qcow2, too"
        }
        Some(_) => "; its own layer is qcow2, over what is raw in the source",
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn a_clone_is_linked_where_that_costs_its_source_nothing() {
        let sample = Sample::with_disk();
        let disk = sample.disk("web-01").clone();
        let template = Disk { template: true, ..disk.clone() };
        let kind = |asked, disk: &Disk, snapshot| choose_kind(asked, disk, snapshot).0;
        let unspecified = v1::CloneKind::Unspecified;
        assert_eq!(kind(unspecified, &disk, false), v1::CloneKind::Full);
        assert_eq!(kind(unspecified, &disk, true), v1::CloneKind::Linked);
        assert_eq!(kind(unspecified, &template, false), v1::CloneKind::Linked);
        assert_eq!(kind(v1::CloneKind::Full, &template, false), v1::CloneKind::Full);
        assert_eq!(kind(v1::CloneKind::Linked, &disk, false), v1::CloneKind::Linked);
        assert_eq!(clone_kind(9).unwrap_err().reason, "BAD_CLONE_KIND");
    }
}
