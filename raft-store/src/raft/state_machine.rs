//! openraft's state machine: entries go through `State::apply`, the new view is published, then
//! whoever waits is answered, so that a client that has its answer finds it on this member. The
//! state itself is in memory; log and snapshots make it durable.

use super::view::StateView;
use super::view::ViewHandle;
use crate::fatal::Fatal;
use crate::snapshot::Loaded;
use crate::snapshot::NotPublished;
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
use sdm_state::Touched;
use std::io;
use std::time::Duration;
use tokio::sync::watch;

/// Entries applied before the view is published and their proposers are answered. Publishing each
/// one would cost more than applying it; publishing thousands at once would make the first wait.
const PUBLISH_ENTRIES: usize = 128;

/// Pause before a snapshot that could not be written is tried again: short at first, since a disk
/// that was full for a moment has room again, then as long as is sensible for what a person mends.
const REBUILD_FIRST: Duration = Duration::from_millis(250);
const REBUILD_MAX: Duration = Duration::from_secs(30);

/// The member's copy of the replicated state.
#[derive(Debug)]
pub struct StateMachine {
    view: ViewHandle,
    snapshots: SnapshotFolder,
    trigger: SnapshotTrigger,
    fatal: Fatal,
    /// Gone with the state machine: then nobody waits for a snapshot any more.
    running: watch::Sender<()>,
}

impl StateMachine {
    pub(crate) fn new(view: ViewHandle, snapshots: SnapshotFolder, trigger: SnapshotTrigger, fatal: Fatal) -> Self {
        StateMachine { view, snapshots, trigger, fatal, running: watch::Sender::new(()) }
    }

    /// The state with a loaded snapshot in its place.
    pub(crate) fn view_of(loaded: Loaded) -> StateView {
        StateView {
            applied: loaded.file.meta().last_log_id,
            state: loaded.state,
            membership: loaded.file.meta().last_membership.clone(),
        }
    }

    fn publish(&self, view: &StateView, applied: &mut Applied) {
        self.view.publish(view.clone(), applied.touched.drain(..));
        for (responder, reply) in applied.replies.drain(..) {
            responder.send(reply);
        }
        applied.entries = 0;
    }
}

/// What was applied and is not published yet.
#[derive(Default)]
struct Applied {
    entries: usize,
    replies: Vec<(ApplyResponder<TypeConfig>, Reply)>,
    touched: Vec<Touched>,
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
        let mut applied = Applied::default();
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
            applied.touched.append(&mut view.state.take_touched());
            applied.replies.extend(responder.map(|responder| (responder, reply)));
            applied.entries += 1;
            if applied.entries == PUBLISH_ENTRIES {
                self.publish(&view, &mut applied);
            }
        }
        if applied.entries > 0 {
            self.publish(&view, &mut applied);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            view: self.view.clone(),
            snapshots: self.snapshots.clone(),
            trigger: self.trigger.clone(),
            fatal: self.fatal.clone(),
            running: self.running.subscribe(),
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
        tracing::info!(applied = loaded.file.meta().last_log_id.map(|id| id.index), bytes, "snapshot installed");
        let old = self.view.load();
        self.view.publish_anew(Self::view_of(loaded));
        // A large state takes long to let go of; nothing else of this thread should wait for it.
        let dropped = self.snapshots.disk().blocking(move || {
            drop(old);
            Ok(())
        });
        dropped.await.map_err(|error| self.fatal.fail("letting go of the state before a snapshot", error))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.snapshots.current().map(SnapshotFile::into_snapshot))
    }
}

/// Writes the newest view to a snapshot, beside `apply`.
///
/// A snapshot that cannot be written stops nobody: what it would hold is in the log, which goes on
/// growing until the disk takes it again. It is tried again, with a loud word each time. If the disk
/// has no room for the log either, the log stops the member.
#[derive(Debug)]
pub struct SnapshotBuilder {
    view: ViewHandle,
    snapshots: SnapshotFolder,
    trigger: SnapshotTrigger,
    fatal: Fatal,
    running: watch::Receiver<()>,
}

impl SnapshotBuilder {
    /// Says what failed, and waits until it may be tried again.
    ///
    /// # Errors
    /// When nobody needs the snapshot any more.
    async fn pause(&mut self, error: &io::Error, pause: Duration) -> io::Result<()> {
        tracing::error!(
            %error,
            again_in_ms = pause.as_millis(),
            "a snapshot could not be written; the member goes on and its log keeps growing until one can. Next: free \
             space on the file system of the data folder, or check its disk (dmesg, smartctl)"
        );
        self.fatal.check()?;
        match tokio::time::timeout(pause, self.running.changed()).await {
            Err(_) => Ok(()),
            Ok(_) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the member ends")),
        }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let building = self.trigger.building();
        let mut pause = REBUILD_FIRST;
        let file = loop {
            match self.snapshots.build(self.view.load()).await {
                Ok(file) => break file,
                Err(error) if NotPublished::is(&error) => return Err(self.fatal.fail("building a snapshot", error)),
                Err(error) => self.pause(&error, pause).await?,
            }
            pause = REBUILD_MAX.min(pause * 2);
        };
        tracing::info!(applied = file.meta().last_log_id.map(|id| id.index), bytes = file.length(), "snapshot taken");
        building.published(file.length());
        Ok(file.into_snapshot())
    }
}
