//! The cluster under test: members with a file system each, started, killed, cut off their power and
//! started again on the same folders.

mod network;
mod node;

pub use network::Network;
pub use node::Node;

use crate::loop_fs::FsKind;
use crate::process::Process;
use crate::process::Program;
use crate::run_folder::RunFolder;
use anyhow::Result;

/// The worker's number in the network, beyond those of members.
const WORKER_NUMBER: usize = 100;

/// Shape of a cluster.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How many members.
    pub members: usize,
    /// The file system of each.
    pub fs: FsKind,
    /// Bytes of each file system.
    pub bytes: u64,
    /// Whether there is a worker; its folder is never cut.
    pub worker: bool,
    /// What runs as a member.
    pub program: Program,
}

/// A cluster. Dropping it kills its members and unmounts their file systems.
#[derive(Debug)]
pub struct Cluster {
    /// Its members, the founder first.
    pub nodes: Vec<Node>,
    _worker: Option<Process>,
}

impl Cluster {
    /// Makes the file systems and starts all members. They may not serve yet. To be called on a thread
    /// that lives as long as the cluster.
    ///
    /// # Errors
    /// A tool fails, or a member cannot be started.
    pub fn start(run: &RunFolder, label: &str, shape: &Shape) -> Result<Self> {
        let network = Network::free()?;
        let folder = run.folder(label)?;
        let founder = network.address(0);
        let mut cluster = Self { nodes: Vec::new(), _worker: None };
        for number in 0..shape.members {
            let join = (number > 0).then(|| founder.clone());
            let name = format!("member-{}", number + 1);
            let node = Node::make(&folder, &name, network.address(number), join, shape)?;
            cluster.nodes.push(node);
        }
        for node in &mut cluster.nodes {
            node.start()?;
        }
        if shape.worker {
            let address = network.address(WORKER_NUMBER);
            cluster._worker = Some(shape.program.start_worker(&address, &cluster.addresses(), &folder)?);
        }
        Ok(cluster)
    }

    /// Where the members listen.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address().to_owned()).collect()
    }
}
