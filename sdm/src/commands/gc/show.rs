//! `sdm gc list`, `sdm gc show`: garbage, row by row.

use crate::client::all_pages;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::values::parse_reference;
use crate::views::GarbageView;
use crate::views::List;
use crate::views::Shown;
use clap::Args;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::gc_service_client::GcServiceClient;

/// Options of `list`.
#[derive(Args, Debug, Default)]
pub struct ListGarbage {
    /// Only in this domain (name or id)
    #[arg(long, value_name = "D")]
    domain: Option<String>,
    /// Only of this kind: closed-attempt, superseded, deleted, orphan
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
}

impl ListGarbage {
    /// Does it.
    ///
    /// # Errors
    /// No member answers, or there is no such domain or kind.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let domain = self.domain.map(|domain| parse_reference("--domain", &domain)).transpose()?;
        let (domain, kind) = (domain.unwrap_or_default(), self.kind.unwrap_or_default());
        let wanted = v1::ListGarbageRequest { domain, kind, ..Default::default() };
        context.printer.print(&listed(context, &wanted).await?)
    }
}

/// One row, by its id.
///
/// # Errors
/// No member answers, or there is none.
pub(super) async fn show(context: &Context, id: &str) -> Result<ExitCode, Failure> {
    let request = v1::GetGarbageRequest { id: id.to_owned() };
    let answer =
        context.cluster.call(async |link| GcServiceClient::new(link).get_garbage(request.clone()).await).await?;
    let missing = || Failure::new(Class::NotFound, "GARBAGE_NOT_FOUND", format!("there is no garbage {id}"));
    let view = GarbageView::from(answer.garbage.ok_or_else(missing)?);
    context.printer.print(&Shown(view.at(answer.clock_ms)))
}

/// All garbage that is meant.
///
/// # Errors
/// No member answers.
pub(super) async fn listed(context: &Context, wanted: &v1::ListGarbageRequest) -> Result<List<GarbageView>, Failure> {
    let list = all_pages::<_, GarbageView, _>(async |page| {
        let request = v1::ListGarbageRequest { page: Some(page), ..wanted.clone() };
        let answer = context.cluster.call(async |link| {
            let mut client = GcServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            client.list_garbage(request.clone()).await
        });
        answer.await.map(|answer| (answer.items, answer.page))
    });
    list.await
}

/// All garbage.
///
/// # Errors
/// No member answers.
pub async fn garbage_of(context: &Context) -> Result<List<GarbageView>, Failure> {
    listed(context, &v1::ListGarbageRequest::default()).await
}
