//! Taking away what a load made: transactions in doubt are ended, disks deleted, their trash purged, and
//! the deletion of all that on the storage is waited for, as long as it goes on. Nothing but this load's
//! own is touched: disks are named one by one, garbage is known by the transactions that made it.

use super::made::Made;
use super::no_transaction;
use super::outcome;
use crate::client::abort;
use crate::client::all_pages;
use crate::client::initiator;
use crate::context::Context;
use crate::output::Failure;
use crate::output::Progress;
use crate::values::draw_request_id;
use crate::views::GarbageView;
use futures_util::StreamExt;
use futures_util::stream;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::disk_service_client::DiskServiceClient;
use sdm_proto::wire::v1::gc_service_client::GcServiceClient;
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

/// Deletions asked for at once.
const AT_ONCE: usize = 32;

/// Rows of trash in one order: no order may name more.
const PURGED_AT_ONCE: usize = 256;

/// How often the garbage is looked at while it is being deleted.
const ASK_INTERVAL: Duration = Duration::from_millis(250);

/// How long nothing may become less before what is left is told instead of waited for: a deletion that
/// failed is tried again within this time, a worker that was restarted is back.
const PATIENCE: Duration = Duration::from_secs(20);

/// What became of what was made.
#[derive(Debug, Default, Serialize)]
pub(super) struct Removed {
    /// Disks that were deleted.
    pub deleted: u64,
    /// Disks that could not be.
    pub disks_left: u64,
    /// Rows of garbage that are still there.
    pub garbage_left: u64,
    /// How long all that took.
    pub cleanup_seconds: f64,
    /// Why the first that could not be deleted was not; null when all were.
    pub cleanup_error: Option<String>,
}

/// The removal.
pub(super) struct Removal<'a> {
    context: &'a Context,
    domains: &'a [String],
    made: Made,
    removed: Removed,
    /// Transactions whose garbage is this load's.
    ours: BTreeSet<String>,
}

/// How the deletion of one disk ended.
enum Deletion {
    /// By this transaction.
    Done(String),
    /// There was none.
    Absent,
    Failed(Failure),
}

impl<'a> Removal<'a> {
    /// Of all that was made in these domains.
    pub(super) fn new(context: &'a Context, domains: &'a [String], made: Made) -> Self {
        Self { context, domains, made, removed: Removed::default(), ours: BTreeSet::new() }
    }

    /// Does as much of it as can be done.
    pub(super) async fn run(mut self) -> Removed {
        let begun = Instant::now();
        let mut progress = Progress::begin("delete", self.context.printer.format);
        progress.state("the disks that were made");
        self.delete_disks().await;
        if let Err(failure) = self.collect(&mut progress).await {
            self.note(&failure);
        }
        progress.end();
        self.removed.cleanup_seconds = (begun.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        self.removed
    }

    fn note(&mut self, failure: &Failure) {
        self.removed.cleanup_error.get_or_insert_with(|| failure.refusal.to_string());
    }

    async fn delete_disks(&mut self) {
        let made = self.made.take();
        let context = self.context;
        // Nobody may make one any more once it was looked for.
        let doubtful: Vec<String> = made.values().flatten().cloned().collect();
        let ending = stream::iter(&doubtful).map(|id| abort(&context.cluster, id, "the load is over"));
        ending.buffer_unordered(AT_ONCE).for_each(|_| std::future::ready(())).await;
        self.ours.extend(doubtful);
        let mut deletions = stream::iter(made.into_keys()).map(|name| delete(context, name)).buffer_unordered(AT_ONCE);
        while let Some(deletion) = deletions.next().await {
            match deletion {
                Deletion::Done(txn) => {
                    self.removed.deleted += 1;
                    self.ours.insert(txn);
                }
                Deletion::Absent => {}
                Deletion::Failed(failure) => {
                    self.removed.disks_left += 1;
                    self.note(&failure);
                }
            }
        }
    }

    /// Purges what is in the trash and waits until no garbage of this load's is left, or it no longer
    /// becomes less.
    async fn collect(&mut self, progress: &mut Progress) -> Result<(), Failure> {
        let mut fewest = usize::MAX;
        let mut less_since = Instant::now();
        loop {
            let left = self.garbage().await?;
            self.removed.garbage_left = left.len() as u64;
            if left.len() < fewest {
                (fewest, less_since) = (left.len(), Instant::now());
            }
            if left.is_empty() || less_since.elapsed() >= PATIENCE {
                return Ok(());
            }
            progress.state(&format!("{} folders left", left.len()));
            let trash: Vec<String> = left.into_iter().filter(|row| row.state == "trash").map(|row| row.id).collect();
            for ids in trash.chunks(PURGED_AT_ONCE) {
                self.purge(ids).await?;
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
    }

    /// This load's garbage.
    async fn garbage(&self) -> Result<Vec<GarbageView>, Failure> {
        let mut ours = Vec::new();
        let domains: BTreeSet<&String> = self.domains.iter().collect();
        for domain in domains {
            let list = all_pages::<_, GarbageView, _>(async |page| {
                let request = v1::ListGarbageRequest { page: Some(page), domain: domain.clone(), ..Default::default() };
                let answer = self.context.cluster.call(async |link| {
                    let mut client = GcServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
                    client.list_garbage(request.clone()).await
                });
                answer.await.map(|answer| (answer.items, answer.page))
            });
            ours.extend(list.await?.items.into_iter().filter(|row| self.ours.contains(&row.transaction_id)));
        }
        Ok(ours)
    }

    async fn purge(&self, ids: &[String]) -> Result<(), Failure> {
        let request = v1::PurgeTrashRequest { header: Some(header()), ids: ids.to_vec(), ..Default::default() };
        let ask = self.context.cluster.call(async |link| GcServiceClient::new(link).purge_trash(request.clone()).await);
        outcome(&self.context.cluster, ask.await?.transaction.ok_or_else(no_transaction)?).await
    }
}

fn header() -> v1::MutationHeader {
    v1::MutationHeader {
        request_id: draw_request_id(),
        initiator: initiator(),
        reason: "sdm bench disks".to_owned(),
        ..Default::default()
    }
}

async fn delete(context: &Context, name: String) -> Deletion {
    let request = v1::DeleteDiskRequest { header: Some(header()), disk: name };
    let asked = context.cluster.call(async |link| DiskServiceClient::new(link).delete_disk(request.clone()).await);
    let txn = match asked.await {
        Ok(answer) => answer.transaction.ok_or_else(no_transaction),
        Err(failure) if failure.refusal.class == Class::NotFound => return Deletion::Absent,
        Err(failure) => Err(failure),
    };
    let ended = async {
        let txn = txn?;
        let id = txn.id.clone();
        outcome(&context.cluster, txn).await.map(|()| id)
    };
    ended.await.map_or_else(Deletion::Failed, Deletion::Done)
}
