//! One cluster for all tests of a binary that do not disturb each other, because starting one is
//! what takes longest.

use super::Cluster;
use super::Shape;
use std::ops::Deref;
use std::sync::OnceLock;

/// The shared cluster in the hands of one test.
pub struct Shared(&'static Cluster);

impl Shared {
    /// It, started by whoever comes first. It lives as long as the test's process.
    pub fn cluster() -> Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        Self(CLUSTER.get_or_init(|| Cluster::start(&Shape::usual())))
    }
}

impl Deref for Shared {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.tell_logs();
        } else {
            self.0.nobody_panicked();
        }
    }
}
