//! The processes of a cluster: started, killed, started again on the same folders.

use super::Sdm;
use super::Shape;
use super::command::program;
use super::views::list;
use super::views::text_of;
use crate::host::Process;
use crate::host::Scratch;
use crate::host::text;
use crate::host::until;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

/// The port of every process. Each has an address of its own, so a process that is started again
/// never finds its port taken by somebody's outgoing connection.
const PORT: u16 = 7400;

/// Lines of each log that are shown when a test fails.
const LINES_SHOWN: usize = 60;

/// A cluster. Dropping it kills its processes and removes its folder.
pub struct Cluster {
    // Before the folder, so that the processes are gone when it is removed.
    nodes: BTreeMap<String, Node>,
    shape: Shape,
    network: [u8; 2],
    secret: Option<PathBuf>,
    new_secret: Option<PathBuf>,
    /// What nodes that start from now on run; the binary under test when not set.
    binary: Option<PathBuf>,
    scratch: Scratch,
}

struct Node {
    address: String,
    arguments: Vec<String>,
    process: Option<Process>,
    /// Bytes of its log that processes before this one wrote.
    said_before: usize,
}

impl Cluster {
    /// Starts one and waits until all members vote and all workers are live.
    pub fn start(shape: &Shape) -> Self {
        Self::start_with(shape, None)
    }

    /// The same with another binary; see `binary`.
    pub fn start_with(shape: &Shape, binary: Option<PathBuf>) -> Self {
        let mut cluster = Self::prepare(shape);
        cluster.binary = binary;
        for name in cluster.member_names() {
            cluster.start_node(&name);
        }
        cluster.await_members(shape.members);
        for host in &shape.hosts {
            cluster.start_node(host.name);
        }
        for host in &shape.hosts {
            cluster.await_worker(host.name);
        }
        cluster
    }

    /// Everything but the processes.
    pub fn prepare(shape: &Shape) -> Self {
        let scratch = Scratch::new("cluster");
        for folder in ["logs", "shelf-1", "shelf-2"] {
            scratch.folder(folder);
        }
        let secret = shape.secret.then(|| {
            let path = scratch.join("secret");
            std::fs::write(&path, "a secret that is only for this test").expect("the secret is written");
            path
        });
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            shape: shape.clone(),
            network: free_network(),
            secret,
            new_secret: None,
            binary: None,
            scratch,
        };
        for name in cluster.member_names() {
            let first = cluster.nodes.get("node-a").map(|node| node.address.clone());
            let mut arguments = cluster.arguments_of("coordinator", &name);
            match first {
                None => arguments.push("--bootstrap".to_owned()),
                Some(first) => arguments.extend(["--join".to_owned(), first]),
            }
            cluster.add(&name, arguments);
        }
        for host in &shape.hosts {
            cluster.add_worker(host.name, host.reach);
        }
        cluster
    }

    fn address(&self) -> String {
        let [a, b] = self.network;
        let number = u8::try_from(self.nodes.len() + 1).expect("few nodes");
        format!("{}:{PORT}", Ipv4Addr::new(127, a, b, number))
    }

    fn arguments_of(&self, role: &str, name: &str) -> Vec<String> {
        let folder = self.scratch.join(name);
        let fixed = [role, "--name", name, "--listen", &self.address(), "--data-dir", text(&folder)];
        let mut arguments: Vec<String> = fixed.map(str::to_owned).to_vec();
        arguments.push("--die-with-parent".to_owned());
        if let Some(secret) = self.new_secret.as_ref().or(self.secret.as_ref()) {
            arguments.extend(["--secret-file".to_owned(), text(secret).to_owned()]);
        }
        arguments
    }

    fn add(&mut self, name: &str, arguments: Vec<String>) {
        let node = Node { address: self.address(), arguments, process: None, said_before: 0 };
        self.nodes.insert(name.to_owned(), node);
    }

    /// A worker that is not started yet.
    pub fn add_worker(&mut self, name: &str, reach: &[&str]) {
        self.add_worker_named(name, name, reach);
    }

    /// The same, which gives itself another name than that of its folder.
    pub fn add_worker_named(&mut self, node: &str, name: &str, reach: &[&str]) {
        let mut arguments = self.arguments_of("worker", node);
        if let Some(own) = arguments.iter_mut().find(|argument| *argument == node) {
            name.clone_into(own);
        }
        let members: Vec<_> = self.member_names().iter().map(|name| self.nodes[name].address.clone()).collect();
        arguments.extend(["--coordinators".to_owned(), members.join(",")]);
        if !reach.is_empty() {
            let prefixes: Vec<_> = reach.iter().map(|folder| text(&self.scratch.join(folder)).to_owned()).collect();
            arguments.extend(["--reach".to_owned(), prefixes.join(",")]);
        }
        self.add(node, arguments);
    }

    /// Nodes that start from now on run the binary under test.
    pub fn upgrade(&mut self) {
        self.binary = None;
    }

    /// Nodes that are added from now on have this secret.
    pub fn secret_for_new_nodes(&mut self, secret: &Path) {
        self.new_secret = Some(secret.to_owned());
    }

    /// Has a node listen at every address of this host, and tell others the one that it has.
    pub fn listen_everywhere(&mut self, name: &str) {
        let node = self.nodes.get_mut(name).unwrap_or_else(|| panic!("there is no {name}"));
        if let Some(listen) = node.arguments.iter_mut().find(|argument| **argument == node.address) {
            *listen = "0.0.0.0:0".to_owned();
        }
        node.arguments.extend(["--advertise".to_owned(), node.address.clone()]);
    }

    /// A member that is not started yet and will never vote.
    pub fn add_learner(&mut self, name: &str) {
        let mut arguments = self.arguments_of("coordinator", name);
        let first = self.nodes["node-a"].address.clone();
        arguments.extend(["--join".to_owned(), first, "--learner".to_owned()]);
        self.add(name, arguments);
    }

    /// A member whose folder is there already, or made elsewhere, and that is not started yet.
    pub fn add_member(&mut self, name: &str) {
        let arguments = self.arguments_of("coordinator", name);
        self.add(name, arguments);
    }

    /// A member that joins another one of these nodes, and is not started yet.
    pub fn add_joining(&mut self, name: &str, via: &str) {
        let mut arguments = self.arguments_of("coordinator", name);
        arguments.extend(["--join".to_owned(), self.nodes[via].address.clone()]);
        self.add(name, arguments);
    }

    /// Has a worker serve another cluster from its next start on.
    pub fn readmit(&mut self, worker: &str, member: &str, cluster_id: &str) {
        let address = self.nodes[member].address.clone();
        let node = self.nodes.get_mut(worker).unwrap_or_else(|| panic!("there is no {worker}"));
        let at = node.arguments.iter().position(|argument| argument == "--coordinators").expect("a worker");
        node.arguments[at + 1] = address;
        node.arguments.extend(["--readmit".to_owned(), cluster_id.to_owned()]);
    }

    /// node-a, node-b …
    pub fn member_names(&self) -> Vec<String> {
        ('a'..).take(self.shape.members).map(|letter| format!("node-{letter}")).collect()
    }

    /// Where a process listens.
    pub fn address_of(&self, name: &str) -> &str {
        &self.nodes[name].address
    }

    /// Starts a process, or starts it again with the very arguments of the first time.
    ///
    /// # Panics
    /// It runs already.
    pub fn start_node(&mut self, name: &str) {
        let log = self.log_of(name);
        let node = self.nodes.get_mut(name).unwrap_or_else(|| panic!("there is no {name}"));
        assert!(node.process.is_none(), "{name} runs already");
        node.said_before = std::fs::read_to_string(&log).map_or(0, |said| said.len());
        let mut command = self.binary.as_deref().map_or_else(program, Command::new);
        command.args(&node.arguments).env("RUST_LOG", "info,openraft=warn");
        node.process = Some(Process::start(name, command, &log));
    }

    /// Kills a process as a power cut would.
    ///
    /// # Panics
    /// It does not run.
    pub fn kill(&mut self, name: &str) {
        let process = self.nodes.get_mut(name).and_then(|node| node.process.take());
        process.unwrap_or_else(|| panic!("{name} does not run")).kill();
    }

    /// Kills all members at once.
    pub fn kill_members(&mut self) {
        // All are told before any is waited for.
        for name in self.member_names() {
            crate::host::send(self.pid(&name), rustix::process::Signal::KILL);
        }
        for name in self.member_names() {
            self.kill(&name);
        }
    }

    /// The process id of a node.
    ///
    /// # Panics
    /// It does not run.
    pub fn pid(&self, name: &str) -> u32 {
        let process = self.nodes.get(name).and_then(|node| node.process.as_ref());
        process.unwrap_or_else(|| panic!("{name} does not run")).pid()
    }

    /// The process of a node, if it runs.
    pub fn process(&mut self, name: &str) -> Option<&mut Process> {
        self.nodes.get_mut(name)?.process.as_mut()
    }

    /// What a node said.
    pub fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.log_of(name)).unwrap_or_default()
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.scratch.join("logs").join(format!("{name}.log"))
    }

    /// The cluster's folder.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// A name in the cluster's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// The operator, who knows all members.
    pub fn sdm(&self) -> Sdm {
        let names = self.member_names();
        self.sdm_at(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The operator, who knows these members, in this order.
    pub fn sdm_at(&self, members: &[&str]) -> Sdm {
        let endpoints = members.iter().map(|name| self.nodes[*name].address.clone()).collect();
        Sdm { endpoints, secret: self.secret.clone() }
    }

    /// The leader that a majority knows, other than the one given.
    #[track_caller]
    pub fn leader_other_than(&self, other: &str) -> String {
        until("a leader", || {
            let status = self.status()?;
            match status["leader"].as_str() {
                Some(leader) if status["has_quorum"] == true && leader != other => Ok(leader.to_owned()),
                leader => Err(format!("leader {leader:?}, has_quorum {}", status["has_quorum"])),
            }
        })
    }

    /// The leader that a majority knows.
    #[track_caller]
    pub fn leader(&self) -> String {
        self.leader_other_than("")
    }

    /// `sdm status`, while it may still fail.
    pub fn status(&self) -> Result<Value, String> {
        let status = self.sdm().run(&["status"]);
        if status.code == 0 { Ok(status.result()) } else { Err(status.stderr) }
    }

    /// Waits until so many members vote, are reachable and know a leader, as each of them says.
    #[track_caller]
    pub fn await_members(&self, count: usize) {
        let votes = |member: &&Value| {
            member["reachable"] == true && (member["role"] == "leader" || member["role"] == "follower")
        };
        for name in self.member_names() {
            until(&format!("{count} voters, as {name} sees it"), || {
                let status = self.sdm_at(&[&name]).run(&["status"]);
                let status = if status.code == 0 { status.result() } else { return Err(status.stderr) };
                let up = status["members"].as_array().into_iter().flatten().filter(votes).count();
                if up == count && status["has_quorum"] == true { Ok(()) } else { Err(status.to_string()) }
            });
        }
    }

    /// Waits until a worker is live.
    #[track_caller]
    pub fn await_worker(&self, name: &str) {
        self.await_worker_state(name, "live");
    }

    /// Waits until a worker is live or lost.
    #[track_caller]
    pub fn await_worker_state(&self, name: &str, state: &str) {
        until(&format!("{name} is {state}"), || {
            let workers = list(&self.sdm(), "worker");
            let found = workers.iter().find(|worker| worker["name"] == name && worker["state"] == state);
            let of_now = |worker: &Value| state != "live" || self.is_session_of_now(name, worker);
            if found.is_some_and(of_now) { Ok(()) } else { Err(format!("{workers:?}")) }
        });
    }

    /// Whether the cluster's session of a worker is the one of the process that runs now. Right after a
    /// start the cluster still has the session of the process before it, which reaches what it reached;
    /// for a worker that this cluster does not run any session will do.
    fn is_session_of_now(&self, name: &str, worker: &Value) -> bool {
        let Some(node) = self.nodes.get(name).filter(|node| node.process.is_some()) else { return true };
        let said = self.said(name);
        let mut welcomes =
            said.get(node.said_before..).unwrap_or_default().lines().filter(|line| line.contains(": welcomed "));
        let session = welcomes
            .next_back()
            .and_then(|line| line.split_once("session=\""))
            .and_then(|(_, rest)| rest.split_once('"'));
        session.is_some_and(|(session, _)| worker["session_id"] == session)
    }

    /// Makes a folder and a domain of the same name in it; answers with the domain's own folder.
    #[track_caller]
    pub fn make_domain(&self, name: &str) -> PathBuf {
        let path = self.scratch.folder(name);
        self.make_domain_at(name, &path)
    }

    /// Makes a domain in a folder that is there.
    #[track_caller]
    pub fn make_domain_at(&self, name: &str, path: &Path) -> PathBuf {
        let made = self.sdm().done(&["domain", "create", name, "--path", text(path), "--local"]);
        path.join(text_of(&made["domain"], "id"))
    }

    /// Waits until these workers reach the domain.
    #[track_caller]
    pub fn await_reach(&self, domain: &str, workers: &[&str]) {
        until(&format!("{workers:?} reach {domain}"), || {
            // The sessions first: what is shown after them is what these, or later ones, reach.
            let sessions = list(&self.sdm(), "worker");
            let shown = self.sdm().done(&["domain", "show", domain]);
            let reached = shown["workers"].as_array().cloned().unwrap_or_default();
            let of_now = |name: &str| {
                sessions.iter().any(|worker| worker["name"] == name && self.is_session_of_now(name, worker))
            };
            let reaches = |name: &str| reached.iter().any(|worker| worker == name) && of_now(name);
            if workers.iter().all(|name| reaches(name)) { Ok(()) } else { Err(format!("{shown} {sessions:?}")) }
        });
    }

    /// Checks that no process, nor a child of one, has panicked.
    ///
    /// # Panics
    /// One has.
    pub fn nobody_panicked(&self) {
        for name in self.nodes.keys() {
            let said = self.said(name);
            let panicked = said.lines().find(|line| line.contains("panicked at"));
            assert!(panicked.is_none(), "{name} panicked: {}", panicked.unwrap_or_default());
        }
    }

    /// Checks that no process was ended by a signal that no test sent.
    fn nobody_crashed(&mut self) {
        for (name, node) in &mut self.nodes {
            let ended = node.process.as_mut().and_then(Process::has_ended);
            assert!(ended.is_none_or(|status| status.code().is_some()), "{name} crashed: {ended:?}");
        }
    }

    /// The ends of all logs, on stderr.
    pub fn tell_logs(&self) {
        for name in self.nodes.keys() {
            let said = self.said(name);
            let lines: Vec<&str> = said.lines().collect();
            let shown = lines.get(lines.len().saturating_sub(LINES_SHOWN)..).unwrap_or_default();
            eprintln!("---- {name}, the last {} lines of {}\n{}", shown.len(), lines.len(), shown.join("\n"));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell_logs();
        } else {
            self.nobody_panicked();
            self.nobody_crashed();
        }
        for node in self.nodes.values_mut() {
            node.process = None;
        }
    }
}

/// Two bytes of a loopback network that no other cluster on this host uses now: all of 127/8 is
/// this host.
fn free_network() -> [u8; 2] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(7);
    for _ in 0..60_000 {
        let number = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (250 * 250);
        let network = [u8::try_from(number / 250 + 2).unwrap_or(2), u8::try_from(number % 250 + 2).unwrap_or(2)];
        let first = Ipv4Addr::new(127, network[0], network[1], 1);
        if std::net::TcpListener::bind((first, PORT)).is_ok() {
            return network;
        }
    }
    panic!("no loopback network is free");
}
