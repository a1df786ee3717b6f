//! Tools of the host that tests use as oracles, and what a test needs to run at all.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Output;

/// Set, a missing tool is a failure instead of a skipped test.
const REQUIRE: &str = "SDM_REQUIRE";

/// What a test needs.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// A program in PATH or among the administrator's.
    Tool(&'static str),
    /// To be root: for mounts, devices and other users.
    Root,
    /// A device of the kernel.
    Device(&'static str),
}

/// Whether everything is there. If not, says so loudly.
///
/// # Panics
/// A tool is missing and `SDM_REQUIRE` is set.
pub fn ready(test: &str, needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(missing).collect();
    if missing.is_empty() {
        return true;
    }
    let tools = needs.iter().any(|need| matches!(need, Need::Tool(_)) && self::missing(need).is_some());
    assert!(!(tools && std::env::var_os(REQUIRE).is_some()), "{test}: {} (and {REQUIRE} is set)", missing.join(", "));
    // Not with eprintln!, whose words are seen only when the test fails.
    _ = writeln!(std::io::stderr(), "\nSKIPPED: {test}: {}", missing.join(", "));
    false
}

fn missing(need: &Need) -> Option<String> {
    match need {
        Need::Tool(name) => find(name).is_none().then(|| format!("{name} is not installed")),
        Need::Root => (!rustix::process::geteuid().is_root()).then(|| "needs root".to_owned()),
        Need::Device(path) => (!Path::new(path).exists()).then(|| format!("{path} is not there")),
    }
}

/// Debian keeps mkfs and its kin where only root looks.
fn find(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(admin).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Runs a tool.
///
/// # Panics
/// It cannot be started.
pub fn try_run(tool: &str, arguments: &[&str]) -> Output {
    let program = find(tool).unwrap_or_else(|| panic!("{tool} is not installed"));
    let run = Command::new(program).args(arguments).env("LC_ALL", "C").output();
    run.unwrap_or_else(|error| panic!("{tool} {arguments:?}: {error}"))
}

/// Runs a tool that must succeed; answers with its stdout.
///
/// # Panics
/// It fails.
#[track_caller]
pub fn run(tool: &str, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = try_run(tool, arguments);
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{tool} {arguments:?}: {status}\n{stdout}{stderr}");
    stdout.into_owned()
}

/// A path as an argument.
///
/// # Panics
/// It is no text.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_else(|| panic!("{} is not UTF-8", path.display()))
}
