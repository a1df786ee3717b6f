//! The blocking pool seam: where short blocking work of a member or a supervisor runs (its own
//! small files, never a domain's path). A simulation has no threads, so its side runs in place.

/// Where blocking closures run.
#[derive(Debug, Clone, Copy, Default)]
pub enum BlockingPool {
    /// On the runtime's threads for blocking work.
    #[default]
    Threads,
    /// At once, on the calling task.
    InPlace,
}

impl BlockingPool {
    /// Runs the closure and answers with its value.
    ///
    /// # Errors
    /// The closure panicked or the runtime is shutting down.
    pub async fn run<T, F>(self, work: F) -> std::io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other),
            Self::InPlace => Ok(work()),
        }
    }
}
