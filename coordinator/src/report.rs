//! A member tells the cluster once after each start which version it runs and which behaviour it
//! supports, if that changed: feature levels are raised only when every member supports them.

use crate::core::Core;
use crate::join::VERSION;
use sdm_proto::limits;
use sdm_state::Command;
use sdm_state::members::FEATURE_LEVEL_MAX;
use std::time::Duration;
use tokio::time::Instant;

/// Pause between two tries.
const RETRY: Duration = Duration::from_secs(5);

/// Reports until it is known, or the member closes.
pub(crate) async fn run(core: Core) {
    let reporting = async {
        while !report(&core).await {
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = reporting => {}
        () = core.closing().cancelled() => {}
    }
}

async fn report(core: &Core) -> bool {
    let deadline = Instant::now() + limits::LEADER_WAIT;
    let Ok(view) = core.read(deadline).await else { return false };
    let known = view.state.members.get(&core.node_id());
    if known.is_none_or(|known| known.version == VERSION && known.feature_level_max == FEATURE_LEVEL_MAX) {
        return true;
    }
    let command =
        Command::ReportMember { id: core.node_id(), version: VERSION.to_owned(), feature_level_max: FEATURE_LEVEL_MAX };
    core.propose(command, deadline).await.is_ok()
}
