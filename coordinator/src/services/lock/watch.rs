//! One lock set, watched: as it is now, whenever it is granted or somebody in front of it goes, and that it is gone.
//! A grant is pushed by the row of the lock itself; who else stands in front may be told a few seconds late.

use super::request;
use crate::core::Core;
use crate::services::call::Call;
use crate::services::present;
use futures_util::Stream;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::v1;
use sdm_raft_store::RowWatch;
use sdm_state::Touched;
use std::pin::Pin;
use std::time::Duration;
use tonic::Status;

/// Longest silence; then a linearizable read proves that this member still belongs to the majority, and the lock is
/// told again.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(5);

pub(super) type LockStream = Pin<Box<dyn Stream<Item = Result<v1::WatchLockResponse, Status>> + Send>>;

struct LockWatch {
    core: Core,
    id: u64,
    changes: RowWatch,
    told: bool,
    ended: bool,
}

pub(super) async fn watch(core: &Core, asked: v1::WatchLockRequest) -> Result<LockStream, Refusal> {
    let id = request::lock_id(&asked.id)?;
    let changes = core.watch_row(Touched::Lock(id));
    Call::begin(core).read().await?.state.known_lock(id)?;
    let watch = LockWatch { core: core.clone(), id, changes, told: false, ended: false };
    Ok(Box::pin(futures_util::stream::unfold(watch, |mut watch| async move {
        let told = watch.next().await?;
        watch.ended |= told.is_err();
        Some((told.map_err(|refusal| to_status(&refusal)), watch))
    })))
}

impl LockWatch {
    async fn next(&mut self) -> Option<Result<v1::WatchLockResponse, Refusal>> {
        if self.ended {
            return None;
        }
        if std::mem::replace(&mut self.told, true) {
            let closing = self.core.closing().clone();
            tokio::select! {
                biased;
                () = closing.cancelled() => return Some(Err(stopping())),
                () = self.changes.changed() => {}
                () = tokio::time::sleep(SIGN_OF_LIFE_EVERY) => {
                    if let Err(refusal) = Call::begin(&self.core).read().await {
                        return Some(Err(refusal));
                    }
                }
            }
        }
        let view = self.core.view();
        let state = &view.state;
        let lock = state.locks.get(&self.id).map(|row| present::lock(state, row, self.core.shown_clock_ms(state)));
        self.ended = lock.is_none();
        Some(Ok(v1::WatchLockResponse { lock, revision: state.applied_index() }))
    }
}

fn stopping() -> Refusal {
    Refusal::new(Class::Unavailable, "MEMBER_STOPS", "this member is shutting down; the lock stays as it is")
        .hint("ask another member")
}
