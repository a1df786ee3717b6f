//! An assignment, read: the order that an I/O process understands, and the way it is to be run.

use crate::work::BuildChain;
use crate::work::BuildPlacement;
use crate::work::DomainRoot;
use crate::work::Order;
use crate::work::Source;
use std::path::PathBuf;

/// How an assignment is run.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Way {
    /// A short step, in the domain's process.
    Step(Order),
    /// In a process of its own.
    Build(Order),
    /// In a process of its own, fed from another worker.
    Pull { order: Order, address: String, ticket: Vec<u8>, volumes: Vec<String> },
    /// In a process of its own, fed by a command.
    Receive { order: Order, ticket: Vec<u8> },
    /// A process reads for a command.
    Send { order: Order, ticket: Vec<u8> },
    /// A process reads for another worker.
    Serve { order: Order, ticket: Vec<u8>, volumes: Vec<String> },
}

/// An assignment, read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Task {
    pub(super) token: String,
    pub(super) attempt: u32,
    /// Bytes of all volumes, as far as the cluster knows.
    pub(super) total_bytes: u64,
    pub(super) way: Way,
}

impl Way {
    /// What is run.
    pub(super) fn order(&self) -> &Order {
        match self {
            Self::Step(order)
            | Self::Build(order)
            | Self::Pull { order, .. }
            | Self::Receive { order, .. }
            | Self::Send { order, .. }
            | Self::Serve { order, .. } => order,
        }
    }
}

impl Task {
    /// The domain whose process runs the steps.
    pub(super) fn domain(&self) -> &DomainRoot {
        self.way.order().domain()
    }

    /// Every path that the order touches.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let order = self.way.order();
        let mut paths = vec![order.domain().path.clone()];
        match order {
            Order::BuildPlacement(BuildPlacement { source: Source::Local(source), .. }) => {
                paths.push(source.domain.path.clone());
            }
            Order::BuildChain(BuildChain { source: Some(source), .. }) => paths.push(source.at.domain.path.clone()),
            _ => {}
        }
        paths
    }

    /// Whether the same attempt may simply begin again after its process was reaped: it reads only,
    /// or its sender begins from zero anyway.
    pub(super) fn may_begin_again(&self) -> bool {
        matches!(self.way, Way::Receive { .. } | Way::Send { .. } | Way::Serve { .. })
    }
}
