//! `sdm lock list`: who holds what, and who waits for it.

use crate::client::all_pages;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::views::Fields;
use crate::views::List;
use crate::views::LockView;
use crate::views::fields_text;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1::ListLocksRequest;
use sdm_proto::wire::v1::lock_service_client::LockServiceClient;
use serde::Serialize;

/// Prints the list.
///
/// # Errors
/// No member answers.
pub async fn list_locks(context: &Context) -> Result<ExitCode, Failure> {
    context.printer.print(&all_locks(context).await?)
}

/// Prints every lock on a resource, held or waiting, each with all that is known of it.
///
/// # Errors
/// Nobody holds it or waits for it, or no member answers.
pub async fn show_locks_on(context: &Context, resource: &str) -> Result<ExitCode, Failure> {
    let List { items, revision } = all_locks(context).await?;
    let items: Vec<LockView> = items.into_iter().filter(|lock| lock.is_on(resource)).collect();
    if items.is_empty() {
        let message = format!("nobody holds a lock on {resource}, or waits for one");
        return Err(Refusal::new(Class::NotFound, "LOCK_NOT_FOUND", message)
            .hint("sdm lock list; what happened to one: sdm events --kind lock")
            .into());
    }
    context.printer.print(&LocksShown { items, revision })
}

/// Locks on one resource.
#[derive(Serialize)]
struct LocksShown {
    items: Vec<LockView>,
    revision: u64,
}

impl Report for LocksShown {
    fn text(&self) -> String {
        self.items.iter().map(|lock| fields_text(&lock.fields())).collect::<Vec<_>>().join("\n")
    }
}

async fn all_locks(context: &Context) -> Result<List<LockView>, Failure> {
    all_pages::<_, LockView, _>(async |page| {
        let request = ListLocksRequest { page: Some(page) };
        let answer = context.cluster.call(async |link| {
            let mut client = LockServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            client.list_locks(request.clone()).await
        });
        answer.await.map(|answer| (answer.items, answer.page))
    })
    .await
}
