//! How a running order speaks with whoever started it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde::Deserialize;
use serde::Serialize;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::Piece;

/// Pieces that a channel between an order and its carrier should hold: a few MiB, enough to keep both sides busy.
pub const PIECES_IN_FLIGHT: usize = 4;

/// How far an order is. Sent often (after each MiB or so); whoever receives it thins it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes dealt with over all volumes, holes included.
    pub done_bytes: u64,
    /// Bytes of all volumes together, as far as known: a stream announces each volume when it begins.
    pub total_bytes: u64,
}

/// What of a volume is durable: everything below an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The volume.
    pub volume: Uuid,
    /// All bytes below this offset were written and fdatasynced on the descriptor that wrote them.
    pub durable_bytes: u64,
}

/// Set from outside to stop an order; seen between two pieces, so within about a MiB of I/O.
#[derive(Debug, Clone, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ask the order to stop. Whoever carries pieces also closes their channels, to wake an order that waits.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Was it asked to stop?
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Everything an order may speak through.
pub struct Ports {
    /// Called with the order's progress, from any thread; must not block for long.
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
    /// Called after each checkpoint (every GiB or 30 s of an attempt), from any thread.
    pub checkpoint: Arc<dyn Fn(Checkpoint) + Send + Sync>,
    /// Milliseconds on a clock that never goes back: when checkpoints are due.
    pub now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// The way to stop the order.
    pub cancel: CancelFlag,
    /// Pieces for `Source::Pull` and `Source::Import`. Closed before the last volume's `End`: the sender is gone.
    pub incoming: Option<mpsc::Receiver<Piece>>,
    /// Pieces of `Order::SendPlacement`. Closed by its receiver: nobody wants them any more.
    pub outgoing: Option<mpsc::Sender<Piece>>,
}

impl Ports {
    /// Ports that nobody listens to, for orders without streams; their clock stands still.
    pub fn silent() -> Self {
        Self {
            progress: Arc::new(|_| {}),
            checkpoint: Arc::new(|_| {}),
            now_ms: Arc::new(|| 0),
            cancel: CancelFlag::new(),
            incoming: None,
            outgoing: None,
        }
    }
}
