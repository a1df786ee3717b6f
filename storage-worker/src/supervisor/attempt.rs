//! One attempt, from its task to its answer, as a task of its own. It ends its process and waits
//! until that was reaped before it says anything that could let another attempt begin.

use super::answers;
use super::answers::Stopped;
use super::domain_process::DomainProcess;
use super::streams;
use super::task::Task;
use super::task::Way;
use super::turns::Place;
use super::turns::Turn;
use super::turns::Turns;
use super::unreaped::Unreaped;
use crate::folder::ChildrenLock;
use crate::process::IoProcess;
use crate::process::IoProcesses;
use crate::process::OrderEnd;
use crate::process::OrderState;
use crate::process::RunningOrder;
use crate::transfer::ProgressBoard;
use crate::transfer::ProgressRow;
use crate::transfer::PullClient;
use crate::transfer::Tickets;
use crate::work::Order;
use sdm_proto::seams::Clock;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::report::Outcome as Answer;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What all attempts share.
#[derive(Clone)]
pub(crate) struct Workshop {
    pub(crate) processes: Arc<dyn IoProcesses>,
    pub(crate) lock: ChildrenLock,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tickets: Tickets,
    pub(crate) progress: ProgressBoard,
    pub(crate) pull: PullClient,
    /// What people call this worker, for messages about its host.
    pub(crate) name: Arc<str>,
    pub(crate) unreaped: Unreaped,
    pub(crate) turns: Turns,
}

/// What an attempt tells the supervisor.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) token: String,
    /// Which start of the token it is about.
    pub(super) incarnation: u64,
    pub(super) said: Said,
}

#[derive(Debug)]
pub(super) enum Said {
    /// To be reported; the last word unless it is a checkpoint or a sender's state.
    Answer(Answer),
    /// The task is over and its process, if it had one, reaped.
    Over,
}

/// One attempt while it runs.
pub(super) struct Attempt {
    pub(super) workshop: Workshop,
    pub(super) task: Task,
    pub(super) incarnation: u64,
    pub(super) stop: CancellationToken,
    pub(super) words: mpsc::Sender<Word>,
}

/// A process of its own and the order in it.
pub(super) struct Own {
    pub(super) process: IoProcess,
    pub(super) order: RunningOrder,
}

/// How an order was left.
pub(super) enum Driven {
    /// It has ended.
    Ended(OrderEnd),
    /// The attempt was told to stop, and the order's own process was killed. It may take its time to
    /// end: nothing but the process may be held meanwhile.
    Killed,
}

impl Attempt {
    /// Runs it to its end. `domain` is the process of the domain that steps run in.
    pub(super) async fn run(self, domain: DomainProcess) {
        let phase = match &self.task.way {
            Way::Step(_) => "step",
            Way::Build(_) => "copy",
            Way::Pull { .. } => "pull",
            Way::Receive { .. } => "waiting for sender",
            Way::Send { .. } | Way::Serve { .. } => "waiting for reader",
        };
        let Task { token, attempt, total_bytes, .. } = &self.task;
        let row = self.workshop.progress.row(token, *attempt, *total_bytes, phase);
        let way = self.task.way.clone();
        match way {
            Way::Step(order) => self.step(&domain, order, &row).await,
            Way::Build(order) => self.build(order, &row).await,
            Way::Pull { order, address, ticket, volumes } => {
                let source = streams::PullSource { address, ticket, volumes };
                streams::pull(&self, order, &source, &row).await;
            }
            Way::Receive { order, ticket } => streams::receive(&self, order, &ticket, &row).await,
            Way::Send { order, ticket } => streams::send(&self, order, &ticket, &row).await,
            Way::Serve { order, ticket, volumes } => streams::serve(&self, order, &ticket, volumes, &row).await,
        }
        // The same token may begin again at once, with a row of its own.
        drop(row);
        self.say(Said::Over).await;
    }

    async fn step(&self, domain: &DomainProcess, order: Order, row: &ProgressRow) {
        // Held until the order has ended, however long a killed process takes for that.
        let (_turn, _slot) = tokio::select! {
            places = async { (self.turn(&order).await, domain.slot().await) } => places,
            () = self.stop.cancelled() => return,
        };
        let answer = match domain.run(order.clone()).await {
            Ok(mut running) => {
                let end = match self.drive(&mut running, None, row).await {
                    Driven::Ended(end) => end,
                    Driven::Killed => running.ended().await,
                };
                self.answer_of(&order, end)
            }
            Err(error) => answers::failed("DOMAIN_UNREACHABLE", error.to_string(), "the domain is probed meanwhile"),
        };
        self.report(answer).await;
    }

    async fn turn(&self, order: &Order) -> Option<Turn> {
        match Place::of(order) {
            Some(place) => Some(self.workshop.turns.take(place, &self.task.paths()).await),
            None => None,
        }
    }

    async fn build(&self, order: Order, row: &ProgressRow) {
        let _turn = tokio::select! {
            turn = self.turn(&order) => turn,
            () = self.stop.cancelled() => return,
        };
        let answer = match self.start(order.clone()).await {
            Ok(mut own) => match self.drive(&mut own.order, Some(&own.process), row).await {
                Driven::Ended(end) => self.conclude(&own.process, &order, end).await,
                Driven::Killed => self.bury(own, &order).await,
            },
            Err(answer) => answer,
        };
        self.report(answer).await;
    }

    /// Starts a process and an order in it; waits while too many on the same paths do not end.
    pub(super) async fn start(&self, order: Order) -> Result<Own, Answer> {
        let paths = self.task.paths();
        tokio::select! {
            () = self.workshop.unreaped.room(&paths) => {}
            () = self.stop.cancelled() => return Err(Answer::Stopped(wire::Stopped {})),
        }
        let child = self.workshop.processes.start(self.workshop.lock.serving(&paths)).await.map_err(|error| {
            let message = format!("no I/O process can be started: {error}");
            answers::failed("NO_PROCESS", message, "see the limits on processes and memory of the worker's host")
        })?;
        let process = IoProcess::new(child);
        tracing::debug!(token = self.task.token, pid = process.pid(), "an I/O process runs the attempt");
        let order = process.submit(order).await;
        Ok(Own { process, order })
    }

    /// Waits for an order's end, telling how far it is, and stops it when the attempt is to stop: by
    /// killing its process where it has one of its own, else by asking. A killed one is not waited
    /// for here.
    pub(super) async fn drive(&self, running: &mut RunningOrder, own: Option<&IoProcess>, row: &ProgressRow) -> Driven {
        let mut state = running.state();
        let mut asked = false;
        let mut told_bytes = 0;
        loop {
            tokio::select! {
                end = running.ended() => return Driven::Ended(end),
                Ok(()) = state.changed() => {
                    let now = state.borrow_and_update().clone();
                    self.tell(&now, &mut told_bytes, row).await;
                }
                () = self.stop.cancelled(), if !asked => {
                    asked = true;
                    match own {
                        Some(process) => {
                            process.kill();
                            return Driven::Killed;
                        }
                        None => running.cancel().await,
                    }
                }
            }
        }
    }

    async fn tell(&self, state: &OrderState, told_bytes: &mut u64, row: &ProgressRow) {
        row.advance(state, self.workshop.clock.now_ms());
        let durable_bytes = state.durable_bytes();
        if durable_bytes > *told_bytes {
            *told_bytes = durable_bytes;
            self.report(Answer::Checkpoint(wire::Checkpoint { durable_bytes })).await;
        }
    }

    /// The answer to an order's end.
    pub(super) fn answer_of(&self, order: &Order, end: OrderEnd) -> Answer {
        let stopped = if self.stop.is_cancelled() { Stopped::Yes } else { Stopped::No };
        let answer = answers::at_worker(answers::answer(order, end, stopped), &self.workshop.name);
        if answers::is_hosts_affair(order, &answer) { answers::as_failure(answer) } else { answer }
    }

    /// Waits for the end of a killed process, however long the kernel takes, and answers for its
    /// order. The caller has let go of everything else: streams, tickets, whoever waits for an answer.
    pub(super) async fn bury(&self, own: Own, order: &Order) -> Answer {
        let Own { process, order: mut running } = own;
        if !process.is_reaped() {
            tracing::debug!(token = self.task.token, pid = process.pid(), "waiting until a killed process has ended");
        }
        let counted = self.workshop.unreaped.count(self.task.paths());
        let end = running.ended().await;
        drop(counted);
        self.conclude(&process, order, end).await
    }

    /// The answer to an order's end, once nothing of it can run any more.
    pub(super) async fn conclude(&self, process: &IoProcess, order: &Order, end: OrderEnd) -> Answer {
        let answer = self.answer_of(order, end);
        self.end(process).await;
        answer
    }

    /// Kills a process and waits until it was reaped.
    pub(super) async fn end(&self, process: &IoProcess) {
        process.kill();
        let counted = self.workshop.unreaped.count(self.task.paths());
        process.reaped().await;
        drop(counted);
    }

    pub(super) async fn report(&self, answer: Answer) {
        self.say(Said::Answer(answer)).await;
    }

    pub(super) async fn sender(&self, connected: bool) {
        self.report(Answer::Sender(wire::SenderState { connected })).await;
    }

    async fn say(&self, said: Said) {
        let word = Word { token: self.task.token.clone(), incarnation: self.incarnation, said };
        // Fails only when the supervisor is gone, and with it everybody who could want to know.
        let _ = self.words.send(word).await;
    }
}
