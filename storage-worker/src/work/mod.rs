//! The orders that an I/O process executes, and what becomes of them.
//!
//! An [`Order`] names everything it needs (paths, ids, tokens, names): nothing in here decides, derives a name
//! or remembers anything from one order to the next. [`run`] executes one order and returns its [`Outcome`].
//! While it runs, it speaks through [`Ports`]: progress and checkpoints out, a cancel flag in, and the bytes of
//! volumes as bounded streams of [`Piece`]s.
//!
//! ```text
//!            Order                     Outcome
//!   supervisor ──────► I/O process ──────────► supervisor
//!      │ cancel flag      │  progress, checkpoints   ▲
//!      │ pieces in ──────►│──────── pieces out ──────┘
//! ```
//!
//! Everything here is serde-serializable except `Piece`, whose bytes whoever carries them frames himself.
//! Calls block inside the futures on purpose: they run in a child process that may hang without harm.

mod build;
mod chain;
mod hash;
mod merge;
mod order;
mod outcome;
mod piece;
mod ports;
mod resize;
mod run;
mod verdict;

pub use hash::FileHash;
pub use order::AdoptDomain;
pub use order::AttachDomain;
pub use order::BuildChain;
pub use order::BuildPlacement;
pub use order::CheckPlacements;
pub use order::CreateDisk;
pub use order::CreateDomain;
pub use order::DeleteDomain;
pub use order::DeletePlacement;
pub use order::DetachDomain;
pub use order::DomainRoot;
pub use order::ExpectedPlacement;
pub use order::FormatDomain;
pub use order::InspectDomain;
pub use order::LayerSource;
pub use order::LocalPlacement;
pub use order::MergeInPlace;
pub use order::Mounting;
pub use order::NewPlacement;
pub use order::Order;
pub use order::ProjectPlacement;
pub use order::ReadCatalog;
pub use order::RenameDomain;
pub use order::ResizeVolume;
pub use order::SendPlacement;
pub use order::SentVolume;
pub use order::Source;
pub use order::SourceChain;
pub use order::SourceVolume;
pub use order::VolumeFormat;
pub use order::VolumeRole;
pub use order::VolumeSpec;
pub use order::WriteCatalog;
pub use outcome::DeletionReport;
pub use outcome::DomainReport;
pub use outcome::DomainState;
pub use outcome::Done;
pub use outcome::Failure;
pub use outcome::Finding;
pub use outcome::FindingReason;
pub use outcome::FoundImage;
pub use outcome::FoundKind;
pub use outcome::FoundMetadata;
pub use outcome::FoundVolume;
pub use outcome::InspectionPage;
pub use outcome::Outcome;
pub use outcome::PlacementReport;
pub use outcome::Qcow2Facts;
pub use outcome::Refusal;
pub use outcome::RefusalCode;
pub use outcome::VolumeReport;
pub use piece::PIECE_BYTES_MAX;
pub use piece::Piece;
pub use ports::CancelFlag;
pub use ports::Checkpoint;
pub use ports::PIECES_IN_FLIGHT;
pub use ports::Ports;
pub use ports::Progress;
pub use run::run;
pub use run::run_on;
