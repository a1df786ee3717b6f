//! Real I/O processes: this test program again, entered by a test that is none unless it was started
//! as a child.

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::Signal;
use sdm_storage_worker::folder::ChildrenLock;
use sdm_storage_worker::folder::DiskFolder;
use sdm_storage_worker::folder::FolderError;
use sdm_storage_worker::folder::WorkerFolder;
use sdm_storage_worker::process::IoProcess;
use sdm_storage_worker::process::IoProcesses;
use sdm_storage_worker::process::OrderEnd;
use sdm_storage_worker::process::SpawnedProcesses;
use sdm_storage_worker::work::DomainRoot;
use sdm_storage_worker::work::Order;
use sdm_storage_worker::work::Outcome;
use sdm_storage_worker::work::RefusalCode;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use uuid::Uuid;

/// Tells the supervisor of a test where to say that its child runs.
const SUPERVISOR: &str = "SDM_TEST_SUPERVISOR";

fn test_arguments(name: &str) -> [String; 4] {
    [name.to_owned(), "--exact".to_owned(), "--nocapture".to_owned(), "--test-threads=1".to_owned()]
}

fn processes() -> SpawnedProcesses {
    SpawnedProcesses::new("/proc/self/exe", test_arguments("the_io_process_itself"))
}

/// Whether this process was started with a socket as standard input.
fn is_child() -> bool {
    let stat = rustix::fs::fstat(std::io::stdin()).unwrap();
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Socket
}

#[test]
fn the_io_process_itself() {
    if is_child() {
        std::process::exit(sdm_storage_worker::io_process_main());
    }
}

fn probe(path: &Path) -> Order {
    let id = Uuid::from_u128(7);
    Order::ProbeDomain(DomainRoot { path: path.to_owned(), domain: id, pool: id, cluster: id, epoch: 1 })
}

/// A process that never answers is stopped from outside, as a call stuck in the kernel would be
/// in the way.
fn stop(process: &IoProcess) {
    let pid = Pid::from_raw(process.pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
}

#[tokio::test]
async fn an_order_runs_in_another_process_and_its_outcome_comes_back() {
    let processes = processes();
    let process = IoProcess::new(processes.start(ChildrenLock::default()).await.unwrap());
    assert_ne!(process.pid(), std::process::id());
    let mut order = process.submit(probe(Path::new("/nowhere/at/all"))).await;
    let OrderEnd::Outcome(Outcome::Refused(refusal)) = order.ended().await else {
        panic!("a probe of nothing is refused")
    };
    assert_eq!(refusal.code, RefusalCode::PathMissing);
}

#[tokio::test]
async fn a_process_that_is_let_go_ends_by_itself_and_is_reaped() {
    let processes = processes();
    let process = IoProcess::new(processes.start(ChildrenLock::default()).await.unwrap());
    let (pid, exit) = (process.pid(), process.exit());
    drop(process);
    assert_eq!(exit.reaped().await.0, "exit status: 0");
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "no zombie is left");
}

#[tokio::test]
async fn a_killed_process_ends_its_orders_when_it_was_reaped() {
    let processes = processes();
    let process = IoProcess::new(processes.start(ChildrenLock::default()).await.unwrap());
    stop(&process);
    let mut order = process.submit(probe(Path::new("/"))).await;
    process.kill();
    let OrderEnd::ProcessGone(exit) = order.ended().await else { panic!("the process was killed") };
    assert!(exit.0.contains("SIGKILL"), "{exit:?}");
    assert!(process.is_reaped());
    // Whoever comes later learns the same.
    let mut late = process.submit(probe(Path::new("/"))).await;
    assert!(matches!(late.ended().await, OrderEnd::ProcessGone(_)));
}

#[tokio::test]
async fn many_orders_run_beside_each_other_in_one_process() {
    let processes = processes();
    let process = IoProcess::new(processes.start(ChildrenLock::default()).await.unwrap());
    let mut orders = Vec::new();
    for _ in 0..64 {
        orders.push(process.submit(probe(Path::new("/nowhere"))).await);
    }
    for mut order in orders {
        assert!(matches!(order.ended().await, OrderEnd::Outcome(Outcome::Refused(_))));
    }
}

#[tokio::test]
async fn a_child_holds_the_folders_lock_as_long_as_it_lives() {
    let folder = tempfile::tempdir().unwrap();
    let first = DiskFolder::open(folder.path()).unwrap();
    let processes = processes();
    let process = IoProcess::new(processes.start(first.children_lock()).await.unwrap());
    drop(first);
    // Children that other tests fork at this moment hold the folder's other lock until they execute.
    let second = loop {
        match DiskFolder::open(folder.path()) {
            Err(FolderError::InUse { .. }) => tokio::task::yield_now().await,
            opened => break opened.unwrap(),
        }
    };
    assert!(!second.earlier_processes().is_nothing());
    process.kill();
    process.reaped().await;
    assert!(second.earlier_processes().is_nothing());
}

/// Runs only as the supervisor of the next test: starts a child, tells its id, and stays.
#[test]
fn the_supervisor_itself() {
    let Some(path) = std::env::var_os(SUPERVISOR) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // Dropping it would end the thread that made the child, and with it the child.
        let processes = processes();
        let process = IoProcess::new(processes.start(ChildrenLock::default()).await.unwrap());
        // It is up when it has answered.
        process.submit(probe(Path::new("/nowhere"))).await.ended().await;
        // Stopped, it cannot see the end of its pipe: only the kernel can end it.
        stop(&process);
        let mut told = UnixStream::connect(path).unwrap();
        std::io::Write::write_all(&mut told, &process.pid().to_le_bytes()).unwrap();
        std::future::pending::<()>().await;
    });
}

fn pidfd(pid: u32) -> OwnedFd {
    rustix::process::pidfd_open(Pid::from_raw(pid.cast_signed()).unwrap(), PidfdFlags::empty()).unwrap()
}

#[test]
fn the_children_of_a_killed_supervisor_die_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("told");
    let told = UnixListener::bind(&path).unwrap();
    let mut supervisor = Command::new("/proc/self/exe")
        .args(test_arguments("the_supervisor_itself"))
        .env(SUPERVISOR, &path)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let alive = pidfd(supervisor.id());
    let mut either = [PollFd::new(&told, PollFlags::IN), PollFd::new(&alive, PollFlags::IN)];
    rustix::event::poll(&mut either, None).unwrap();
    assert!(either[1].revents().is_empty(), "the supervisor ended before it told");
    let mut pid = [0; 4];
    told.accept().unwrap().0.read_exact(&mut pid).unwrap();
    let child = pidfd(u32::from_le_bytes(pid));
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    // Readable when the process has ended; polled without a limit, as a child that lives on hangs
    // the test.
    let mut ended = [PollFd::new(&child, PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut ended, None).unwrap(), 1);
}
