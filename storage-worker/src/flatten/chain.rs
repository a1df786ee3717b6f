//! The layers of a chain, opened one by one and checked before they are believed, and what a guest sees through them.

use std::ops::Range;
use std::sync::Arc;

use crate::copy::CopyError;
use crate::driver::DomainFile;
use crate::volume::qcow2;
use crate::volume::qcow2::Backing;
use crate::volume::qcow2::Compression;
use crate::volume::qcow2::FileImage;
use crate::volume::qcow2::Map;
use crate::volume::qcow2::Mapped;
use crate::work::CancelFlag;

use super::FlattenError;

/// A layer's format, as the catalog says; never probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerFormat<'n> {
    /// The guest's bytes. Only the lowest layer can be raw.
    Raw,
    /// qcow2, whose header must name the layer beneath it like this, or nothing when it is the lowest.
    Qcow2 {
        /// The bare name.
        backing: Option<&'n str>,
    },
}

/// What lies behind a stretch of the guest's address space, and in which layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// No layer that was asked holds it.
    Unallocated,
    /// Zeros.
    Zero,
    /// Bytes of a layer's file.
    Data { layer: usize, offset: u64 },
    /// A part of a compressed cluster of a layer.
    Compressed { layer: usize, host: u64, stored: u64, within: u64 },
}

/// The bytes of a layer, for any thread.
#[derive(Debug)]
pub(super) struct LayerBytes<F> {
    pub file: Arc<F>,
    file_bytes: u64,
    /// Of compressed clusters.
    compression: Compression,
    cluster_bytes: usize,
}

/// Where a layer's bytes lie.
#[derive(Debug)]
enum Mapping {
    /// The run of data that the walk is in or before, and from where on that is known: an empty run at 0 for nowhere,
    /// none past the last one.
    Raw {
        known_from: u64,
        run: Option<Range<u64>>,
    },
    Qcow2(Box<Map>),
}

#[derive(Debug)]
struct Layer<F> {
    file: Arc<F>,
    file_bytes: u64,
    virtual_bytes: u64,
    mapping: Mapping,
}

/// Layers that are being opened, base first.
#[derive(Debug)]
pub struct ChainBuilder<F> {
    layers: Vec<Layer<F>>,
    bytes: Vec<LayerBytes<F>>,
}

impl<F: DomainFile> Default for ChainBuilder<F> {
    fn default() -> Self {
        Self { layers: Vec::new(), bytes: Vec::new() }
    }
}

/// Whether a layer is to be flattened, or lies beneath those that are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Beneath,
    Flattened,
}

impl<F: DomainFile> ChainBuilder<F> {
    /// Adds a layer that stays beneath the target.
    ///
    /// # Errors
    /// When it is not a sound image of this format.
    pub fn beneath(&mut self, file: Arc<F>, format: LayerFormat<'_>, cancel: &CancelFlag) -> Result<(), FlattenError> {
        self.add(file, format, Part::Beneath, cancel)
    }

    /// Adds a layer that is to be flattened. What the result could not hold is refused.
    ///
    /// # Errors
    /// When it is not a sound image of this format, or holds bitmaps or internal snapshots.
    pub fn flattened(
        &mut self,
        file: Arc<F>,
        format: LayerFormat<'_>,
        cancel: &CancelFlag,
    ) -> Result<(), FlattenError> {
        self.add(file, format, Part::Flattened, cancel)
    }

    fn add(
        &mut self,
        file: Arc<F>,
        format: LayerFormat<'_>,
        part: Part,
        cancel: &CancelFlag,
    ) -> Result<(), FlattenError> {
        // The hole map and the tables are only right for what is on storage.
        file.sync().map_err(CopyError::Source)?;
        let file_bytes = file.stat().map_err(CopyError::Source)?.bytes;
        let (mut compression, mut cluster_bytes) = (Compression::Zlib, 0);
        let (virtual_bytes, mapping) = match format {
            LayerFormat::Raw if !self.layers.is_empty() => {
                return Err(FlattenError::Order(format!("the raw volume `{}` lies over another one", file.entry())));
            }
            LayerFormat::Raw => (file_bytes, Mapping::Raw { known_from: 0, run: Some(0..0) }),
            LayerFormat::Qcow2 { backing } => {
                let header = checked_header(file.as_ref(), backing, part, cancel)?;
                compression = header.compression;
                cluster_bytes = usize::try_from(header.cluster_bytes()).unwrap_or(0);
                (header.virtual_bytes, Mapping::Qcow2(Box::new(Map::new(header))))
            }
        };
        self.bytes.push(LayerBytes { file: file.clone(), file_bytes, compression, cluster_bytes });
        self.layers.push(Layer { file, file_bytes, virtual_bytes, mapping });
        Ok(())
    }

    /// How many layers it has.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Has it none?
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// The chain; its first `beneath` layers stay.
    #[must_use]
    pub fn finish(self, beneath: usize) -> Chain<F> {
        Chain { layers: self.layers, bytes: Arc::new(self.bytes), beneath }
    }
}

/// Header and all tables of a layer, checked.
fn checked_header<F: DomainFile>(
    file: &F,
    backing: Option<&str>,
    part: Part,
    cancel: &CancelFlag,
) -> Result<qcow2::Header, FlattenError> {
    let backing = backing.map_or(Backing::None, Backing::Named);
    let layer = |error| FlattenError::of_layer(file.entry(), error);
    let image = FileImage::new(file).map_err(CopyError::Source)?;
    let (header, facts) = qcow2::check_layer(&image, backing, cancel).map_err(layer)?;
    if part == Part::Flattened && facts.bitmaps > 0 {
        return Err(layer(qcow2::Qcow2Error::WouldBeLost {
            what: format!("{} dirty bitmaps", facts.bitmaps),
            hint: "take them away with `qemu-img bitmap --remove FILE NAME` if no backup needs them",
        }));
    }
    if part == Part::Flattened && facts.snapshots > 0 {
        return Err(layer(qcow2::Qcow2Error::WouldBeLost {
            what: format!("{} internal snapshots", facts.snapshots),
            hint: "take them away with `qemu-img snapshot -d NAME FILE`, or copy the image without changing its format",
        }));
    }
    Ok(header)
}

/// Layers, base first, of which the upper ones are flattened.
#[derive(Debug)]
pub struct Chain<F> {
    layers: Vec<Layer<F>>,
    bytes: Arc<Vec<LayerBytes<F>>>,
    /// How many of them stay beneath the target.
    beneath: usize,
}

impl<F: DomainFile> Chain<F> {
    /// The bytes of all layers.
    pub(super) fn bytes(&self) -> Arc<Vec<LayerBytes<F>>> {
        self.bytes.clone()
    }

    /// Does anything lie beneath the target?
    pub(super) fn has_beneath(&self) -> bool {
        self.beneath > 0
    }

    /// What the uppermost layer says a guest sees.
    #[must_use]
    pub fn virtual_bytes(&self) -> u64 {
        self.layers.last().map_or(0, |layer| layer.virtual_bytes)
    }

    /// What the flattened layers hold at `offset`, and how far that goes.
    pub(super) fn content_at(&mut self, offset: u64, limit: u64) -> Result<(Piece, u64), FlattenError> {
        self.look(self.beneath, offset, limit)
    }

    /// What a guest sees at `offset`, through all layers, and how far that goes.
    pub(super) fn view_at(&mut self, offset: u64, limit: u64) -> Result<(Piece, u64), FlattenError> {
        self.look(0, offset, limit)
    }

    fn look(&mut self, lowest: usize, offset: u64, mut limit: u64) -> Result<(Piece, u64), FlattenError> {
        let shown_beneath = self.layers.get(..lowest).unwrap_or_default().iter().map(|layer| layer.virtual_bytes).max();
        for (number, layer) in self.layers.iter_mut().enumerate().skip(lowest).rev() {
            if offset >= layer.virtual_bytes {
                // Behind the end of a layer whoever lies over it sees zeros, whatever lies deeper.
                return Ok(match shown_beneath {
                    Some(bytes) if offset < bytes => (Piece::Zero, limit.min(bytes - offset)),
                    _ => (Piece::Unallocated, limit),
                });
            }
            let (piece, length) = layer.run_at(number, offset, limit.min(layer.virtual_bytes - offset))?;
            if piece != Piece::Unallocated {
                return Ok((piece, length));
            }
            limit = length;
        }
        Ok((Piece::Unallocated, limit))
    }
}

impl<F: DomainFile> Layer<F> {
    fn run_at(&mut self, number: usize, offset: u64, limit: u64) -> Result<(Piece, u64), FlattenError> {
        match &mut self.mapping {
            Mapping::Raw { known_from, run } => {
                let is_known = offset >= *known_from && run.as_ref().is_none_or(|run| offset < run.end);
                if !is_known {
                    *run = self.file.next_data(offset).map_err(CopyError::Source)?;
                    *known_from = offset;
                }
                Ok(match run {
                    Some(run) if run.contains(&offset) => {
                        (Piece::Data { layer: number, offset }, limit.min(run.end - offset))
                    }
                    Some(run) => (Piece::Unallocated, limit.min(run.start.saturating_sub(offset).max(1))),
                    None => (Piece::Unallocated, limit),
                })
            }
            Mapping::Qcow2(map) => {
                let image = FileImage::of_size(self.file.as_ref(), self.file_bytes);
                let (mapped, length) = map
                    .run_at(&image, offset, limit)
                    .map_err(|error| FlattenError::of_layer(self.file.entry(), error))?;
                let piece = match mapped {
                    Mapped::Unallocated => Piece::Unallocated,
                    Mapped::Zero => Piece::Zero,
                    Mapped::Data { offset } => Piece::Data { layer: number, offset },
                    Mapped::Compressed { host, stored, within } => {
                        Piece::Compressed { layer: number, host, stored, within }
                    }
                };
                Ok((piece, length))
            }
        }
    }
}

impl<F: DomainFile> LayerBytes<F> {
    /// Fills `buffer` from an offset of the file.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), FlattenError> {
        let wanted = buffer.len();
        let read = self.file.read_at(buffer, offset).map_err(CopyError::Source)?;
        if read < wanted {
            let at = offset.saturating_add(read as u64);
            return Err(CopyError::SourceCut { entry: self.file.entry().to_owned(), at }.into());
        }
        Ok(())
    }

    /// Fills `buffer` from a compressed cluster.
    pub fn decompress(&self, buffer: &mut [u8], host: u64, stored: u64, within: u64) -> Result<(), FlattenError> {
        let stored = stored.min(self.file_bytes.saturating_sub(host));
        let mut compressed = vec![0; usize::try_from(stored).unwrap_or(0)];
        self.read(&mut compressed, host)?;
        let mut cluster = vec![0; self.cluster_bytes];
        let is_sound = qcow2::decompress(self.compression, &compressed, &mut cluster);
        let within = usize::try_from(within).unwrap_or(usize::MAX);
        let part = within.checked_add(buffer.len()).and_then(|end| cluster.get(within..end)).filter(|_| is_sound);
        match part {
            Some(part) => {
                buffer.copy_from_slice(part);
                Ok(())
            }
            None => Err(FlattenError::of_layer(self.file.entry(), qcow2::Qcow2Error::Compressed { offset: host })),
        }
    }
}
