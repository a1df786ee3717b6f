//! `sdm gc audit`: a domain's storage compared with the catalog.

use crate::client::Begun;
use crate::client::Mutation;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Progress;
use crate::output::Report;
use crate::output::Table;
use crate::output::one_line;
use crate::output::or_dash;
use crate::output::plural;
use crate::values::milliseconds;
use crate::values::parse_duration;
use crate::values::parse_reference;
use clap::Args;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::from_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::audit_domain_response::Message;
use sdm_proto::wire::v1::gc_service_client::GcServiceClient;
use serde::Serialize;

/// Its options.
#[derive(Args, Debug)]
pub struct AuditDomain {
    /// Its name or id
    domain: String,
    /// Between the two listings; longer than the storage's caches keep old answers [default: 65s]. An audit takes at least
    /// that long, with --dry-run too: one listing alone cannot tell what is lost from what is being made
    #[arg(long, value_name = "DURATION")]
    grace: Option<String>,
    /// Make garbage of what is ours and lost; without it nothing is changed
    #[arg(long)]
    apply: bool,
    #[command(flatten)]
    mutation: Mutation,
}

#[derive(Serialize)]
struct FindingView {
    /// orphan, unknown, later or lost.
    kind: String,
    name: String,
    evidence: String,
    token: String,
    transaction_id: String,
    disk_id: String,
    disk: String,
    hint: String,
}

impl From<v1::AuditFinding> for FindingView {
    fn from(finding: v1::AuditFinding) -> Self {
        Self {
            kind: finding.kind,
            name: finding.name,
            evidence: finding.evidence,
            token: finding.token,
            transaction_id: finding.transaction_id,
            disk_id: finding.disk_id,
            disk: finding.disk,
            hint: finding.hint,
        }
    }
}

/// What it prints.
#[derive(Serialize)]
struct Audited {
    domain_id: String,
    domain: String,
    worker: String,
    names: u64,
    known: u64,
    garbage: u64,
    orphans: u64,
    unknown: u64,
    later: u64,
    lost: u64,
    adopted: u64,
    applied: bool,
    transaction_ids: Vec<String>,
    findings: Vec<FindingView>,
    findings_left_out: u64,
    grace_ms: u64,
    revision: u64,
}

impl Audited {
    fn of(summary: v1::AuditSummary, findings: Vec<FindingView>, applied: bool) -> Self {
        Self {
            domain_id: summary.domain_id,
            domain: summary.domain,
            worker: summary.worker,
            names: summary.names,
            known: summary.known,
            garbage: summary.garbage,
            orphans: summary.orphans,
            unknown: summary.unknown,
            later: summary.later,
            lost: summary.lost,
            adopted: summary.adopted,
            applied,
            transaction_ids: summary.transaction_ids,
            findings,
            findings_left_out: summary.findings_left_out,
            grace_ms: summary.grace_ms,
            revision: summary.revision,
        }
    }
}

impl Report for Audited {
    fn text(&self) -> String {
        let mut table = Table::new(&["FOUND", "NAME", "DISK", "EVIDENCE", "WHAT TO DO"]);
        for finding in &self.findings {
            table.row([
                finding.kind.clone(),
                one_line(&finding.name),
                or_dash(&finding.disk),
                one_line(&finding.evidence),
                or_dash(&finding.hint),
            ]);
        }
        let mut text = if self.findings.is_empty() { String::new() } else { table.render() };
        if self.findings_left_out > 0 {
            text.push_str(&format!("and {} more\n", self.findings_left_out));
        }
        text.push_str(&format!(
            "{}: {}, {} known, {} garbage, {} orphans, {} unknown, {} for later, {} lost (worker {})\n",
            self.domain,
            plural(self.names, "name"),
            self.known,
            self.garbage,
            self.orphans,
            self.unknown,
            self.later,
            self.lost,
            self.worker
        ));
        match (self.applied, self.orphans) {
            (true, _) => text.push_str(&format!("{} became garbage\n", plural(self.adopted, "orphan"))),
            (false, 0) => {}
            (false, _) => text.push_str(&format!("nothing was changed; next: sdm gc audit {} --apply\n", self.domain)),
        }
        text
    }
}

impl AuditDomain {
    /// Does it.
    ///
    /// # Errors
    /// No member answers, or the domain cannot be listed.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let grace = self.grace.as_deref().map(|grace| parse_duration("--grace", grace)).transpose()?;
        let header = self.mutation.header()?;
        let apply = self.apply && !header.dry_run;
        let request = v1::AuditDomainRequest {
            domain: parse_reference("DOMAIN", &self.domain)?,
            // On the wire 0 means the default.
            grace_ms: grace.map_or(0, |grace| milliseconds(grace).max(1)),
            apply,
            header: Some(header),
        };
        if apply {
            context.attachment.set(Begun::Change(format!("sdm gc list --domain {}", self.domain)));
        }
        let ask = async |link| {
            let mut client = GcServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            client.audit_domain(request.clone()).await
        };
        let mut stream = context.cluster.call(ask).await?;
        let mut progress = Progress::begin("audit", context.printer.format);
        let mut findings = Vec::new();
        loop {
            let message = stream.message().await.map_err(|status| Failure::from(from_status(&status)))?;
            match message.and_then(|answer| answer.message) {
                Some(Message::Progress(text)) => progress.state(&text),
                Some(Message::Finding(finding)) => findings.push(FindingView::from(finding)),
                Some(Message::Summary(summary)) => {
                    progress.end();
                    return context.printer.print(&Audited::of(summary, findings, apply));
                }
                None => {
                    let message = "the member ended the audit early";
                    return Err(Refusal::new(Class::Unavailable, "INTERRUPTED", message).hint("repeat it").into());
                }
            }
        }
    }
}
