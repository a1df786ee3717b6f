//! Builds a placement from bytes that exist elsewhere: a local copy, a pull, an import.

use std::sync::Arc;
use std::sync::OnceLock;

use super::BuildPlacement;
use super::Checkpoint;
use super::LocalPlacement;
use super::Ports;
use super::Progress;
use super::Qcow2Facts;
use super::RefusalCode;
use super::Source;
use super::VolumeFormat;
use super::VolumeReport;
use super::VolumeSpec;
use super::chain::Made;
use super::run::finish;
use super::run::open_volume;
use super::run::require_sound;
use super::verdict::Unfinished;
use super::verdict::refused;
use crate::copy::CopyPorts;
use crate::copy::HeadGate;
use crate::copy::Receiving;
use crate::copy::copy_file;
use crate::copy::receive_file;
use crate::domain::Attempt;
use crate::domain::Domain;
use crate::driver::DomainDriver;
use crate::driver::DomainFile;
use crate::driver::EntryStat;
use crate::driver::Storage;
use crate::volume::RAW_ALIGNMENT;
use crate::volume::VOLUME_BYTES_MAX;
use crate::volume::create_raw_preallocated;
use crate::volume::qcow2;
use crate::volume::qcow2::FileImage;
use crate::volume::qcow2::HeadImage;
use crate::work::FileHash;

/// Progress of an order over all its volumes.
pub(super) struct Advance {
    sink: Arc<dyn Fn(Progress) + Send + Sync>,
    done_bytes: u64,
    total_bytes: u64,
}

impl Advance {
    pub fn new(ports: &Ports, total_bytes: u64) -> Self {
        Self { sink: ports.progress.clone(), done_bytes: 0, total_bytes }
    }

    /// For one volume's copy. Totals that are not known before (a stream's) grow with each volume.
    pub fn progress(&self) -> impl Fn(u64, u64) + Send + Sync + use<> {
        let (sink, base, total) = (self.sink.clone(), self.done_bytes, self.total_bytes);
        move |done, bytes| {
            let done_bytes = base.saturating_add(done);
            sink(Progress { done_bytes, total_bytes: total.max(base.saturating_add(bytes)) });
        }
    }

    pub fn add(&mut self, bytes: u64) {
        self.done_bytes = self.done_bytes.saturating_add(bytes);
    }
}

pub(super) async fn build_placement<S: Storage>(
    storage: &S,
    order: &BuildPlacement,
    ports: &mut Ports,
) -> Result<Vec<VolumeReport>, Unfinished> {
    let placement = &order.placement;
    require_sound(placement)?;
    let domain = Domain::open(storage, &placement.domain).await?;
    if let Some(volumes) = Attempt::published_already(&domain, placement).await? {
        return Ok(volumes);
    }
    match &order.source {
        Source::Local(from) => {
            let sources = Sources::open(storage, from, &placement.volumes).await?;
            let attempt = Attempt::begin(&domain, placement).await?;
            let copied = copy_volumes(&domain, &attempt, &sources, &placement.volumes, ports).await;
            // The sources stay locked until here.
            finish(attempt, copied.map(Made::durable)).await
        }
        Source::Pull | Source::Import => {
            let attempt = Attempt::begin(&domain, placement).await?;
            let received = receive_volumes(&domain, &attempt, order, ports).await;
            finish(attempt, received.map(Made::durable)).await
        }
    }
}

/// The volumes of a placement that is copied, open and locked.
struct Sources<F> {
    files: Vec<(Arc<F>, EntryStat)>,
    bytes: u64,
}

impl<F: DomainFile> Sources<F> {
    async fn open<S, D>(storage: &S, from: &LocalPlacement, specs: &[VolumeSpec]) -> Result<Self, Unfinished>
    where
        S: Storage<Driver = D>,
        D: DomainDriver<File = F>,
    {
        let domain = Domain::open(storage, &from.domain).await?;
        domain.require_placement(from.placement, &from.token).await?;
        let mut sources = Self { files: Vec::new(), bytes: 0 };
        for spec in specs {
            let file = open_volume(&domain, from.placement, spec.volume).await?;
            let stat = file.stat()?;
            sources.bytes = sources.bytes.saturating_add(stat.bytes);
            sources.files.push((file, stat));
        }
        Ok(sources)
    }
}

async fn copy_volumes<D: DomainDriver>(
    domain: &Domain<D>,
    attempt: &Attempt<'_, D>,
    sources: &Sources<D::File>,
    specs: &[VolumeSpec],
    ports: &Ports,
) -> Result<Vec<VolumeReport>, Unfinished> {
    let mut advance = Advance::new(ports, sources.bytes);
    let mut reports = Vec::new();
    for (spec, (source, _)) in specs.iter().zip(&sources.files) {
        let target = new_volume(attempt, spec, ports).await?;
        let (progress, checkpoint) = (advance.progress(), checkpoint_of(spec, ports));
        let copy_ports = CopyPorts {
            progress: &progress,
            checkpoint: &checkpoint,
            cancel: &ports.cancel,
            now_ms: ports.now_ms.as_ref(),
        };
        let threads = domain.driver().io_threads();
        let copied = copy_file(source.clone(), target.clone(), spec.expected_hash, threads, copy_ports).await?;
        advance.add(copied.bytes);
        reports.push(report(spec, target.as_ref(), spec.true_bytes, copied.hash, None)?);
    }
    Ok(reports)
}

/// A new file for the volume, before anything is written to it: with all its blocks where it is a preallocated one. What
/// is copied there afterwards leaves out holes, and unwritten blocks look like those.
pub(super) async fn new_volume<D: DomainDriver>(
    attempt: &Attempt<'_, D>,
    spec: &VolumeSpec,
    ports: &Ports,
) -> Result<Arc<D::File>, Unfinished> {
    let target = attempt.create_volume(spec.volume).await?;
    if let Some(bytes) = spec.virtual_bytes.filter(|_| spec.preallocated && spec.format == VolumeFormat::Raw) {
        create_raw_preallocated(&target, bytes, &ports.cancel, |_| {})?.ok_or(Unfinished::Stopped)?;
    }
    Ok(Arc::new(target))
}

pub(super) fn checkpoint_of(spec: &VolumeSpec, ports: &Ports) -> impl Fn(u64) + Send + Sync + use<> {
    let (sink, volume) = (ports.checkpoint.clone(), spec.volume);
    move |durable_bytes| sink(Checkpoint { volume, durable_bytes })
}

async fn receive_volumes<D: DomainDriver>(
    domain: &Domain<D>,
    attempt: &Attempt<'_, D>,
    order: &BuildPlacement,
    ports: &mut Ports,
) -> Result<Vec<VolumeReport>, Unfinished> {
    let Some(mut incoming) = ports.incoming.take() else {
        return Err(refused(RefusalCode::InvalidOrder, "there is no port to receive from", ""));
    };
    let is_import = order.source == Source::Import;
    let mut advance = Advance::new(ports, 0);
    let mut reports = Vec::new();
    for (ordinal, spec) in (0_u32..).zip(&order.placement.volumes) {
        let target = new_volume(attempt, spec, ports).await?;
        let is_rounded = is_import && spec.format == VolumeFormat::Raw;
        let is_judged = is_import && spec.format == VolumeFormat::Qcow2;
        // A stranger's header is looked at as soon as it is here: the rest may be a terabyte.
        let refused_head = OnceLock::new();
        let is_wanted = |head: &[u8], file_bytes: u64| match qcow2::Header::read(&HeadImage::new(head, file_bytes)) {
            Ok(_) => true,
            Err(error) => refused_head.set(error).is_err(),
        };
        let receiving = Receiving {
            ordinal,
            round_to: if is_rounded { RAW_ALIGNMENT } else { 1 },
            bytes_max: VOLUME_BYTES_MAX,
            bytes: spec.announced_bytes,
            head: is_judged.then_some(HeadGate { bytes: qcow2::HEAD_BYTES, is_wanted: &is_wanted }),
            expected: spec.expected_hash,
            threads: domain.driver().io_threads(),
        };
        let (progress, checkpoint) = (advance.progress(), checkpoint_of(spec, ports));
        let copy_ports = CopyPorts {
            progress: &progress,
            checkpoint: &checkpoint,
            cancel: &ports.cancel,
            now_ms: ports.now_ms.as_ref(),
        };
        let received = receive_file(target.clone(), receiving, &mut incoming, copy_ports).await;
        if let Some(error) = refused_head.into_inner() {
            return Err(error.into());
        }
        let received = received?;
        advance.add(received.bytes);
        // A stranger's image is judged before anything of it gets a name that counts.
        let facts = match spec.format {
            VolumeFormat::Qcow2 if is_judged => Some(qcow2::check(&FileImage::new(target.as_ref())?, &ports.cancel)?),
            _ => None,
        };
        let true_bytes = if is_rounded {
            Some(received.bytes).filter(|bytes| *bytes != received.file_bytes)
        } else {
            spec.true_bytes
        };
        reports.push(report(spec, target.as_ref(), true_bytes, received.hash, facts)?);
    }
    Ok(reports)
}

pub(super) fn report<F: DomainFile>(
    spec: &VolumeSpec,
    file: &F,
    true_bytes: Option<u64>,
    hash: FileHash,
    qcow2: Option<Qcow2Facts>,
) -> Result<VolumeReport, Unfinished> {
    let stat = file.stat()?;
    let virtual_bytes = match (spec.format, &qcow2, spec.virtual_bytes) {
        (VolumeFormat::Raw, ..) => stat.bytes,
        (VolumeFormat::Qcow2, Some(facts), _) => facts.virtual_bytes,
        (VolumeFormat::Qcow2, None, Some(known)) => known,
        (VolumeFormat::Qcow2, None, None) => qcow2::Header::read(&FileImage::new(file)?)?.virtual_bytes,
    };
    Ok(VolumeReport {
        volume: spec.volume,
        file_bytes: stat.bytes,
        allocated_bytes: stat.allocated_bytes,
        virtual_bytes,
        true_bytes,
        hash: Some(hash),
        qcow2,
    })
}
