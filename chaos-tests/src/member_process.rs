//! What runs in a process of a cluster: this program again, with a hidden subcommand that does what
//! `sdm coordinator` or `sdm worker` does, by the same call on the same crates. So the program that
//! breaks things and the members that it breaks are of one build, and a planted bug is compiled into
//! this program alone.

use anyhow::Result;
use clap::Parser;
use rustix::process::Signal;
use sdm_coordinator::MemberConfig;
use sdm_coordinator::Start;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::seams::BlockingPool;
use sdm_proto::seams::BootClock;
use sdm_proto::seams::TcpTransport;
use sdm_storage_worker::WorkerConfig;
use sdm_storage_worker::process::SpawnedProcesses;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

/// The hidden subcommand of a member.
pub const MEMBER: &str = "member";

/// The hidden subcommand of a worker.
pub const WORKER: &str = "worker";

/// Their options: those of `sdm coordinator` and `sdm worker` that are needed here.
#[derive(Parser, Debug)]
struct Options {
    #[arg(long)]
    name: String,
    #[arg(long)]
    listen: String,
    #[arg(long)]
    data_dir: PathBuf,
    #[arg(long)]
    bootstrap: bool,
    #[arg(long)]
    join: Option<String>,
    #[arg(long, value_delimiter = ',')]
    coordinators: Vec<String>,
    #[arg(long)]
    reach: Vec<PathBuf>,
    #[arg(long, require_equals = true)]
    die_with_parent: u32,
}

/// Runs what the first argument names, until SIGTERM. None if it names something else.
pub fn run_hidden() -> Option<ExitCode> {
    let named = std::env::args().nth(1)?;
    if named != MEMBER && named != WORKER {
        return None;
    }
    let options = Options::try_parse_from(std::env::args_os().skip(1)).map_err(anyhow::Error::from);
    Some(match options.and_then(|options| run(options, named == WORKER)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn run(options: Options, worker: bool) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = rustix::process::getppid().and_then(|parent| u32::try_from(parent.as_raw_nonzero().get()).ok());
    anyhow::ensure!(parent == Some(options.die_with_parent), "the starter is gone already");
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,openraft=error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = async move {
            terminate.recv().await;
        };
        if worker {
            Ok(sdm_storage_worker::run(worker_config(options)?, shutdown).await?)
        } else {
            let ran = sdm_coordinator::run(member_config(options)?, shutdown).await;
            ran.map_err(|error| anyhow::anyhow!("{}", error.refusal()))
        }
    });
    runtime.shutdown_background();
    ended
}

fn member_config(options: Options) -> Result<MemberConfig> {
    let start = match options.join {
        Some(address) => Start::Join(address),
        None if options.bootstrap => Start::Bootstrap,
        None => Start::Resume,
    };
    Ok(MemberConfig::new(options.name.parse()?, options.listen, options.data_dir, start))
}

fn worker_config(options: Options) -> Result<WorkerConfig> {
    Ok(WorkerConfig {
        name: options.name,
        listen: options.listen,
        advertise: None,
        data_dir: options.data_dir,
        coordinators: options.coordinators,
        readmit: None,
        reach: options.reach,
        secret: ClusterSecret::default(),
        transport: Arc::new(TcpTransport),
        clock: Arc::new(BootClock),
        // A noop needs no I/O process, and nothing else reaches this worker.
        processes: Arc::new(SpawnedProcesses::default()),
        pool: BlockingPool::default(),
    })
}
