//! Why this member must not go on, when it is neither its disk nor Raft that says so: whoever finds
//! out leaves the reason here, and the member's life ends with it.

use sdm_proto::refusal::Refusal;
use tokio::sync::watch;

/// A place for the reason. The first one stays.
#[derive(Debug)]
pub(crate) struct Ending(watch::Sender<Option<Refusal>>);

impl Default for Ending {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Ending {
    /// This member must not go on.
    pub fn end(&self, reason: Refusal) {
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                tracing::error!(reason = reason.reason, "this member stops: {reason}");
                *first = Some(reason);
            }
            is_first
        });
    }

    /// Waits for a reason, perhaps for ever.
    pub async fn wait(&self) -> Refusal {
        let mut first = self.0.subscribe();
        loop {
            if let Some(reason) = first.borrow_and_update().clone() {
                return reason;
            }
            // The sender lives in `self`, so this ends only with a change.
            if first.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdm_proto::refusal::Class;

    #[tokio::test]
    async fn the_first_reason_stays() {
        let ending = Ending::default();
        ending.end(Refusal::new(Class::Internal, "ONE", "one"));
        ending.end(Refusal::new(Class::Internal, "TWO", "two"));
        assert_eq!(ending.wait().await.reason, "ONE");
    }
}
