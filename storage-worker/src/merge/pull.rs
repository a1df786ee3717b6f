//! Pulls what one layer holds up into the layer above it, batch by batch, each read back before anything leads to it.

use crate::copy::CopyError;
use crate::copy::is_zero;
use crate::driver::DIRECT_ALIGNMENT;
use crate::driver::DomainFile;
use crate::flatten::Chain;
use crate::flatten::FlattenError;
use crate::flatten::Grain;
use crate::volume::qcow2::Additions;
use crate::volume::qcow2::Backing;
use crate::volume::qcow2::Qcow2Error;
use crate::work::CancelFlag;

/// Data that is written before it is synced and entered: what a power cut leaves unused at most.
const BATCH_BYTES: u64 = 32 << 20;
/// The same in clusters: small ones are small files' ones.
const BATCH_CLUSTERS: u64 = 512;
/// Entries that are held in memory before they are entered, those of zeros included, which take no data: 16 bytes each,
/// and a table for each where no two share one.
const BATCH_ENTRIES: u64 = 1 << 15;

/// What a merge speaks through.
#[derive(Clone, Copy)]
pub struct MergePorts<'p> {
    /// Bytes of the guest's address space that are done, and all of them.
    pub progress: &'p (dyn Fn(u64, u64) + Send + Sync),
    /// Looked at before each cluster.
    pub cancel: &'p CancelFlag,
    /// What is free where the layer above lies: without room for all of it nothing is begun.
    pub free_bytes: u64,
}

/// A cluster that was written and is to be read back.
struct Written {
    offset: u64,
    hash: blake3::Hash,
}

/// A merge that goes on.
struct Pull<'m, 'f, F> {
    chain: Chain<F>,
    additions: Additions<'f, F>,
    /// The same file, read past the page cache where that is possible.
    reader: &'m F,
    ports: MergePorts<'m>,
    written: Vec<Written>,
    /// Data of the batch.
    batch_bytes: u64,
    /// Entries of it, zeros included.
    batch_entries: u64,
}

/// Gives `child`, which lies over `backing`, whatever the flattened layer of `chain` holds and it does not. Begun again,
/// it goes on. `reader` is the same file as `child`. The caller bears no other user of it.
///
/// # Errors
/// When an image is not sound or not of our own making, what was written does not read back, it was stopped, or the
/// storage fails. What a guest sees is the same as before, in any case.
pub fn pull<F: DomainFile>(
    chain: Chain<F>,
    child: &F,
    reader: &F,
    backing: &str,
    ports: MergePorts<'_>,
) -> Result<(), FlattenError> {
    let open = || {
        Additions::new(child, Backing::Named(backing), ports.cancel)
            .map_err(|error| FlattenError::of_layer(child.entry(), error))
    };
    let additions = open()?;
    if additions.virtual_bytes() < chain.virtual_bytes() {
        let text = format!("the layer `{}` is smaller than the one beneath it", child.entry());
        return Err(FlattenError::Order(text));
    }
    let mut pull = Pull { chain, additions, reader, ports, written: Vec::new(), batch_bytes: 0, batch_entries: 0 };
    let clusters = pull.count_missing()?;
    if clusters > 0 {
        pull.require_free(clusters)?;
        pull.additions.make_room(clusters).map_err(|error| pull.failed(error))?;
    }
    pull.all()?;
    let Pull { chain, additions, .. } = pull;
    additions.finish().map_err(|error| FlattenError::of_layer(child.entry(), error))?;
    // Its tables are checked from the beginning, and nothing may be missing now.
    let additions = open()?;
    let mut again = Pull { chain, additions, reader, ports, written: Vec::new(), batch_bytes: 0, batch_entries: 0 };
    match again.next_missing(0)? {
        None => Ok(()),
        Some((at, _)) => Err(FlattenError::Order(format!("byte {at} is still missing after the merge"))),
    }
}

impl<F: DomainFile> Pull<'_, '_, F> {
    fn failed(&self, error: Qcow2Error) -> FlattenError {
        match error {
            Qcow2Error::Storage(error) => FlattenError::Copy(CopyError::target(error, self.additions.cluster_bytes())),
            error => FlattenError::of_layer(self.reader.entry(), error),
        }
    }

    /// The next cluster from `at` on, itself the beginning of one, that has to be entered above, and as what.
    fn next_missing(&mut self, mut at: u64) -> Result<Option<(u64, Grain)>, FlattenError> {
        let (bytes, cluster) = (self.additions.virtual_bytes(), self.additions.cluster_bytes());
        while at < bytes {
            if self.ports.cancel.is_set() {
                return Err(CopyError::Cancelled.into());
            }
            let end = at + self.chain.unheld(at, bytes - at)?;
            let next = if end >= bytes { bytes } else { end - end % cluster };
            if next > at {
                at = next;
                continue;
            }
            let end = (at + cluster).min(bytes);
            if !self.additions.holds(at).map_err(|error| self.failed(error))? {
                let grain = self.chain.grain(at..end)?;
                if grain != Grain::Unallocated {
                    return Ok(Some((at, grain)));
                }
            }
            at = end;
        }
        Ok(None)
    }

    /// Clusters that are taken at most: data, and L2 tables that are lacking.
    fn count_missing(&mut self) -> Result<u64, FlattenError> {
        let (mut clusters, mut counted, mut at) = (0_u64, None, 0);
        while let Some((guest, grain)) = self.next_missing(at)? {
            let table = self.additions.table_of(guest);
            if counted != Some(table) && !self.additions.has_table(table) {
                clusters += 1;
                counted = Some(table);
            }
            clusters += u64::from(grain == Grain::Data);
            at = guest + self.additions.cluster_bytes();
        }
        Ok(clusters)
    }

    /// Refuses at the beginning what would end without space after all the rest was written. What an earlier run left
    /// behind the last cluster in use is taken first, and has its space already.
    fn require_free(&self, clusters: u64) -> Result<(), FlattenError> {
        let needed = self.additions.bytes_for(clusters);
        let stat = self.reader.stat().map_err(CopyError::Target)?;
        let left_over = stat.allocated_bytes.saturating_sub(self.additions.bytes_in_use());
        let free = self.ports.free_bytes.saturating_add(left_over);
        if needed > free { Err(FlattenError::NoRoom { needed, free }) } else { Ok(()) }
    }

    fn all(&mut self) -> Result<(), FlattenError> {
        let (bytes, cluster) = (self.additions.virtual_bytes(), self.additions.cluster_bytes());
        let mut buffer = vec![0; usize::try_from(cluster).unwrap_or(0)];
        let mut at = 0;
        while let Some((guest, grain)) = self.next_missing(at)? {
            at = guest + cluster;
            buffer.fill(0);
            if grain == Grain::Data {
                let seen = usize::try_from((bytes - guest).min(cluster)).unwrap_or(0);
                self.chain.read(buffer.get_mut(..seen).unwrap_or_default(), guest)?;
            }
            self.batch_entries += 1;
            if is_zero(&buffer) {
                self.additions.zero(guest).map_err(|error| self.failed(error))?;
            } else {
                let offset = self.additions.put(guest, &buffer).map_err(|error| self.failed(error))?;
                self.written.push(Written { offset, hash: blake3::hash(&buffer) });
                self.batch_bytes += cluster;
            }
            let is_full = self.batch_bytes >= BATCH_BYTES.min(BATCH_CLUSTERS * cluster);
            if is_full || self.batch_entries >= BATCH_ENTRIES {
                self.enter_batch()?;
                (self.ports.progress)(at.min(bytes), bytes);
            }
        }
        self.enter_batch()?;
        (self.ports.progress)(bytes, bytes);
        Ok(())
    }

    /// Durable, read back, then led to.
    fn enter_batch(&mut self) -> Result<(), FlattenError> {
        self.additions.settle().map_err(|error| self.failed(error))?;
        let cluster = usize::try_from(self.additions.cluster_bytes()).unwrap_or(0);
        let mut memory = vec![0; cluster + DIRECT_ALIGNMENT];
        let skew = memory.as_ptr().align_offset(DIRECT_ALIGNMENT).min(DIRECT_ALIGNMENT);
        let buffer = memory.get_mut(skew..skew + cluster).unwrap_or_default();
        for Written { offset, hash } in self.written.drain(..) {
            let read = self.reader.read_at(buffer, offset).map_err(CopyError::Target)?;
            let found = blake3::hash(buffer.get(..read).unwrap_or_default());
            if found != hash {
                return Err(CopyError::HashMismatch { expected: hash.into(), found: found.into() }.into());
            }
        }
        (self.batch_bytes, self.batch_entries) = (0, 0);
        self.additions.enter().map_err(|error| self.failed(error))
    }
}
