//! openraft's state machine: entries go through `State::apply`, the new view is published, then
//! whoever waits is answered, so that a client that has its answer finds it on this member. The
//! state itself is in memory; log and snapshots make it durable.

use super::view::StateView;
use super::view::ViewHandle;
use crate::fatal::Fatal;
use crate::snapshot::Loaded;
use crate::snapshot::SnapshotFile;
use crate::snapshot::SnapshotFolder;
use crate::snapshot::SnapshotTrigger;
use crate::types::LogId;
use crate::types::Payload;
use crate::types::Snapshot;
use crate::types::SnapshotMeta;
use crate::types::StoredMembership;
use crate::types::TypeConfig;
use futures_util::Stream;
use futures_util::StreamExt;
use openraft::OptionalSend;
use openraft::storage::ApplyResponder;
use openraft::storage::EntryResponder;
use openraft::storage::RaftSnapshotBuilder;
use openraft::storage::RaftStateMachine;
use sdm_state::Reply;
use std::io;

/// Entries applied before the view is published and their proposers are answered. Publishing each
/// one would cost more than applying it; publishing thousands at once would make the first wait.
const PUBLISH_ENTRIES: usize = 128;

/// The member's copy of the replicated state.
#[derive(Debug)]
pub struct StateMachine {
    view: ViewHandle,
    snapshots: SnapshotFolder,
    trigger: SnapshotTrigger,
    fatal: Fatal,
}

impl StateMachine {
    pub(crate) fn new(view: ViewHandle, snapshots: SnapshotFolder, trigger: SnapshotTrigger, fatal: Fatal) -> Self {
        StateMachine { view, snapshots, trigger, fatal }
    }

    /// The state with a loaded snapshot in its place.
    pub(crate) fn view_of(loaded: Loaded) -> StateView {
        StateView {
            applied: loaded.file.meta().last_log_id,
            state: loaded.state,
            membership: loaded.file.meta().last_membership.clone(),
        }
    }

    fn publish(&self, view: &StateView, replies: &mut Vec<(ApplyResponder<TypeConfig>, Reply)>) {
        self.view.publish(view.clone());
        for (responder, reply) in replies.drain(..) {
            responder.send(reply);
        }
    }
}

/// In debug builds a state that breaks its own rules stops the test at the entry that broke them.
fn check_invariants(view: &StateView) {
    if cfg!(debug_assertions)
        && let Err(broken) = sdm_state::invariants::check(&view.state)
    {
        panic!("the state breaks its invariants after entry {:?}: {broken:?}", view.applied);
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let view = self.view.load();
        Ok((view.applied, view.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut view = StateView::clone(&self.view.load());
        let mut replies = Vec::new();
        let mut unpublished = 0;
        while let Some(item) = entries.next().await {
            let (entry, responder) = item.map_err(|error| self.fatal.fail("applying the log", error))?;
            let reply = match entry.payload {
                Payload::Blank => Reply::Done,
                Payload::Normal(command) => view.state.apply(entry.log_id.index, &command),
                Payload::Membership(membership) => {
                    view.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Reply::Done
                }
            };
            view.applied = Some(entry.log_id);
            check_invariants(&view);
            replies.extend(responder.map(|responder| (responder, reply)));
            unpublished += 1;
            if unpublished == PUBLISH_ENTRIES {
                self.publish(&view, &mut replies);
                unpublished = 0;
            }
        }
        self.publish(&view, &mut replies);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            view: self.view.clone(),
            snapshots: self.snapshots.clone(),
            trigger: self.trigger.clone(),
            fatal: self.fatal.clone(),
        }
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, snapshot: SnapshotFile) -> Result<(), io::Error> {
        let bytes = snapshot.length();
        let loaded = self
            .snapshots
            .adopt(snapshot)
            .await
            .map_err(|error| self.fatal.fail("installing a snapshot", error.into()))?;
        self.trigger.installed(bytes);
        self.view.publish(Self::view_of(loaded));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.snapshots.current().map(SnapshotFile::into_snapshot))
    }
}

/// Writes the newest view to a snapshot, beside `apply`.
#[derive(Debug)]
pub struct SnapshotBuilder {
    view: ViewHandle,
    snapshots: SnapshotFolder,
    trigger: SnapshotTrigger,
    fatal: Fatal,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let building = self.trigger.building();
        let file = self
            .snapshots
            .build(self.view.load())
            .await
            .map_err(|error| self.fatal.fail("building a snapshot", error))?;
        tracing::info!(applied = file.meta().last_log_id.map(|id| id.index), bytes = file.length(), "snapshot taken");
        building.published(file.length());
        Ok(file.into_snapshot())
    }
}
