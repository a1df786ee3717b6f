//! The state as rows, for snapshots: each row in an envelope of its own, small and versioned. What
//! is derived is not stored; it is built again as rows come back.

use crate::attachments::Attachment;
use crate::catalog::Disk;
use crate::catalog::Domain;
use crate::catalog::Placement;
use crate::catalog::Volume;
use crate::envelope::EnvelopeError;
use crate::envelope::decode_row;
use crate::envelope::encode_row;
use crate::events::Event;
use crate::feature_level::FEATURE_LEVEL_FIRST;
use crate::forgotten::Forgotten;
use crate::garbage::Garbage;
use crate::gc_plans::GcPlan;
use crate::hashes::HashPoint;
use crate::jobs::Job;
use crate::locks::LockSet;
use crate::members::Member;
use crate::projections::Projection;
use crate::sessions::Session;
use crate::state::Meta;
use crate::state::State;
use crate::txns::Txn;
use crate::workers::Worker;
use sdm_proto::failpoint;
use serde::Deserialize;
use serde::Serialize;

#[derive(Deserialize)]
enum Row {
    Meta(Meta),
    Member(Member),
    Session(Session),
    Worker(Worker),
    Lock(LockSet),
    Domain(Domain),
    Disk(Disk),
    Volume(Volume),
    Placement(Placement),
    Txn(Box<Txn>),
    Job(Job),
    Garbage(Garbage),
    HashPoint(HashPoint),
    GcPlan(GcPlan),
    Projection(Projection),
    Attachment(Attachment),
    Event(Event),
    Forgotten(Forgotten),
}

/// The same by reference: what is written.
#[derive(Serialize)]
enum RowRef<'a> {
    Meta(&'a Meta),
    Member(&'a Member),
    Session(&'a Session),
    Worker(&'a Worker),
    Lock(&'a LockSet),
    Domain(&'a Domain),
    Disk(&'a Disk),
    Volume(&'a Volume),
    Placement(&'a Placement),
    Txn(&'a Txn),
    Job(&'a Job),
    Garbage(&'a Garbage),
    HashPoint(&'a HashPoint),
    GcPlan(&'a GcPlan),
    Projection(&'a Projection),
    Attachment(&'a Attachment),
    Event(&'a Event),
    Forgotten(&'a Forgotten),
}

impl RowRef<'_> {
    /// The feature level that whoever reads it must support. The first row says it for all.
    fn reader_level(&self) -> u32 {
        match self {
            Self::Meta(meta) => meta.feature_level.max(FEATURE_LEVEL_FIRST),
            _ => FEATURE_LEVEL_FIRST,
        }
    }
}

/// A bug that tests plant: what has its outcome is not in snapshots, and so its request id is free again.
fn is_forgotten(txn: &Txn) -> bool {
    txn.phase.is_final() && failpoint::skips("plant.snapshot-requests")
}

impl State {
    /// The state as rows. The first one is the cluster's own.
    pub fn to_rows(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        std::iter::once(RowRef::Meta(&self.meta))
            .chain(self.members.values().map(RowRef::Member))
            .chain(self.sessions.values().map(RowRef::Session))
            .chain(self.workers.values().map(RowRef::Worker))
            .chain(self.locks.values().filter(|_| !failpoint::skips("plant.snapshot-tokens")).map(RowRef::Lock))
            .chain(self.domains.values().map(RowRef::Domain))
            .chain(self.disks.values().map(RowRef::Disk))
            .chain(self.volumes.values().map(RowRef::Volume))
            .chain(self.placements.values().map(RowRef::Placement))
            .chain(self.txns.values().filter(|txn| !is_forgotten(txn)).map(RowRef::Txn))
            .chain(self.jobs.values().map(RowRef::Job))
            .chain(self.garbage.values().map(RowRef::Garbage))
            .chain(self.hashes.values().map(RowRef::HashPoint))
            .chain(self.gc_plans.values().map(RowRef::GcPlan))
            .chain(self.projections.values().map(RowRef::Projection))
            .chain(self.attachments.values().map(RowRef::Attachment))
            .chain(self.events.values().map(RowRef::Event))
            .chain(self.forgotten.values().map(RowRef::Forgotten))
            .map(|row| encode_row(row.reader_level(), &row))
    }

    /// The state from its rows.
    ///
    /// # Errors
    /// A row is damaged or of a newer version.
    pub fn from_rows(rows: impl Iterator<Item = Vec<u8>>) -> Result<Self, EnvelopeError> {
        let mut state = Self::default();
        for bytes in rows {
            state.take_row(decode_row(&bytes)?);
        }
        // No entry changed these.
        state.take_touched();
        Ok(state)
    }

    fn take_row(&mut self, row: Row) {
        match row {
            Row::Meta(meta) => self.meta = meta,
            Row::Member(member) => self.put_member(member),
            Row::Session(session) => self.put_session(session),
            Row::Worker(worker) => self.put_worker(worker),
            Row::Lock(lock) => self.put_lock(lock),
            Row::Domain(domain) => self.put_domain(domain),
            Row::Disk(disk) => self.put_disk(disk),
            Row::Volume(volume) => self.put_volume(volume),
            Row::Placement(placement) => self.put_placement(placement),
            Row::Txn(txn) => self.restore_txn(*txn),
            Row::Job(job) => self.put_job(job),
            Row::Garbage(garbage) => self.put_garbage(garbage),
            Row::HashPoint(point) => self.put_hash_point(point),
            Row::GcPlan(plan) => self.put_gc_plan(plan),
            Row::Projection(projection) => self.put_projection(projection),
            Row::Attachment(attachment) => self.put_attachment(attachment),
            Row::Event(event) => self.put_event(event),
            Row::Forgotten(forgotten) => self.put_forgotten(forgotten),
        }
    }

    /// A stored transaction keeps the index of its last change.
    fn restore_txn(&mut self, txn: Txn) {
        let applied = std::mem::replace(&mut self.meta.applied_index, txn.changed_index);
        self.put_txn(txn);
        self.meta.applied_index = applied;
    }
}
