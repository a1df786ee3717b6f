//! `sdm events`: what happened in the cluster, and what happens.

use crate::client::EventWatch;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Format;
use crate::views::ClusterEventView;
use crate::views::List;
use clap::Args;
use sdm_proto::wire::v1::WatchEventsRequest;

/// Its options.
///
/// Each event has the index of the log entry in which it happened. --since goes on after such an index, at any member:
/// nothing is told twice and nothing is left out. When events after it are not all known any more the command ends with
/// COMPACTED and names the oldest index from which on they are. With -o jsonl each event is a line of JSON; with
/// --follow -o json is the same.
#[derive(Args, Debug)]
pub struct EventsCommand {
    /// Tell what happened after this log index [default: all that is known]
    #[arg(long, value_name = "INDEX")]
    since: Option<u64>,
    /// Go on as things happen; another member is asked when the one that tells dies
    #[arg(long)]
    follow: bool,
    /// Only events whose kind begins with this: txn, disk, worker-lost ...
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
}

impl EventsCommand {
    /// Does it.
    ///
    /// # Errors
    /// The index is too old, or no member answers.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let request = WatchEventsRequest {
            since_index: self.since,
            kind: self.kind.clone().unwrap_or_default(),
            once: !self.follow,
        };
        let one_by_one = self.follow || context.printer.format != Format::Json;
        let mut watch = EventWatch::new(&context.cluster, request);
        let mut list = List { items: Vec::new(), revision: 0 };
        while let Some(told) = watch.next().await? {
            list.revision = told.index;
            for event in told.events {
                let event = ClusterEventView::new(event, told.clock_ms);
                if !one_by_one {
                    list.items.push(event);
                } else if !context.printer.print_next(&event)? {
                    return Ok(ExitCode::Done);
                }
            }
        }
        if one_by_one { Ok(ExitCode::Done) } else { context.printer.print(&list) }
    }
}
