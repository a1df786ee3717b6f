//! A load: many clients at once, each doing one operation after the other until the time is over or
//! the user wants no more. What an operation is, each bench says.

use super::report::BenchReport;
use super::report::Tally;
use crate::client::Cluster;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use clap::Args;
use sdm_proto::refusal::Class;
use std::future::Future;
use std::time::Duration;
use std::time::Instant;
use tokio::task::JoinSet;

/// Clients at once. A cluster has room for 10,000 sessions; a load shall not take all of it.
const CLIENTS_MAX: i64 = 4096;

/// A day: long enough to see how a cluster does under load for good.
const SECONDS_MAX: i64 = 24 * 3600;

/// Pause of a client after an operation that failed: a cluster in trouble is not made worse.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// How long operations may go on once the time is over. Longer than any operation of a cluster in order
/// takes, a change of leader included; without a worker a transaction waits for as long as its deadline.
const UNFINISHED_AFTER: Duration = Duration::from_secs(10);

/// Clients that are made ready, or closed, at once.
pub const AT_ONCE: usize = 64;

/// How much, and for how long.
#[derive(Args, Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Clients that work at the same time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub clients: u32,
    /// How long, in seconds
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX as u64))]
    pub seconds: u64,
}

/// One client of a load.
pub trait Client: Send + 'static {
    /// Does one operation. After a failure the client must be fit for the next.
    fn operate(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// What a load led to.
pub struct Finished {
    /// The figures.
    pub report: BenchReport,
    /// Why it ended early: the user wanted no more, or `--timeout` was over.
    pub cut: Option<Failure>,
}

/// The members as each client reaches them, beginning with different ones: over this many connections that
/// all share, or over one of its own.
///
/// # Errors
/// None: the addresses read as such before.
pub fn clusters(context: &Context, clients: u32, connections: Option<u32>) -> Result<Vec<Cluster>, Failure> {
    let connections = connections.unwrap_or(clients).min(clients);
    let apart: Result<Vec<Cluster>, Failure> = (0..connections).map(|_| context.cluster.apart()).collect();
    let apart = apart?;
    let numbers = 0..clients as usize;
    Ok(apart.iter().cycle().zip(numbers).map(|(cluster, number)| cluster.beginning_at(number)).collect())
}

/// Runs all clients for the time asked for, or until it is unwanted. An operation that is under way when
/// the time is over is finished, and not counted; one that is not finished soon is given up, and counted
/// as an error.
pub async fn run<C: Client>(clients: Vec<C>, seconds: u64, unwanted: impl Future<Output = Failure>) -> Finished {
    run_within(clients, seconds, unwanted, UNFINISHED_AFTER).await
}

/// When operations that are under way are given up, once the load is stopped.
type Stop = tokio::sync::watch::Receiver<Option<GiveUp>>;

#[derive(Clone, Copy)]
struct GiveUp {
    at: Instant,
    grace: Duration,
}

async fn run_within<C: Client>(
    clients: Vec<C>,
    seconds: u64,
    unwanted: impl Future<Output = Failure>,
    grace: Duration,
) -> Finished {
    let begun = Instant::now();
    let (stop, stopped) = tokio::sync::watch::channel(None);
    let mut working = JoinSet::new();
    let number = u32::try_from(clients.len()).unwrap_or(u32::MAX);
    for mut client in clients {
        let stopped = stopped.clone();
        working.spawn(async move { work(&mut client, &stopped).await });
    }
    let cut = tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(seconds)) => None,
        failure = unwanted => Some(failure),
    };
    let time = begun.elapsed();
    // `--timeout` says when the command ends, and the clients' sessions are still to be closed.
    let timed_out = cut.as_ref().is_some_and(|failure| failure.exit_code == ExitCode::TimedOut);
    let grace = if timed_out { Duration::ZERO } else { grace };
    stop.send_replace(Some(GiveUp { at: Instant::now() + grace, grace }));
    let mut tally = Tally::default();
    while let Some(ended) = working.join_next().await {
        match ended {
            Ok(own) => tally.merge(own),
            Err(error) => tally.failed("INTERNAL", error.to_string()),
        }
    }
    Finished { report: tally.report(number, time), cut }
}

async fn work<C: Client>(client: &mut C, stopped: &Stop) -> Tally {
    let mut tally = Tally::default();
    let mut overdue = std::pin::pin!(overdue(stopped.clone()));
    while stopped.borrow().is_none() {
        let begun = Instant::now();
        let outcome = tokio::select! {
            biased;
            outcome = client.operate() => outcome,
            grace = &mut overdue => {
                let message = format!(
                    "an operation was not finished {} s after the end and was given up; what it began in the cluster \
                     ends by itself",
                    grace.as_secs()
                );
                tally.failed("UNFINISHED", message);
                break;
            }
        };
        let took = begun.elapsed();
        if stopped.borrow().is_some() {
            break;
        }
        match outcome {
            Ok(()) => tally.latencies.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
            Err(failure) => {
                tally.failed(&failure.refusal.reason, failure.refusal.to_string());
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
    tally
}

/// Completes when the grace after the load's end is over; how long it was.
async fn overdue(mut stopped: Stop) -> Duration {
    // An error means that nobody can stop it any more: the same.
    let stop = stopped.wait_for(Option::is_some).await.ok().and_then(|stop| *stop);
    let Some(GiveUp { at, grace }) = stop else { return Duration::ZERO };
    tokio::time::sleep_until(at.into()).await;
    grace
}

/// Prints the figures and ends the command.
///
/// # Errors
/// Not one operation succeeded.
pub fn end(context: &Context, finished: &Finished) -> Result<ExitCode, Failure> {
    end_with(context, finished, &finished.report)
}

/// The same with a report that says more.
///
/// # Errors
/// Not one operation succeeded.
pub fn end_with(context: &Context, finished: &Finished, printed: &impl Report) -> Result<ExitCode, Failure> {
    let Finished { report, cut } = finished;
    if report.ops == 0 && cut.is_none() {
        let said = report.first_error.as_deref().unwrap_or("none was finished in time");
        let message = format!("not one operation succeeded in {} s: {said}", report.seconds);
        return Err(Failure::new(Class::Aborted, "NOTHING_DONE", message));
    }
    context.printer.print(printed)?;
    Ok(cut.as_ref().map_or(ExitCode::Done, |failure| failure.exit_code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;
    use tokio::sync::Notify;

    /// Fails every third operation.
    struct Counting(Arc<AtomicU64>);

    impl Client for Counting {
        async fn operate(&mut self) -> Result<(), Failure> {
            tokio::task::yield_now().await;
            let done = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(3) { Err(Failure::new(Class::Internal, "THIRD", "the third")) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn every_operation_is_counted_as_done_or_failed() {
        let done = Arc::new(AtomicU64::new(0));
        let clients = vec![Counting(done.clone()), Counting(done.clone())];
        let Finished { report, cut } = run(clients, 1, std::future::pending()).await;
        let done = done.load(Ordering::Relaxed);
        // Each client's last operation may have ended after the time was over.
        assert!((done - 2..=done).contains(&(report.ops + report.errors)), "{done} and {}", report.ops + report.errors);
        assert!(report.ops >= 4 && report.errors_by_reason["THIRD"] == report.errors && cut.is_none());
    }

    /// Begins an operation and never finishes it.
    struct Stuck(Arc<Notify>);

    impl Client for Stuck {
        async fn operate(&mut self) -> Result<(), Failure> {
            self.0.notify_one();
            std::future::pending().await
        }
    }

    async fn cut_when_stuck(failure: Failure, grace: Duration) -> Finished {
        let begun = Arc::new(Notify::new());
        let clients = vec![Stuck(begun.clone())];
        let over = async {
            begun.notified().await;
            failure
        };
        let running = run_within(clients, 3600, over, grace);
        tokio::time::timeout(Duration::from_secs(30), running).await.expect("it ends")
    }

    #[tokio::test]
    async fn what_is_not_finished_after_the_end_is_given_up_and_counted() {
        let interrupted = Failure::new(Class::Unavailable, "INTERRUPTED", "").ending(ExitCode::Interrupted);
        let finished = cut_when_stuck(interrupted, Duration::from_millis(50)).await;
        assert_eq!((finished.report.ops, finished.report.errors_by_reason["UNFINISHED"]), (0, 1));
        assert_eq!(finished.cut.unwrap().exit_code, ExitCode::Interrupted);
    }

    #[tokio::test]
    async fn when_the_commands_time_is_over_nothing_is_waited_for_and_the_figures_are_told() {
        let over = Failure::new(Class::Timeout, "TIMED_OUT", "timed out after 1s");
        let finished = cut_when_stuck(over, Duration::from_secs(3600)).await;
        assert_eq!(finished.report.errors_by_reason["UNFINISHED"], 1);
        assert_eq!(finished.cut.unwrap().exit_code, ExitCode::TimedOut);
    }
}
