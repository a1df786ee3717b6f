//! The log database on sled 0.34. What sled's documentation does not say decides this file:
//!
//! - `flush` writes its buffers and calls `sync_file_range`, which neither flushes the disk's cache
//!   nor writes metadata. So after each `flush` the database file is fdatasynced through a
//!   descriptor of our own, which also sees every write error that the kernel reports (the kernel
//!   keeps them per open file).
//! - A page of more than about 128 KiB goes into a separate file that is never synced. A leaf holds
//!   up to 16 pairs, so values must stay below 4 KiB; `commit` refuses larger ones.
//! - Segments are cleaned only by the background flusher, so it must stay on.
//! - Where a checksum in its file is wrong, sled leaves out the rest of that segment, or of the whole
//!   file if it is near its end, and opens as if nothing had been there; elsewhere it panics. The
//!   first is found by the log (marks, chain, witness), the second becomes an error here.
//! - On opening it writes what its scan found into `snap.N.generating` and renames that. Whoever ends
//!   in between (a kill, a cut, a full disk) leaves a torn one, and the next open takes it for a
//!   damaged snapshot and refuses, although the database is whole. `open` removes it first.
//! - It makes that snapshot durable on opening, but not the database that it describes. So all files
//!   are synced before sled opens them, and read from the disk, not from the kernel's copy, which may
//!   hold what a failed sync never wrote.

use super::Batch;
use super::Change;
use super::LogDatabase;
use super::Visit;
use super::guarded::guarded;
use super::real::FolderLock;
use super::real_files::drop_cached;
use super::real_files::sync_folder;
use futures_util::future::BoxFuture;
use sdm_proto::failpoint;
use std::collections::BTreeMap;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// sled's page cache. Readers are served from the log's own tail, so sled needs pages only for the
/// leaf that grows and those that are purged. Measured: 16 MiB writes no faster, and costs 8 MiB of
/// the 60 that a member may have.
const CACHE_BYTES: u64 = 4 << 20;

/// How often sled's background thread wakes to clean segments (it may spend half of the time on
/// it). Longer than sled's 500 ms because each time it also fsyncs, which an idle member feels.
const CLEAN_EVERY_MS: u64 = 2_000;

/// Largest value. 17 of them and their keys stay below half of sled's limit for a page.
const VALUE_BYTES_MAX: usize = 4 << 10;

/// A sled database and our descriptor on its file.
#[derive(Debug)]
pub(crate) struct SledDatabase {
    // The fields end in this order: the database before its lock.
    database: sled::Db,
    file: File,
    _lock: Arc<FolderLock>,
}

impl SledDatabase {
    /// Opens or makes the database, and makes what sled wrote on opening durable. Blocks.
    pub(crate) fn open(folder: &Path, lock: Arc<FolderLock>) -> io::Result<Self> {
        remove_unfinished(folder)?;
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                drop_cached(&entry.path())?;
            }
        }
        let config = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).flush_every_ms(Some(CLEAN_EVERY_MS));
        let database = guarded(|| config.open().map_err(from_sled))?;
        let file = OpenOptions::new().read(true).write(true).open(folder.join("db"))?;
        guarded(|| database.flush().map(drop).map_err(from_sled))?;
        // Its configuration and index files are written on opening, some of them without a sync.
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                match File::open(entry.path()) {
                    Ok(file) => file.sync_all()?,
                    // sled replaces its index files while it runs.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        sync_folder(folder)?;
        Ok(SledDatabase { database, file, _lock: lock })
    }

    /// Runs a call of sled. After a panic its background thread may be gone too, and dropping the
    /// database would wait for it: it is kept until the process ends, which a damaged log brings
    /// about at once.
    fn call<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut returned = false;
        let result = guarded(|| {
            let result = call();
            returned = true;
            result
        });
        if !returned {
            std::mem::forget(self.database.clone());
        }
        result
    }

    fn write(&self, batch: &Batch) -> io::Result<()> {
        failpoint::hit("log.write.before")?;
        // sled's own batch does not order its changes, so the last word on each key is found here.
        let mut last_word: BTreeMap<&[u8], Option<&[u8]>> = BTreeMap::new();
        let mut removed = Vec::new();
        for change in batch.changes() {
            match change {
                Change::Put { key, value } => {
                    if value.len() > VALUE_BYTES_MAX {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidInput,
                            format!("a value of {} bytes is too large for the log", value.len()),
                        ));
                    }
                    last_word.insert(key, Some(value));
                }
                Change::DeleteRange { from, to } if from < to => {
                    let range = from.as_slice()..to.as_slice();
                    for (_, word) in last_word.range_mut::<&[u8], _>(range.clone()) {
                        *word = None;
                    }
                    for key in self.database.range(range).keys() {
                        removed.push(key.map_err(from_sled)?);
                    }
                }
                Change::DeleteRange { .. } => {}
            }
        }
        let mut words = sled::Batch::default();
        for key in removed {
            // A key in the database is removed unless this batch puts it after the removal.
            if last_word.get(&*key).is_none_or(|word| word.is_none()) {
                words.remove(key);
            }
        }
        for (key, word) in last_word {
            if let Some(value) = word {
                words.insert(key, value);
            }
        }
        self.database.apply_batch(words).map_err(from_sled)?;
        failpoint::hit("log.write.after")
    }

    fn sync(&self) -> io::Result<()> {
        failpoint::hit("log.flush.before")?;
        self.database.flush().map_err(from_sled)?;
        failpoint::hit("log.flush.after")?;
        failpoint::hit("log.fdatasync.before")?;
        if !failpoint::skips("log.fdatasync") {
            self.file.sync_data()?;
        }
        failpoint::hit("log.fdatasync.after")
    }
}

impl LogDatabase for SledDatabase {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.call(|| self.write(&batch))?;
            self.call(|| self.sync())
        })
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> io::Result<()> {
        if from >= to {
            return Ok(());
        }
        self.call(|| {
            for pair in self.database.range(from..to) {
                let (key, value) = pair.map_err(from_sled)?;
                if visit(&key, &value).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }
}

/// Removes what an earlier open began to write and did not finish: it holds nothing that the database
/// does not.
fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            tracing::warn!(name, "removing what an earlier start did not finish writing");
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn from_sled(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        sled::Error::Corruption { .. } => {
            io::Error::new(io::ErrorKind::InvalidData, "its database found its own file damaged")
        }
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemberDisk;

    #[tokio::test]
    async fn values_that_could_end_up_in_an_unsynced_file_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk = MemberDisk::open(folder.path()).await.expect("a new folder opens");
        let put = |bytes: usize| {
            let mut batch = Batch::default();
            batch.put(b"l".as_slice(), vec![1; bytes]);
            disk.log.commit(batch)
        };
        put(VALUE_BYTES_MAX).await.expect("small enough");
        let refused = put(VALUE_BYTES_MAX + 1).await.expect_err("too large");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
}
