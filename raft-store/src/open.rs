//! Starting from a member's disk: everything is read and checked before Raft sees any of it.

use crate::disk::Closed;
use crate::disk::MemberDisk;
use crate::fatal::Fatal;
use crate::fatal::REPLACE_MEMBER;
use crate::identity::Identity;
use crate::identity::IdentityError;
use crate::identity::IdentityFile;
use crate::log::FirstEntry;
use crate::log::LogStore;
use crate::log::Recovered;
use crate::log::RecoveryError;
use crate::log::Witness;
use crate::log::recover;
use crate::raft::StateMachine;
use crate::raft::StateView;
use crate::raft::ViewHandle;
use crate::snapshot::Loaded;
use crate::snapshot::SnapshotError;
use crate::snapshot::SnapshotFolder;
use crate::snapshot::SnapshotTrigger;
use std::io;

/// What a member runs on. The first two go to `Raft::new`.
#[derive(Debug)]
pub struct Opened {
    /// The log, for openraft.
    pub log_store: LogStore,
    /// The state machine, for openraft.
    pub state_machine: StateMachine,
    /// Who this member is.
    pub identity: Identity,
    /// The applied state, for everyone.
    pub view: ViewHandle,
    /// The snapshots, for the transport.
    pub snapshots: SnapshotFolder,
    /// When a snapshot pays; see `snapshot::drive_snapshots`.
    pub snapshot_trigger: SnapshotTrigger,
    /// The first failure of the disk: whoever runs the member ends it then.
    pub fatal: Fatal,
    /// Resolves once the disk was let go by all of the above and its folder can be opened again.
    pub closed: Closed,
}

/// Why a member cannot start from its disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nobody said who the member is.
    #[error(
        "the data folder holds no identity; a new member writes one when it founds or joins a \
         cluster (--bootstrap, --join). If this was a member, restore {} from a copy",
        crate::identity::IDENTITY_FILE
    )]
    NoIdentity,
    /// The identity cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] RecoveryError),
    /// No snapshot can be used.
    #[error("cannot read the folder snapshots/: {0}{hint}", hint = snapshots_hint(.0))]
    Snapshots(#[from] SnapshotError),
    /// The snapshots that are whole end before the log begins.
    #[error(
        "the state cannot be restored: the newest snapshot that is whole ends at entry {snapshot}, \
         and the log begins after {purged}{damaged}; {REPLACE_MEMBER}"
    )]
    Gap {
        /// The last entry in the snapshot, or that there is none.
        snapshot: String,
        /// The last entry that is gone from the log.
        purged: u64,
        /// Which snapshot is damaged, in parentheses, if one is.
        damaged: String,
    },
    /// There is no log, but what a member writes only after it has one.
    #[error(
        "the folder log/ holds no log, but snapshots/ shows that there was one; what it held is lost, also the \
         vote; {REPLACE_MEMBER}"
    )]
    LogMissing,
    /// The log's writer could not be started.
    #[error("cannot start the writer of the log: {0}; the machine may be out of threads or memory")]
    Writer(io::Error),
}

impl OpenError {
    /// Whether what is on the disk is not what was written there: no start mends it.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Gap { .. } | Self::LogMissing => true,
            Self::Identity(error) => error.is_damage(),
            Self::Log(RecoveryError::Owner { .. } | RecoveryError::Io(_)) => false,
            Self::Log(_) => !self.is_newer(),
            Self::NoIdentity | Self::Snapshots(_) | Self::Writer(_) => false,
        }
    }

    /// Whether a newer version of sdm wrote what is on the disk.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        match self {
            Self::Log(RecoveryError::Record(error)) => error.is_newer(),
            Self::Snapshots(error) => error.is_newer(),
            Self::Identity(error) => error.is_newer(),
            _ => false,
        }
    }
}

fn snapshots_hint(error: &SnapshotError) -> &'static str {
    // A newer one says itself what to do.
    if error.is_newer() { "" } else { "; check the disk of the data folder (dmesg, smartctl)" }
}

/// Opens the log and the snapshots of a member whose identity is written.
///
/// # Errors
/// Whatever makes it unsafe to start; each says what to do.
pub async fn open(disk: &MemberDisk) -> Result<Opened, OpenError> {
    open_with(disk, FirstEntry::Zero).await
}

pub(crate) async fn open_with(disk: &MemberDisk, first_entry: FirstEntry) -> Result<Opened, OpenError> {
    let identity = IdentityFile::of(disk).read().await?.ok_or(OpenError::NoIdentity)?;
    let (snapshots, loaded, recovered, witness) = read(disk, identity.owner()).await?;

    let trigger = SnapshotTrigger::new(snapshots.transfers().clone());
    let covered = loaded.as_ref().and_then(|loaded| loaded.file.meta().last_log_id);
    if let Some(loaded) = &loaded {
        trigger.installed(loaded.file.length());
    }
    let later = recovered.sizes.iter().filter(|(index, _)| covered.is_none_or(|id| *index > id.index));
    trigger.appended(later.map(|(_, bytes)| *bytes as u64).sum());

    let fatal = Fatal::default();
    let view = ViewHandle::new(loaded.map_or_else(StateView::default, StateMachine::view_of));
    let log_store = LogStore::start(disk, &recovered, witness, fatal.clone(), trigger.clone(), first_entry)
        .map_err(OpenError::Writer)?;
    tracing::info!(
        node = identity.node_id,
        name = identity.name,
        snapshot = covered.map(|id| id.index),
        log_end = recovered.marks.last.map(|id| id.index),
        "the member's disk is open"
    );
    Ok(Opened {
        log_store,
        state_machine: StateMachine::new(view.clone(), snapshots.clone(), trigger.clone(), fatal.clone()),
        identity,
        view,
        snapshots,
        snapshot_trigger: trigger,
        fatal,
        closed: disk.closed(),
    })
}

type Read = (SnapshotFolder, Option<Loaded>, Recovered, Witness);

async fn read(disk: &MemberDisk, owner: String) -> Result<Read, OpenError> {
    let reading = disk.clone();
    let read = move || {
        let recovered = recover(reading.log.as_ref(), &owner)?;
        let (snapshots, loaded) = SnapshotFolder::open(&reading)?;
        refuse_lost_log(loaded.as_ref(), &recovered, snapshots.damaged())?;
        refuse_gap(loaded.as_ref(), &recovered, snapshots.damaged())?;
        // Last, since it may write: whatever was refused before has changed nothing.
        let witness = recovered.witness(reading.root.as_ref())?;
        Ok::<_, OpenError>((snapshots, loaded, recovered, witness))
    };
    match disk.blocking(move || Ok(read())).await {
        Ok(read) => read,
        Err(error) => Err(RecoveryError::from(error).into()),
    }
}

/// A leader's vote is saved before its entries or its snapshot are taken, and a seeded folder begins with
/// its log: whoever has a snapshot and no log has lost a vote, and could vote twice.
fn refuse_lost_log(loaded: Option<&Loaded>, recovered: &Recovered, damaged: &str) -> Result<(), OpenError> {
    let had_one = loaded.is_some() || !damaged.is_empty();
    if recovered.is_new() && had_one { Err(OpenError::LogMissing) } else { Ok(()) }
}

/// Between the state in the snapshot and the first entry of the log nothing may be missing.
fn refuse_gap(loaded: Option<&Loaded>, recovered: &Recovered, damaged: &str) -> Result<(), OpenError> {
    let Some(purged) = recovered.marks.purged else { return Ok(()) };
    let covered = loaded.and_then(|loaded| loaded.file.meta().last_log_id);
    if covered.is_some_and(|covered| covered.index >= purged.index) {
        return Ok(());
    }
    let snapshot = covered.map_or("none".to_owned(), |covered| covered.index.to_string());
    let damaged = if damaged.is_empty() { String::new() } else { format!(" ({damaged})") };
    Err(OpenError::Gap { snapshot, purged: purged.index, damaged })
}
