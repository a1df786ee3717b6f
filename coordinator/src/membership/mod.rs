//! Changes of the membership: asked at any member, done by the leader, one after another. Each looks
//! at what is so already, so a repetition (after an answer that was lost, a leader that died in the
//! middle) goes on where the one before was.
//!
//! ```text
//!  join      row in the state ─▶ learner in Raft ─▶ caught up ─▶ voter
//!  remove    (leader: hands over first) ─▶ out of Raft, through a joint configuration ─▶ row removed
//! ```
//!
//! Raft's membership goes first when a member leaves: a member whose row is gone is told that it is
//! removed and stops, and its vote may be needed for the very change that takes it out. A removal that
//! stopped in between leaves a row without a seat, and a joint configuration at worst; one that nobody
//! waited for may cross an admission and leave a seat without a row: `keeper` ends them all.

mod execute;
pub(crate) mod keeper;
mod picture;
mod quorum;
mod succession;

pub(crate) use execute::change_here;
pub(crate) use picture::Picture;
pub(crate) use picture::refusal_of;
pub(crate) use succession::successor;
pub(crate) use succession::transfer;

use crate::core::Core;
use crate::peers::within;
use crate::route::Attempt;
use crate::route::Leader;
use crate::route::at_leader;
use crate::route::not_leader;
use sdm_proto::limits;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::change_membership_request::Change;
use tokio::time::Instant;

/// Whether nobody else votes, as this member sees it now. `who`: a name or an id.
pub(crate) fn is_only_voter(core: &Core, who: &str) -> bool {
    let picture = Picture::now(core);
    let mut voters = picture.voters.iter();
    let only = voters.next().filter(|_| voters.next().is_none() && !picture.joint);
    only.is_some_and(|id| picture.name(*id) == who || who.parse() == Ok(*id))
}

/// Does it at the leader.
///
/// # Errors
/// Why it cannot be; NO_QUORUM, to be repeated: it goes on where it was.
pub(crate) async fn change(core: &Core, change: Change) -> Result<wire::ChangeMembershipResponse, Refusal> {
    let deadline = Instant::now() + limits::LEADER_WAIT;
    let done = at_leader(core, deadline, |leader| {
        let change = &change;
        async move {
            match leader {
                Leader::Here(own) => match change_here(core, own, change).await {
                    Ok(changed) => Attempt::Done(changed),
                    Err(refusal) => Attempt::of_refusal(refusal),
                },
                Leader::There(id, node) => {
                    let mut client = match core.inner.peers.member(id, &node.address) {
                        Ok(client) => client,
                        Err(refusal) => return Attempt::Again(refusal),
                    };
                    let left = deadline.saturating_duration_since(Instant::now());
                    let request = wire::ChangeMembershipRequest { change: Some(change.clone()) };
                    Attempt::of_call(client.change_membership(within(request, left)).await)
                }
            }
        }
    })
    .await?;
    // Whoever asked here shall see it here; who was removed by it will not.
    _ = tokio::time::timeout_at(deadline, core.inner.view.wait_applied(done.index)).await;
    Ok(done)
}

/// The leader's side of one hop: here or nowhere.
pub(crate) async fn change_forwarded(core: &Core, change: &Change) -> Result<wire::ChangeMembershipResponse, Refusal> {
    let Some(own) = core.inner.leadership.borrow().own else { return Err(not_leader(core)) };
    change_here(core, own, change).await
}
