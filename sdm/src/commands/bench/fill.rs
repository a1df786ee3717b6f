//! `sdm bench fill`: the folder of a member that is alone in its cluster and whose catalog is as
//! large as asked for, to see what a member of that size costs. It works on the folder alone: no
//! member runs meanwhile, and none is asked.

use crate::client::Begun;
use crate::commands::data_folder::folder_class;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::values::parse_address;
use crate::values::parse_name;
use clap::Args;
use sdm_proto::ids::Id;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_raft_store::Identity;
use sdm_raft_store::MemberDisk;
use sdm_raft_store::SeedError;
use sdm_raft_store::disk::OpenFolderError;
use sdm_raft_store::seed_folder;
use sdm_state::command::AddMember;
use sdm_state::command::Found;
use sdm_state::fill::Fill;
use sdm_state::members::FEATURE_LEVEL_MAX;
use sdm_state::settings::Settings;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;
use uuid::Uuid;

/// Of a cluster's first member, as at a bootstrap.
const FIRST: u64 = 1;

/// Volumes of a disk, when nobody says how many disks: a chain as daily snapshots make it.
const VOLUMES_EACH: u64 = 10;

/// How long the folder may take to be let go once it is written.
const CLOSE_TIME: Duration = Duration::from_secs(10);

/// Its options.
#[derive(Args, Debug)]
pub struct FillBench {
    /// Folder for the member; must be empty or missing
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Volumes in the catalog
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    volumes: u64,
    /// Disks that they are the chains of [default: one for every 10 volumes, at least 1]
    #[arg(long, value_name = "N")]
    disks: Option<u64>,
    /// Domains that the disks lie in
    #[arg(long, value_name = "N", default_value_t = 4)]
    domains: u64,
    /// Lock requests that wait, all for one name
    #[arg(long, value_name = "N", default_value_t = 0)]
    waiting: u64,
    /// Name of the member, as its `sdm coordinator` will be given
    #[arg(long, value_name = "NAME", default_value = "fill")]
    name: String,
    /// Address that the member will listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7400")]
    listen: String,
}

#[derive(Serialize)]
struct Filled {
    data_dir: PathBuf,
    name: String,
    listen: String,
    cluster_id: String,
    volumes: u64,
    disks: u64,
    domains: u64,
    waiting: u64,
    snapshot_bytes: u64,
    seconds: f64,
}

impl Report for Filled {
    fn text(&self) -> String {
        let Self { name, listen, volumes, disks, domains, waiting, snapshot_bytes, seconds, .. } = self;
        let folder = self.data_dir.display();
        format!(
            "{volumes} volumes in {disks} disks in {domains} domains, {waiting} waiting lock requests: a snapshot of \
             {snapshot_bytes} bytes, in {seconds:.1} s\nstart it: sdm coordinator --name {name} --listen {listen} \
             --data-dir {folder}\n"
        )
    }
}

impl FillBench {
    /// Does it.
    ///
    /// # Errors
    /// The folder holds something, such a catalog cannot be, or the disk's.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let begun = Instant::now();
        let listen = parse_address("--listen", &self.listen)?;
        let found = self.found(&listen)?;
        context.printer.warn(
            "this member is for measuring only: its catalog is made up, and no storage lies beneath it",
            "never let a worker or another member join its cluster",
        );
        context.attachment.set(Begun::Folder(self.data_dir.display().to_string()));
        let snapshot_bytes = tokio::select! {
            seeded = self.seed(found.clone(), &listen) => seeded?,
            unwanted = context.unwanted() => return Err(unwanted),
        };
        context.printer.print(&Filled {
            name: found.member.name.to_string(),
            listen,
            cluster_id: found.cluster_id.to_string(),
            volumes: self.volumes,
            disks: self.disks(),
            domains: self.domains,
            waiting: self.waiting,
            snapshot_bytes,
            seconds: begun.elapsed().as_secs_f64(),
            data_dir: self.data_dir,
        })
    }

    fn disks(&self) -> u64 {
        self.disks.unwrap_or((self.volumes / VOLUMES_EACH).max(1))
    }

    fn found(&self, listen: &str) -> Result<Found, Failure> {
        Ok(Found {
            cluster_id: Id::from_uuid(random_uuid()),
            pool_id: Id::from_uuid(random_uuid()),
            epoch: FIRST,
            member: AddMember {
                name: parse_name("--name", &self.name)?,
                address: listen.to_owned(),
                incarnation: random_uuid().to_string(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                feature_level_max: FEATURE_LEVEL_MAX,
            },
            settings: Settings::default(),
        })
    }

    async fn seed(&self, found: Found, listen: &str) -> Result<u64, Failure> {
        let fill = Fill { volumes: self.volumes, disks: self.disks(), domains: self.domains, waiting: self.waiting };
        let identity = Identity {
            cluster_id: found.cluster_id,
            pool_id: found.pool_id,
            epoch: found.epoch,
            node_id: FIRST,
            name: found.member.name.to_string(),
            incarnation: Uuid::try_parse(&found.member.incarnation).unwrap_or_default(),
        };
        let disk = MemberDisk::open(&self.data_dir).await.map_err(folder_refusal)?;
        let closed = disk.closed();
        let made = tokio::task::spawn_blocking(move || fill.state(found)).await;
        let made = made.map_err(|panic| Failure::new(Class::Internal, "FILL_FAILED", panic.to_string()))?;
        let state = made.map_err(|error| {
            Refusal::new(Class::Invalid, "BAD_FILL", error.to_string()).hint(
                "at least as many volumes as disks, at least one domain, and no more than a cluster's settings allow",
            )
        })?;
        let seeded = seed_folder(&disk, &identity, listen, state).await.map_err(seed_refusal)?;
        drop(disk);
        // Whoever starts the member next must find the folder free.
        if tokio::time::timeout(CLOSE_TIME, closed.wait()).await.is_err() {
            tracing::warn!("something still holds the data folder; it is let go when the command ends");
        }
        Ok(seeded.snapshot_bytes)
    }
}

fn random_uuid() -> Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

fn folder_refusal(error: OpenFolderError) -> Refusal {
    let reason = match error {
        OpenFolderError::InUse { .. } => "FOLDER_IN_USE",
        OpenFolderError::Foreign { .. } => "FOLDER_NOT_EMPTY",
        _ => "FOLDER_UNUSABLE",
    };
    Refusal::new(folder_class(&error), reason, error.to_string())
}

fn seed_refusal(error: SeedError) -> Refusal {
    let reason = if matches!(error, SeedError::NotEmpty(_)) { "FOLDER_NOT_EMPTY" } else { "FOLDER_UNUSABLE" };
    Refusal::new(folder_class(&error), reason, error.to_string())
}
