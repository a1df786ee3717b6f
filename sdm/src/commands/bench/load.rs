//! A load: many clients at once, each doing one operation after the other until the time is over or
//! the user wants no more. What an operation is, each bench says.

use super::report::BenchReport;
use super::report::Tally;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::shutdown;
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
    /// The user ended it early.
    pub interrupted: bool,
}

/// Runs all clients for the time asked for. An operation that is under way when the time is over is
/// finished, and not counted; one that is not finished soon is given up, and counted as an error.
pub async fn run<C: Client>(clients: Vec<C>, seconds: u64) -> Finished {
    run_within(clients, seconds, UNFINISHED_AFTER).await
}

async fn run_within<C: Client>(clients: Vec<C>, seconds: u64, grace: Duration) -> Finished {
    let begun = Instant::now();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut working = JoinSet::new();
    let number = u32::try_from(clients.len()).unwrap_or(u32::MAX);
    for mut client in clients {
        let stopped = stopped.clone();
        working.spawn(async move { work(&mut client, &stopped, grace).await });
    }
    let interrupted = tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(seconds)) => false,
        () = shutdown::requested() => true,
    };
    let time = begun.elapsed();
    stop.send_replace(true);
    let mut tally = Tally::default();
    while let Some(ended) = working.join_next().await {
        match ended {
            Ok(own) => tally.merge(own),
            Err(error) => tally.failed("INTERNAL", error.to_string()),
        }
    }
    Finished { report: tally.report(number, time), interrupted }
}

async fn work<C: Client>(client: &mut C, stopped: &tokio::sync::watch::Receiver<bool>, grace: Duration) -> Tally {
    let mut tally = Tally::default();
    let mut overdue = std::pin::pin!(overdue(stopped.clone(), grace));
    while !*stopped.borrow() {
        let begun = Instant::now();
        let outcome = tokio::select! {
            biased;
            outcome = client.operate() => outcome,
            () = &mut overdue => {
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
        if *stopped.borrow() {
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

/// Completes so long after the load was stopped.
async fn overdue(mut stopped: tokio::sync::watch::Receiver<bool>, grace: Duration) {
    // An error means that nobody can stop it any more: the same.
    _ = stopped.wait_for(|stopped| *stopped).await;
    tokio::time::sleep(grace).await;
}

/// Prints the figures and ends the command.
///
/// # Errors
/// Not one operation succeeded.
pub fn end(context: &Context, finished: &Finished) -> Result<ExitCode, Failure> {
    let Finished { report, interrupted } = finished;
    if report.ops == 0 && !interrupted {
        let said = report.first_error.as_deref().unwrap_or("none was finished in time");
        let message = format!("not one operation succeeded in {} s: {said}", report.seconds);
        return Err(Failure::new(Class::Aborted, "NOTHING_DONE", message));
    }
    context.printer.print(report)?;
    Ok(if *interrupted { ExitCode::Interrupted } else { ExitCode::Done })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;

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
        let Finished { report, interrupted } = run(vec![Counting(done.clone()), Counting(done.clone())], 1).await;
        let done = done.load(Ordering::Relaxed);
        // Each client's last operation may have ended after the time was over.
        assert!((done - 2..=done).contains(&(report.ops + report.errors)), "{done} and {}", report.ops + report.errors);
        assert!(report.ops >= 4 && report.errors_by_reason["THIRD"] == report.errors && !interrupted);
    }

    /// Never finishes an operation.
    struct Stuck;

    impl Client for Stuck {
        async fn operate(&mut self) -> Result<(), Failure> {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn what_is_not_finished_after_the_time_is_given_up_and_counted() {
        let running = run_within(vec![Stuck, Stuck], 0, Duration::from_millis(50));
        let finished = tokio::time::timeout(Duration::from_secs(30), running).await.unwrap();
        assert_eq!((finished.report.ops, finished.report.errors_by_reason["UNFINISHED"]), (0, 2));
    }
}
