//! The clock seam: monotonic milliseconds, and sleeping until one of them. The real side counts the
//! time a machine was suspended too (CLOCK_BOOTTIME), because a lease runs out during it. Wall
//! clocks are shown to people and never compared, so they are no part of it.

use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// A monotonic clock in milliseconds from an arbitrary start.
pub trait Clock: Send + Sync + std::fmt::Debug + 'static {
    /// Milliseconds since the clock's start; never goes back.
    fn now_ms(&self) -> u64;
    /// Completes when the clock has reached this time.
    fn sleep_until(&self, at_ms: u64) -> BoxFuture<'static, ()>;
}

/// The kernel's boot-time clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct BootClock;

/// A suspended machine wakes with its timers late by the time it slept; looking again this often
/// bounds how late a sleeper notices.
const RECHECK: Duration = Duration::from_secs(1);

impl Clock for BootClock {
    fn now_ms(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
        seconds * 1000 + nanoseconds / 1_000_000
    }

    fn sleep_until(&self, at_ms: u64) -> BoxFuture<'static, ()> {
        let clock = *self;
        Box::pin(async move {
            loop {
                let left = Duration::from_millis(at_ms.saturating_sub(clock.now_ms()));
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(if left > 2 * RECHECK { left - RECHECK } else { left }).await;
            }
        })
    }
}

/// A clock that a test moves.
#[derive(Debug, Clone)]
pub struct SimulatedClock {
    now_ms: Arc<AtomicU64>,
    moved: watch::Sender<u64>,
}

impl Default for SimulatedClock {
    fn default() -> Self {
        Self { now_ms: Arc::default(), moved: watch::Sender::new(0) }
    }
}

impl SimulatedClock {
    /// Moves the clock forward and wakes whoever slept until a time that has come.
    pub fn advance(&self, by_ms: u64) {
        let now = self.now_ms.fetch_add(by_ms, Ordering::SeqCst) + by_ms;
        self.moved.send_replace(now);
    }
}

impl Clock for SimulatedClock {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn sleep_until(&self, at_ms: u64) -> BoxFuture<'static, ()> {
        let mut moved = self.moved.subscribe();
        let now_ms = Arc::clone(&self.now_ms);
        Box::pin(async move {
            // The sender lives in every clone of the clock; when all are gone, nobody can ever
            // wake this sleeper, and it stays asleep as it should.
            if moved.wait_for(|_| now_ms.load(Ordering::SeqCst) >= at_ms).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_simulated_sleeper_wakes_when_its_time_has_come_and_not_before() {
        let clock = SimulatedClock::default();
        let mut sleep = tokio::spawn(clock.sleep_until(100));
        clock.advance(99);
        assert!(futures_util::poll!(&mut sleep).is_pending());
        clock.advance(1);
        assert!(sleep.await.is_ok());
    }

    #[tokio::test]
    async fn the_boot_clock_reaches_a_time_that_lies_ahead() {
        let at = BootClock.now_ms() + 20;
        BootClock.sleep_until(at).await;
        assert!(BootClock.now_ms() >= at);
    }
}
