//! Renewing the clients' sessions. Their lease is long, so one that ends in a run was lost; its client
//! learns that from its next request.

use super::Endpoints;
use super::endpoints::locks;
use crate::history::History;
use sdm_proto::wire::v1;
use std::time::Duration;

/// How long a renewal is tried; the next one comes soon.
const PATIENCE: Duration = Duration::from_secs(15);

/// Renews all sessions that are open.
pub async fn keep_alive(endpoints: &mut Endpoints, history: &History) {
    let sessions: Vec<v1::SessionKey> = history.record().books.iter().filter_map(|book| book.session).collect();
    if sessions.is_empty() {
        return;
    }
    let call = |channel| {
        let request = v1::KeepAliveRequest { sessions: sessions.clone() };
        async move { locks(channel).keep_alive(request).await }
    };
    // Without an answer the next renewal is early enough.
    _ = endpoints.insist(PATIENCE, call).await;
}
