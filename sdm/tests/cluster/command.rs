//! `sdm …` as an operator types it, and what it answers.

use crate::host::spawn;
use serde_json::Value;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

/// No command of these tests takes longer, unless it hangs.
const COMMAND_PATIENCE: Duration = Duration::from_secs(150);

/// Time between two looks whether a command has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// The operator: which members are asked, and with which secret.
#[derive(Debug, Clone, Default)]
pub struct Sdm {
    /// In this order.
    pub endpoints: Vec<String>,
    /// The cluster's.
    pub secret: Option<PathBuf>,
}

/// A command that runs.
pub struct Started {
    line: String,
    child: Child,
    begun: Instant,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// As it was typed.
    pub line: String,
    /// Exit code; 128 and the signal for one that was killed.
    pub code: i32,
    /// Results.
    pub stdout: String,
    /// Progress and errors.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

/// The error object of a command that failed.
#[derive(Debug)]
pub struct Refused {
    /// As it was typed.
    pub line: String,
    /// Exit code.
    pub code: i32,
    /// The object under `error`.
    pub error: Value,
}

/// Set, this binary is tested instead of the one that was built with the tests.
const BINARY: &str = "SDM_TEST_BINARY";

/// The binary under test, deaf to what the user set for commands of his own.
pub fn program() -> Command {
    let binary = std::env::var_os(BINARY).unwrap_or_else(|| env!("CARGO_BIN_EXE_sdm").into());
    let mut command = Command::new(binary);
    for name in ["SDM_ENDPOINTS", "SDM_SECRET_FILE", "SDM_FAILPOINTS", "RUST_LOG"] {
        command.env_remove(name);
    }
    command
}

impl Sdm {
    /// Starts a command, with `-o json`.
    pub fn start(&self, arguments: &[&str]) -> Started {
        self.start_as(&["-o", "json"], arguments)
    }

    /// Starts a command, as for people.
    pub fn start_for_people(&self, arguments: &[&str]) -> Started {
        self.start_as(&[], arguments)
    }

    fn start_as(&self, form: &[&str], arguments: &[&str]) -> Started {
        let mut command = program();
        command.args(form);
        if !self.endpoints.is_empty() {
            command.args(["--endpoints", &self.endpoints.join(",")]);
        }
        if let Some(secret) = &self.secret {
            command.arg("--secret-file").arg(secret);
        }
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(command);
        let (stdout, stderr) = (child.stdout.take().map(drain), child.stderr.take().map(drain));
        Started { line: format!("sdm {}", arguments.join(" ")), child, begun: Instant::now(), stdout, stderr }
    }

    /// Runs a command to its end, with `-o json`.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Finished {
        self.start(arguments).finish()
    }

    /// Runs a command to its end, as for people.
    #[track_caller]
    pub fn run_for_people(&self, arguments: &[&str]) -> Finished {
        self.start_for_people(arguments).finish()
    }

    /// The result of a command that must succeed.
    #[track_caller]
    pub fn done(&self, arguments: &[&str]) -> Value {
        self.run(arguments).result()
    }

    /// The error of a command that must fail.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> Refused {
        self.run(arguments).refusal()
    }
}

/// Reads a pipe to its end, so that it never fills up.
fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Started {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it goes on.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it as `kill -9` does.
    #[track_caller]
    pub fn kill(mut self) -> Finished {
        _ = self.child.kill();
        self.finish()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It hangs.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let status = loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) => break status,
                None if self.begun.elapsed() > COMMAND_PATIENCE => {
                    _ = self.child.kill();
                    let (stdout, stderr) = self.said();
                    panic!("{}: hangs\n{stdout}{stderr}", self.line);
                }
                None => std::thread::sleep(LOOK_INTERVAL),
            }
        };
        let took = self.begun.elapsed();
        let (stdout, stderr) = self.said();
        let line = std::mem::take(&mut self.line);
        Finished { line, code: code_of(status), stdout, stderr, took }
    }

    fn said(&mut self) -> (String, String) {
        let read = |pipe: &mut Option<JoinHandle<String>>| pipe.take().and_then(|pipe| pipe.join().ok());
        (read(&mut self.stdout).unwrap_or_default(), read(&mut self.stderr).unwrap_or_default())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn code_of(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

impl Finished {
    /// Its JSON.
    ///
    /// # Panics
    /// It failed, or printed something else.
    #[track_caller]
    pub fn result(self) -> Value {
        let Self { line, code, stdout, stderr, .. } = self;
        assert_eq!(code, 0, "{line}\n{stdout}{stderr}");
        no_panic(&line, &stderr);
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{line}: {error}\n{stdout}{stderr}"))
    }

    /// Its error object, checked for what every error promises.
    ///
    /// # Panics
    /// It succeeded, or did not keep the promise.
    #[track_caller]
    pub fn refusal(self) -> Refused {
        let Self { line, code, stdout, stderr, .. } = self;
        assert!(code != 0, "{line}: was expected to fail\n{stdout}{stderr}");
        no_panic(&line, &stderr);
        // Progress may stand before it.
        let last = stderr.lines().last().unwrap_or_default();
        let whole: Value = serde_json::from_str(last)
            .unwrap_or_else(|error| panic!("{line}: exit {code}, no JSON: {error}\n{stdout}{stderr}"));
        let error = whole["error"].clone();
        assert_eq!(whole.as_object().map(serde_json::Map::len), Some(1), "{line}: {whole}");
        assert_eq!(error["exit_code"], code, "{line}: {error}");
        for key in ["class", "reason", "message", "hint", "blockers", "request_id"] {
            assert!(error.get(key).is_some(), "{line}: no {key} in {error}");
        }
        let reason = error["reason"].as_str().unwrap_or_default();
        let screams =
            !reason.is_empty() && reason.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        assert!(screams, "{line}: {error}");
        assert!(!error["message"].as_str().unwrap_or_default().is_empty(), "{line}: {error}");
        assert_eq!(stdout, "", "{line}: results beside an error");
        Refused { line, code, error }
    }
}

#[track_caller]
fn no_panic(line: &str, stderr: &str) {
    assert!(!stderr.contains("panicked at"), "{line}\n{stderr}");
}

impl Refused {
    /// The reason.
    pub fn reason(&self) -> &str {
        self.error["reason"].as_str().unwrap_or_default()
    }

    /// The message.
    pub fn message(&self) -> &str {
        self.error["message"].as_str().unwrap_or_default()
    }

    /// The hint; may be empty.
    pub fn hint(&self) -> &str {
        self.error["hint"].as_str().unwrap_or_default()
    }

    /// Each thing in the way: kind, id and description in a line.
    pub fn blockers(&self) -> Vec<String> {
        let line = |blocker: &Value| {
            let part = |key: &str| blocker[key].as_str().unwrap_or_default().to_owned();
            format!("{} {}: {}", part("kind"), part("id"), part("description"))
        };
        self.error["blockers"].as_array().map(|all| all.iter().map(line).collect()).unwrap_or_default()
    }

    /// Checks exit code, reason and that the message mentions each of these; and that there is a
    /// hint.
    #[track_caller]
    pub fn says(&self, code: i32, reason: &str, mentions: &[&str]) -> &Self {
        assert!(!self.hint().is_empty(), "{}: no hint: {}", self.line, self.error);
        self.states(code, reason, mentions)
    }

    /// The same where the message alone says what to do.
    #[track_caller]
    pub fn states(&self, code: i32, reason: &str, mentions: &[&str]) -> &Self {
        let Self { line, error, .. } = self;
        assert_eq!((self.code, self.reason()), (code, reason), "{line}: {error}");
        for mention in mentions {
            assert!(self.message().contains(mention), "{line}: the message does not mention {mention:?}: {error}");
        }
        self
    }
}
