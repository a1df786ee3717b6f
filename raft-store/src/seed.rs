//! Making the folder of a member whose state comes from elsewhere (a backup, a generator), so that
//! it starts as the only voter of its cluster. It decides nothing about the state: whoever calls
//! has made it fit the identity.
//!
//! The identity is written last. Without it the folder is no member's, and the log in it, which
//! names its owner already, keeps every other member from starting on it.

use crate::disk::MemberDisk;
use crate::identity::Identity;
use crate::identity::IdentityError;
use crate::identity::IdentityFile;
use crate::log::RecoveryError;
use crate::log::empty_log_after;
use crate::log::recover;
use crate::raft::StateView;
use crate::snapshot::SnapshotError;
use crate::snapshot::SnapshotFolder;
use crate::types::LeaderId;
use crate::types::LogId;
use crate::types::MemberNode;
use crate::types::Membership;
use crate::types::StoredMembership;
use crate::types::Vote;
use sdm_state::State;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// The term in which a seeded log ends: the first one, as if this member had led alone. Its first
/// election is for the second.
const TERM: u64 = 1;

/// Why a folder cannot be seeded.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// It holds a member, or what is left of one.
    #[error("the data folder is not empty ({0}); give a new or an empty folder as --data-dir")]
    NotEmpty(&'static str),
    /// State and identity are of different clusters.
    #[error("the state is of cluster {state}, the identity of {identity}: they do not belong together")]
    Mismatch {
        /// Cluster and epoch of the state.
        state: String,
        /// Cluster and epoch of the identity.
        identity: String,
    },
    /// The identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What is in the log's place.
    #[error(transparent)]
    Log(#[from] RecoveryError),
    /// What is in the snapshots' place.
    #[error("cannot look at the snapshots of the data folder: {0}; give a new or an empty folder as --data-dir")]
    Snapshots(#[from] SnapshotError),
    /// The disk.
    #[error("cannot write the member's folder: {0}; check its disk (space, dmesg), remove the folder, and repeat")]
    Io(#[from] io::Error),
}

/// Writes a member's folder: `state` as a snapshot, an empty log behind it, and the identity, as
/// the only voter, reachable at `address`. Durable when it returns.
///
/// The state's own row of the member (`state.members`) is the caller's affair.
///
/// # Errors
/// The folder holds something, state and identity do not belong together, or the disk's. After an
/// error the folder serves no member.
pub async fn seed_folder(
    disk: &MemberDisk,
    identity: &Identity,
    address: &str,
    state: State,
) -> Result<SeededFolder, SeedError> {
    refuse_mismatch(identity, &state)?;
    if IdentityFile::of(disk).read().await?.is_some() {
        return Err(SeedError::NotEmpty("it holds a member's identity"));
    }
    let snapshots = empty_parts(disk, identity.owner()).await?;

    let leader_id = LeaderId { term: TERM, node_id: identity.node_id };
    let last = LogId { leader_id, index: state.applied_index() };
    let vote = Vote { leader_id, committed: false };
    disk.log.commit(empty_log_after(&identity.owner(), &last, &vote)).await?;

    let node = MemberNode { name: identity.name.clone(), address: address.to_owned() };
    let voters = vec![BTreeSet::from([identity.node_id])];
    let membership = Membership::new(voters, BTreeMap::from([(identity.node_id, node)])).map_err(io::Error::other)?;
    let membership = StoredMembership::new(Some(last), membership);
    let file = snapshots.build(Arc::new(StateView { applied: Some(last), state, membership })).await?;
    IdentityFile::of(disk).write(identity).await?;
    Ok(SeededFolder { snapshot_bytes: file.length() })
}

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeededFolder {
    /// Length of the snapshot.
    pub snapshot_bytes: u64,
}

fn refuse_mismatch(identity: &Identity, state: &State) -> Result<(), SeedError> {
    let same = state.meta.cluster_id == Some(identity.cluster_id)
        && state.meta.pool_id == identity.pool_id
        && state.meta.epoch == identity.epoch;
    if same {
        return Ok(());
    }
    Err(SeedError::Mismatch {
        state: format!("{} in epoch {}", state.cluster_id(), state.meta.epoch),
        identity: format!("{} in epoch {}", identity.cluster_id, identity.epoch),
    })
}

/// The folder for snapshots, if neither it nor the log holds anything.
async fn empty_parts(disk: &MemberDisk, owner: String) -> Result<SnapshotFolder, SeedError> {
    let reading = disk.clone();
    let look = move || {
        if !reading.snapshots.names()?.is_empty() {
            return Err(SeedError::NotEmpty("it holds snapshots"));
        }
        match recover(reading.log.as_ref(), &owner) {
            Ok(found) if found.is_new() => {}
            Ok(_) | Err(RecoveryError::Owner { .. }) => return Err(SeedError::NotEmpty("it holds a log")),
            Err(error) => return Err(error.into()),
        }
        Ok(SnapshotFolder::open(&reading)?.0)
    };
    disk.blocking(move || Ok(look())).await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Crash;
    use crate::disk::SimulatedDisk;
    use crate::open::open;
    use sdm_proto::ids::ClusterId;
    use sdm_proto::ids::PoolId;
    use uuid::Uuid;

    fn identity() -> Identity {
        Identity {
            cluster_id: ClusterId::from_uuid(Uuid::from_u128(1)),
            pool_id: PoolId::from_uuid(Uuid::from_u128(2)),
            epoch: 4,
            node_id: 7,
            name: "alpha".to_owned(),
            incarnation: Uuid::from_u128(5),
        }
    }

    fn state() -> State {
        let mut state = State::default();
        state.meta.cluster_id = Some(identity().cluster_id);
        state.meta.pool_id = identity().pool_id;
        state.meta.epoch = 4;
        state.meta.applied_index = 1_000_000;
        state
    }

    #[tokio::test]
    async fn a_seeded_folder_survives_a_crash_and_opens_with_its_state_and_one_voter() {
        let machine = SimulatedDisk::new();
        seed_folder(&machine.start(), &identity(), "a:1", state()).await.expect("seeded");
        machine.crash(Crash::LoseUnsynced);
        let opened = open(&machine.start()).await.expect("opens");
        assert_eq!(opened.identity, identity());
        let view = opened.view.load();
        assert_eq!(view.state.hash(), state().hash());
        assert_eq!(view.applied.map(|id| (id.leader_id.term, id.index)), Some((TERM, 1_000_000)));
        assert_eq!(view.membership.membership().voter_ids().collect::<Vec<_>>(), [7]);
    }

    #[tokio::test]
    async fn a_folder_that_holds_anything_is_not_seeded() {
        let machine = SimulatedDisk::new();
        seed_folder(&machine.start(), &identity(), "a:1", state()).await.expect("seeded");
        let again = seed_folder(&machine.start(), &identity(), "a:1", state()).await;
        assert!(matches!(again, Err(SeedError::NotEmpty(_))), "{again:?}");
    }

    #[tokio::test]
    async fn a_folder_whose_seeding_was_cut_off_serves_no_member() {
        let machine = SimulatedDisk::new();
        let disk = machine.start();
        let last = LogId { leader_id: LeaderId { term: TERM, node_id: 7 }, index: 9 };
        let vote = Vote { leader_id: last.leader_id, committed: false };
        disk.log.commit(empty_log_after(&identity().owner(), &last, &vote)).await.expect("written");
        let again = seed_folder(&machine.start(), &identity(), "a:1", state()).await;
        assert!(matches!(again, Err(SeedError::NotEmpty("it holds a log"))), "{again:?}");
        let other = Identity { incarnation: Uuid::from_u128(6), ..identity() };
        IdentityFile::of(&disk).write(&other).await.expect("written");
        assert!(open(&machine.start()).await.is_err(), "another member must not take the folder");
    }

    #[tokio::test]
    async fn state_and_identity_of_different_clusters_are_refused() {
        let machine = SimulatedDisk::new();
        let other = Identity { epoch: 5, ..identity() };
        let refused = seed_folder(&machine.start(), &other, "a:1", state()).await;
        assert!(matches!(refused, Err(SeedError::Mismatch { .. })), "{refused:?}");
    }
}
