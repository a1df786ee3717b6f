//! The folder of snapshots: which one is current, how one gets in, which ones go.

use super::file::SnapshotFile;
use super::format::Header;
use super::format::SnapshotError;
use super::format::SnapshotWriter;
use super::transfers::Transfers;
use crate::disk::FileWriter;
use crate::disk::Files;
use crate::disk::MemberDisk;
use crate::disk::read_exact_at;
use crate::raft::StateView;
use crate::types::LogId;
use sdm_proto::failpoint;
use sdm_state::State;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// Snapshots that stay: the current one, and one to fall back on if it turns out damaged while the
/// log still reaches back to the older.
const KEPT: usize = 2;

/// Files that are being written; all are removed when a member starts.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Where a damaged snapshot is put for inspection; the last one replaces the one before.
const DAMAGED: &str = "damaged";

/// Bytes copied at once from another folder.
const COPY_BYTES: usize = 1 << 20;

/// The order of snapshots, and what their names say: term, node, index.
type Position = (u64, u64, u64);

fn position(id: Option<&LogId>) -> Position {
    id.map_or((0, 0, 0), |id| (id.leader_id.term, id.leader_id.node_id, id.index))
}

fn name_of((term, node, index): Position) -> String {
    format!("snap-{term}-{node}-{index}")
}

fn parse(name: &str) -> Option<Position> {
    let mut parts = name.strip_prefix("snap-")?.split('-');
    let mut next = || parts.next()?.parse().ok();
    let position = (next()?, next()?, next()?);
    (name_of(position) == name).then_some(position)
}

/// A temporary name; the file under it goes with the last holder unless it was published.
#[derive(Debug)]
pub(crate) struct Temporary {
    files: Arc<dyn Files>,
    name: String,
}

impl Temporary {
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone when it was published. If it cannot be removed, the next start does it.
        let _ = self.files.remove(&self.name);
    }
}

/// A whole snapshot did not get its final name, or nobody knows whether the name is durable. A later
/// sync of the folder that succeeds would not prove it, so this is never tried again.
#[derive(Debug, thiserror::Error)]
#[error("giving a snapshot its name: {0}")]
pub(crate) struct NotPublished(io::Error);

impl NotPublished {
    fn wrap(error: io::Error) -> io::Error {
        io::Error::new(error.kind(), NotPublished(error))
    }

    /// Whether an error is this one.
    pub(crate) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<NotPublished>())
    }
}

/// A snapshot and the state in it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) file: SnapshotFile,
    pub(crate) state: State,
}

#[derive(Debug, Default)]
struct Published {
    positions: Vec<Position>,
    current: Option<SnapshotFile>,
}

#[derive(Debug)]
struct Shared {
    disk: MemberDisk,
    /// Which snapshot was found damaged, in words, if one was.
    damaged: String,
    transfers: Transfers,
    published: Mutex<Published>,
    temporaries: AtomicU64,
}

/// The member's snapshots. Clones share them.
#[derive(Clone, Debug)]
pub struct SnapshotFolder(Arc<Shared>);

impl SnapshotFolder {
    /// Opens the folder and loads the newest snapshot that is whole. Blocks.
    ///
    /// # Errors
    /// The file system's, or a snapshot of a newer version: then an older one is no answer.
    pub(crate) fn open(disk: &MemberDisk) -> Result<(Self, Option<Loaded>), SnapshotError> {
        let mut positions = Vec::new();
        let mut damaged = String::new();
        for name in disk.snapshots.names()? {
            if name.ends_with(TEMPORARY_SUFFIX) {
                disk.snapshots.remove(&name)?;
            }
            if name == DAMAGED {
                damaged = format!("one that was damaged is kept as snapshots/{DAMAGED}");
            }
            positions.extend(parse(&name));
        }
        positions.sort_unstable();
        let mut loaded = None;
        let transfers = Transfers::default();
        while let Some(position) = positions.last() {
            let name = name_of(*position);
            match SnapshotFile::open(disk, &name, None, &transfers) {
                Ok(found) => {
                    loaded = Some(found);
                    break;
                }
                Err(error) if error.is_newer() || matches!(error, SnapshotError::Io(_)) => return Err(error),
                Err(error) => {
                    tracing::error!(name, %error, "a snapshot is damaged; trying an older one");
                    disk.snapshots.publish(&name, DAMAGED)?;
                    damaged = format!("snapshots/{name}: {error}; it is kept as snapshots/{DAMAGED}");
                    positions.pop();
                }
            }
        }
        let current = loaded.as_ref().map(|loaded| loaded.file.clone());
        let shared = Shared {
            disk: disk.clone(),
            damaged,
            transfers,
            published: Mutex::new(Published { positions, current }),
            temporaries: AtomicU64::new(0),
        };
        Ok((SnapshotFolder(Arc::new(shared)), loaded))
    }

    pub(crate) fn disk(&self) -> &MemberDisk {
        &self.0.disk
    }

    /// Which snapshot was found damaged, in words; empty if none was.
    pub(crate) fn damaged(&self) -> &str {
        &self.0.damaged
    }

    /// What is on its way from here to peers.
    pub(crate) fn transfers(&self) -> &Transfers {
        &self.0.transfers
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        self.0.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest snapshot.
    pub fn current(&self) -> Option<SnapshotFile> {
        self.published().current.clone()
    }

    /// A new file under a name of its own. Blocks.
    pub(super) fn create_temporary(&self) -> io::Result<(Arc<Temporary>, Box<dyn FileWriter>)> {
        let number = self.0.temporaries.fetch_add(1, Ordering::Relaxed);
        let name = format!("snap-{number}{TEMPORARY_SUFFIX}");
        let file = self.0.disk.snapshots.create(&name)?;
        let files = self.0.disk.snapshots.clone();
        Ok((Arc::new(Temporary { files, name }), file))
    }

    /// Writes a snapshot of a view and publishes it. `apply` may go on meanwhile.
    ///
    /// # Errors
    /// The file system's. Unless it is [`NotPublished`], nothing has changed, and it may be tried again.
    pub(crate) async fn build(&self, view: Arc<StateView>) -> io::Result<SnapshotFile> {
        let folder = self.clone();
        self.0.disk.in_background(move || folder.write(&view)).await
    }

    fn write(&self, view: &StateView) -> io::Result<SnapshotFile> {
        failpoint::hit("snapshot.write.before")?;
        let header = Header::of(view);
        let meta = header.meta.clone();
        let (temporary, file) = self.create_temporary()?;
        let mut writer = SnapshotWriter::begin(file, &header)?;
        for row in view.state.to_rows() {
            writer.row(&row)?;
        }
        let (length, hash) = writer.finish()?;
        failpoint::hit("snapshot.write.after")?;
        let reader = self.0.disk.snapshots.open(temporary.name())?.into();
        let written = SnapshotFile {
            disk: self.0.disk.clone(),
            name: temporary.name().to_owned(),
            meta,
            length,
            hash,
            reader,
            temporary: Some(temporary),
            transfers: self.0.transfers.clone(),
            arrived: None,
        };
        self.publish(written)
    }

    /// Takes a snapshot that was received, or found here, and loads its state.
    ///
    /// # Errors
    /// When it is damaged, or the file system's.
    pub(crate) async fn adopt(&self, file: SnapshotFile) -> Result<Loaded, SnapshotError> {
        let folder = self.clone();
        let adopt = move || {
            let mut file = file;
            let Loaded { file, state } = if file.is_in(&folder.0.disk.snapshots) {
                let state = file.load()?;
                Loaded { file, state }
            } else {
                folder.copy(&file)?
            };
            Ok(Loaded { file: folder.publish(file)?, state })
        };
        self.0.disk.blocking(move || Ok(adopt())).await?
    }

    fn copy(&self, from: &SnapshotFile) -> Result<Loaded, SnapshotError> {
        let (temporary, mut file) = self.create_temporary()?;
        let mut offset = 0;
        while offset < from.length {
            let rest = usize::try_from(from.length - offset).unwrap_or(usize::MAX);
            let mut piece = vec![0; COPY_BYTES.min(rest)];
            read_exact_at(from.reader.as_ref(), &mut piece, offset)?;
            file.append(&piece)?;
            offset += piece.len() as u64;
        }
        file.sync()?;
        SnapshotFile::open(&self.0.disk, &temporary.name, Some(temporary.clone()), &self.0.transfers)
    }

    /// Gives a synced file its final name and lets the oldest go.
    fn publish(&self, mut file: SnapshotFile) -> io::Result<SnapshotFile> {
        let mut published = self.published();
        let position = position(file.meta.last_log_id.as_ref());
        if file.temporary.is_some() {
            failpoint::hit("snapshot.rename.before")?;
            let name = name_of(position);
            let named = self.0.disk.snapshots.publish(&file.name, &name);
            named.and_then(|()| failpoint::hit("snapshot.rename.after")).map_err(NotPublished::wrap)?;
            file.name = name;
            file.temporary = None;
        }
        published.positions.push(position);
        published.positions.sort_unstable();
        published.positions.dedup();
        if published.positions.last() == Some(&position) {
            published.current = Some(file.clone());
        }
        while published.positions.len() > KEPT {
            let oldest = published.positions.remove(0);
            // A file too many does no harm: the next start or the next snapshot looks again.
            if let Err(error) = self.0.disk.snapshots.remove(&name_of(oldest)) {
                tracing::warn!(name = name_of(oldest), %error, "cannot remove an old snapshot");
            }
        }
        Ok(file)
    }
}
