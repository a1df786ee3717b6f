//! Delivering what a worker says into the log: proposed again and again until `apply` answered or the
//! connection ends. A repetition is harmless: only the current attempt is believed, once.

use crate::core::Core;
use crate::core::Proposed;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_state::Command;
use std::time::Duration;
use tokio::time::Instant;

/// Pause after a proposal that found no leader in time.
const PAUSE: Duration = Duration::from_millis(500);

/// Proposes until there is an answer.
///
/// # Errors
/// The command can never be proposed.
pub(super) async fn deliver(core: Core, command: Command) -> Result<Proposed, Refusal> {
    loop {
        let deadline = Instant::now() + limits::CALL_TIMEOUT;
        match core.propose(command.clone(), deadline).await {
            Err(refusal) if is_passing(&refusal) => {
                tracing::debug!(kind = command.kind(), %refusal, "not proposed yet; trying again");
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

fn is_passing(refusal: &Refusal) -> bool {
    matches!(refusal.class, Class::Unavailable | Class::Timeout)
}
