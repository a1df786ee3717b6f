//! `sdm bench txns`: transactions that lock a name, have a worker do nothing, and commit.

use super::load;
use super::load::Client;
use super::load::LoadOptions;
use crate::client::Cluster;
use crate::client::outcome_of;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::values::draw_request_id;
use clap::Args;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::transaction_service_client::TransactionServiceClient;

/// How long one request waits for the outcome. After it the same transaction is asked for again.
const WAIT_MS: u64 = 5_000;

/// Its options.
#[derive(Args, Debug)]
pub struct TxnsBench {
    #[command(flatten)]
    load: LoadOptions,
}

impl TxnsBench {
    /// Does it.
    ///
    /// # Errors
    /// Not one operation succeeded.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        // Names of this run alone: another one may be under way.
        let run: u64 = rand::random();
        let client = |number: u32| TxnClient {
            cluster: context.cluster.beginning_at(number as usize),
            resource: format!("user/bench/{run:016x}/{number}"),
        };
        let finished =
            load::run((0..self.load.clients).map(client).collect(), self.load.seconds, context.unwanted()).await;
        load::end(context, &finished)
    }
}

/// One client with its name.
struct TxnClient {
    cluster: Cluster,
    resource: String,
}

impl Client for TxnClient {
    async fn operate(&mut self) -> Result<(), Failure> {
        let header = v1::MutationHeader {
            request_id: draw_request_id(),
            no_wait_lock: true,
            initiator: "sdm bench".to_owned(),
            ..Default::default()
        };
        let request = v1::BeginNoopRequest { header: Some(header), resource: self.resource.clone(), wait_ms: WAIT_MS };
        loop {
            let answer = self.cluster.call(|link| {
                let request = request.clone();
                async move { TransactionServiceClient::new(link).begin_noop(request).await }
            });
            let txn = answer.await?.transaction.ok_or_else(|| {
                Failure::new(Class::Internal, "EMPTY_ANSWER", "the member's answer holds no transaction")
            })?;
            if let Some(outcome) = outcome_of(&txn) {
                return outcome;
            }
        }
    }
}
