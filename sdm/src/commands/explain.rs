//! `sdm explain OBJECT`: what anything is, who holds it, what blocks it, and what to do next.

use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::views::ExplanationView;
use clap::Args;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1::ExplainRequest;
use sdm_proto::wire::v1::ExplainResponse;
use sdm_proto::wire::v1::explain_service_client::ExplainServiceClient;

/// Its options.
#[derive(Args, Debug)]
pub struct ExplainCommand {
    /// An id or a name: of a member, worker, domain, disk, volume, snapshot, placement, transaction (request id), job,
    /// lock, session, garbage, attachment, token or event index. With its noun in front where a name is that of several
    /// things: disk/web-01, lock/812, user/backup
    object: String,
}

impl ExplainCommand {
    /// Does it.
    ///
    /// # Errors
    /// Nothing is known under that name, or several things are.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        explain(context, &self.object).await
    }
}

/// Prints what is known of an object.
///
/// # Errors
/// Nothing is known under that name, several things are, or no member answers.
pub async fn explain(context: &Context, object: &str) -> Result<ExitCode, Failure> {
    let request = ExplainRequest { object: object.to_owned() };
    let answer: ExplainResponse = context
        .cluster
        .call(async |link| {
            let mut client = ExplainServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            client.explain(request.clone()).await
        })
        .await?;
    let clock_ms = answer.clock_ms;
    if let Some(explanation) = answer.explanation {
        return context.printer.print(&ExplanationView::new(explanation, clock_ms));
    }
    let names: Vec<&str> = answer.candidates.iter().map(|link| link.name.as_str()).collect();
    let message = format!("{object} is the name of several things: {}", names.join(", "));
    let first = names.first().copied().unwrap_or_default();
    let mut refusal =
        Refusal::new(Class::Conflict, "AMBIGUOUS", message).hint(format!("say which: sdm explain {first}"));
    for link in &answer.candidates {
        refusal = refusal.blocker(&link.kind, link.name.clone(), link.text.clone());
    }
    Err(refusal.into())
}
