//! `sdm gc status`: garbage in numbers, and what is in the way.

use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::output::Table;
use crate::output::age_text;
use crate::output::bytes_text;
use crate::output::clock_text;
use crate::output::one_line;
use crate::output::or_dash;
use crate::output::plural;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::gc_service_client::GcServiceClient;
use serde::Serialize;

#[derive(Serialize)]
struct SumView {
    name: String,
    count: u64,
    bytes: u64,
}

impl From<v1::GarbageSum> for SumView {
    fn from(sum: v1::GarbageSum) -> Self {
        Self { name: sum.name, count: sum.count, bytes: sum.bytes }
    }
}

#[derive(Serialize)]
struct DomainView {
    domain_id: String,
    domain: String,
    count: u64,
    bytes: u64,
    due: u64,
    deleting: u64,
    trash: u64,
    held: u64,
    next_due_ms: u64,
    retention_ms: u64,
    blocked_by: Vec<String>,
}

#[derive(Serialize)]
struct StatusView {
    count: u64,
    bytes: u64,
    kinds: Vec<SumView>,
    states: Vec<SumView>,
    domains: Vec<DomainView>,
    suspended: bool,
    oldest_ms: u64,
    clock_ms: u64,
    revision: u64,
}

impl From<v1::GetGarbageStatusResponse> for StatusView {
    fn from(status: v1::GetGarbageStatusResponse) -> Self {
        let total = status.total.unwrap_or_default();
        let domain = |domain: v1::GarbageDomain| DomainView {
            domain_id: domain.domain_id,
            domain: domain.domain,
            count: domain.count,
            bytes: domain.bytes,
            due: domain.due,
            deleting: domain.deleting,
            trash: domain.trash,
            held: domain.held,
            next_due_ms: domain.next_due_ms,
            retention_ms: domain.retention_ms,
            blocked_by: domain.blocked_by,
        };
        Self {
            count: total.count,
            bytes: total.bytes,
            kinds: status.kinds.into_iter().map(SumView::from).collect(),
            states: status.states.into_iter().map(SumView::from).collect(),
            domains: status.domains.into_iter().map(domain).collect(),
            suspended: status.suspended,
            oldest_ms: status.oldest_ms,
            clock_ms: status.clock_ms,
            revision: status.revision,
        }
    }
}

fn sums_text(sums: &[SumView]) -> String {
    let words: Vec<String> =
        sums.iter().map(|sum| format!("{} {} ({})", sum.count, sum.name, bytes_text(sum.bytes))).collect();
    or_dash(&words.join(", "))
}

impl Report for StatusView {
    fn text(&self) -> String {
        let oldest = if self.oldest_ms == 0 { "-".to_owned() } else { clock_text(self.oldest_ms, self.clock_ms) };
        let mut text = format!(
            "garbage  {}, {}; the oldest {oldest}\nkinds    {}\nstates   {}\n",
            plural(self.count, "item"),
            bytes_text(self.bytes),
            sums_text(&self.kinds),
            sums_text(&self.states)
        );
        if self.suspended {
            text.push_str("suspended: the cluster was restored from a backup; sdm backup reconcile\n");
        }
        let headings = &[
            "DOMAIN",
            ">ITEMS",
            ">BYTES",
            ">DUE",
            ">DELETING",
            ">TRASH",
            ">HELD",
            "NEXT DUE",
            "RETENTION",
            "IN THE WAY",
        ];
        let mut table = Table::new(headings);
        for row in &self.domains {
            let domain = if row.domain.is_empty() { "(none yet)" } else { &row.domain };
            let mut cells = vec![domain.to_owned(), row.count.to_string(), bytes_text(row.bytes)];
            cells.extend([row.due, row.deleting, row.trash, row.held].map(|count| count.to_string()));
            let next = if row.next_due_ms == 0 { "-".to_owned() } else { clock_text(row.next_due_ms, self.clock_ms) };
            let kept = if row.retention_ms == 0 { "-".to_owned() } else { age_text(row.retention_ms) };
            cells.extend([next, kept, or_dash(&one_line(&row.blocked_by.join("; ")))]);
            table.row(cells);
        }
        text + &table.render()
    }
}

/// Shows it.
pub(super) async fn show(context: &Context) -> Result<ExitCode, Failure> {
    let ask = async |link| {
        let mut client = GcServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
        client.get_garbage_status(v1::GetGarbageStatusRequest {}).await
    };
    let status = context.cluster.call(ask).await?;
    context.printer.print(&StatusView::from(status))
}
