//! Feature levels: which behaviour of `apply` is in force. A cluster has one, in its state; each
//! build supports all up to its highest. A command that came with a level is taken from that level
//! on only: below it some member could not even read it.
//!
//! The level of a command is decided here and nowhere else. It is asked three times: by the leader
//! before it appends an entry, by `apply` (which refuses what slipped in), and by the envelope,
//! whose version it is, so that an older build stops with a clear message where it met such bytes.

use crate::command::Command;
use crate::members::FEATURE_LEVEL_MAX;
use crate::state::State;
use crate::txns::Spec;
use crate::work::Report;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

/// The level of all that the first release knew.
pub const FEATURE_LEVEL_FIRST: u32 = 1;

impl Command {
    /// The feature level from which on the cluster takes this command.
    #[must_use]
    pub fn feature_level(&self) -> u32 {
        match self {
            Self::Found(_)
            | Self::Tick
            | Self::AddMember(_)
            | Self::ReportMember { .. }
            | Self::RaiseFeatureLevel { .. }
            | Self::OpenSession(_)
            | Self::CloseSession(_)
            | Self::ExpireSessions { .. }
            | Self::AcquireLocks(_)
            | Self::ReleaseLocks { .. }
            | Self::ReportDomains { .. }
            | Self::Abort { .. }
            | Self::Collect { .. } => FEATURE_LEVEL_FIRST,
            Self::ReportStateHash { .. } | Self::Reconcile(_) => 2,
            Self::ReportStart { .. }
            | Self::AnnounceMember(_)
            | Self::RemoveMember { .. }
            | Self::WithdrawMember { .. } => 2,
            Self::ReportAttempt { report, .. } => report.feature_level(),
            Self::ReleaseLockOf { .. } | Self::BreakLock(_) | Self::RetryTxn { .. } => 2,
            Self::Begin(begin) => begin.spec.feature_level().max(if begin.under.is_some() { 2 } else { 1 }),
        }
    }

    /// The level that whoever reads the entry must support. Above that of the command where the
    /// entry itself sets the cluster's level: all behaviour after it is of that level, so a build
    /// that does not support it must not read on.
    #[must_use]
    pub fn reader_level(&self) -> u32 {
        let sets = match self {
            Self::Found(found) => found.member.feature_level_max,
            Self::RaiseFeatureLevel { level } => *level,
            _ => FEATURE_LEVEL_FIRST,
        };
        // What this build writes, it can read: a higher level here is a claim that nobody supports.
        sets.clamp(self.feature_level(), FEATURE_LEVEL_MAX)
    }
}

impl Spec {
    /// The feature level from which on a transaction may be of this kind.
    fn feature_level(&self) -> u32 {
        match self {
            Self::CreateDomain { .. }
            | Self::ImportDisk { .. }
            | Self::ExportDisk { .. }
            | Self::MoveDisk { .. }
            | Self::DeleteDisk { .. } => FEATURE_LEVEL_FIRST,
            Self::CreateDisk { preallocated, description, .. } => {
                if *preallocated || !description.is_empty() {
                    2
                } else {
                    FEATURE_LEVEL_FIRST
                }
            }
            Self::ExportChain { .. }
            | Self::RenameDisk { .. }
            | Self::DescribeDisk { .. }
            | Self::ResizeDisk { .. }
            | Self::CopyDisk { .. }
            | Self::CloneLinked { .. }
            | Self::ConvertDisk { .. }
            | Self::FlattenDisk { .. }
            | Self::CreateSnapshot { .. }
            | Self::DeleteSnapshot { .. }
            | Self::RevertSnapshot { .. }
            | Self::SetVolumeLegality { .. }
            | Self::RepairProjection { .. }
            | Self::Domain(_)
            | Self::Attachment(_)
            | Self::Worker(_)
            | Self::Garbage(_)
            | Self::Noop { .. } => 2,
        }
    }
}

impl Report {
    /// The feature level from which on a worker's report may say this.
    fn feature_level(&self) -> u32 {
        match self {
            Self::Checkpoint { .. }
            | Self::Peer { .. }
            | Self::Done { .. }
            | Self::Refused(_)
            | Self::Failed { .. }
            | Self::Stopped => FEATURE_LEVEL_FIRST,
            Self::Catalog { .. } => 2,
        }
    }
}

impl State {
    /// Refuses a command that is newer than the cluster's feature level, naming the members that
    /// hold it back. The level never sinks, so what passes here passes in every later state.
    ///
    /// # Errors
    /// `FEATURE_LEVEL`.
    pub fn check_feature_level(&self, command: &Command) -> Result<(), Refusal> {
        let needed = command.feature_level();
        let level = self.meta.feature_level.max(FEATURE_LEVEL_FIRST);
        if needed <= level {
            return Ok(());
        }
        let what = command.kind();
        let message = format!("{what} needs feature level {needed}, the cluster is at {level}");
        Err(self.held_back(needed, Refusal::new(Class::Precondition, "FEATURE_LEVEL", message)))
    }

    /// The refusal with every member as a blocker that does not support this level, and the hint
    /// that follows.
    pub(crate) fn held_back(&self, level: u32, mut refusal: Refusal) -> Refusal {
        for member in self.members.values().filter(|member| member.feature_level_max < level) {
            let supports = format!("runs {}, supports level {}", member.version, member.feature_level_max);
            refusal = refusal.blocker("member", member.name.as_str(), supports);
        }
        let hint = if refusal.blockers.is_empty() {
            "every member supports it: the leader raises the level within a minute, try again then"
        } else {
            "upgrade the members named first"
        };
        refusal.hint(hint)
    }
}
