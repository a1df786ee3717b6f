//! `sdm bench disks`: raw sparse disks are made as fast as that goes, and taken away afterwards.

mod made;
mod removal;

use super::load;
use super::load::Client;
use super::load::LoadOptions;
use super::report::BenchReport;
use crate::client::Cluster;
use crate::client::Told;
use crate::client::TransactionWatch;
use crate::client::initiator;
use crate::client::outcome_of;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::output::one_line;
use crate::output::plural;
use crate::values::draw_request_id;
use crate::values::parse_reference;
use crate::values::parse_size;
use clap::Args;
use made::Made;
use removal::Removal;
use removal::Removed;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::disk_service_client::DiskServiceClient;
use serde::Serialize;
use std::fmt::Write as _;
use std::sync::Arc;

/// Its options.
#[derive(Args, Debug)]
pub struct DisksBench {
    #[command(flatten)]
    load: LoadOptions,
    /// Where the disks are made (names or ids of domains); several are taken in turn
    #[arg(long, required = true, value_delimiter = ',', value_name = "D[,D2…]")]
    domain: Vec<String>,
    /// Size of each disk; it is sparse, so it takes no space
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    size: String,
    /// Connections to each member that the clients share; by default each client is a program with one of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections: Option<u32>,
}

/// What it prints.
#[derive(Serialize)]
struct DisksReport<'a> {
    #[serde(flatten)]
    load: &'a BenchReport,
    #[serde(flatten)]
    removed: &'a Removed,
}

impl Report for DisksReport<'_> {
    fn text(&self) -> String {
        let Removed { deleted, disks_left, garbage_left, cleanup_seconds, cleanup_error } = self.removed;
        let mut text = self.load.text();
        // A String never refuses to be written to.
        _ = writeln!(text, "{} deleted again in {cleanup_seconds:.1} s", plural(*deleted, "disk"));
        if disks_left + garbage_left > 0 {
            let left = plural(*disks_left, "disk");
            _ = writeln!(text, "left: {left} (sdm disk list), garbage of {garbage_left} (sdm gc list)");
        }
        if let Some(error) = cleanup_error {
            _ = writeln!(text, "the first that could not be deleted: {}", one_line(error));
        }
        text
    }
}

impl DisksBench {
    /// Does it.
    ///
    /// # Errors
    /// Not one disk could be made.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let size = parse_size("--size", &self.size)?;
        let domains: Result<Vec<String>, _> =
            self.domain.iter().map(|text| parse_reference("--domain", text)).collect();
        let domains: Arc<[String]> = domains?.into();
        let made = Made::default();
        // Names of this run alone: another one may be under way.
        let run: u64 = rand::random();
        let clusters = load::clusters(context, self.load.clients, self.connections)?;
        let client = |(number, cluster)| DiskClient {
            cluster,
            domains: Arc::clone(&domains),
            size,
            prefix: format!("bench-{run:016x}-{number}"),
            number,
            turn: 0,
            made: made.clone(),
        };
        let clients: Vec<DiskClient> = (0..).zip(clusters).map(client).collect();
        let finished = load::run(clients, self.load.seconds, context.unwanted()).await;
        let removed = Removal::new(context, &domains, made).run().await;
        let report = DisksReport { load: &finished.report, removed: &removed };
        let code = load::end_with(context, &finished, &report)?;
        let left = removed.disks_left + removed.garbage_left > 0;
        Ok(if left && code == ExitCode::Done { ExitCode::Aborted } else { code })
    }
}

/// One client, whose disks have names of its own.
struct DiskClient {
    cluster: Cluster,
    domains: Arc<[String]>,
    size: u64,
    prefix: String,
    number: usize,
    turn: usize,
    made: Made,
}

impl Client for DiskClient {
    async fn operate(&mut self) -> Result<(), Failure> {
        let name = format!("{}-{}", self.prefix, self.turn);
        let request_id = draw_request_id();
        let domain = self.domains.get((self.number + self.turn) % self.domains.len().max(1));
        self.turn += 1;
        let header = v1::MutationHeader {
            request_id: request_id.clone(),
            initiator: initiator(),
            reason: "sdm bench disks".to_owned(),
            ..Default::default()
        };
        let request = v1::CreateDiskRequest {
            header: Some(header),
            name: name.clone(),
            domain: domain.cloned().unwrap_or_default(),
            size: self.size,
            format: v1::DiskFormat::Raw.into(),
            preallocate: false,
            description: String::new(),
        };
        // Noted before it is asked for: whatever becomes of the answer, it is looked for afterwards.
        self.made.begun(&name, &request_id);
        let answer = self.cluster.call(|link| {
            let request = request.clone();
            async move { DiskServiceClient::new(link).create_disk(request).await }
        });
        let txn = answer.await?.transaction.ok_or_else(no_transaction)?;
        outcome(&self.cluster, txn).await?;
        self.made.done(&name);
        Ok(())
    }
}

fn no_transaction() -> Failure {
    Failure::new(Class::Internal, "EMPTY_ANSWER", "the member's answer holds no transaction")
}

/// Waits for the outcome of a transaction.
async fn outcome(cluster: &Cluster, txn: v1::Transaction) -> Result<(), Failure> {
    if let Some(outcome) = outcome_of(&txn) {
        return outcome;
    }
    let mut watch = TransactionWatch::new(cluster, &txn.id);
    loop {
        let Told::Update(update) = watch.next().await? else { continue };
        if let Some(outcome) = update.transaction.as_ref().and_then(outcome_of) {
            return outcome;
        }
    }
}
