//! A disk's name, its description and its size.

use super::api::DiskApi;
use super::checks::description;
use super::checks::rounded;
use crate::services::mutation::Begun;
use crate::services::mutation::Mutation;
use crate::services::mutation::RequestHash;
use crate::services::resolve;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::catalog::Disk;
use sdm_state::txns::Spec;

impl DiskApi {
    pub(super) async fn rename(&self, request: v1::RenameDiskRequest) -> Result<v1::RenameDiskResponse, Refusal> {
        let name = resolve::new_name(&request.name)?;
        let hash = RequestHash::of("disk-rename").text("disk", &request.disk).text("name", name.as_str());
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve = |state: &_| Ok(Spec::RenameDisk { disk: resolve::disk(state, &request.disk)?.id, name });
        let Begun { transaction, plan } = mutation.begin(self.core(), resolve).await?;
        Ok(v1::RenameDiskResponse { transaction, plan })
    }

    pub(super) async fn describe(&self, request: v1::DescribeDiskRequest) -> Result<v1::DescribeDiskResponse, Refusal> {
        let description = description(request.description)?;
        let hash = RequestHash::of("disk-describe").text("disk", &request.disk).text("description", &description);
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve = |state: &_| Ok(Spec::DescribeDisk { disk: resolve::disk(state, &request.disk)?.id, description });
        let Begun { transaction, plan } = mutation.begin(self.core(), resolve).await?;
        Ok(v1::DescribeDiskResponse { transaction, plan })
    }

    pub(super) async fn resize(&self, request: v1::ResizeDiskRequest) -> Result<v1::ResizeDiskResponse, Refusal> {
        let wanted = Wanted::parse(request.size, request.grow_by)?;
        let hash = RequestHash::of("disk-resize")
            .text("disk", &request.disk)
            .number("size", request.size)
            .number("grow-by", request.grow_by);
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve = |state: &State| {
            let disk = resolve::disk(state, &request.disk)?;
            Ok(Spec::ResizeDisk { disk: disk.id, size: wanted.size(virtual_size(state, disk))? })
        };
        let Begun { transaction, plan } = mutation.begin(self.core(), resolve).await?;
        Ok(v1::ResizeDiskResponse { transaction, plan })
    }
}

/// What a guest sees.
fn virtual_size(state: &State, disk: &Disk) -> u64 {
    disk.volumes.last().and_then(|leaf| state.volumes.get(leaf)).map_or(0, |leaf| leaf.virtual_size)
}

/// A size as users say it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wanted {
    Size(u64),
    More(u64),
}

impl Wanted {
    fn parse(size: u64, grow_by: u64) -> Result<Self, Refusal> {
        match (size, grow_by) {
            (0, 0) => Err(Refusal::new(Class::Invalid, "SIZE_ZERO", "neither a size nor how much more is given")
                .hint("give the new size, or grow_by")),
            (size, 0) => Ok(Self::Size(size)),
            (0, more) => Ok(Self::More(more)),
            _ => Err(Refusal::new(Class::Invalid, "SIZE_TWICE", "both a size and how much more are given")
                .hint("give one of them")),
        }
    }

    fn size(self, now: u64) -> Result<u64, Refusal> {
        match self {
            Self::Size(size) => rounded(size),
            Self::More(more) => rounded(now.saturating_add(more)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_given_once_either_way() {
        assert_eq!(Wanted::parse(0, 0).unwrap_err().reason, "SIZE_ZERO");
        assert_eq!(Wanted::parse(1, 1).unwrap_err().reason, "SIZE_TWICE");
        assert_eq!(Wanted::parse(8192, 0).unwrap().size(4096), Ok(8192));
        assert_eq!(Wanted::parse(0, 1).unwrap().size(4096), Ok(8192));
        assert_eq!(Wanted::parse(0, u64::MAX).unwrap().size(4096).unwrap_err().reason, "SIZE_TOO_LARGE");
    }
}
