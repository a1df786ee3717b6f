//! Events as they happen, whichever member tells: when its stream breaks or falls silent, the next endpoint is asked
//! for what came after the last entry that was told whole. Nothing is told twice, and nothing is left out.

use super::Cluster;
use super::Link;
use super::cluster_error::Passed;
use super::cluster_error::Verdict;
use super::cluster_error::WAITING_PATIENCE;
use super::cluster_error::WATCH_SILENCE;
use super::cluster_error::judge;
use super::cluster_error::nobody_answered;
use crate::output::Failure;
use sdm_proto::limits;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::event_service_client::EventServiceClient;
use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;
use tonic::Status;
use tonic::Streaming;

/// Pause before the next endpoint is asked.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Events, watched.
pub struct EventWatch<'a> {
    cluster: &'a Cluster,
    request: v1::WatchEventsRequest,
    stream: Option<(usize, String, Streaming<v1::WatchEventsResponse>)>,
    silent_since: Instant,
    passed: BTreeMap<String, Passed>,
}

impl<'a> EventWatch<'a> {
    /// Begins to watch; nothing is asked before the first `next`.
    #[must_use]
    pub fn new(cluster: &'a Cluster, request: v1::WatchEventsRequest) -> Self {
        Self { cluster, request, stream: None, silent_since: Instant::now(), passed: BTreeMap::new() }
    }

    /// What is told next; None when all was told that was asked for.
    ///
    /// # Errors
    /// A member refused, or no endpoint has served for a minute.
    pub async fn next(&mut self) -> Result<Option<v1::WatchEventsResponse>, Failure> {
        loop {
            let Some((at, address, stream)) = &mut self.stream else {
                self.open().await?;
                continue;
            };
            let (at, address) = (*at, address.clone());
            let status = match tokio::time::timeout(WATCH_SILENCE, stream.message()).await {
                Ok(Ok(Some(told))) => {
                    self.silent_since = Instant::now();
                    self.passed.clear();
                    self.request.since_index = Some(told.index);
                    return Ok(Some(told));
                }
                Ok(Ok(None)) if self.request.once => return Ok(None),
                Ok(Ok(None)) => Some(Status::unavailable("it ended the watch")),
                Ok(Err(status)) => Some(status),
                Err(_) => None,
            };
            self.stream = None;
            self.passed_over(at, &address, status.as_ref(), WATCH_SILENCE)?;
        }
    }

    async fn open(&mut self) -> Result<(), Failure> {
        let Some((at, address, link)) = self.cluster.current_link() else {
            return Err(nobody_answered(&[]).into());
        };
        let address = address.to_owned();
        match tokio::time::timeout(limits::CALL_TIMEOUT, ask(link, self.request.clone())).await {
            Ok(Ok(stream)) => {
                self.stream = Some((at, address, stream));
                return Ok(());
            }
            Ok(Err(status)) => self.passed_over(at, &address, Some(&status), limits::CALL_TIMEOUT)?,
            Err(_) => self.passed_over(at, &address, None, limits::CALL_TIMEOUT)?,
        }
        if self.silent_since.elapsed() >= WAITING_PATIENCE {
            let passed: Vec<_> = self.passed.values().cloned().collect();
            let mut refusal = nobody_answered(&passed);
            if let Some(since) = self.request.since_index {
                refusal.hint =
                    format!("{}; then go on where it broke off: sdm events --follow --since {since}", refusal.hint);
            }
            return Err(refusal.into());
        }
        tokio::time::sleep(RETRY_PAUSE).await;
        Ok(())
    }

    fn passed_over(
        &mut self,
        at: usize,
        address: &str,
        status: Option<&Status>,
        waited: Duration,
    ) -> Result<(), Failure> {
        match judge(address, status, waited) {
            Verdict::Final(refusal) => Err(refusal.into()),
            Verdict::PassOver(passed) => {
                self.cluster.pass_over(at);
                self.passed.insert(address.to_owned(), passed);
                Ok(())
            }
        }
    }
}

async fn ask(link: Link, request: v1::WatchEventsRequest) -> Result<Streaming<v1::WatchEventsResponse>, Status> {
    let mut client = EventServiceClient::new(link).max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
    client.watch_events(request).await.map(tonic::Response::into_inner)
}
