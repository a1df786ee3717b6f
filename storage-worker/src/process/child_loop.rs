//! What an I/O process does all its life: takes orders from its stream, runs each beside the others,
//! carries their pieces, and says how each ended. It returns when the stream ends; the real process
//! exits then, whatever still runs in it.

use super::frame;
use super::frame::FromChild;
use super::frame::OrderId;
use super::frame::OrderState;
use super::frame::ToChild;
use crate::work;
use crate::work::CancelFlag;
use crate::work::Failure;
use crate::work::Order;
use crate::work::Outcome;
use crate::work::PIECES_IN_FLIGHT;
use crate::work::Piece;
use crate::work::Ports;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use sdm_proto::seams::BootClock;
use sdm_proto::seams::Clock;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;

/// Orders that one child runs at once: a domain's steps are small, and each takes a thread.
pub(crate) const ORDERS_MAX: usize = 64;

/// How often the state of an order is sent at most: ten a second are enough for a progress bar.
const STATE_INTERVAL: Duration = Duration::from_millis(100);

/// Stack of an order's thread.
const STACK_BYTES: usize = 2 << 20;

/// Runs one order to its end.
pub trait OrderRunner: Send + Sync + 'static {
    /// The outcome of this order. Dropping the future need not stop the order; its cancel flag does.
    fn run(&self, order: Order, ports: Ports) -> BoxFuture<'static, Outcome>;
}

/// Runs each order on a thread of its own, because storage calls block. A thread that is done waits for the next order.
#[derive(Debug, Clone, Default)]
pub struct Threads(Arc<Mutex<Vec<Hand>>>);

/// A thread that waits for an order. Dropped, it ends.
#[derive(Debug)]
struct Hand(std::sync::mpsc::Sender<Job>);

/// An order on its way to a thread, with that thread's own handle for afterwards.
struct Job {
    order: Order,
    ports: Ports,
    end: oneshot::Sender<Outcome>,
    hand: Hand,
}

fn failure(message: impl Into<String>) -> Outcome {
    Outcome::Failed(Failure { message: message.into(), hint: String::new() })
}

impl Threads {
    fn idle(&self) -> MutexGuard<'_, Vec<Hand>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle thread, or a new one.
    fn hand(&self) -> io::Result<Hand> {
        if let Some(hand) = self.idle().pop() {
            return Ok(hand);
        }
        let (hand, jobs) = std::sync::mpsc::channel::<Job>();
        let idle = Arc::downgrade(&self.0);
        std::thread::Builder::new().name("order".into()).stack_size(STACK_BYTES).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            for Job { order, ports, end, hand } in jobs {
                let outcome = match &runtime {
                    Ok(runtime) => runtime.block_on(work::run(order, ports)),
                    Err(error) => failure(format!("the order's runtime cannot start: {error}")),
                };
                if let Some(idle) = idle.upgrade() {
                    idle.lock().unwrap_or_else(PoisonError::into_inner).push(hand);
                }
                let _ = end.send(outcome);
            }
        })?;
        Ok(Hand(hand))
    }
}

impl OrderRunner for Threads {
    fn run(&self, order: Order, ports: Ports) -> BoxFuture<'static, Outcome> {
        let (end, ended) = oneshot::channel();
        let given = self.hand().and_then(|hand| {
            let to = hand.0.clone();
            to.send(Job { order, ports, end, hand }).map_err(|_| io::Error::other("it ended"))
        });
        Box::pin(async move {
            if let Err(error) = given {
                return failure(format!("the order's thread cannot start: {error}"));
            }
            ended.await.unwrap_or_else(|_| failure("the order's thread ended in a panic, which is a defect of sdm"))
        })
    }
}

/// What the loop keeps of a running order.
struct Running {
    cancel: CancelFlag,
    pieces: Option<mpsc::Sender<Piece>>,
    task: AbortHandle,
}

type Frames = mpsc::Sender<(FromChild, Bytes)>;

/// Serves one stream until its end.
///
/// # Errors
/// The stream broke, or what came over it is no frame.
pub async fn serve<S>(stream: S, runner: Arc<dyn OrderRunner>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (frames, mut outgoing) = mpsc::channel::<(FromChild, Bytes)>(PIECES_IN_FLIGHT);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some((header, payload)) = outgoing.recv().await {
            if frame::write(&mut writer, &header, payload).await.is_err() {
                return;
            }
        }
    });
    let mut orders = BTreeMap::<OrderId, Running>::new();
    while let Some((header, payload)) = frame::read::<_, ToChild>(&mut reader).await? {
        match header {
            ToChild::Order { id, order } => {
                orders.retain(|_, order| !order.task.is_finished());
                if orders.len() >= ORDERS_MAX {
                    let outcome = Box::new(failure(format!("the I/O process runs {ORDERS_MAX} orders already")));
                    let _ = frames.send((FromChild::Ended { id, outcome }, Bytes::new())).await;
                    continue;
                }
                let (pieces, incoming) = mpsc::channel(PIECES_IN_FLIGHT);
                let ports = prepare(incoming);
                let cancel = ports.ports.cancel.clone();
                let task = tasks.spawn(run(id, *order, ports, Arc::clone(&runner), frames.clone()));
                orders.insert(id, Running { cancel, pieces: Some(pieces), task });
            }
            ToChild::Piece { id, piece } => {
                let pieces = orders.get_mut(&id).and_then(|order| order.pieces.as_ref());
                if let Some(pieces) = pieces {
                    // Fails when the order ended early; its outcome is on the way.
                    let _ = pieces.send(frame::join(piece, payload)).await;
                }
            }
            ToChild::PiecesEnd { id } => {
                if let Some(order) = orders.get_mut(&id) {
                    order.pieces = None;
                }
            }
            ToChild::Cancel { id } => {
                if let Some(order) = orders.get_mut(&id) {
                    order.cancel.set();
                    order.pieces = None;
                }
            }
        }
    }
    for order in orders.values() {
        order.cancel.set();
    }
    drop(orders);
    Ok(())
}

/// Ports of an order and what feeds them.
struct OrderPorts {
    ports: Ports,
    state: watch::Receiver<OrderState>,
    outgoing: mpsc::Receiver<Piece>,
}

fn prepare(incoming: mpsc::Receiver<Piece>) -> OrderPorts {
    let (outgoing, outgoing_seen) = mpsc::channel(PIECES_IN_FLIGHT);
    let (state, state_seen) = watch::channel(OrderState::default());
    let state = Arc::new(state);
    let ports = Ports {
        progress: {
            let state = Arc::clone(&state);
            Arc::new(move |progress| state.send_modify(|state| state.advance(progress)))
        },
        checkpoint: Arc::new(move |checkpoint| state.send_modify(|state| state.record(checkpoint))),
        now_ms: Arc::new(|| BootClock.now_ms()),
        cancel: CancelFlag::new(),
        incoming: Some(incoming),
        outgoing: Some(outgoing),
    };
    OrderPorts { ports, state: state_seen, outgoing: outgoing_seen }
}

/// One order from its ports to its last frame. The end is sent after everything else of the order.
async fn run(id: OrderId, order: Order, ports: OrderPorts, runner: Arc<dyn OrderRunner>, frames: Frames) {
    let OrderPorts { ports, state, mut outgoing } = ports;
    let last_state = state.clone();
    let telling = tokio::spawn(tell_state(id, state, frames.clone()));
    let pieces = async {
        while let Some(piece) = outgoing.recv().await {
            let (piece, payload) = frame::part(piece);
            if frames.send((FromChild::Piece { id, piece }, payload)).await.is_err() {
                return;
            }
        }
    };
    let (outcome, ()) = tokio::join!(runner.run(order, ports), pieces);
    telling.abort();
    let state = last_state.borrow().clone();
    let _ = frames.send((FromChild::State { id, state }, Bytes::new())).await;
    let _ = frames.send((FromChild::Ended { id, outcome: Box::new(outcome) }, Bytes::new())).await;
}

async fn tell_state(id: OrderId, mut state: watch::Receiver<OrderState>, frames: Frames) {
    while state.changed().await.is_ok() {
        let now = state.borrow_and_update().clone();
        if frames.send((FromChild::State { id, state: now }, Bytes::new())).await.is_err() {
            return;
        }
        tokio::time::sleep(STATE_INTERVAL).await;
    }
}
