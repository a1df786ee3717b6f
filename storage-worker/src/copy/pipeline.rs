//! A few threads that work on jobs at once, while their results come out in the order in which the jobs went in.
//!
//! With one thread (simulated storage) jobs run at once on the caller's own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::CopyError;
use super::UNITS_PER_THREAD;

type Job = Box<dyn FnOnce() + Send>;

/// Jobs in, results out in order. Dropping it waits for the jobs at work and forgets those that wait: after that
/// nobody touches the files any more.
pub(crate) struct Pipeline<R> {
    jobs: Option<mpsc::Sender<Job>>,
    results: VecDeque<oneshot::Receiver<R>>,
    threads: Vec<JoinHandle<()>>,
    stopped: Arc<AtomicBool>,
    depth: usize,
}

impl<R: Send + 'static> Pipeline<R> {
    pub fn new(threads: usize) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let depth = threads.max(1) * UNITS_PER_THREAD;
        if threads <= 1 {
            return Self { jobs: None, results: VecDeque::new(), threads: Vec::new(), stopped, depth };
        }
        let (sender, receiver) = mpsc::channel::<Job>();
        let receiver = Arc::new(Mutex::new(receiver));
        let threads = (0..threads)
            .map(|_| {
                let (receiver, stopped) = (receiver.clone(), stopped.clone());
                std::thread::spawn(move || {
                    loop {
                        let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        match job {
                            Ok(_) if stopped.load(Ordering::Acquire) => {}
                            Ok(job) => job(),
                            Err(mpsc::RecvError) => return,
                        }
                    }
                })
            })
            .collect();
        Self { jobs: Some(sender), results: VecDeque::new(), threads, stopped, depth }
    }

    /// Should results be taken before more goes in?
    pub fn is_full(&self) -> bool {
        self.results.len() >= self.depth
    }

    pub fn push(&mut self, job: impl FnOnce() -> R + Send + 'static) {
        let (sender, receiver) = oneshot::channel();
        self.results.push_back(receiver);
        // A result that nobody wants any more is dropped with its channel.
        let job = move || drop(sender.send(job()));
        match &self.jobs {
            // Were all threads gone, the result's channel would tell.
            Some(jobs) => drop(jobs.send(Box::new(job))),
            None => job(),
        }
    }

    /// The oldest job's result; `None` when no job is left.
    pub async fn next(&mut self) -> Result<Option<R>, CopyError> {
        match self.results.pop_front() {
            None => Ok(None),
            Some(result) => result.await.map(Some).map_err(|_| CopyError::ThreadLost),
        }
    }
}

impl<R> Drop for Pipeline<R> {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has lost its job's result, which was noticed there.
            let _ = thread.join();
        }
    }
}
