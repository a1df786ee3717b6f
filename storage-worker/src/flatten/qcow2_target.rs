//! Layers written as a qcow2 image: data and tables one after the other as they come, refcounts at the end, the header
//! when all that is durable.
//!
//! Each cluster up to the file's end is used exactly once, so refcounts are computed from the number of clusters alone.

use std::sync::Arc;

use crate::copy::BufferPool;
use crate::copy::CopyError;
use crate::copy::Pipeline;
use crate::driver::DomainFile;
use crate::volume::qcow2::BackingFile;
use crate::volume::qcow2::NewImage;

use super::Chain;
use super::FlattenError;
use super::FlattenPorts;
use super::Flattened;
use super::plan::GRAIN_BYTES;
use super::plan::Grain;
use super::plan::Planner;
use super::stream::Stream;
use super::units::UnitRead;
use super::units::Zeros;
use super::units::read_unit;

/// Writes what the flattened layers hold to `target`, a new and empty file, as an image over `backing`.
///
/// # Errors
/// See [`FlattenError`]. No thread touches any of the files after it returned.
pub async fn flatten_to_qcow2<F: DomainFile>(
    chain: Chain<F>,
    target: Arc<F>,
    virtual_bytes: u64,
    backing: Option<&BackingFile>,
    threads: usize,
    ports: FlattenPorts<'_>,
) -> Result<Flattened, FlattenError> {
    if chain.has_beneath() != backing.is_some() {
        return Err(FlattenError::Order("what lies beneath the target is not what lies beneath its layers".to_owned()));
    }
    let (layers, pool) = (chain.bytes(), BufferPool::default());
    let zeros = if backing.is_some() { Zeros::Zero } else { Zeros::Unallocated };
    let mut planner = Planner::new(chain, virtual_bytes);
    let mut reading: Pipeline<Result<UnitRead, FlattenError>> = Pipeline::new(threads);
    let mut image = Image::new(Stream::new(target, layers.clone(), threads), virtual_bytes).await?;
    let mut is_planned = false;
    loop {
        while !is_planned && !reading.is_full() {
            if ports.cancel.is_set() {
                return Err(CopyError::Cancelled.into());
            }
            let Some(plan) = planner.next()? else {
                is_planned = true;
                break;
            };
            let (layers, pool) = (layers.clone(), pool.clone());
            reading.push(move || read_unit(&layers, &pool, plan, zeros));
        }
        let Some(read) = reading.next().await? else { break };
        let read = read?;
        image.take(&read).await?;
        (ports.progress)(read.plan.start + read.plan.length as u64, virtual_bytes);
    }
    drop(reading);
    (ports.progress)(planner.position(), virtual_bytes);
    image.finish(backing).await
}

/// An image that is being written.
struct Image<F> {
    stream: Stream<F>,
    layout: NewImage,
}

impl<F: DomainFile> Image<F> {
    async fn new(mut stream: Stream<F>, virtual_bytes: u64) -> Result<Self, FlattenError> {
        // The header's place.
        stream.append(&[], None).await?;
        Ok(Self { stream, layout: NewImage::new(virtual_bytes) })
    }

    /// Takes what was read, unit by unit as the guest's addresses rise.
    async fn take(&mut self, read: &UnitRead) -> Result<(), FlattenError> {
        let origins: Vec<_> = read.origins().collect();
        for (number, grain) in read.plan.grains.iter().enumerate() {
            let at = number * GRAIN_BYTES;
            let guest = read.plan.start + at as u64;
            if *grain == Grain::Unallocated || at >= read.plan.length {
                continue;
            }
            if let Some((l2_index, table)) = self.layout.enter(guest) {
                let offset = self.stream.append_table(&table).await?;
                self.layout.place_l2(l2_index, offset);
            }
            if *grain == Grain::Zero {
                self.layout.zero(guest);
                continue;
            }
            let bytes = read.grain(number);
            let from = origins.iter().find(|origin| origin.range.start <= at && at + GRAIN_BYTES <= origin.range.end);
            let from = from.map(|origin| (origin.layer, origin.offset + (at - origin.range.start) as u64));
            let offset = self.stream.append(bytes, from).await?;
            self.layout.data(guest, offset);
        }
        Ok(())
    }

    async fn finish(mut self, backing: Option<&BackingFile>) -> Result<Flattened, FlattenError> {
        if let Some((index, table)) = self.layout.leave() {
            let offset = self.stream.append_table(&table).await?;
            self.layout.place_l2(index, offset);
        }
        let l1_offset = self.stream.append_table(&self.layout.l1()).await?;
        let refcounts = NewImage::refcounts(self.stream.position());
        for block in refcounts.blocks() {
            self.stream.append(&block, None).await?;
        }
        let table_offset = self.stream.append_table(refcounts.table()).await?;
        let header = self.layout.header(l1_offset, table_offset, refcounts.table_clusters(), backing);
        self.stream.finish(&header).await
    }
}
