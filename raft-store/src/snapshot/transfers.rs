//! Which snapshots are on their way to a peer. While one is, no newer one is built: building one cuts
//! the log behind it, and a peer that gets the older one would find what follows it already gone,
//! and need the newer one, for as long as the load is high.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::Instant;

/// How long after its last piece a snapshot still counts as on its way: the peer checks it, installs
/// it and asks for the log behind it, which then stays for as long as it is being sent.
const INSTALL_TIME: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    /// When the last one ended.
    ended: Option<Instant>,
}

/// The transfers from one folder. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transfers(Arc<Mutex<State>>);

/// One transfer; it ends with this.
#[derive(Debug)]
pub(crate) struct Transfer(Transfers);

impl Transfers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot begins its way.
    pub(crate) fn begin(&self) -> Transfer {
        self.state().under_way += 1;
        Transfer(self.clone())
    }

    /// Whether a peer has use for the log behind an older snapshot.
    pub(crate) fn need_the_log(&self, now: Instant) -> bool {
        let state = self.state();
        state.under_way > 0 || state.ended.is_some_and(|ended| now.saturating_duration_since(ended) < INSTALL_TIME)
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.under_way = state.under_way.saturating_sub(1);
        state.ended = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_needed_from_the_first_piece_until_the_peer_has_installed_it() {
        let transfers = Transfers::default();
        let now = Instant::now();
        assert!(!transfers.need_the_log(now));
        let (first, second) = (transfers.begin(), transfers.begin());
        drop(first);
        assert!(transfers.need_the_log(now + 10 * INSTALL_TIME), "the second is under way");
        drop(second);
        let ended = Instant::now();
        assert!(transfers.need_the_log(ended));
        assert!(!transfers.need_the_log(ended + INSTALL_TIME));
    }
}
