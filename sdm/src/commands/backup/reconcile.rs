//! `sdm backup reconcile`: shows what the storage of a restored cluster holds against its catalog,
//! takes the domains over, and ends the suspension when the operator says so.

use crate::client::Begun;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::output::Table;
use crate::output::plural;
use crate::values::parse_cluster_id;
use clap::Args;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::from_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::backup_service_client::BackupServiceClient;
use sdm_proto::wire::v1::reconcile_response::Message;
use serde::Serialize;

/// Its options.
#[derive(Args, Debug)]
pub struct ReconcileCluster {
    /// Read and report only; change nothing
    #[arg(long, conflicts_with = "release")]
    dry_run: bool,
    /// End the suspension; every domain must have been read and adopted before
    #[arg(long)]
    release: bool,
    /// With --release: leave this domain out; it stays unreachable until it is adopted
    #[arg(long, value_name = "DOMAIN", requires = "release", value_delimiter = ',')]
    without: Vec<String>,
    /// Take domains from this cluster too: it is gone for good
    #[arg(long, value_name = "CLUSTER_ID", conflicts_with = "release", value_delimiter = ',')]
    take_from: Vec<String>,
}

#[derive(Serialize)]
struct ItemView {
    kind: String,
    name: String,
    description: String,
}

#[derive(Serialize)]
struct DomainView {
    id: String,
    name: String,
    path: String,
    /// adopted, read, failed, or left out.
    state: String,
    worker: String,
    found_cluster_id: String,
    found_epoch: u64,
    known: u64,
    missing: u64,
    unknown: u64,
    garbage: u64,
    dot_names: u64,
    others: u64,
    items: Vec<ItemView>,
    items_left_out: u64,
    reason: String,
    message: String,
    hint: String,
}

impl From<v1::DomainReading> for DomainView {
    fn from(reading: v1::DomainReading) -> Self {
        let item = |item: v1::ReadingItem| ItemView { kind: item.kind, name: item.name, description: item.description };
        Self {
            id: reading.domain_id,
            name: reading.name,
            path: reading.path,
            state: reading.state,
            worker: reading.worker,
            found_cluster_id: reading.found_cluster_id,
            found_epoch: reading.found_epoch,
            known: reading.known,
            missing: reading.missing,
            unknown: reading.unknown,
            garbage: reading.garbage,
            dot_names: reading.dot_names,
            others: reading.others,
            items: reading.items.into_iter().map(item).collect(),
            items_left_out: reading.items_left_out,
            reason: reading.reason,
            message: reading.message,
            hint: reading.hint,
        }
    }
}

/// What it prints.
#[derive(Serialize)]
struct Reconciled {
    dry_run: bool,
    suspended: bool,
    epoch: u64,
    backup_cluster_id: String,
    illegal_disks: u64,
    domains: Vec<DomainView>,
    revision: u64,
}

impl Report for Reconciled {
    fn text(&self) -> String {
        let mut table = Table::new(&[
            "DOMAIN",
            "STATE",
            ">KNOWN",
            ">MISSING",
            ">UNKNOWN",
            ">GARBAGE",
            ">DOT NAMES",
            ">OTHERS",
            "OWNER",
            ">EPOCH",
        ]);
        for domain in &self.domains {
            let counts =
                [domain.known, domain.missing, domain.unknown, domain.garbage, domain.dot_names, domain.others];
            let mut cells = vec![domain.name.clone(), domain.state.clone()];
            cells.extend(counts.iter().map(u64::to_string));
            cells.extend([domain.found_cluster_id.clone(), domain.found_epoch.to_string()]);
            table.row(cells);
        }
        let mut text = table.render();
        for domain in &self.domains {
            for item in &domain.items {
                text.push_str(&format!("{}: {} {}: {}\n", domain.name, item.kind, item.name, item.description));
            }
            if domain.items_left_out > 0 {
                text.push_str(&format!("{}: and {} more\n", domain.name, domain.items_left_out));
            }
            if !domain.reason.is_empty() {
                text.push_str(&format!(
                    "{}: {}   [{}]\nhint: {}\n",
                    domain.name, domain.message, domain.reason, domain.hint
                ));
            }
        }
        let suspended = if self.suspended { "suspended" } else { "released" };
        text.push_str(&format!(
            "restored from cluster {}, epoch {}, {suspended}, {} illegal\n",
            self.backup_cluster_id,
            self.epoch,
            plural(self.illegal_disks, "disk")
        ));
        if self.suspended
            && !self.dry_run
            && self.domains.iter().all(|domain| domain.state == "adopted" || domain.state == "left out")
        {
            text.push_str("next: sdm backup reconcile --release\n");
        }
        text
    }
}

/// What `--release` prints.
#[derive(Serialize)]
struct Released {
    suspended: bool,
    epoch: u64,
    revision: u64,
}

impl Report for Released {
    fn text(&self) -> String {
        format!("released: the cluster works in epoch {}\n", self.epoch)
    }
}

/// The refusal that names the domains which failed; None when none did.
fn trouble(domains: &[DomainView], dry_run: bool) -> Option<Refusal> {
    let failed: Vec<&DomainView> = domains.iter().filter(|domain| domain.state == "failed").collect();
    let first = failed.first()?;
    let could = if dry_run { "read" } else { "taken over" };
    let message = format!("{} of {} could not be {could}", failed.len(), plural(domains.len() as u64, "domain"));
    let refusal = Refusal::new(Class::Precondition, &first.reason, message).hint(first.hint.clone());
    let blocked = |refusal: Refusal, domain: &&DomainView| refusal.blocker("domain", &domain.name, &domain.message);
    Some(failed.iter().fold(refusal, blocked))
}

impl ReconcileCluster {
    /// Does it.
    ///
    /// # Errors
    /// The cluster was not restored; no member answers; a domain could not be read or taken.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        if self.release {
            return self.release(context).await;
        }
        let take_from = self.take_from.iter().map(|text| parse_cluster_id("--take-from", text));
        let take_from = take_from.map(|id| id.map(|id| id.to_string())).collect::<Result<Vec<String>, Failure>>()?;
        let request = v1::ReconcileRequest { dry_run: self.dry_run, take_from_cluster_ids: take_from };
        let ask = async |link| {
            let mut client = BackupServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            client.reconcile(request.clone()).await
        };
        if !self.dry_run {
            context.attachment.set(Begun::Change("sdm backup reconcile --dry-run".to_owned()));
        }
        let mut stream = context.cluster.call(ask).await?;
        let mut domains: Vec<DomainView> = Vec::new();
        let summary = loop {
            match stream.message().await.map_err(|status| Failure::from(from_status(&status)))? {
                Some(v1::ReconcileResponse { message: Some(Message::Domain(domain)) }) => domains.push(domain.into()),
                Some(v1::ReconcileResponse { message: Some(Message::Summary(summary)) }) => break summary,
                Some(v1::ReconcileResponse { message: None }) => {}
                None => {
                    let message = "the member ended the reconciliation early";
                    return Err(Refusal::new(Class::Unavailable, "RECONCILIATION_CUT", message)
                        .hint("repeat it: it goes on where it was")
                        .into());
                }
            }
        };
        domains.sort_by(|a, b| a.name.cmp(&b.name));
        let trouble = trouble(&domains, self.dry_run);
        // A dry run that read something tells that, and that it is not all; else what could not be done is
        // the answer.
        let told = self.dry_run && domains.iter().any(|domain| domain.state != "failed");
        let exit = match trouble {
            Some(refusal) if !told => return Err(refusal.into()),
            Some(refusal) => {
                context.printer.warn(&refusal.message, &refusal.hint);
                ExitCode::from(refusal.class)
            }
            None => ExitCode::Done,
        };
        let printed = context.printer.print(&Reconciled {
            dry_run: self.dry_run,
            suspended: summary.suspended,
            epoch: summary.epoch,
            backup_cluster_id: summary.backup_cluster_id,
            illegal_disks: summary.illegal_disks,
            domains,
            revision: summary.revision,
        });
        printed.map(|_| exit)
    }

    async fn release(&self, context: &Context) -> Result<ExitCode, Failure> {
        let request = v1::ReleaseSuspensionRequest { without: self.without.clone() };
        let ask = async |link| {
            let mut client = BackupServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            client.release_suspension(request.clone()).await
        };
        context.attachment.set(Begun::Change("sdm status".to_owned()));
        let released = context.cluster.call(ask).await?;
        context.printer.print(&Released { suspended: false, epoch: released.epoch, revision: released.revision })
    }
}
