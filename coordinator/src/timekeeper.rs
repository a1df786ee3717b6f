//! The timekeeper: while this member leads, it runs the stopwatch, proposes a Tick when something
//! in the state falls due, and ends sessions that were not heard from. It sleeps until the next
//! such moment; it decides nothing that `apply` does not decide again.

use crate::core::Core;
use crate::propose::WriteError;
use crate::propose::write_here;
use sdm_raft_store::LeaderId;
use sdm_raft_store::StateView;
use sdm_state::Command;
use sdm_state::command::SessionRef;
use std::sync::Arc;
use std::time::Duration;

/// A Tick at least this often: the cluster's clock is never staler than this.
const TICK_EVERY_MS: u64 = 60_000;

/// Pause after a write that failed while the leadership lasts (a quorum that is away), and after a
/// Tick that left what was due as it was.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs until the member closes.
pub(crate) async fn run(core: Core) {
    let mut leadership = core.inner.leadership.clone();
    let keep_time = async {
        loop {
            let own = leadership.borrow_and_update().own;
            let changed = leadership.wait_for(|now| now.own != own);
            match own {
                None => {
                    if changed.await.is_err() {
                        return;
                    }
                }
                Some(leader) => {
                    tokio::select! {
                        () = lead(&core, leader) => {}
                        _ = changed => {}
                    }
                    core.inner.stopwatch.stop();
                    core.inner.leases.end();
                }
            }
        }
    };
    tokio::select! {
        () = keep_time => {}
        () = core.closing().cancelled() => {}
    }
}

/// What the leader does about time. Dropped when the leadership ends.
async fn lead(core: &Core, leader: LeaderId) {
    let mut applied = core.watch();
    let begun = loop {
        let view = core.view();
        if view.applied.is_some_and(|id| id.leader_id == leader) {
            break view;
        }
        if applied.changed().await.is_err() {
            return;
        }
    };
    core.inner.stopwatch.start(leader, begun.state.meta.clock_ms);
    core.inner.leases.begin(leader, &begun.state, core.clock().now_ms());
    tracing::info!(term = leader.term, clock_ms = begun.state.meta.clock_ms, "this member leads and keeps the time");
    drop(begun);
    loop {
        applied.borrow_and_update();
        let view = core.view();
        let now_ms = core.clock().now_ms();
        core.inner.leases.sync(&view.state, now_ms);
        let tick_at = tick_due_ms(&view).and_then(|due| core.inner.stopwatch.when(leader, due));
        let expiry_at = core.inner.leases.next_deadline_ms(&view.state);
        match [tick_at, expiry_at].into_iter().flatten().min() {
            Some(at) if at <= now_ms => {
                let expired = core.inner.leases.take_expired(now_ms);
                if !expired.is_empty() {
                    expire(core, leader, expired).await;
                }
                if tick_at.is_some_and(|at| at <= now_ms) {
                    tick(core, leader, &view).await;
                }
            }
            next => {
                let asleep = async {
                    match next {
                        Some(at) => core.clock().sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = asleep => {}
                    changed = applied.changed() => if changed.is_err() { return },
                }
            }
        }
    }
}

/// When the next Tick is due on the cluster's clock. None before the cluster is founded.
fn tick_due_ms(view: &StateView) -> Option<u64> {
    let meta = &view.state.meta;
    meta.cluster_id?;
    let regular = meta.clock_ms.saturating_add(TICK_EVERY_MS);
    Some(view.state.next_due_ms().map_or(regular, |due| due.min(regular)))
}

async fn tick(core: &Core, leader: LeaderId, before: &Arc<StateView>) {
    match write_here(core, leader, Command::Tick, rand::random()).await {
        // What was due is still due: either more of it than one entry does, or nothing can be done
        // about it. Not to be told apart here, so it goes on at a walk.
        Ok(_) if tick_due_ms(&core.view()) == tick_due_ms(before) => tokio::time::sleep(PAUSE).await,
        Ok(_) => {}
        Err(error) => {
            tracing::debug!(?error, "the tick was not written");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Ends sessions, within this leadership only. Until the outcome is known they are not renewed.
async fn expire(core: &Core, leader: LeaderId, sessions: Vec<SessionRef>) {
    for session in &sessions {
        tracing::info!(session = session.id, epoch = session.epoch, "nothing was heard within the lease: it expires");
    }
    loop {
        let command = Command::ExpireSessions { sessions: sessions.clone() };
        match write_here(core, leader, command, rand::random()).await {
            Ok(_) => return,
            Err(WriteError::NotAppended(refusal) | WriteError::Refused(refusal)) => {
                tracing::debug!(%refusal, "the expiry was not written");
                core.inner.leases.not_expired(&sessions);
                tokio::time::sleep(PAUSE).await;
                return;
            }
            Err(WriteError::Unknown(refusal)) => {
                tracing::debug!(%refusal, "whether the expiry was written is not known");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
