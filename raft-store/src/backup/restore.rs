//! Making the first member of a new cluster out of a backup.

use super::check::Backup;
use crate::disk::MemberDisk;
use crate::disk::OpenFolderError;
use crate::identity::Identity;
use crate::seed::SeedError;
use crate::seed::seed_folder;
use sdm_proto::ids::ClusterId;
use sdm_proto::names::Name;
use sdm_state::RestoreAs;
use sdm_state::command::AddMember;
use sdm_state::members::FEATURE_LEVEL_MAX;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use uuid::Uuid;

/// What mkfs leaves in the root of a fresh ext4.
const LOST_AND_FOUND: &str = "lost+found";

/// What the new cluster and its member are to be.
#[derive(Clone, Debug)]
pub struct RestorePlan {
    /// Newly drawn, at random.
    pub cluster_id: ClusterId,
    /// Newly drawn, at random.
    pub incarnation: Uuid,
    /// The member's name.
    pub name: Name,
    /// Where others reach it.
    pub address: String,
    /// This version of sdm.
    pub sdm_version: String,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is something in the way.
    #[error("the folder {} is not empty (found {found})", folder.display())]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
        /// The first name in it.
        found: String,
    },
    /// The folder cannot be looked at.
    #[error("cannot list {}: {source}", folder.display())]
    List {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The folder cannot be opened.
    #[error(transparent)]
    Folder(#[from] OpenFolderError),
    /// The folder cannot be written.
    #[error(transparent)]
    Seed(#[from] SeedError),
}

/// The folder of a restored cluster's first member.
#[derive(Clone, Debug)]
pub struct RestoredFolder {
    /// Who it is.
    pub identity: Identity,
    /// Where its log goes on.
    pub index: u64,
}

/// Makes the folder of a member that is the only voter of a new, suspended cluster. Durable when it
/// returns; after an error the folder serves no member.
///
/// # Errors
/// The folder is not empty, or cannot be written.
pub async fn restore_backup(backup: Backup, folder: &Path, plan: RestorePlan) -> Result<RestoredFolder, RestoreError> {
    refuse_content(folder)?;
    let index = backup.header.index;
    // No entry of the old cluster up to this one made a member of this id, and the first entry of the
    // new one, its leader's own, makes none.
    let member_id = index.saturating_add(1);
    let member = AddMember {
        name: plan.name.clone(),
        address: plan.address.clone(),
        incarnation: plan.incarnation.to_string(),
        version: plan.sdm_version,
        feature_level_max: FEATURE_LEVEL_MAX,
    };
    let state = backup.state.restored(RestoreAs { cluster_id: plan.cluster_id, member, member_id, index });
    let identity = Identity {
        cluster_id: plan.cluster_id,
        pool_id: state.meta.pool_id,
        epoch: state.meta.epoch,
        node_id: member_id,
        name: plan.name.to_string(),
        incarnation: plan.incarnation,
    };
    let disk = MemberDisk::open(folder).await?;
    seed_folder(&disk, &identity, &plan.address, state).await?;
    let closed = disk.closed();
    drop(disk);
    closed.wait().await;
    Ok(RestoredFolder { identity, index })
}

fn refuse_content(folder: &Path) -> Result<(), RestoreError> {
    let failed = |source| RestoreError::List { folder: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let found = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if found != LOST_AND_FOUND {
            return Err(RestoreError::NotEmpty { folder: folder.to_owned(), found });
        }
    }
    Ok(())
}
