//! A storage domain of oVirt's layout, version 5, as TYPE=LOCALFS, and the placements in it.
//!
//! ```text
//! <path>/<domain>/dom_md/{metadata,ids,leases,inbox,outbox,.sdm}
//!                /images/.sdm-<token>/                      being built, or being deleted
//!                /images/<placement>/{<volume>,<volume>.meta,.sdm}
//! ```
//!
//! This module knows names, small files and the order of calls that keeps them whole after a power cut. It derives
//! no name and no token (they come in), reads no volume's bytes, and decides nothing: evidence that does not fit is
//! an error that names it.

mod adopt;
mod aside;
mod attach;
mod attempt;
mod check;
mod create;
mod delete;
mod delete_domain;
mod detach;
mod error;
mod format;
mod identity;
mod inspect;
mod metadata;
mod names;
mod open;
mod placement_mark;
mod project;
mod rename;
mod small_file;
mod volume_metadata;

pub use adopt::adopt_domain;
pub use attach::attach_domain;
pub use attempt::Attempt;
pub use check::check_placements;
pub use create::create_domain;
pub use delete::delete_placement;
pub use delete_domain::delete_domain;
pub use detach::detach_domain;
pub use detach::read_catalog_piece;
pub use detach::write_catalog_piece;
pub use error::DomainError;
pub use format::format_domain;
pub use identity::DomainIdentity;
pub use inspect::inspect_domain;
pub use metadata::DomainMetadata;
pub use metadata::InvalidMetadata;
pub use names::DotName;
pub use names::InvalidDotName;
pub use open::Domain;
pub use placement_mark::PlacementMark;
pub use project::Placed;
pub use project::project_placement;
pub use rename::rename_domain;
pub use volume_metadata::InvalidVolumeMetadata;
pub use volume_metadata::Legality;
pub use volume_metadata::VolumeMetadata;

/// Mode of files, as vdsm makes them.
pub const FILE_MODE: u32 = 0o660;
/// Mode of folders.
pub const FOLDER_MODE: u32 = 0o755;
