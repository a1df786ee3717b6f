//! The guard in front of what members say among themselves: besides the secret, the cluster, the epoch
//! and the addressee (see `Guard`), the caller must not have been removed from the cluster. A removed
//! member disturbs no election, and learns at its first call what it is.

use crate::core::Core;
use sdm_proto::credentials::Caller;
use sdm_proto::credentials::Guard;
use sdm_proto::status::to_status;
use tonic::Request;
use tonic::Status;
use tonic::service::Interceptor;

/// See the file's first lines.
#[derive(Clone, Debug)]
pub(crate) struct Insiders {
    guard: Guard,
    core: Core,
}

impl Insiders {
    /// Behind this guard.
    pub fn new(guard: Guard, core: &Core) -> Self {
        Self { guard, core: core.clone() }
    }
}

/// The id in a member's name.
pub(crate) fn node_id_of(caller: &Caller) -> Option<u64> {
    caller.0.strip_prefix("member/")?.parse().ok()
}

impl Interceptor for Insiders {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let request = self.guard.call(request)?;
        let id = request.extensions().get::<Caller>().and_then(node_id_of);
        match id.and_then(|id| self.core.view().state.refuse_removed(id)) {
            None => Ok(request),
            Some(refusal) => Err(to_status(&refusal)),
        }
    }
}
