//! Everything that can be said of a history.

use super::catalog_history::disks_of;
use super::catalog_model::CatalogModel;
use super::intervals::Interval;
use super::intervals::Model;
use super::lock_history::locks_of;
use super::lock_model::LockModel;
use super::oracles;
use super::oracles::Broken;
use super::trial::Verdict;
use super::wgl;
use crate::history::Event;
use crate::history::Promise;
use crate::history::pair;
use std::collections::BTreeMap;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// Promises that were broken.
    pub broken: Vec<Broken>,
    /// What could not be decided, and why. It is neither right nor wrong.
    pub unknown: Vec<String>,
    /// Operations of the history.
    pub operations: usize,
    /// Locks and groups of disks for which there is an order.
    pub in_order: usize,
    /// Operations within those orders.
    pub ordered: usize,
}

/// Judges a history; of each lock or group of disks at most so many operations are tried.
pub fn judge(events: &[Event], steps_max: u64) -> Judgement {
    let mut judgement = Judgement::default();
    if let Some(first) = events.first().filter(|first| first.index != 0) {
        judgement.unknown.push(format!("the history begins with event {}: what was before is not known", first.index));
        return judgement;
    }
    let operations = match pair(events) {
        Ok(operations) => operations,
        // Whoever recorded it is wrong, and nothing that was seen counts.
        Err(error) => {
            judgement.broken.push((Promise::Linearizable, format!("this is no history: {error}")));
            return judgement;
        }
    };
    judgement.operations = operations.len();
    judgement.broken = oracles::look(&operations);
    judgement.order("lock", &LockModel, locks_of(events, &operations), steps_max);
    judgement.order("disks", &CatalogModel, disks_of(&operations), steps_max);
    judgement
}

impl Judgement {
    fn order<M: Model>(
        &mut self,
        what: &str,
        model: &M,
        objects: BTreeMap<String, Vec<Interval<M::Op>>>,
        steps_max: u64,
    ) {
        for (name, intervals) in objects {
            match wgl::search(model, &intervals, steps_max) {
                Verdict::Linearizable => {
                    self.in_order += 1;
                    self.ordered += intervals.len();
                }
                Verdict::Violated(why) => self.broken.push((Promise::Linearizable, format!("{what} {name}: {why}"))),
                Verdict::Unknown { steps } => {
                    let count = intervals.len();
                    self.unknown.push(format!("{what} {name}: {count} operations, undecided after {steps} steps"));
                }
            }
        }
    }
}
