//! What the cluster wants of this worker now. Only the latest state counts, so it travels in a watch.

use sdm_proto::ids::ClusterId;
use sdm_proto::ids::PoolId;
use sdm_proto::wire::internal::v1::Assignments;
use std::sync::Arc;

/// The session under which assignments are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionFacts {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its pool.
    pub pool: PoolId,
    /// Its epoch.
    pub epoch: u64,
}

/// What is to run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mandate {
    /// Rises whenever everything that runs has to stop: the lease ran out or the session ended.
    /// What was started under an earlier tenure is over, even if a newer set names it again.
    pub tenure: u64,
    /// The session, once there is one.
    pub session: Option<Arc<SessionFacts>>,
    /// The newest set; none while nothing may run.
    pub assignments: Option<Arc<Assignments>>,
}
