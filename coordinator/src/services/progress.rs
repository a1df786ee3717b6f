//! Live progress, asked from the workers themselves: it changes too often for the log. A worker that
//! does not answer in time has no progress to show; nothing depends on it.

use crate::core::Core;
use futures_util::stream::FuturesUnordered;
use futures_util::stream::StreamExt;
use sdm_proto::ids::WorkerId;
use sdm_proto::limits;
use sdm_proto::seams;
use sdm_proto::wire::internal::v1::GetProgressRequest;
use sdm_proto::wire::internal::v1::worker_data_service_client::WorkerDataServiceClient;
use sdm_proto::wire::v1::JobProgress;
use sdm_state::State;
use sdm_state::work::Attempt;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use tonic::transport::Channel;

/// How long a worker may take: an answer that comes later is about the past, and a list must not hang
/// on a dead host.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Channels that are kept. More workers than this are rare, and a dropped channel is made again.
const CHANNELS_MAX: usize = 256;

/// Asks workers. Clones share their channels.
#[derive(Clone)]
pub(crate) struct ProgressReader {
    core: Core,
    channels: Arc<Mutex<HashMap<String, Channel>>>,
}

/// Where to ask about some attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    worker: WorkerId,
    address: String,
    tokens: Vec<String>,
}

impl Question {
    /// About these attempts, one question a worker.
    pub(crate) fn about<'a>(state: &State, attempts: impl Iterator<Item = &'a Attempt>) -> Vec<Self> {
        let mut questions: BTreeMap<WorkerId, Self> = BTreeMap::new();
        for attempt in attempts {
            let Some(worker) = state.workers.get(&attempt.worker).filter(|worker| worker.is_live()) else { continue };
            let question = questions.entry(attempt.worker).or_insert_with(|| Self {
                worker: attempt.worker,
                address: worker.identity.address.clone(),
                tokens: Vec::new(),
            });
            question.tokens.push(attempt.token.to_string());
        }
        questions.into_values().collect()
    }
}

impl ProgressReader {
    /// Over this member's core.
    pub(crate) fn new(core: Core) -> Self {
        Self { core, channels: Arc::default() }
    }

    /// Progress by token, of those whose worker answered in time.
    pub(crate) async fn ask(&self, questions: Vec<Question>) -> HashMap<String, JobProgress> {
        let mut asked: FuturesUnordered<_> = questions.into_iter().map(|question| self.ask_one(question)).collect();
        let mut progress = HashMap::new();
        while let Some(answer) = asked.next().await {
            progress.extend(answer);
        }
        progress
    }

    async fn ask_one(&self, question: Question) -> HashMap<String, JobProgress> {
        let Some(channel) = self.channel(&question.address) else { return HashMap::new() };
        let credentials = self.core.credentials_internal(format!("worker/{}", question.worker));
        let mut client = WorkerDataServiceClient::with_interceptor(channel, credentials)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
        let request = GetProgressRequest { tokens: question.tokens };
        match tokio::time::timeout(ANSWER_WITHIN, client.get_progress(request)).await {
            Ok(Ok(response)) => response.into_inner().progress,
            Ok(Err(status)) => {
                tracing::debug!(worker = %question.worker, address = question.address, %status, "no progress");
                HashMap::new()
            }
            Err(_) => {
                tracing::debug!(worker = %question.worker, address = question.address, "no progress in time");
                HashMap::new()
            }
        }
    }

    fn channel(&self, address: &str) -> Option<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Some(channel.clone());
        }
        let channel = seams::channel(self.core.transport(), address)
            .inspect_err(|error| tracing::warn!(address, %error, "a worker advertises an address that is none"))
            .ok()?;
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Some(channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn a_live_worker_is_asked_once_about_all_its_attempts_and_a_lost_one_never() {
        let mut sample = Sample::with_disk();
        sample.begin_move("web-01", "nfs2");
        sample.begin_import("db-01", "nfs1");
        let attempts = |sample: &Sample| -> Vec<Attempt> {
            sample.state.jobs.values().filter_map(|job| job.work.attempt.clone()).collect()
        };
        let running = attempts(&sample);
        let questions = Question::about(&sample.state, running.iter());
        let [question] = questions.as_slice() else { panic!("one question, not {questions:?}") };
        assert_eq!((question.address.as_str(), question.tokens.len()), ("a.example:7401", 2));
        sample.lose("a");
        assert_eq!(Question::about(&sample.state, running.iter()), []);
    }
}
