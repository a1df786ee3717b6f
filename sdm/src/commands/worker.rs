//! `sdm worker`: runs a worker in the foreground until it is told to end; its verbs ask about workers and change
//! their standing.

use super::data_folder::folder_class;
use super::listening::Listening;
use super::worker_verbs::ChangeWorker;
use super::worker_verbs::ConfirmDown;
use super::worker_verbs::RemoveWorker;
use super::worker_verbs::show;
use crate::cli::GlobalOptions;
use crate::client::all_pages;
use crate::context::Context;
use crate::logging;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::causes_text;
use crate::shutdown::Shutdown;
use crate::shutdown::die_with_parent;
use crate::values::parse_absolute_path;
use crate::values::parse_addresses;
use crate::values::parse_cluster_id;
use crate::values::parse_name;
use crate::views::List;
use crate::views::WorkerView;
use clap::Args;
use clap::Subcommand;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams::BlockingPool;
use sdm_proto::seams::BootClock;
use sdm_proto::seams::TcpTransport;
use sdm_proto::wire::v1::ListWorkersRequest;
use sdm_proto::wire::v1::worker_service_client::WorkerServiceClient;
use sdm_storage_worker::WorkerConfig;
use sdm_storage_worker::WorkerError;
use sdm_storage_worker::process::SpawnedProcesses;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

/// Its options; with a verb, none of them is needed.
#[derive(Args, Debug)]
#[command(subcommand_negates_reqs = true)]
pub struct WorkerCommand {
    #[command(subcommand)]
    verb: Option<WorkerVerb>,
    /// Name of this worker
    #[arg(long, required = true)]
    name: Option<String>,
    /// Address to listen on, HOST:PORT; the only port that it opens
    #[arg(long, value_name = "ADDR", required = true)]
    listen: Option<String>,
    /// Folder for its identity and its memory; made if it is missing
    #[arg(long, value_name = "DIR", required = true)]
    data_dir: Option<PathBuf>,
    /// Members of the cluster, any of them, separated by commas
    #[arg(long, value_name = "A,B,C", value_delimiter = ',', required = true)]
    coordinators: Vec<String>,
    /// Address that others are told, when it is not the one listened on
    #[arg(long, value_name = "ADDR")]
    advertise: Option<String>,
    /// Paths beneath which it reaches storage, separated by commas [default: all]
    #[arg(long, value_name = "PREFIX,…", value_delimiter = ',')]
    reach: Vec<String>,
    /// Belong to this cluster from now on, whichever it was before: one restored from a backup
    #[arg(long, value_name = "CLUSTER_ID")]
    readmit: Option<String>,
    /// End when the thread that started this process ends, and at once if that was another process
    #[arg(long, hide = true, value_name = "PID", num_args = 0..=1, require_equals = true)]
    die_with_parent: Option<Option<u32>>,
}

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum WorkerVerb {
    /// List the workers and the domains that they reach
    List {
        /// Wait until so many workers are live, for at most 30 s
        #[arg(long, value_name = "N")]
        wait: Option<usize>,
    },
    /// Show one worker: what it reaches, what it has to do, its session
    Show {
        /// Its name or id
        worker: String,
    },
    /// Give a worker no new work; what runs goes on
    Drain(ChangeWorker),
    /// Give a drained worker work again
    Undrain(ChangeWorker),
    /// Forget a worker that is lost or drained and that nothing names
    Remove(RemoveWorker),
    /// Say that a lost worker's host is down for sure: what it was doing in place goes on elsewhere
    ConfirmDown(ConfirmDown),
}

impl WorkerCommand {
    /// Whether this is the worker itself rather than a question about workers.
    pub fn is_process(&self) -> bool {
        self.verb.is_none()
    }

    /// One of its verbs.
    ///
    /// # Errors
    /// No member answers, or it was refused.
    pub async fn operate(self, context: &Context) -> Result<ExitCode, Failure> {
        match self.verb {
            Some(WorkerVerb::List { wait }) => list(context, wait).await,
            Some(WorkerVerb::Show { worker }) => show(context, &worker).await,
            Some(WorkerVerb::Drain(change)) => change.drain(context).await,
            Some(WorkerVerb::Undrain(change)) => change.undrain(context).await,
            Some(WorkerVerb::Remove(remove)) => remove.run(context).await,
            Some(WorkerVerb::ConfirmDown(confirm)) => confirm.run(context).await,
            // Without a verb it is the worker itself, which is run elsewhere.
            None => Ok(ExitCode::Internal),
        }
    }

    async fn resolve(&self, global: &GlobalOptions) -> Result<WorkerConfig, Failure> {
        let (Some(name), Some(listen), Some(data_dir)) = (&self.name, &self.listen, &self.data_dir) else {
            return Err(Failure::new(Class::Invalid, "USAGE", "--name, --listen and --data-dir are needed"));
        };
        let secret = global.secret()?;
        let Listening { listen, advertise } = Listening::resolve(listen, self.advertise.as_deref(), &secret).await?;
        let prefix = |prefix: &String| parse_absolute_path("--reach", prefix).map(PathBuf::from);
        let reach: Result<Vec<_>, _> = self.reach.iter().map(prefix).collect();
        Ok(WorkerConfig {
            name: parse_name("--name", name)?.into(),
            listen,
            advertise,
            data_dir: data_dir.clone(),
            coordinators: parse_addresses("--coordinators", &self.coordinators)?,
            readmit: self.readmit.as_deref().map(|text| parse_cluster_id("--readmit", text)).transpose()?,
            reach: reach?,
            secret,
            transport: Arc::new(TcpTransport),
            clock: Arc::new(BootClock),
            processes: Arc::new(SpawnedProcesses::default()),
            pool: BlockingPool::default(),
        })
    }

    /// Runs until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// The options are wrong, or the worker cannot go on.
    pub async fn run(self, global: &GlobalOptions, shutdown: Shutdown) -> Result<ExitCode, Failure> {
        logging::begin(global.log_format);
        if let Some(starter) = self.die_with_parent {
            die_with_parent(starter)?;
        }
        let config = self.resolve(global).await?;
        global.log_secret_doubt();
        sdm_storage_worker::run(config, shutdown.requested()).await.map_err(failure_of)?;
        Ok(ExitCode::Done)
    }
}

fn failure_of(error: WorkerError) -> Failure {
    let message = causes_text(&error);
    match error {
        WorkerError::Refused(refusal) => refusal.into(),
        WorkerError::Config(_) => Failure::new(Class::Invalid, "BAD_CONFIGURATION", message),
        WorkerError::Folder(error) => Failure::new(folder_class(&error), "FOLDER_UNUSABLE", message),
        WorkerError::Listen { .. } => Refusal::new(Class::Precondition, "CANNOT_LISTEN", message)
            .hint("another process listens there, or the address is not this host's")
            .into(),
        WorkerError::Server(_) => Failure::new(Class::Internal, "SERVER_FAILED", message),
    }
}

/// How long workers are waited for. One that was just started is admitted within a second or two.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How often the list is asked for meanwhile.
const ASK_INTERVAL: Duration = Duration::from_millis(200);

async fn list(context: &Context, wait: Option<usize>) -> Result<ExitCode, Failure> {
    let begun = Instant::now();
    loop {
        let workers = workers_of(context).await?;
        let live = workers.items.iter().filter(|worker| worker.state == "live").count();
        let wanted = wait.unwrap_or(0);
        if live >= wanted {
            return context.printer.print(&workers);
        }
        if begun.elapsed() >= WAIT_MAX {
            let message = format!("{live} of {wanted} workers are live after {} s", WAIT_MAX.as_secs());
            let refusal = Refusal::new(Class::Timeout, "TIMED_OUT", message)
                .hint("`sdm worker list` shows those that are known; their logs say why one is not admitted");
            return Err(refusal.into());
        }
        tokio::time::sleep(ASK_INTERVAL).await;
    }
}

async fn workers_of(context: &Context) -> Result<List<WorkerView>, Failure> {
    let list = all_pages::<_, WorkerView, _>(async |page| {
        let request = ListWorkersRequest { page: Some(page) };
        let answer = context.cluster.call(async |link| {
            let mut client = WorkerServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            client.list_workers(request.clone()).await
        });
        answer.await.map(|answer| (answer.items, answer.page))
    });
    Ok(list.await?.sorted_by(|worker| &worker.name))
}
