//! Workers: who they are, which domains they reach, how much space they saw.

use sdm_proto::ids::DomainId;
use sdm_proto::ids::WorkerId;
use sdm_proto::names::Name;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;

/// Who a worker is, as it says at hello.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerIdentity {
    /// Random, kept in its folder under a lock.
    pub id: WorkerId,
    /// A label; unique among live workers.
    pub name: Name,
    /// Where members, commands and workers reach it.
    pub address: String,
    /// Paths beneath which it owns the storage work; empty means all.
    pub reach: Vec<String>,
    /// Names the machine.
    pub machine_id: String,
    /// Names the machine's boot.
    pub boot_id: String,
    /// Drawn at every start.
    pub process_nonce: String,
    /// Program version, for people.
    pub version: String,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// As it said at its last hello.
    pub identity: WorkerIdentity,
    /// Its session while it is live.
    pub session: Option<u64>,
    /// Since when it is live or lost, on the cluster's clock.
    pub since_ms: u64,
    /// What it saw of each domain.
    pub domains: BTreeMap<DomainId, DomainSight>,
    /// Set while it gets no new work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<Draining>,
    /// The session that it has, or had last: what an operator quotes who confirms it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_session: Option<u64>,
    /// That an operator confirmed its host down, as of a session: what it began under that one and earlier ones is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_down: Option<ConfirmedDown>,
}

/// That a worker gets no new work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draining {
    /// Since when, on the cluster's clock.
    pub since_ms: u64,
    /// Who wanted it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// That an operator said a worker's host is down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfirmedDown {
    /// The session that was quoted.
    pub session: u64,
    /// When, on the cluster's clock.
    pub at_ms: u64,
    /// Who said it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// A change of a worker's standing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WorkerChange {
    /// No new work; what runs goes on.
    Drain {
        /// Which.
        worker: WorkerId,
    },
    /// New work again.
    Undrain {
        /// Which.
        worker: WorkerId,
    },
    /// Forgets a worker that is lost or drained and has nothing any more.
    Remove {
        /// Which.
        worker: WorkerId,
    },
    /// Its host is down, says an operator: nothing there writes any more.
    ConfirmDown {
        /// Which.
        worker: WorkerId,
        /// The session that the operator was shown.
        session: u64,
    },
}

impl WorkerChange {
    /// The kind of its transaction as users read it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Drain { .. } => "worker-drain",
            Self::Undrain { .. } => "worker-undrain",
            Self::Remove { .. } => "worker-remove",
            Self::ConfirmDown { .. } => "worker-confirm-down",
        }
    }

    /// Which worker it is about.
    #[must_use]
    pub fn worker(&self) -> WorkerId {
        match self {
            Self::Drain { worker }
            | Self::Undrain { worker }
            | Self::Remove { worker }
            | Self::ConfirmDown { worker, .. } => *worker,
        }
    }
}

/// What a worker saw of a domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DomainSight {
    /// None when it reaches it, else why not.
    pub error: Option<String>,
    /// Bytes of the file system.
    pub total_bytes: u64,
    /// Free ones of them.
    pub free_bytes: u64,
    /// Equal for domains that share a file system on this host.
    pub file_system: String,
    /// Rises with each report of one process; an older one that comes late changes nothing.
    #[serde(default)]
    pub sequence: u64,
    /// When the cluster heard it, on its clock; 0: not noted, or not yet.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seen_ms: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A change of that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DomainReport {
    /// Which domain.
    pub domain: DomainId,
    /// What it sees now.
    pub sight: DomainSight,
}

impl Worker {
    /// Whether it has a session.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.session.is_some()
    }

    /// Whether it may be given new work.
    #[must_use]
    pub fn takes_work(&self) -> bool {
        self.is_live() && self.draining.is_none()
    }

    /// The session that it has, or had last.
    #[must_use]
    pub fn last_session(&self) -> Option<u64> {
        self.session.or(self.last_session)
    }

    /// Whether it is live and reaches the domain.
    #[must_use]
    pub fn reaches(&self, domain: DomainId) -> bool {
        self.is_live() && self.domains.get(&domain).is_some_and(|sight| sight.error.is_none())
    }

    /// Whether the path lies beneath one of its prefixes, by whole components.
    #[must_use]
    pub fn owns_path(&self, path: &str) -> bool {
        let beneath = |prefix: &String| {
            let prefix = prefix.trim_end_matches('/');
            path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
        };
        self.identity.reach.is_empty() || self.identity.reach.iter().any(beneath)
    }
}
