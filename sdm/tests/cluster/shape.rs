//! What a cluster of a test consists of.

/// A worker.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name.
    pub name: &'static str,
    /// Folders of the cluster's own that it reaches; none means everything.
    pub reach: &'static [&'static str],
}

/// A cluster.
#[derive(Debug, Clone)]
pub struct Shape {
    /// How many members.
    pub members: usize,
    /// Workers.
    pub hosts: Vec<Host>,
    /// Whether there is a secret.
    pub secret: bool,
}

impl Shape {
    /// Three members, and one worker that reaches everything.
    pub fn usual() -> Self {
        Self { members: 3, hosts: vec![Host { name: "host-1", reach: &[] }], secret: false }
    }

    /// Three members, and two workers, of which each reaches one shelf only.
    pub fn two_shelves() -> Self {
        let hosts = vec![Host { name: "host-1", reach: &["shelf-1"] }, Host { name: "host-2", reach: &["shelf-2"] }];
        Self { members: 3, hosts, secret: false }
    }

    /// One member and one worker, for what needs another cluster at all.
    pub fn smallest() -> Self {
        Self { members: 1, ..Self::usual() }
    }

    /// The same with other workers.
    pub fn hosts(mut self, hosts: &[(&'static str, &'static [&'static str])]) -> Self {
        self.hosts = hosts.iter().map(|(name, reach)| Host { name, reach }).collect();
        self
    }

    /// The same with a secret.
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }
}
