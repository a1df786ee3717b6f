//! `sdm domain check`: what the catalog says of a domain, compared with what lies there.

use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::output::plural;
use crate::values::parse_reference;
use clap::Args;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::from_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::check_domain_response::Message;
use sdm_proto::wire::v1::domain_service_client::DomainServiceClient;
use serde::Serialize;

/// Options of `check`.
#[derive(Args, Debug)]
#[command(
    after_help = "Exits 8 when something differs. What the catalog does not know is told by: sdm gc audit DOMAIN"
)]
pub struct CheckDomain {
    /// Its name or id
    domain: String,
    /// Read all bytes of the volumes whose hash is known, and compare
    #[arg(long)]
    hash: bool,
}

/// What it prints.
#[derive(Serialize)]
struct CheckResult {
    domain: String,
    domain_id: String,
    worker: String,
    placements: u64,
    findings: Vec<FindingView>,
    left_out: u64,
    revision: u64,
}

#[derive(Serialize)]
struct FindingView {
    reason: String,
    disk: String,
    placement_id: String,
    volume_id: String,
    message: String,
    hint: String,
}

impl Report for CheckResult {
    fn text(&self) -> String {
        let mut text = String::new();
        for found in &self.findings {
            let volume =
                if found.volume_id.is_empty() { String::new() } else { format!(" volume {}", found.volume_id) };
            text.push_str(&format!(
                "disk {}{volume}: {} [{}]\n  placement {}\n  -> {}\n",
                found.disk,
                crate::output::one_line(&found.message),
                found.reason,
                found.placement_id,
                found.hint
            ));
        }
        if self.left_out > 0 {
            text.push_str(&format!("and {} more\n", self.left_out));
        }
        let differences = self.findings.len() as u64 + self.left_out;
        let words = if differences == 0 { "as the catalog says".to_owned() } else { plural(differences, "difference") };
        text + &format!(
            "domain {}: {} looked at by worker {}: {words}; nothing was changed\n",
            self.domain,
            plural(self.placements, "disk"),
            self.worker
        )
    }
}

impl CheckDomain {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let request = v1::CheckDomainRequest { domain: parse_reference("DOMAIN", &self.domain)?, hash: self.hash };
        let check = async |link| DomainServiceClient::new(link).check_domain(request.clone()).await;
        let mut stream = context.cluster.call(check).await?;
        let mut findings = Vec::new();
        loop {
            let message = stream.message().await.map_err(|status| Failure::from(from_status(&status)))?;
            match message.and_then(|message| message.message) {
                Some(Message::Finding(found)) => findings.push(FindingView {
                    reason: found.reason,
                    disk: found.disk,
                    placement_id: found.placement_id,
                    volume_id: found.volume_id,
                    message: found.message,
                    hint: found.hint,
                }),
                Some(Message::Summary(summary)) => return self.tell(context, findings, summary),
                None => {
                    let message = "the check broke off before it was done";
                    return Err(Refusal::new(Class::Unavailable, "CHECK_BROKE_OFF", message).hint("repeat it").into());
                }
            }
        }
    }

    fn tell(
        &self,
        context: &Context,
        findings: Vec<FindingView>,
        summary: v1::DomainCheckSummary,
    ) -> Result<ExitCode, Failure> {
        let differs = summary.findings > 0;
        context.printer.print(&CheckResult {
            domain: summary.domain,
            domain_id: summary.domain_id,
            worker: summary.worker,
            placements: summary.placements,
            findings,
            left_out: summary.left_out,
            revision: summary.revision,
        })?;
        Ok(if differs { ExitCode::Aborted } else { ExitCode::Done })
    }
}
