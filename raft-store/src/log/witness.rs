//! The log's witness: a small file apart from the database that says how far the log had come. A
//! damaged end of the database looks like one that a power cut tore, and is cut off as if it had never
//! been written. The witness knows better, and such a log is refused.
//!
//! It is written in place, in turns into two slots, so that a torn write leaves the one before; with
//! a vote before the vote is answered, and otherwise behind the log, at most once in
//! [`WRITTEN_EVERY`]: a sync of its own for each batch would cost a third of the log's speed. So
//! what stays unnoticed is the loss of batches that became durable within that time before the
//! process ended without an orderly close.

use super::marks::Marks;
use super::record::RecordError;
use super::recovery::RecoveryError;
use crate::disk::Files;
use crate::disk::FixedFile;
use crate::fatal::Fatal;
use sdm_proto::failpoint;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// The witness in the member's folder.
pub(crate) const WITNESS_FILE: &str = "witness";

/// While it is made.
const TEMPORARY: &str = "witness.tmp";

/// How far it may lag behind the log.
pub(crate) const WRITTEN_EVERY: Duration = Duration::from_millis(100);

/// One slot. A page each, so that a torn write of one cannot touch the other.
const SLOT_BYTES: usize = 4096;
const SLOTS: usize = 2;

/// What the checksum of a slot begins with, so that no other record can stand in its place.
const SLOT_KEY: &[u8] = b"witness";

fn slot(marks: &Marks) -> Vec<u8> {
    let value = marks.value(SLOT_KEY);
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    let mut slot = length.to_le_bytes().to_vec();
    slot.extend_from_slice(&value);
    slot.resize(SLOT_BYTES, 0);
    slot
}

fn read_slot(slot: &[u8]) -> Result<Marks, RecordError> {
    let malformed = || RecordError::Malformed(WITNESS_FILE.to_owned());
    let (length, rest) = slot.split_first_chunk::<2>().ok_or_else(malformed)?;
    let value = rest.get(..usize::from(u16::from_le_bytes(*length))).ok_or_else(malformed)?;
    Marks::read(SLOT_KEY, value)
}

/// The witness file, open for writing.
#[derive(Debug)]
pub(crate) struct Witness {
    file: Box<dyn FixedFile>,
    /// What it says.
    marks: Marks,
    /// The slot that the next write goes to: never the one that holds `marks`.
    next: usize,
}

impl Witness {
    /// Opens the witness, if there is one. Blocks.
    pub(crate) fn open(files: &dyn Files) -> Result<Option<Self>, RecoveryError> {
        let file = match files.open_fixed(WITNESS_FILE) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let bytes = file.read()?;
        if bytes.len() != SLOTS * SLOT_BYTES {
            return Err(RecoveryError::WitnessDamaged(format!("it has {} bytes", bytes.len())));
        }
        let mut newest: Option<(usize, Marks)> = None;
        let mut damage = String::new();
        for (place, bytes) in bytes.chunks(SLOT_BYTES).enumerate() {
            match read_slot(bytes) {
                Ok(marks) if newest.is_none_or(|(_, newest)| newest.batch < marks.batch) => {
                    newest = Some((place, marks));
                }
                Ok(_) => {}
                Err(error @ RecordError::Version { .. }) => return Err(error.into()),
                Err(error) => damage = error.to_string(),
            }
        }
        match newest {
            Some((place, marks)) => Ok(Some(Witness { file, marks, next: (place + 1) % SLOTS })),
            None => Err(RecoveryError::WitnessDamaged(damage)),
        }
    }

    /// Makes the witness of a log that has none yet. Blocks.
    pub(crate) fn create(files: &dyn Files, marks: &Marks) -> io::Result<Self> {
        let mut file = files.create(TEMPORARY)?;
        for _ in 0..SLOTS {
            file.append(&slot(marks))?;
        }
        file.sync()?;
        files.publish(TEMPORARY, WITNESS_FILE)?;
        Ok(Witness { file: files.open_fixed(WITNESS_FILE)?, marks: *marks, next: 0 })
    }

    /// What it says.
    pub(crate) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Makes it say that these marks were durable. Durable itself when it returns. Blocks.
    fn write(&mut self, marks: &Marks) -> io::Result<()> {
        if marks.batch <= self.marks.batch {
            return Ok(());
        }
        failpoint::hit("witness.write.before")?;
        self.file.write_at(&slot(marks), (self.next * SLOT_BYTES) as u64)?;
        if !failpoint::skips("witness.fdatasync") {
            self.file.sync()?;
        }
        failpoint::hit("witness.write.after")?;
        self.marks = *marks;
        self.next = (self.next + 1) % SLOTS;
        Ok(())
    }
}

/// The writer's end of the witness: says at once, or lets it follow.
#[derive(Clone, Debug)]
pub(crate) struct WitnessHandle {
    witness: Arc<Mutex<Witness>>,
    newest: watch::Sender<Marks>,
    vote_waits: Arc<AtomicBool>,
    /// Ends with the last handle.
    _open: watch::Sender<()>,
}

impl WitnessHandle {
    /// The handle, and what must run for as long as the handle lives.
    pub(crate) fn start(witness: Witness, fatal: Fatal) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (newest, follow) = watch::channel(witness.marks);
        let (open, ended) = watch::channel(());
        let witness = Arc::new(Mutex::new(witness));
        let vote_waits = Arc::<AtomicBool>::default();
        let following = follow_behind(witness.clone(), follow, ended, vote_waits.clone(), fatal);
        (WitnessHandle { witness, newest, vote_waits, _open: open }, following)
    }

    /// These marks are durable; the witness will say so soon.
    pub(crate) fn durable(&self, marks: &Marks) {
        self.newest.send_replace(*marks);
    }

    /// A vote is about to be written, and its witness will be with `write_now`: what follows behind
    /// makes no sync meanwhile that the vote would have to wait for.
    pub(crate) fn vote_comes(&self) {
        self.vote_waits.store(true, Ordering::Relaxed);
    }

    /// These marks are durable, and so is their witness when it returns. Blocks.
    pub(crate) fn write_now(&self, marks: &Marks) -> io::Result<()> {
        let written = self.witness.lock().unwrap_or_else(PoisonError::into_inner).write(marks);
        self.vote_waits.store(false, Ordering::Relaxed);
        written
    }
}

/// Leaves it to a vote that waits: its own witness will say more.
fn write_behind(witness: &Mutex<Witness>, vote_waits: &AtomicBool, marks: &Marks) -> io::Result<()> {
    match vote_waits.load(Ordering::Relaxed) {
        true => Ok(()),
        false => witness.lock().unwrap_or_else(PoisonError::into_inner).write(marks),
    }
}

/// Writes the newest marks, until the writer has ended and its last ones are written.
async fn follow_behind(
    witness: Arc<Mutex<Witness>>,
    mut newest: watch::Receiver<Marks>,
    mut ended: watch::Receiver<()>,
    vote_waits: Arc<AtomicBool>,
    fatal: Fatal,
) {
    let mut open = true;
    while open {
        open = newest.changed().await.is_ok();
        if open {
            // Ends before its time only when the writer has ended. What becomes durable meanwhile wakes
            // nobody here: under load that would be a wakeup for each batch.
            let _ = tokio::time::timeout(WRITTEN_EVERY, ended.changed()).await;
        }
        let marks = *newest.borrow_and_update();
        if fatal.check().is_err() {
            return;
        }
        let written = write_behind(&witness, &vote_waits, &marks);
        if let Err(error) = written {
            fatal.fail("writing the log's witness", error);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Crash;
    use crate::disk::SimulatedDisk;

    fn marks(batch: u64) -> Marks {
        Marks { batch, ..Marks::default() }
    }

    fn said(machine: &SimulatedDisk) -> Result<Option<u64>, RecoveryError> {
        let disk = machine.start();
        Ok(Witness::open(disk.root.as_ref())?.map(|witness| witness.marks.batch))
    }

    #[test]
    fn what_it_was_told_last_survives_a_crash_and_older_news_change_nothing() {
        let machine = SimulatedDisk::new();
        assert_eq!(said(&machine).expect("readable"), None);
        let mut witness = Witness::create(machine.start().root.as_ref(), &marks(0)).expect("made");
        for batch in [1, 2, 7, 5] {
            witness.write(&marks(batch)).expect("written");
        }
        machine.crash(Crash::LoseUnsynced);
        assert_eq!(said(&machine).expect("readable"), Some(7));
    }

    #[test]
    fn nothing_is_written_behind_while_a_vote_waits_for_its_own() {
        let machine = SimulatedDisk::new();
        let witness = Witness::create(machine.start().root.as_ref(), &marks(0)).expect("made");
        let (handle, _following) = WitnessHandle::start(witness, Fatal::default());
        let behind = |batch| write_behind(&handle.witness, &handle.vote_waits, &marks(batch)).expect("written");
        handle.vote_comes();
        behind(1);
        assert_eq!(said(&machine).expect("readable"), Some(0));
        handle.write_now(&marks(2)).expect("written");
        assert_eq!(said(&machine).expect("readable"), Some(2));
        behind(3);
        assert_eq!(said(&machine).expect("readable"), Some(3));
    }

    #[test]
    fn a_damaged_slot_leaves_the_other_and_two_are_refused() {
        let machine = SimulatedDisk::new();
        let mut witness = Witness::create(machine.start().root.as_ref(), &marks(0)).expect("made");
        witness.write(&marks(1)).expect("written");
        witness.write(&marks(2)).expect("written");
        assert!(machine.damage_file(WITNESS_FILE, |bytes| bytes[SLOT_BYTES + 9] ^= 4));
        assert_eq!(said(&machine).expect("one is enough"), Some(1));
        assert!(machine.damage_file(WITNESS_FILE, |bytes| bytes[9] ^= 4));
        assert!(matches!(said(&machine), Err(RecoveryError::WitnessDamaged(_))));
    }

    #[test]
    fn a_short_file_and_a_newer_version_are_refused() {
        let machine = SimulatedDisk::new();
        Witness::create(machine.start().root.as_ref(), &marks(3)).expect("made");
        assert!(machine.damage_file(WITNESS_FILE, |bytes| bytes.truncate(SLOT_BYTES)));
        assert!(matches!(said(&machine), Err(RecoveryError::WitnessDamaged(_))));

        Witness::create(machine.start().root.as_ref(), &marks(3)).expect("made");
        let mut newer = marks(3).value(SLOT_KEY).split_off(4);
        newer[0] = 99;
        let newer = super::super::record::seal(SLOT_KEY, &newer);
        assert!(machine.damage_file(WITNESS_FILE, |bytes| bytes[2..2 + newer.len()].copy_from_slice(&newer)));
        let refused = said(&machine).expect_err("newer");
        assert!(matches!(refused, RecoveryError::Record(RecordError::Version { version: 99, .. })), "{refused}");
    }
}
