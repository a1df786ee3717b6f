//! Layers sent as a raw image: the guest's bytes as a stream of pieces, zeros left out.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::copy::BufferPool;
use crate::copy::CopyError;
use crate::copy::PieceStream;
use crate::copy::Pipeline;
use crate::copy::ReadUnit;
use crate::copy::Sent;
use crate::copy::UNIT_BYTES;
use crate::copy::hash_unit;
use crate::copy::unit_count;
use crate::driver::DomainFile;
use crate::work::Piece;

use super::Chain;
use super::FlattenError;
use super::FlattenPorts;
use super::plan::GRAIN_BYTES;
use super::plan::Grain;
use super::plan::Planner;
use super::plan::UnitPlan;
use super::units::UnitRead;
use super::units::Zeros;
use super::units::read_unit;

/// Sends what a guest sees through all layers, as the file of this ordinal, through a bounded channel.
///
/// # Errors
/// See [`FlattenError`]. No thread touches any of the files after it returned.
pub async fn send_flattened<F: DomainFile>(
    chain: Chain<F>,
    ordinal: u32,
    outgoing: &mpsc::Sender<Piece>,
    threads: usize,
    ports: FlattenPorts<'_>,
) -> Result<Sent, FlattenError> {
    if chain.has_beneath() {
        return Err(FlattenError::Order("an image is sent whole, or not at all".to_owned()));
    }
    let (bytes, layers, pool) = (chain.virtual_bytes(), chain.bytes(), BufferPool::default());
    let units = unit_count(bytes);
    let mut planner = Planner::new(chain, bytes);
    let mut pipeline: Pipeline<Result<ReadUnit, FlattenError>> = Pipeline::new(threads);
    let mut stream = PieceStream::open(outgoing, ports.cancel, ordinal, bytes, bytes).await?;
    let (mut handed_on, mut planned, mut is_planned_out) = (0, None::<UnitPlan>, false);
    loop {
        while handed_on < units && !pipeline.is_full() {
            if ports.cancel.is_set() {
                return Err(CopyError::Cancelled.into());
            }
            if planned.is_none() && !is_planned_out {
                planned = planner.next()?;
                is_planned_out = planned.is_none();
            }
            let index = handed_on;
            handed_on += 1;
            match planned.take_if(|plan| plan.start / UNIT_BYTES as u64 == index) {
                Some(plan) => {
                    let (layers, pool) = (layers.clone(), pool.clone());
                    pipeline.push(move || {
                        read_unit(&layers, &pool, plan, Zeros::Unallocated).map(|read| of_unit(read, bytes))
                    });
                }
                None => pipeline.push(move || Ok(hole(index, bytes))),
            }
        }
        let Some(read) = pipeline.next().await? else { break };
        let read = read?;
        let done = (read.start + read.length as u64).min(bytes);
        stream.send_unit(read).await?;
        (ports.progress)(done, bytes);
    }
    Ok(stream.finish(bytes, None).await?)
}

/// A unit in which no layer holds anything: its zeros count in the hash.
fn hole(index: u64, bytes: u64) -> ReadUnit {
    let start = index * UNIT_BYTES as u64;
    let length = usize::try_from(bytes.saturating_sub(start)).unwrap_or(UNIT_BYTES).min(UNIT_BYTES);
    let hash = hash_unit(&[], index, bytes);
    ReadUnit { index, start, length, bytes: Bytes::new(), data: Vec::new(), sent_hash: hash, file_hash: hash }
}

fn of_unit(read: UnitRead, bytes: u64) -> ReadUnit {
    let UnitRead { plan, buffer } = read;
    let index = plan.start / UNIT_BYTES as u64;
    let hash = hash_unit(buffer.bytes().get(..plan.length).unwrap_or_default(), index, bytes);
    ReadUnit {
        index,
        start: plan.start,
        length: plan.length,
        data: data_of(&plan),
        bytes: Bytes::from_owner(buffer),
        sent_hash: hash,
        file_hash: hash,
    }
}

/// Neighbouring grains that hold data, as one.
fn data_of(plan: &UnitPlan) -> Vec<Range<usize>> {
    let mut data: Vec<Range<usize>> = Vec::new();
    for (number, grain) in plan.grains.iter().enumerate() {
        let (start, end) = (number * GRAIN_BYTES, ((number + 1) * GRAIN_BYTES).min(plan.length));
        if *grain != Grain::Data || start >= end {
            continue;
        }
        match data.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => data.push(start..end),
        }
    }
    data
}
