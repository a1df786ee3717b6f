//! `sdm gc run`: all that is due is deleted now, and waited for.

use super::show::listed;
use crate::client::Begun;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Progress;
use crate::output::Report;
use crate::output::Table;
use crate::output::bytes_text;
use crate::output::plural;
use crate::values::parse_reference;
use crate::views::GarbageView;
use crate::views::List;
use crate::views::Row;
use clap::Args;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::gc_service_client::GcServiceClient;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

/// Options of `run`.
#[derive(Args, Debug)]
pub struct RunCollection {
    /// Only in this domain (name or id)
    #[arg(long, value_name = "D")]
    domain: Option<String>,
    /// Return when the deletions are assigned
    #[arg(long)]
    no_wait: bool,
    /// Print what is due, and do nothing
    #[arg(long, conflicts_with = "no_wait")]
    dry_run: bool,
}

/// How often the list is asked for while deletions go on. There is nothing to watch: the collection
/// goes on by itself, and asking is cheap.
const ASK_INTERVAL: Duration = Duration::from_millis(200);

/// Tries after which a deletion that still fails is told instead of waited for.
const FAILED_TRIES_MAX: u32 = 3;

/// How long a domain that no worker reaches is waited for: a worker that was restarted is back by
/// then.
const UNREACHED_PATIENCE: Duration = Duration::from_secs(15);

/// What `run` prints.
#[derive(Serialize)]
struct CollectionResult {
    /// What is gone; with `--no-wait`, what is being deleted.
    items: Vec<GarbageView>,
    /// Whether it was waited for.
    waited: bool,
    /// Bytes that the items occupied.
    bytes: u64,
    revision: u64,
}

impl Report for CollectionResult {
    fn text(&self) -> String {
        if self.items.is_empty() {
            return "nothing is due\n".to_owned();
        }
        let verb = if self.waited { "deleted" } else { "being deleted:" };
        let count = plural(self.items.len() as u64, "item");
        let mut text = format!("{verb} {count}, {}\n", bytes_text(self.bytes));
        for item in &self.items {
            text.push_str(&format!("  {} {} on {}: {}\n", item.kind, item.id, item.domain, item.evidence));
        }
        text
    }
}

/// What `run --dry-run` prints.
#[derive(Serialize)]
struct DueGarbage {
    dry_run: bool,
    items: Vec<GarbageView>,
    bytes: u64,
    revision: u64,
}

impl Report for DueGarbage {
    fn text(&self) -> String {
        let mut table = Table::new(GarbageView::HEADINGS);
        for item in &self.items {
            table.row(item.cells());
        }
        let count = plural(self.items.len() as u64, "item");
        let end = "nothing was deleted; a plan that is carried out exactly: sdm gc plan";
        format!("{}{count} due, {}; {end}\n", table.render(), bytes_text(self.bytes))
    }
}

impl RunCollection {
    fn domain(&self) -> Result<String, Failure> {
        let named = self.domain.as_deref().map(|domain| parse_reference("--domain", domain)).transpose()?;
        Ok(named.unwrap_or_default())
    }

    async fn listed(&self, context: &Context) -> Result<List<GarbageView>, Failure> {
        listed(context, &v1::ListGarbageRequest { domain: self.domain()?, ..Default::default() }).await
    }

    async fn show(&self, context: &Context) -> Result<ExitCode, Failure> {
        let List { mut items, revision } = self.listed(context).await?;
        items.retain(|item| matches!(item.state.as_str(), "due" | "deleting"));
        let bytes = items.iter().map(|item| item.bytes).fold(0, u64::saturating_add);
        context.printer.print(&DueGarbage { dry_run: true, items, bytes, revision })
    }

    /// Does it.
    ///
    /// # Errors
    /// No member answers, or a deletion fails again and again.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        if self.dry_run {
            return self.show(context).await;
        }
        let mut seen: BTreeMap<String, GarbageView> = BTreeMap::new();
        let mut progress = Progress::begin("collect", context.printer.format);
        let mut revision;
        loop {
            let listed = self.listed(context).await?;
            let request = v1::RunCollectionRequest { domain: self.domain()? };
            context.attachment.set(Begun::Collection);
            let ask = async |link| {
                let mut client = GcServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
                client.run_collection(request.clone()).await
            };
            let assigned = context.cluster.call(ask).await?;
            revision = assigned.revision;
            let ids: BTreeSet<String> = assigned.garbage_ids.into_iter().collect();
            seen.extend(
                listed.items.into_iter().filter(|item| ids.contains(&item.id)).map(|item| (item.id.clone(), item)),
            );
            if ids.is_empty() || self.no_wait {
                break;
            }
            self.wait(context, &ids, &mut progress).await?;
        }
        progress.end();
        let items: Vec<_> = seen.into_values().collect();
        let bytes = items.iter().map(|item| item.bytes).fold(0, u64::saturating_add);
        context.printer.print(&CollectionResult { items, waited: !self.no_wait, bytes, revision })
    }

    async fn wait(&self, context: &Context, ids: &BTreeSet<String>, progress: &mut Progress) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let left: Vec<_> = self.listed(context).await?.items.into_iter().filter(|g| ids.contains(&g.id)).collect();
            if left.is_empty() {
                return Ok(());
            }
            let patience_is_over = begun.elapsed() >= UNREACHED_PATIENCE;
            if left.iter().all(|item| is_hopeless(item, patience_is_over)) {
                return Err(failing(&left));
            }
            progress.state(&format!("{} of {} left", left.len(), plural(ids.len() as u64, "item")));
            tokio::time::sleep(ASK_INTERVAL).await;
        }
    }
}

/// Whether waiting longer for this deletion makes no sense: it fails again and again, or nobody is
/// there to try.
fn is_hopeless(item: &GarbageView, patience_is_over: bool) -> bool {
    let fails = item.attempts >= FAILED_TRIES_MAX;
    let nobody = item.worker.is_none() && patience_is_over;
    !item.last_error.is_empty() && (fails || nobody)
}

fn failing(left: &[GarbageView]) -> Failure {
    let message = format!("{} cannot be deleted", plural(left.len() as u64, "item"));
    let refusal = Refusal::new(Class::Aborted, "COLLECTION_FAILED", message).hint(
        "the collector goes on trying, and `sdm gc list` shows what is left; another domain alone: sdm gc run --domain \
             NAME; where a storage is lost for good: sdm domain forget NAME",
    );
    let blocked = left.iter().fold(refusal, |refusal, item| {
        let description = format!("on {}, tried {} times: {}", item.domain, item.attempts, item.last_error);
        refusal.blocker("garbage", &item.id, description)
    });
    blocked.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(attempts: u32, worker: &str, last_error: &str) -> GarbageView {
        let garbage =
            v1::Garbage { attempts, worker: worker.into(), last_error: last_error.into(), ..Default::default() };
        garbage.into()
    }

    #[test]
    fn a_deletion_is_given_up_when_it_fails_again_and_again_or_nobody_is_there() {
        assert!(!is_hopeless(&item(0, "", ""), true), "it was not tried yet");
        assert!(!is_hopeless(&item(1, "a", "busy"), true));
        assert!(is_hopeless(&item(3, "a", "busy"), false));
        assert!(!is_hopeless(&item(0, "", "no live worker reaches domain nfs1"), false));
        assert!(is_hopeless(&item(0, "", "no live worker reaches domain nfs1"), true));
    }

    #[test]
    fn what_cannot_be_deleted_is_named_with_the_cause() {
        let failure = failing(&[item(3, "a", "stale file handle")]);
        assert_eq!((failure.refusal.reason.as_str(), failure.exit_code.number()), ("COLLECTION_FAILED", 8));
        assert!(failure.refusal.blockers[0].description.contains("stale file handle"));
    }
}
