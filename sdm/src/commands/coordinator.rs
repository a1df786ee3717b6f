//! `sdm coordinator`: runs a member in the foreground until it is told to end.

use super::data_folder::folder_class;
use super::listening::Listening;
use crate::cli::GlobalOptions;
use crate::logging;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::shutdown::Shutdown;
use crate::shutdown::die_with_parent;
use crate::values::parse_address;
use crate::values::parse_name;
use clap::Args;
use sdm_coordinator::MemberConfig;
use sdm_coordinator::MemberError;
use sdm_coordinator::Start;
use sdm_proto::refusal::Class;
use sdm_raft_store::OpenError;
use std::path::PathBuf;

/// Its options.
#[derive(Args, Debug)]
pub struct CoordinatorCommand {
    /// Name of this member
    #[arg(long)]
    name: String,
    /// Address to listen on, HOST:PORT; the only port that it opens
    #[arg(long, value_name = "ADDR")]
    listen: String,
    /// Folder for its log and snapshots; made if it is missing
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Begin a new cluster; ignored where the folder already holds a member
    #[arg(long, conflicts_with = "join")]
    bootstrap: bool,
    /// Join the cluster of the member at this address; ignored where the folder already holds a member
    #[arg(long, value_name = "ADDR")]
    join: Option<String>,
    /// Stay a learner: keep a copy and serve, but never vote
    #[arg(long)]
    learner: bool,
    /// Address that others are told, when it is not the one listened on
    #[arg(long, value_name = "ADDR")]
    advertise: Option<String>,
    /// End when the thread that started this process ends, and at once if that was another process
    #[arg(long, hide = true, value_name = "PID", num_args = 0..=1, require_equals = true)]
    die_with_parent: Option<Option<u32>>,
}

impl CoordinatorCommand {
    async fn resolve(&self, global: &GlobalOptions) -> Result<MemberConfig, Failure> {
        let secret = global.secret()?;
        let Listening { listen, advertise } =
            Listening::resolve(&self.listen, self.advertise.as_deref(), &secret).await?;
        let start = match &self.join {
            Some(address) => Start::Join(parse_address("--join", address)?),
            None if self.bootstrap => Start::Bootstrap,
            None => Start::Resume,
        };
        let name = parse_name("--name", &self.name)?;
        let config = MemberConfig::new(name, listen, self.data_dir.clone(), start);
        Ok(MemberConfig { advertise, stay_learner: self.learner, secret, ..config })
    }

    /// Runs until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// The options are wrong, or the member cannot go on.
    pub async fn run(self, global: &GlobalOptions, shutdown: Shutdown) -> Result<ExitCode, Failure> {
        logging::begin(global.log_format);
        if let Some(starter) = self.die_with_parent {
            die_with_parent(starter)?;
        }
        let config = self.resolve(global).await?;
        global.log_secret_doubt();
        sdm_coordinator::run(config, shutdown.requested()).await.map_err(failure_of)?;
        Ok(ExitCode::Done)
    }
}

fn failure_of(error: MemberError) -> Failure {
    let mut refusal = error.refusal();
    if refusal.class == Class::Internal {
        refusal.class = match &error {
            MemberError::Open(OpenError::Writer(_)) => Class::Internal,
            MemberError::Folder(_) | MemberError::Pending { .. } | MemberError::Identity(_) | MemberError::Open(_) => {
                folder_class(&error)
            }
            _ => Class::Internal,
        };
    }
    refusal.into()
}
