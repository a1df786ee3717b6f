//! Founding a cluster: one member, alone, and its first entry. Each step looks whether it was done
//! already, so a process that died in the middle finishes at its next start.

use crate::core::Core;
use crate::error::MemberError;
use crate::join::VERSION;
use openraft::errors::InitializeError;
use openraft::errors::RaftError;
use sdm_proto::limits;
use sdm_proto::names::Name;
use sdm_raft_store::Identity;
use sdm_raft_store::MemberNode;
use sdm_raft_store::Raft;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::command::AddMember;
use sdm_state::command::Found;
use sdm_state::members::FEATURE_LEVEL_MAX;
use sdm_state::settings::Settings;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Id of the member that founds a cluster, in Raft and in the state.
const FIRST_MEMBER: u64 = 1;

/// The first epoch; a restore raises it.
const FIRST_EPOCH: u64 = 1;

/// Pause between two tries.
const RETRY: Duration = Duration::from_millis(500);

/// Who a founder is.
pub(crate) fn new_identity(name: &Name) -> Identity {
    Identity {
        cluster_id: sdm_proto::ids::Id::from_uuid(random_uuid()),
        pool_id: sdm_proto::ids::Id::from_uuid(random_uuid()),
        epoch: FIRST_EPOCH,
        node_id: FIRST_MEMBER,
        name: name.to_string(),
        incarnation: random_uuid(),
    }
}

/// A new UUID.
pub(crate) fn random_uuid() -> Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

/// Makes this member, alone, the whole membership, unless there is one.
pub(crate) async fn initialize(raft: &Raft, identity: &Identity, address: &str) -> Result<(), MemberError> {
    let node = MemberNode { name: identity.name.clone(), address: address.to_owned() };
    match raft.initialize(BTreeMap::from([(identity.node_id, node)])).await {
        // An earlier start did it.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(MemberError::Raft(error.to_string())),
    }
}

/// Proposes the cluster's first entry until it is in the state.
pub(crate) async fn found(core: &Core, identity: &Identity, address: &str) -> Result<(), MemberError> {
    let command = Command::Found(Found {
        cluster_id: identity.cluster_id,
        pool_id: identity.pool_id,
        epoch: identity.epoch,
        member: AddMember {
            name: core.member_name().clone(),
            address: address.to_owned(),
            incarnation: identity.incarnation.to_string(),
            version: VERSION.to_owned(),
            feature_level_max: FEATURE_LEVEL_MAX,
        },
        settings: Settings::default(),
    });
    loop {
        match core.propose(command.clone(), Instant::now() + limits::LEADER_WAIT).await {
            Ok(proposed) => match proposed.reply {
                Reply::Refused(refusal) => return Err(MemberError::Refused(refusal)),
                _ => {
                    tracing::info!(cluster = %identity.cluster_id, pool = %identity.pool_id, "the cluster is founded");
                    return Ok(());
                }
            },
            Err(refusal) => {
                tracing::warn!("the cluster is not founded yet, trying on: {refusal}");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
