//! `VolumeService`: single layers of disks, for experts: looking at one, taking one out of use, and
//! having what stands on the storage about a disk written anew.

use crate::core::Core;
use crate::services::call::Call;
use crate::services::call::answer;
use crate::services::mutation::Begun;
use crate::services::mutation::Mutation;
use crate::services::mutation::RequestHash;
use crate::services::present;
use crate::services::resolve;
use sdm_proto::ids::DiskId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::volume_service_server::VolumeService;
use sdm_state::State;
use sdm_state::catalog::Volume;
use sdm_state::txns::Spec;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// The service.
#[derive(Clone)]
pub struct VolumeApi {
    core: Core,
}

impl VolumeApi {
    /// Over this member's core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { core }
    }

    async fn get(&self, request: v1::GetVolumeRequest) -> Result<v1::GetVolumeResponse, Refusal> {
        let view = Call::begin(&self.core).read().await?;
        let state = &view.state;
        let volume = resolve::volume(state, &request.volume)?;
        let (shown, places) = (present::volume(state, volume), present::places(state, volume));
        Ok(v1::GetVolumeResponse { volume: Some(shown), places, revision: state.applied_index() })
    }

    async fn set_legality(
        &self,
        request: v1::SetVolumeLegalityRequest,
    ) -> Result<v1::SetVolumeLegalityResponse, Refusal> {
        let legal = request.legal;
        let reason = request.header.as_ref().map(|header| header.reason.trim()).unwrap_or_default();
        if reason.is_empty() {
            let message = "whether a volume may be used is not changed without a reason";
            return Err(Refusal::new(Class::Invalid, "REASON_MISSING", message).hint("say why: --reason TEXT"));
        }
        let hash = RequestHash::of("volume-legality").text("volume", &request.volume).number("legal", u64::from(legal));
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve = |state: &State| {
            let volume = resolve::volume(state, &request.volume)?;
            Ok(Spec::SetVolumeLegality { disk: owner(state, volume)?, volume: volume.id, legal })
        };
        let Begun { transaction, plan } = mutation.begin(&self.core, resolve).await?;
        Ok(v1::SetVolumeLegalityResponse { transaction, plan })
    }

    async fn repair(&self, request: v1::RepairProjectionRequest) -> Result<v1::RepairProjectionResponse, Refusal> {
        let hash = RequestHash::of("projection-repair").text("disk", &request.disk);
        let mutation = Mutation::parse(request.header, hash)?;
        let resolve = |state: &_| Ok(Spec::RepairProjection { disk: resolve::disk(state, &request.disk)?.id });
        let Begun { transaction, plan } = mutation.begin(&self.core, resolve).await?;
        Ok(v1::RepairProjectionResponse { transaction, plan })
    }
}

/// The disk through which a volume is locked: the one that made it, or, when that does not use it any
/// more, the first that does.
fn owner(state: &State, volume: &Volume) -> Result<DiskId, Refusal> {
    let mut users = state.users_of(volume.id);
    let first = users.next();
    let made_it = |id: &DiskId| *id == volume.disk;
    first.filter(made_it).or_else(|| users.find(made_it)).or(first).ok_or_else(|| {
        let message = format!("no disk uses volume {} now", volume.id);
        Refusal::new(Class::Precondition, "VOLUME_UNUSED", message)
            .hint("it goes when its deleted disk does: sdm gc list")
    })
}

#[tonic::async_trait]
impl VolumeService for VolumeApi {
    async fn get_volume(
        &self,
        request: Request<v1::GetVolumeRequest>,
    ) -> Result<Response<v1::GetVolumeResponse>, Status> {
        answer(self.get(request.into_inner()).await)
    }

    async fn set_volume_legality(
        &self,
        request: Request<v1::SetVolumeLegalityRequest>,
    ) -> Result<Response<v1::SetVolumeLegalityResponse>, Status> {
        answer(self.set_legality(request.into_inner()).await)
    }

    async fn repair_projection(
        &self,
        request: Request<v1::RepairProjectionRequest>,
    ) -> Result<Response<v1::RepairProjectionResponse>, Status> {
        answer(self.repair(request.into_inner()).await)
    }
}
