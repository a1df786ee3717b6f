//! Versions and feature levels: a member tells the cluster after each start which version it runs
//! and which behaviour it supports, if that changed; and whoever leads raises the cluster's feature
//! level as soon as every member, learners included, supports the next one. `apply` looks again.

use crate::core::Core;
use crate::join::VERSION;
use sdm_proto::limits;
use sdm_state::Command;
use sdm_state::State;
use sdm_state::members::FEATURE_LEVEL_MAX;
use std::time::Duration;
use tokio::time::Instant;

/// Pause between two tries.
const RETRY: Duration = Duration::from_secs(5);

/// Runs until there is nothing left to report and to raise, or the member closes.
pub(crate) async fn run(core: Core) {
    let reporting = async {
        while !report(&core).await {
            tokio::time::sleep(RETRY).await;
        }
        raise(&core).await;
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

/// The level that every member supports, if the cluster is below it and this build knows it.
fn next_level(state: &State) -> Option<u32> {
    let supported = state.members.values().map(|member| member.feature_level_max).min()?;
    Some(supported.min(FEATURE_LEVEL_MAX)).filter(|level| *level > state.meta.feature_level)
}

/// Raises the level whenever this member leads and may. Ends with the highest that this build knows:
/// a level never sinks.
async fn raise(core: &Core) {
    let mut applied = core.watch();
    let mut leadership = core.inner.leadership.clone();
    loop {
        applied.borrow_and_update();
        let leads = leadership.borrow_and_update().own.is_some();
        let view = core.view();
        if view.state.meta.feature_level >= FEATURE_LEVEL_MAX {
            return;
        }
        if let Some(level) = next_level(&view.state).filter(|_| leads) {
            let from = view.state.meta.feature_level;
            drop(view);
            let raised = core.propose(Command::RaiseFeatureLevel { level }, Instant::now() + limits::LEADER_WAIT).await;
            tracing::info!(from, to = level, answer = ?raised.map(|done| done.reply), "raising the feature level");
            tokio::time::sleep(RETRY).await;
            continue;
        }
        drop(view);
        let changed = tokio::select! {
            changed = applied.changed() => changed.is_ok(),
            changed = leadership.changed() => changed.is_ok(),
        };
        if !changed {
            return;
        }
    }
}

/// Who keeps the cluster at its level while others support a higher one: that level, and their names
/// and versions.
pub(crate) fn held_back(state: &State) -> Option<(u32, Vec<String>)> {
    let highest = state.members.values().map(|member| member.feature_level_max).max()?;
    let low = state.members.values().filter(|member| member.feature_level_max < highest);
    let names: Vec<String> = low.map(|member| format!("{} (runs {})", member.name, member.version)).collect();
    (!names.is_empty() && highest > state.meta.feature_level).then_some((highest, names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use sdm_state::command::AddMember;

    fn sample(levels: &[u32]) -> Sample {
        let mut sample = Sample::new();
        sample.apply(Command::ReportMember { id: 1, version: "one".to_owned(), feature_level_max: levels[0] });
        for level in &levels[1..] {
            sample.apply(Command::AddMember(AddMember {
                name: format!("m{level}").parse().unwrap(),
                address: "m:1".to_owned(),
                incarnation: format!("incarnation {level}"),
                version: format!("v{level}"),
                feature_level_max: *level,
            }));
        }
        sample
    }

    #[test]
    fn the_level_rises_to_what_all_support_and_who_holds_it_back_is_named() {
        assert_eq!(sample(&[1]).state.meta.feature_level, 1, "the sample is at the first level");
        assert_eq!(next_level(&sample(&[2, 3]).state), Some(2));
        let held = sample(&[1, 2]).state;
        assert_eq!(next_level(&held), None);
        assert_eq!(held_back(&held), Some((2, vec!["m1 (runs one)".to_owned()])));
        assert_eq!(held_back(&sample(&[1]).state), None, "nobody supports more");
    }
}
