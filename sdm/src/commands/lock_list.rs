//! `sdm lock list`: who holds what, and who waits for it.

use crate::client::all_pages;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::views::LockView;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::wire::v1::ListLocksRequest;
use sdm_proto::wire::v1::lock_service_client::LockServiceClient;

/// Prints the list.
///
/// # Errors
/// No member answers.
pub async fn list_locks(context: &Context) -> Result<ExitCode, Failure> {
    let list = all_pages::<_, LockView, _>(async |page| {
        let request = ListLocksRequest { page: Some(page) };
        let answer = context.cluster.call(async |link| {
            let mut client = LockServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            client.list_locks(request.clone()).await
        });
        answer.await.map(|answer| (answer.items, answer.page))
    });
    context.printer.print(&list.await?)
}
