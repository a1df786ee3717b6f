//! Disks by name, with the domain in which each lies and its snapshots, as one sequential object.

use super::intervals::Model;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// A disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Disk {
    /// Its id, once somebody was told.
    pub id: Option<String>,
    /// Where it lies.
    pub domain: String,
    /// By name.
    pub snapshots: BTreeSet<String>,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogOp {
    /// A disk of a name that nothing has.
    Create {
        /// Its name.
        name: String,
        /// Where.
        domain: String,
    },
    /// The disk of this name goes.
    Delete {
        /// Its name.
        name: String,
    },
    /// It lies elsewhere.
    Move {
        /// Its name.
        name: String,
        /// Where.
        to: String,
    },
    /// It has a name that nothing has.
    Rename {
        /// Its name.
        name: String,
        /// From then on.
        to: String,
    },
    /// It has one snapshot more.
    Snapshot {
        /// The disk's name.
        name: String,
        /// The snapshot's.
        snapshot: String,
    },
    /// It has one snapshot less.
    Merge {
        /// The disk's name.
        name: String,
        /// The snapshot's.
        snapshot: String,
    },
    /// What has this name, if anything.
    Read {
        /// The name.
        name: String,
        /// What was told.
        seen: Option<Disk>,
    },
}

/// The rules.
#[derive(Clone, Copy, Debug)]
pub struct CatalogModel;

impl Model for CatalogModel {
    type State = BTreeMap<String, Disk>;
    type Op = CatalogOp;

    fn initial(&self) -> Self::State {
        BTreeMap::new()
    }

    fn only_looks(&self, op: &CatalogOp) -> bool {
        matches!(op, CatalogOp::Read { .. })
    }

    fn apply(&self, disks: &Self::State, op: &CatalogOp) -> Option<Self::State> {
        let mut after = disks.clone();
        match op {
            CatalogOp::Create { name, domain } => {
                let disk = Disk { domain: domain.clone(), ..Disk::default() };
                if after.insert(name.clone(), disk).is_some() {
                    return None;
                }
            }
            CatalogOp::Delete { name } => {
                after.remove(name)?;
            }
            CatalogOp::Move { name, to } => after.get_mut(name)?.domain.clone_from(to),
            CatalogOp::Rename { name, to } => {
                let disk = after.remove(name)?;
                if after.insert(to.clone(), disk).is_some() {
                    return None;
                }
            }
            CatalogOp::Snapshot { name, snapshot } => {
                if !after.get_mut(name)?.snapshots.insert(snapshot.clone()) {
                    return None;
                }
            }
            CatalogOp::Merge { name, snapshot } => {
                if !after.get_mut(name)?.snapshots.remove(snapshot) {
                    return None;
                }
            }
            CatalogOp::Read { name, seen } => match (after.get_mut(name), seen) {
                (None, None) => {}
                (Some(disk), Some(seen)) if is_the_same(disk, seen) => disk.id = disk.id.take().or(seen.id.clone()),
                _ => return None,
            },
        }
        Some(after)
    }
}

fn is_the_same(disk: &Disk, seen: &Disk) -> bool {
    let other = disk.id.as_ref().zip(seen.id.as_ref()).is_some_and(|(known, seen)| known != seen);
    !other && disk.domain == seen.domain && disk.snapshots == seen.snapshots
}
