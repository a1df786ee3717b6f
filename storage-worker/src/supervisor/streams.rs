//! Attempts whose bytes come from or go to somebody else: pulls, imports, exports, sources of pulls.
//! A ticket's door is open as long as the attempt is assigned; a process runs only while somebody is
//! connected.

use super::answers;
use super::attempt::Attempt;
use super::attempt::Driven;
use super::attempt::Own;
use crate::process::IoProcess;
use crate::process::NotTaken;
use crate::process::OrderEnd;
use crate::process::PieceSender;
use crate::process::RunningOrder;
use crate::transfer::ProgressRow;
use crate::transfer::Purpose;
use crate::transfer::Reader;
use crate::transfer::Sender;
use crate::transfer::Visit;
use crate::transfer::split;
use crate::work;
use crate::work::FileHash;
use crate::work::Order;
use crate::work::Outcome;
use crate::work::Piece;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::internal::v1::report::Outcome as Answer;
use tokio::sync::mpsc;

/// Where a pull reads from.
pub(super) struct PullSource {
    pub(super) address: String,
    pub(super) ticket: Vec<u8>,
    pub(super) volumes: Vec<String>,
}

/// Builds a placement from what another worker sends.
pub(super) async fn pull(attempt: &Attempt, order: Order, source: &PullSource, row: &ProgressRow) {
    let client = &attempt.workshop.pull;
    row.phase("connecting to the source");
    let opening = client.open(&source.address, &attempt.task.token, &source.ticket);
    let stream = tokio::select! {
        opened = opening => opened,
        () = attempt.stop.cancelled() => return,
    };
    let stream = match stream {
        Ok(stream) => stream,
        Err(refusal) => return attempt.report(answers::refused(refusal)).await,
    };
    row.phase("pull");
    let mut own = match attempt.start(order.clone()).await {
        Ok(own) => own,
        Err(answer) => return attempt.report(answer).await,
    };
    let pieces = own.order.incoming();
    let feeding = async {
        let carried = client.carry(&source.address, stream, &source.volumes, &pieces).await;
        // While the last pieces are written and published, only the order's end counts.
        if let Err(refusal) = carried { refusal } else { std::future::pending().await }
    };
    // Either way the stream to the source is closed before a process is waited for.
    let left = tokio::select! {
        driven = attempt.drive(&mut own.order, Some(&own.process), row) => Ok(driven),
        refusal = feeding => Err(refusal),
    };
    let answer = match left {
        Ok(Driven::Ended(end)) => attempt.conclude(&own.process, &order, end).await,
        Ok(Driven::Killed) => attempt.bury(own, &order).await,
        Err(refusal) => {
            attempt.end(&own.process).await;
            answers::refused(refusal)
        }
    };
    attempt.report(answer).await;
}

/// How a visit ended.
enum Visited {
    /// The attempt has its answer.
    Over(Answer),
    /// The other end went away; another may come when this process has ended.
    Left(IoProcess),
    /// The attempt is to stop; its process was killed.
    Stopping(Own),
}

/// Whether a killed process has ended before the attempt was told to stop.
async fn ended_in_time(attempt: &Attempt, process: &IoProcess) -> bool {
    process.kill();
    let _counted = attempt.workshop.unreaped.count(attempt.task.paths());
    tokio::select! {
        _ = process.reaped() => true,
        () = attempt.stop.cancelled() => false,
    }
}

/// Builds a placement from what a command sends.
pub(super) async fn receive(attempt: &Attempt, order: Order, ticket: &[u8], row: &ProgressRow) {
    let mut door = attempt.workshop.tickets.register(&attempt.task.token, ticket, Purpose::Upload, Vec::new());
    let mut over: Option<Result<FileHash, Refusal>> = None;
    loop {
        let visit = tokio::select! {
            visit = door.visits.recv() => visit,
            () = attempt.stop.cancelled() => return,
        };
        let Some(Visit::Sender(Sender { pieces, answer })) = visit else { return };
        if let Some(over) = &over {
            // It lost the answer and asks again.
            let _ = answer.send(over.clone());
            continue;
        }
        if answer.is_closed() {
            continue;
        }
        attempt.sender(true).await;
        row.reset("receive");
        let mut sent = None;
        match take_from(attempt, &order, pieces, &mut sent, row).await {
            Visited::Over(last) => {
                let told = told(&last, sent);
                attempt.report(last).await;
                let _ = answer.send(told.clone());
                over = Some(told);
                row.phase("done");
            }
            Visited::Left(process) => {
                attempt.sender(false).await;
                // What was written so far lies in the attempt's own folder; the next sender begins anew.
                if !ended_in_time(attempt, &process).await {
                    drop(door);
                    return attempt.end(&process).await;
                }
                row.reset("waiting for sender");
            }
            Visited::Stopping(own) => {
                // Whoever sends or waits at the door is told now, not when the process has ended.
                drop((answer, door));
                let last = attempt.bury(own, &order).await;
                return attempt.report(last).await;
            }
        }
    }
}

/// What the sender is told of the attempt's last word: the hash that it sent, now that it was found
/// right, or the volume's if an earlier sender was the one that completed it.
fn told(answer: &Answer, sent: Option<FileHash>) -> Result<FileHash, Refusal> {
    match answer {
        Answer::Done(done) => {
            let volume = || done.volumes.last().and_then(|volume| <[u8; 32]>::try_from(volume.blake3.as_ref()).ok());
            Ok(sent.unwrap_or_else(|| FileHash(volume().unwrap_or_default())))
        }
        answer => Err(answers::as_refusal(answer)),
    }
}

async fn take_from(
    attempt: &Attempt,
    order: &Order,
    mut pieces: mpsc::Receiver<Piece>,
    sent: &mut Option<FileHash>,
    row: &ProgressRow,
) -> Visited {
    let mut own = match attempt.start(order.clone()).await {
        Ok(own) => own,
        Err(answer) => return Visited::Over(answer),
    };
    let to = own.order.incoming();
    let feeding = async {
        match feed(&mut pieces, &to, sent).await {
            Fed::Broken => {}
            // While the order works on the last pieces, only its end counts.
            Fed::Complete | Fed::NotTaken => std::future::pending().await,
        }
    };
    let driven = tokio::select! {
        driven = attempt.drive(&mut own.order, Some(&own.process), row) => driven,
        () = feeding => return Visited::Left(own.process),
    };
    match driven {
        Driven::Ended(end) => Visited::Over(attempt.conclude(&own.process, order, end).await),
        Driven::Killed => Visited::Stopping(own),
    }
}

enum Fed {
    Complete,
    NotTaken,
    Broken,
}

async fn feed(pieces: &mut mpsc::Receiver<Piece>, to: &PieceSender, sent: &mut Option<FileHash>) -> Fed {
    while let Some(piece) = pieces.recv().await {
        if let Piece::End { hash, .. } = &piece {
            *sent = Some(*hash);
        }
        let last = sent.is_some();
        if let Err(NotTaken) = to.send(piece).await {
            return Fed::NotTaken;
        }
        if last {
            return Fed::Complete;
        }
    }
    Fed::Broken
}

/// Sends a volume to a command, and is done when the command took it to the end.
pub(super) async fn send(attempt: &Attempt, order: Order, ticket: &[u8], row: &ProgressRow) {
    let mut door = attempt.workshop.tickets.register(&attempt.task.token, ticket, Purpose::Download, Vec::new());
    loop {
        let visit = tokio::select! {
            visit = door.visits.recv() => visit,
            () = attempt.stop.cancelled() => return,
        };
        let Some(Visit::Reader(reader)) = visit else { return };
        attempt.sender(true).await;
        row.reset("send");
        match give_to(attempt, &order, reader, row).await {
            Visited::Over(answer) => {
                row.phase("done");
                attempt.report(answer).await;
            }
            Visited::Left(process) => {
                attempt.sender(false).await;
                if !ended_in_time(attempt, &process).await {
                    drop(door);
                    return attempt.end(&process).await;
                }
                row.reset("waiting for reader");
            }
            Visited::Stopping(own) => {
                drop(door);
                return attempt.end(&own.process).await;
            }
        }
    }
}

/// Sends a placement to another worker, as often as it asks. The attempt is the other worker's: it
/// reports, this side does not.
pub(super) async fn serve(attempt: &Attempt, order: Order, ticket: &[u8], volumes: Vec<String>, row: &ProgressRow) {
    let mut door = attempt.workshop.tickets.register(&attempt.task.token, ticket, Purpose::Pull, volumes);
    loop {
        let visit = tokio::select! {
            visit = door.visits.recv() => visit,
            () = attempt.stop.cancelled() => return,
        };
        let Some(Visit::Reader(reader)) = visit else { return };
        row.reset("serve");
        match give_to(attempt, &order, reader, row).await {
            Visited::Over(Answer::Done(_)) => tracing::info!(token = attempt.task.token, "the source was read"),
            Visited::Over(answer) => {
                let refusal = answers::as_refusal(&answer);
                tracing::warn!(token = attempt.task.token, %refusal, "the source could not be read");
            }
            Visited::Left(process) => {
                tracing::info!(token = attempt.task.token, "the reader of the source went away");
                if !ended_in_time(attempt, &process).await {
                    drop(door);
                    return attempt.end(&process).await;
                }
            }
            Visited::Stopping(own) => {
                drop(door);
                return attempt.end(&own.process).await;
            }
        }
        row.reset("waiting for reader");
    }
}

async fn give_to(attempt: &Attempt, order: &Order, reader: Reader, row: &ProgressRow) -> Visited {
    let Reader { pieces: to, finished } = reader;
    let Own { process, order: mut running } = match attempt.start(order.clone()).await {
        Ok(own) => own,
        Err(answer) => {
            let _ = to.send(Err(answers::as_refusal(&answer))).await;
            return Visited::Over(answer);
        }
    };
    let given = give(attempt, &mut running, &to, row).await;
    let end = match given {
        Given::Ended(end) => end,
        Given::ReaderLeft => return Visited::Left(process),
        Given::Stopping => {
            process.kill();
            let gone = Refusal::new(Class::Unavailable, "SOURCE_STOPPED", "the worker was told to stop sending")
                .hint("ask the transaction where to go on");
            let _ = to.try_send(Err(gone));
            return Visited::Stopping(Own { process, order: running });
        }
    };
    let complete = matches!(end, OrderEnd::Outcome(Outcome::Done(work::Done::Sent(_))));
    let answer = attempt.conclude(&process, order, end).await;
    if !complete {
        let told = tokio::select! {
            told = to.send(Err(answers::as_refusal(&answer))) => told,
            () = attempt.stop.cancelled() => Ok(()),
        };
        return if told.is_err() && matches!(answer, Answer::Failed(_)) {
            Visited::Left(process)
        } else {
            Visited::Over(answer)
        };
    }
    drop(to);
    // Sent is not yet taken: the reader may still go away with pieces on their way to it.
    tokio::select! {
        finished = finished => if finished.is_ok() { Visited::Over(answer) } else { Visited::Left(process) },
        () = attempt.stop.cancelled() => Visited::Over(Answer::Stopped(Default::default())),
    }
}

enum Given {
    Ended(OrderEnd),
    ReaderLeft,
    Stopping,
}

/// Carries pieces from the order to the reader until the order has ended and all were carried.
async fn give(
    attempt: &Attempt,
    running: &mut RunningOrder,
    to: &mpsc::Sender<Result<Piece, Refusal>>,
    row: &ProgressRow,
) -> Given {
    let mut state = running.state();
    let mut pieces = running.take_pieces();
    let carrying = async {
        while let Some(piece) = pieces.recv().await {
            for piece in split(piece) {
                if to.send(Ok(piece)).await.is_err() {
                    return Given::ReaderLeft;
                }
            }
        }
        // The order's end comes after its last piece.
        Given::Ended(running.ended().await)
    };
    tokio::pin!(carrying);
    loop {
        tokio::select! {
            given = &mut carrying => return given,
            Ok(()) = state.changed() => {
                let now = state.borrow_and_update().clone();
                row.advance(&now, attempt.workshop.clock.now_ms());
            }
            () = to.closed() => return Given::ReaderLeft,
            () = attempt.stop.cancelled() => return Given::Stopping,
        }
    }
}
