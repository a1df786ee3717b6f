//! The supervisor's end of one I/O process: hands orders in, carries their pieces, and tells how each
//! ended. An order whose process went away ends only when that process was reaped, so that "ended"
//! always means "writes no more". Which process gets which order is decided elsewhere.

use super::Child;
use super::Exit;
use super::frame;
use super::frame::FromChild;
use super::frame::OrderId;
use super::frame::OrderState;
use super::frame::ToChild;
use crate::work::Order;
use crate::work::Outcome;
use crate::work::PIECES_IN_FLIGHT;
use crate::work::Piece;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

type Frame = (ToChild, Bytes);

/// How an order ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderEnd {
    /// It ran to an end of its own.
    Outcome(Outcome),
    /// Its process ended first, and was reaped.
    ProcessGone(Exit),
}

/// A route from the child's frames to whoever waits for them.
struct Route {
    state: watch::Sender<OrderState>,
    pieces: mpsc::Sender<Piece>,
    end: oneshot::Sender<OrderEnd>,
}

/// Open routes; or how the process ended, once it was reaped.
enum Routes {
    Open(BTreeMap<OrderId, Route>),
    Gone(Exit),
}

struct Shared {
    pid: u32,
    routes: Mutex<Routes>,
    next_id: AtomicU64,
    kill: Arc<dyn Fn() + Send + Sync>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Shared {
    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One I/O process. A cheap clone; when the last one is dropped, the stream ends and the child exits.
#[derive(Clone)]
pub struct IoProcess {
    shared: Arc<Shared>,
    frames: mpsc::Sender<Frame>,
}

impl std::fmt::Debug for IoProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IoProcess").field("pid", &self.shared.pid).finish_non_exhaustive()
    }
}

/// Learns when a process was reaped.
#[derive(Debug, Clone)]
pub struct ExitWatch(watch::Receiver<Option<Exit>>);

impl ExitWatch {
    /// Waits until it was reaped.
    pub async fn reaped(self) -> Exit {
        reaped(self.0).await
    }
}

/// An order on its way.
#[derive(Debug)]
pub struct RunningOrder {
    id: OrderId,
    frames: mpsc::Sender<Frame>,
    state: watch::Receiver<OrderState>,
    end: oneshot::Receiver<OrderEnd>,
    exit: watch::Receiver<Option<Exit>>,
    pieces: Option<mpsc::Receiver<Piece>>,
}

/// Carries pieces into an order.
#[derive(Debug, Clone)]
pub struct PieceSender {
    id: OrderId,
    frames: mpsc::Sender<Frame>,
}

/// The order's process takes no more pieces; the order's end says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the I/O process takes no more pieces")]
pub struct NotTaken;

/// Waits until a process was reaped.
pub(super) async fn reaped(mut exit: watch::Receiver<Option<Exit>>) -> Exit {
    match exit.wait_for(Option::is_some).await.map(|exit| exit.clone()) {
        Ok(Some(exit)) => exit,
        // The waiter went away without a word, which only happens while the whole runtime ends.
        // Nothing was proved, so nobody may go on as if it were.
        _ => std::future::pending().await,
    }
}

impl IoProcess {
    /// Takes a child over.
    #[must_use]
    pub fn new(child: Child) -> Self {
        let (frames, outgoing) = mpsc::channel(PIECES_IN_FLIGHT);
        let shared = Arc::new(Shared {
            pid: child.pid,
            routes: Mutex::new(Routes::Open(BTreeMap::new())),
            next_id: AtomicU64::new(1),
            kill: child.kill,
            exit: child.exit,
        });
        let (reader, writer) = tokio::io::split(child.stream);
        tokio::spawn(write_frames(writer, outgoing));
        tokio::spawn(read_frames(reader, Arc::clone(&shared)));
        Self { shared, frames }
    }

    /// Hands an order in. Does not wait for a child that takes nothing: whoever watches it must go on.
    pub async fn submit(&self, order: Order) -> RunningOrder {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (state, state_seen) = watch::channel(OrderState::default());
        let (pieces, pieces_seen) = mpsc::channel(PIECES_IN_FLIGHT);
        let (end, end_seen) = oneshot::channel();
        match &mut *self.shared.routes() {
            Routes::Open(routes) => {
                routes.insert(id, Route { state, pieces, end });
            }
            Routes::Gone(exit) => {
                let _ = end.send(OrderEnd::ProcessGone(exit.clone()));
            }
        }
        // A process that takes no frames any more is dying: the reader resolves the route.
        let frame = (ToChild::Order { id, order: Box::new(order) }, Bytes::new());
        if let Err(mpsc::error::TrySendError::Full(frame)) = self.frames.try_send(frame) {
            let frames = self.frames.clone();
            tokio::spawn(async move { frames.send(frame).await });
        }
        RunningOrder {
            id,
            frames: self.frames.clone(),
            state: state_seen,
            end: end_seen,
            exit: self.shared.exit.clone(),
            pieces: Some(pieces_seen),
        }
    }

    /// Sends SIGKILL.
    pub fn kill(&self) {
        (self.shared.kill)();
    }

    /// Waits until it was reaped.
    pub async fn reaped(&self) -> Exit {
        reaped(self.shared.exit.clone()).await
    }

    /// Waits for the same without keeping the process's stream open.
    #[must_use]
    pub fn exit(&self) -> ExitWatch {
        ExitWatch(self.shared.exit.clone())
    }

    /// Whether it was reaped.
    #[must_use]
    pub fn is_reaped(&self) -> bool {
        self.shared.exit.borrow().is_some()
    }

    /// Process id, for logs.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.shared.pid
    }
}

impl RunningOrder {
    /// A way in for pieces.
    #[must_use]
    pub fn incoming(&self) -> PieceSender {
        PieceSender { id: self.id, frames: self.frames.clone() }
    }

    /// The pieces that `Order::SendPlacement` reads; they end with the order or its process. Not
    /// taking them holds the child up. Empty when they were taken before.
    pub fn take_pieces(&mut self) -> mpsc::Receiver<Piece> {
        self.pieces.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// How far it is.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<OrderState> {
        self.state.clone()
    }

    /// Asks the order to stop; it answers with its end. May be dropped and asked again.
    pub async fn cancel(&self) {
        let _ = self.frames.send((ToChild::Cancel { id: self.id }, Bytes::new())).await;
    }

    /// Waits for its end. May be dropped and called again until it answered once.
    pub async fn ended(&mut self) -> OrderEnd {
        match (&mut self.end).await {
            Ok(end) => end,
            // The reader is gone without resolving the route: wait for what it would have said.
            Err(_) => OrderEnd::ProcessGone(reaped(self.exit.clone()).await),
        }
    }
}

impl PieceSender {
    /// Hands a piece in; waits while the child is busy with earlier ones.
    ///
    /// # Errors
    /// The process is gone.
    pub async fn send(&self, piece: Piece) -> Result<(), NotTaken> {
        let (piece, payload) = frame::part(piece);
        self.frames.send((ToChild::Piece { id: self.id, piece }, payload)).await.map_err(|_| NotTaken)
    }

    /// Says that no more come.
    pub async fn close(self) {
        let _ = self.frames.send((ToChild::PiecesEnd { id: self.id }, Bytes::new())).await;
    }
}

async fn write_frames(mut writer: impl tokio::io::AsyncWrite + Unpin, mut frames: mpsc::Receiver<Frame>) {
    while let Some((header, payload)) = frames.recv().await {
        if frame::write(&mut writer, &header, payload).await.is_err() {
            // The child went away; whoever reads from it learns how.
            return;
        }
    }
    let _ = writer.shutdown().await;
}

async fn read_frames(mut reader: impl tokio::io::AsyncRead + Unpin, shared: Arc<Shared>) {
    loop {
        match frame::read::<_, FromChild>(&mut reader).await {
            Ok(Some((header, payload))) => take(&shared, header, payload).await,
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(pid = shared.pid, %error, "an I/O process's stream broke");
                break;
            }
        }
    }
    // Without its stream a child is of no use; most are exiting already.
    (shared.kill)();
    let exit = reaped(shared.exit.clone()).await;
    let before = std::mem::replace(&mut *shared.routes(), Routes::Gone(exit.clone()));
    if let Routes::Open(routes) = before {
        for route in routes.into_values() {
            let _ = route.end.send(OrderEnd::ProcessGone(exit.clone()));
        }
    }
}

async fn take(shared: &Shared, header: FromChild, payload: Bytes) {
    match header {
        FromChild::State { id, state } => {
            if let Routes::Open(routes) = &*shared.routes()
                && let Some(route) = routes.get(&id)
            {
                route.state.send_replace(state);
            }
        }
        FromChild::Piece { id, piece } => {
            let pieces = match &*shared.routes() {
                Routes::Open(routes) => routes.get(&id).map(|route| route.pieces.clone()),
                Routes::Gone(_) => None,
            };
            if let Some(pieces) = pieces {
                // Fails when nobody wants them any more; the order is about to be ended then.
                let _ = pieces.send(frame::join(piece, payload)).await;
            }
        }
        FromChild::Ended { id, outcome } => {
            let route = match &mut *shared.routes() {
                Routes::Open(routes) => routes.remove(&id),
                Routes::Gone(_) => None,
            };
            if let Some(route) = route {
                let _ = route.end.send(OrderEnd::Outcome(*outcome));
            }
        }
    }
}
