//! Builds a placement layer by layer: links, new volumes, copies of bytes, and layers flattened into one.

use std::sync::Arc;

use uuid::Uuid;

use super::BuildChain;
use super::LayerSource;
use super::Ports;
use super::RefusalCode;
use super::SourceChain;
use super::SourceVolume;
use super::VolumeFormat;
use super::VolumeReport;
use super::VolumeSpec;
use super::build::Advance;
use super::build::checkpoint_of;
use super::build::new_volume;
use super::build::report;
use super::merge::format_name;
use super::merge::rebase_in_attempt;
use super::merge::refused_to_rebase;
use super::run::finish;
use super::run::open_volume;
use super::run::require_sound;
use super::verdict::Unfinished;
use super::verdict::refused;
use super::verdict::require_size;
use crate::copy::CopyPorts;
use crate::copy::copy_file;
use crate::domain::Attempt;
use crate::domain::Domain;
use crate::driver::DomainDriver;
use crate::driver::DomainFile;
use crate::driver::EntryStat;
use crate::driver::Storage;
use crate::flatten::ChainBuilder;
use crate::flatten::FlattenPorts;
use crate::flatten::LayerFormat;
use crate::flatten::flatten_to_qcow2;
use crate::flatten::flatten_to_raw;
use crate::volume::RAW_ALIGNMENT;
use crate::volume::create_raw;
use crate::volume::create_raw_preallocated;
use crate::volume::qcow2::BackingFile;
use crate::volume::qcow2::create_empty;

/// What was made of a placement: its volumes' facts, and files that are not durable yet.
pub(super) struct Made<F> {
    pub reports: Vec<VolumeReport>,
    pub unsynced: Vec<F>,
}

impl<F> Made<F> {
    /// Everything is durable.
    pub fn durable(reports: Vec<VolumeReport>) -> Self {
        Self { reports, unsynced: Vec::new() }
    }
}

pub(super) async fn build_chain<S: Storage>(
    storage: &S,
    order: &BuildChain,
    ports: &Ports,
) -> Result<Vec<VolumeReport>, Unfinished> {
    match (order.rebase, build(storage, order, ports).await) {
        (Some(volume), Err(Unfinished::Refused(refusal))) => {
            Err(refused_to_rebase(storage, order, volume, refusal).await)
        }
        (_, built) => built,
    }
}

async fn build<S: Storage>(storage: &S, order: &BuildChain, ports: &Ports) -> Result<Vec<VolumeReport>, Unfinished> {
    require_sound(&order.placement)?;
    require_chain(order)?;
    let domain = Domain::open(storage, &order.placement.domain).await?;
    if let Some(volumes) = Attempt::published_already(&domain, &order.placement).await? {
        return Ok(volumes);
    }
    let sources = match &order.source {
        Some(source) => Some(Sources::open(storage, source, order).await?),
        None => None,
    };
    let attempt = Attempt::begin(&domain, &order.placement).await?;
    let mut made = Building { domain: &domain, attempt: &attempt, order, sources: sources.as_ref(), ports }.all().await;
    if let (Some(volume), Ok(built)) = (order.rebase, &mut made) {
        // Everything else is there: nothing but the storage can be in the way of the rest. The sources' locks are those
        // of a reader, and bear no writer.
        drop(sources);
        for report in built.reports.iter_mut().filter(|report| report.volume == volume) {
            report.hash = None;
        }
        if let Err(error) = rebase_in_attempt(&attempt, order, volume).await {
            made = Err(error);
        }
        return finish(attempt, made).await;
    }
    // The sources stay locked until here.
    finish(attempt, made).await
}

fn invalid(message: impl Into<String>) -> Unfinished {
    refused(RefusalCode::InvalidOrder, message, "")
}

/// Each volume lies over the one before it, and each has a source.
fn require_chain(order: &BuildChain) -> Result<(), Unfinished> {
    let volumes = &order.placement.volumes;
    if volumes.len() != order.layers.len() {
        return Err(invalid(format!("{} volumes, but {} sources of them", volumes.len(), order.layers.len())));
    }
    let mut beneath: Option<&VolumeSpec> = None;
    for spec in volumes {
        if spec.parent != beneath.map(|beneath| beneath.volume) {
            return Err(invalid(format!("the volume {} does not lie over the one before it", spec.volume)));
        }
        if spec.parent.is_some() && spec.format == VolumeFormat::Raw {
            return Err(invalid(format!("the raw volume {} cannot lie over another one", spec.volume)));
        }
        if let (Some(child), Some(parent)) = (spec.virtual_bytes, beneath.and_then(|beneath| beneath.virtual_bytes))
            && child < parent
        {
            let message = format!("the volume {} of {child} bytes would lie over one of {parent} bytes", spec.volume);
            return Err(refused(
                RefusalCode::SizeInvalid,
                message,
                "a layer is at least as large as what it lies over",
            ));
        }
        beneath = Some(spec);
    }
    Ok(())
}

/// A volume of the source chain that is needed, open and locked.
struct OpenVolume<F> {
    file: Arc<F>,
    stat: EntryStat,
}

/// The chain that is built from.
struct Sources<'o, F> {
    chain: &'o SourceChain,
    /// In the chain's order; what no layer needs is not opened.
    files: Vec<Option<OpenVolume<F>>>,
}

impl<'o, F: DomainFile> Sources<'o, F> {
    async fn open<S, D>(storage: &S, chain: &'o SourceChain, order: &BuildChain) -> Result<Self, Unfinished>
    where
        S: Storage<Driver = D>,
        D: DomainDriver<File = F>,
    {
        let domain = Domain::open(storage, &chain.at.domain).await?;
        domain.require_placement(chain.at.placement, &chain.at.token).await?;
        let needed = needed(chain, order)?;
        let mut files = Vec::new();
        for (volume, is_needed) in chain.volumes.iter().zip(needed) {
            files.push(if is_needed {
                let file = open_volume(&domain, chain.at.placement, volume.volume).await?;
                let stat = file.stat()?;
                Some(OpenVolume { file, stat })
            } else {
                None
            });
        }
        Ok(Self { chain, files })
    }

    fn position(&self, volume: Uuid) -> Result<usize, Unfinished> {
        position(self.chain, volume)
    }

    fn get(&self, volume: Uuid) -> Result<(&'o SourceVolume, &OpenVolume<F>), Unfinished> {
        let position = self.position(volume)?;
        match (self.chain.volumes.get(position), self.files.get(position)) {
            (Some(known), Some(Some(open))) => Ok((known, open)),
            _ => Err(invalid(format!("the source volume {volume} was not opened"))),
        }
    }
}

fn position(chain: &SourceChain, volume: Uuid) -> Result<usize, Unfinished> {
    let found = chain.volumes.iter().position(|known| known.volume == volume);
    found.ok_or_else(|| invalid(format!("the source has no volume {volume}")))
}

/// Which volumes of the source are read or linked. A flatten reads what lies beneath its layers too: where a layer has
/// smaller clusters than the target, what shows beneath them is written with them.
fn needed(chain: &SourceChain, order: &BuildChain) -> Result<Vec<bool>, Unfinished> {
    let mut needed = vec![false; chain.volumes.len()];
    let mut mark = |range: std::ops::RangeInclusive<usize>| {
        needed.get_mut(range).unwrap_or_default().fill(true);
    };
    for (spec, layer) in order.placement.volumes.iter().zip(&order.layers) {
        match layer {
            LayerSource::Fresh => {}
            LayerSource::Link => {
                let at = position(chain, spec.volume)?;
                mark(at..=at);
            }
            LayerSource::Bytes { volume } => {
                let at = position(chain, *volume)?;
                mark(at..=at);
            }
            LayerSource::Flatten { volumes } => {
                let last = volumes.last().ok_or_else(|| invalid("a flatten of no volumes"))?;
                mark(0..=position(chain, *last)?);
            }
        }
    }
    Ok(needed)
}

/// A placement's layers, while they are built.
struct Building<'b, D: DomainDriver> {
    domain: &'b Domain<D>,
    attempt: &'b Attempt<'b, D>,
    order: &'b BuildChain,
    sources: Option<&'b Sources<'b, D::File>>,
    ports: &'b Ports,
}

impl<D: DomainDriver> Building<'_, D> {
    async fn all(&self) -> Result<Made<D::File>, Unfinished> {
        let mut advance = Advance::new(self.ports, self.total_bytes());
        let mut made = Made::durable(Vec::new());
        for (index, (spec, layer)) in self.order.placement.volumes.iter().zip(&self.order.layers).enumerate() {
            let report = match layer {
                LayerSource::Fresh => self.fresh(index, spec, &mut made, &advance).await?,
                LayerSource::Link => self.link(spec, &mut advance).await?,
                LayerSource::Bytes { volume } => self.bytes(spec, *volume, &mut advance).await?,
                LayerSource::Flatten { volumes } => self.flatten(index, spec, volumes, &mut advance).await?,
            };
            made.reports.push(report);
        }
        Ok(made)
    }

    /// Bytes that are read, or reserved one by one.
    fn total_bytes(&self) -> u64 {
        let of = |(spec, layer): (&VolumeSpec, &LayerSource)| match layer {
            LayerSource::Bytes { volume } => {
                let source = self.sources.and_then(|sources| sources.get(*volume).ok());
                source.map_or(0, |(_, open)| open.stat.bytes)
            }
            LayerSource::Flatten { .. } => spec.virtual_bytes.unwrap_or(0),
            LayerSource::Link | LayerSource::Fresh => 0,
        };
        self.order.placement.volumes.iter().zip(&self.order.layers).map(of).fold(0, u64::saturating_add)
    }

    fn sources(&self) -> Result<&Sources<'_, D::File>, Unfinished> {
        self.sources.ok_or_else(|| invalid("there is no source"))
    }

    /// The layer beneath, as a header names it.
    fn backing(&self, index: usize) -> Option<BackingFile> {
        let beneath = index.checked_sub(1).and_then(|index| self.order.placement.volumes.get(index))?;
        Some(BackingFile { name: beneath.volume.to_string(), format: format_name(beneath.format) })
    }

    async fn fresh(
        &self,
        index: usize,
        spec: &VolumeSpec,
        made: &mut Made<D::File>,
        advance: &Advance,
    ) -> Result<VolumeReport, Unfinished> {
        let file = self.attempt.create_empty_volume(spec.volume).await?;
        let report = fresh_volume(&file, spec, self.backing(index).as_ref(), self.ports, advance)?;
        made.unsynced.push(file);
        Ok(report)
    }

    async fn link(&self, spec: &VolumeSpec, advance: &mut Advance) -> Result<VolumeReport, Unfinished> {
        let sources = self.sources()?;
        let (known, open) = sources.get(spec.volume)?;
        if known.format != spec.format {
            return Err(invalid(format!("the volume {} cannot change its format by a link", spec.volume)));
        }
        let same_domain = sources.chain.at.domain.domain == self.domain.root().domain;
        if !same_domain || !self.attempt.link_volume(sources.chain.at.placement, spec.volume).await? {
            return self.bytes(spec, spec.volume, advance).await;
        }
        Ok(VolumeReport {
            volume: spec.volume,
            file_bytes: open.stat.bytes,
            allocated_bytes: open.stat.allocated_bytes,
            virtual_bytes: spec.virtual_bytes.unwrap_or(open.stat.bytes),
            true_bytes: spec.true_bytes,
            // It is the same file: what was known of it stays true.
            hash: known.expected_hash,
            qcow2: None,
        })
    }

    async fn bytes(&self, spec: &VolumeSpec, volume: Uuid, advance: &mut Advance) -> Result<VolumeReport, Unfinished> {
        let (known, open) = self.sources()?.get(volume)?;
        if known.format != spec.format {
            return Err(invalid(format!("the bytes of {volume} are of another format")));
        }
        let target = new_volume(self.attempt, spec, self.ports).await?;
        let (progress, checkpoint) = (advance.progress(), checkpoint_of(spec, self.ports));
        let copy_ports = CopyPorts {
            progress: &progress,
            checkpoint: &checkpoint,
            cancel: &self.ports.cancel,
            now_ms: self.ports.now_ms.as_ref(),
        };
        let threads = self.domain.driver().io_threads();
        let copied = copy_file(open.file.clone(), target.clone(), known.expected_hash, threads, copy_ports).await?;
        advance.add(copied.bytes);
        report(spec, target.as_ref(), spec.true_bytes, copied.hash, None)
    }

    async fn flatten(
        &self,
        index: usize,
        spec: &VolumeSpec,
        volumes: &[Uuid],
        advance: &mut Advance,
    ) -> Result<VolumeReport, Unfinished> {
        let sources = self.sources()?;
        let beneath = self.beneath(index, volumes, sources)?;
        let mut builder = ChainBuilder::default();
        let taken = sources.chain.volumes.iter().take(beneath + volumes.len()).enumerate();
        let mut below: Option<String> = None;
        for (position, known) in taken {
            let (_, open) = sources.get(known.volume)?;
            let format = match known.format {
                VolumeFormat::Raw => LayerFormat::Raw,
                VolumeFormat::Qcow2 => LayerFormat::Qcow2 { backing: below.as_deref() },
            };
            let (file, cancel) = (open.file.clone(), &self.ports.cancel);
            if position < beneath {
                builder.beneath(file, format, cancel)?;
            } else {
                builder.flattened(file, format, cancel)?;
            }
            below = Some(known.volume.to_string());
        }
        let chain = builder.finish(beneath);
        let asked = spec.virtual_bytes.unwrap_or(chain.virtual_bytes());
        require_size(asked)?;
        let granularity = if spec.format == VolumeFormat::Raw { RAW_ALIGNMENT } else { 512 };
        let virtual_bytes = asked.next_multiple_of(granularity);
        if virtual_bytes < chain.virtual_bytes() {
            let message = format!("{virtual_bytes} bytes are less than the {} of its source", chain.virtual_bytes());
            return Err(refused(RefusalCode::SizeInvalid, message, "a copy is at least as large as its source"));
        }
        let target = new_volume(self.attempt, spec, self.ports).await?;
        let progress = advance.progress();
        let ports = FlattenPorts { progress: &progress, cancel: &self.ports.cancel };
        let threads = self.domain.driver().io_threads();
        let written = match spec.format {
            VolumeFormat::Raw => flatten_to_raw(chain, target.clone(), virtual_bytes, threads, ports).await?,
            VolumeFormat::Qcow2 => {
                let backing = self.backing(index);
                flatten_to_qcow2(chain, target.clone(), virtual_bytes, backing.as_ref(), threads, ports).await?
            }
        };
        advance.add(virtual_bytes);
        let true_bytes = spec.true_bytes.or(Some(asked).filter(|asked| *asked != virtual_bytes));
        let spec = VolumeSpec { virtual_bytes: Some(virtual_bytes), ..spec.clone() };
        report(&spec, target.as_ref(), true_bytes, written.hash, None)
    }

    /// How many layers of the source lie beneath the flattened ones: they must be those that lie beneath the target.
    fn beneath(&self, index: usize, volumes: &[Uuid], sources: &Sources<'_, D::File>) -> Result<usize, Unfinished> {
        let first = volumes.first().ok_or_else(|| invalid("a flatten of no volumes"))?;
        let start = sources.position(*first)?;
        let found = sources.chain.volumes.iter().skip(start).map(|known| known.volume);
        if !found.take(volumes.len()).eq(volumes.iter().copied()) {
            return Err(invalid("the volumes of a flatten are no neighbours in their chain"));
        }
        let lower = self.order.placement.volumes.iter().zip(&self.order.layers).take(index);
        // Which volumes of the source a guest sees through them, one after the other.
        let lower: Vec<Uuid> = lower
            .flat_map(|(spec, layer)| match layer {
                LayerSource::Link => std::slice::from_ref(&spec.volume),
                LayerSource::Bytes { volume } => std::slice::from_ref(volume),
                LayerSource::Flatten { volumes } => volumes,
                // Of what is new nothing is known, and nothing that is flattened lies over it.
                LayerSource::Fresh => std::slice::from_ref(&spec.volume),
            })
            .copied()
            .collect();
        if !lower.iter().copied().eq(sources.chain.volumes.iter().take(start).map(|known| known.volume)) {
            return Err(invalid(format!("what lies beneath {first} is not what lies beneath its new volume")));
        }
        Ok(start)
    }
}

/// Makes a new file an empty volume; the caller syncs it.
pub(super) fn fresh_volume<F: DomainFile>(
    file: &F,
    spec: &VolumeSpec,
    backing: Option<&BackingFile>,
    ports: &Ports,
    advance: &Advance,
) -> Result<VolumeReport, Unfinished> {
    let asked = spec.virtual_bytes.unwrap_or(0);
    require_size(asked)?;
    let virtual_bytes = match (spec.format, spec.preallocated) {
        (VolumeFormat::Raw, false) => create_raw(file, asked)?,
        (VolumeFormat::Raw, true) => {
            let progress = advance.progress();
            let total = asked.next_multiple_of(RAW_ALIGNMENT);
            let made = create_raw_preallocated(file, asked, &ports.cancel, |done| progress(done, total))?;
            made.ok_or(Unfinished::Stopped)?
        }
        (VolumeFormat::Qcow2, false) => {
            // Sectors are the least that a guest can address.
            let bytes = asked.next_multiple_of(512);
            create_empty(file, bytes, backing)?;
            bytes
        }
        (VolumeFormat::Qcow2, true) => {
            let hint = "choose raw for a preallocated disk, or leave the preallocation out";
            return Err(refused(RefusalCode::InvalidOrder, "a preallocated qcow2 volume cannot be made", hint));
        }
    };
    let stat = file.stat()?;
    Ok(VolumeReport {
        volume: spec.volume,
        file_bytes: stat.bytes,
        allocated_bytes: stat.allocated_bytes,
        virtual_bytes,
        true_bytes: Some(asked).filter(|asked| *asked != virtual_bytes),
        hash: None,
        qcow2: None,
    })
}
