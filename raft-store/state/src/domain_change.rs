//! Changes of a storage domain itself: what its transactions are to do, and what a detached domain
//! carries along.

use crate::catalog::Disk;
use crate::catalog::Placement;
use crate::catalog::Volume;
use sdm_proto::ids::DomainId;
use sdm_proto::names::Name;
use serde::Deserialize;
use serde::Serialize;

/// A change of a domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DomainChange {
    /// Nothing new is begun in it any more.
    Maintenance {
        /// Which.
        domain: DomainId,
    },
    /// It is used again.
    Activate {
        /// Which.
        domain: DomainId,
    },
    /// Another name.
    Rename {
        /// Which.
        domain: DomainId,
        /// The new name.
        name: Name,
    },
    /// Out of this cluster, with its disks, to be attached again here or elsewhere.
    Detach {
        /// Which.
        domain: DomainId,
    },
    /// Away with it and its folder.
    Delete {
        /// Which.
        domain: DomainId,
    },
    /// Out of the catalog with it, its disks and its garbage, without a look at its storage: that is lost for good.
    Forget {
        /// Which; also one of which there is nothing but garbage.
        domain: DomainId,
    },
    /// A detached domain, with its disks.
    Attach(Box<AttachDomain>),
}

/// A detached domain that is taken in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttachDomain {
    /// Its id for life.
    pub domain: DomainId,
    /// Its name here.
    pub name: Name,
    /// The folder beneath which its own folder lies.
    pub path: String,
    /// Whether the path need not be a mount point.
    pub local: bool,
    /// What lies in it.
    pub contents: DomainContents,
    /// Whether disks got other names than they had: what stands beside their volumes is written anew then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renamed: bool,
    /// BLAKE3 of the catalog that the contents were read from, in hexadecimal digits: the worker takes the domain only
    /// while its mark names this very one. Each detach writes another.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub catalog: String,
    /// Where the contents are but the first part of what lies in it: how the rest is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more: Option<MorePieces>,
}

/// The rest of a catalog that did not fit into one command: read piece by piece, once the domain was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MorePieces {
    /// How many there are; they are counted from 1.
    pub pieces: u32,
    /// The entry that began the detach which wrote them: each piece says it.
    pub detached_at: u64,
    /// Put before the names of their disks.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
}

/// What lies in a domain: the rows of the catalog that go with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DomainContents {
    /// Its disks.
    pub disks: Vec<Disk>,
    /// All their volumes.
    pub volumes: Vec<Volume>,
    /// Their placements.
    pub placements: Vec<Placement>,
    /// How long its deleted disks are kept, where the domain says so itself, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_ms: Option<u64>,
}

impl DomainContents {
    /// How many rows that are.
    #[must_use]
    pub fn rows(&self) -> u64 {
        (self.disks.len() + self.volumes.len() + self.placements.len()) as u64
    }
}

impl DomainChange {
    /// The kind of its transaction as users read it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Maintenance { .. } => "domain-maintenance",
            Self::Activate { .. } => "domain-activate",
            Self::Rename { .. } => "domain-rename",
            Self::Detach { .. } => "domain-detach",
            Self::Delete { .. } => "domain-delete",
            Self::Forget { .. } => "domain-forget",
            Self::Attach(_) => "domain-attach",
        }
    }

    /// Which domain it is about.
    #[must_use]
    pub fn domain(&self) -> DomainId {
        match self {
            Self::Maintenance { domain }
            | Self::Activate { domain }
            | Self::Rename { domain, .. }
            | Self::Detach { domain }
            | Self::Delete { domain }
            | Self::Forget { domain } => *domain,
            Self::Attach(attach) => attach.domain,
        }
    }

    /// Whether a worker has something to do before it is done.
    #[must_use]
    pub fn has_step(&self) -> bool {
        matches!(self, Self::Detach { .. } | Self::Attach(_))
    }
}
