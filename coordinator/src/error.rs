//! Why a member ended, in the words that its operator needs.

use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_raft_store::FatalError;
use sdm_raft_store::OpenError;
use sdm_raft_store::disk::OpenFolderError;
use sdm_raft_store::identity::IdentityError;
use std::io;
use std::path::PathBuf;

/// Why a member did not start or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The folder cannot be a member's.
    #[error(transparent)]
    Folder(#[from] OpenFolderError),
    /// Who the folder's member is cannot be read or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What the member has to do next cannot be read or written.
    #[error("cannot {operation} {file} in the data folder: {source}")]
    Pending {
        /// What was tried.
        operation: &'static str,
        /// The file.
        file: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Log or snapshots cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An empty folder, and nobody said what to do with it.
    #[error("the data folder {} holds no member yet", .0.display())]
    NothingThere(PathBuf),
    /// The folder is another member's.
    #[error("the data folder holds member {found}, not {asked}")]
    AnotherName {
        /// The name in the folder.
        found: String,
        /// The name that was given.
        asked: String,
    },
    /// The identity is there, and what it voted and acknowledged is not.
    #[error("the data folder says whose it is, and its log is gone")]
    LogGone,
    /// Without a secret, beyond loopback.
    #[error("{0} is not a loopback address, and there is no cluster secret")]
    Exposed(String),
    /// Others could not reach it.
    #[error("other members cannot reach this one at {0}")]
    NotReachable(String),
    /// The port cannot be opened.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The server ended by itself.
    #[error("the server at the member's port ended: {0}")]
    Serve(String),
    /// The cluster refused for good.
    #[error("{0}")]
    Refused(Refusal),
    /// Raft's settings do not fit together.
    #[error("the settings of Raft are impossible: {0}")]
    Settings(String),
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] FatalError),
    /// Raft ended, and the disk is not the reason.
    #[error("Raft ended on this member: {0}")]
    Raft(String),
}

const FOLDER_HINT: &str =
    "starting it again does not mend it: see to the data folder and its disk, or replace the member";

/// One rule for whatever reads a folder, a member as well as who looks into it: damage is told apart from
/// what a newer version wrote, and from a disk or a host that is in the way.
fn unusable(is_damage: bool, is_newer: bool) -> Class {
    match (is_damage, is_newer) {
        (true, _) => Class::Aborted,
        (_, true) => Class::Unsupported,
        _ => Class::Internal,
    }
}

impl MemberError {
    /// As a refusal: for a program the class, for people what to do next.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let (class, reason, hint) = match self {
            Self::Refused(refusal) => return refusal.clone(),
            Self::Folder(OpenFolderError::InUse { .. }) => (Class::Precondition, "FOLDER_IN_USE", ""),
            Self::Folder(OpenFolderError::Foreign { .. }) => (Class::Precondition, "FOLDER_NOT_EMPTY", ""),
            Self::Folder(OpenFolderError::Log { source, .. }) if source.kind() == io::ErrorKind::InvalidData => {
                (Class::Aborted, "LOG_UNUSABLE", FOLDER_HINT)
            }
            Self::Folder(_) => (Class::Internal, "FOLDER_UNUSABLE", ""),
            Self::Identity(IdentityError::Gone(_)) => (
                Class::Aborted,
                "IDENTITY_GONE",
                "keep the folder as it is, and replace the member: start a new one on an empty folder with --join, \
                 then `sdm member replace OLD --with NEW`; what an interrupted `sdm backup restore` or `sdm bench \
                 fill` left is removed, and that repeated",
            ),
            Self::Identity(error) => (unusable(error.is_damage(), error.is_newer()), "IDENTITY_UNUSABLE", FOLDER_HINT),
            Self::Pending { .. } => {
                (Class::Internal, "FOLDER_UNUSABLE", "check the data folder, its owner and its disk")
            }
            Self::Open(OpenError::Writer(_)) => (Class::Internal, "LOG_UNUSABLE", ""),
            Self::Open(error) => (unusable(error.is_damage(), error.is_newer()), "LOG_UNUSABLE", FOLDER_HINT),
            Self::NothingThere(_) => (
                Class::Invalid,
                "NO_MEMBER_HERE",
                "give --bootstrap to found a new cluster, or --join ADDR with the address of any of its members",
            ),
            Self::AnotherName { .. } => {
                (Class::Conflict, "ANOTHER_NAME", "give that --name, or another --data-dir for a new member")
            }
            Self::LogGone => (
                Class::Aborted,
                "LOG_GONE",
                "this member must not vote again: `sdm member remove` it, then start it with --join on an empty folder",
            ),
            Self::Exposed(_) => {
                (Class::Denied, "SECRET_NEEDED", "give --secret-file with the cluster's secret, or listen at 127.0.0.1")
            }
            Self::NotReachable(_) => {
                (Class::Invalid, "ADVERTISE_NEEDED", "give --advertise HOST:PORT, as the other members see this host")
            }
            Self::Listen { .. } => {
                (Class::Precondition, "CANNOT_LISTEN", "choose another --listen, or stop what listens there")
            }
            Self::Serve(_) | Self::Settings(_) => (Class::Internal, "MEMBER_FAILED", ""),
            Self::Disk(_) => (Class::Internal, "DISK_FAILED", ""),
            Self::Raft(_) => (Class::Internal, "RAFT_FAILED", "start the member again; report this with its log"),
        };
        Refusal::new(class, reason, self.to_string()).hint(hint)
    }
}
