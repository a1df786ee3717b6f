//! `sdm demo`: a cluster of real processes on this host, a disk that moves between two storage domains
//! while the leader is killed, and the proof that nothing was lost. It uses nothing that an operator
//! does not have; each step is told in a line.

mod folder;
mod image;
mod moving;
mod ports;
mod processes;
mod stage;
mod story;

use crate::output::ExitCode;
use crate::output::Failure;
use crate::shutdown::Shutdown;
use folder::DemoFolder;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use stage::Stage;
use std::path::PathBuf;

/// What is to be shown.
#[derive(Debug, Clone)]
pub struct DemoConfig {
    /// Where everything is made; a temporary folder when None.
    pub dir: Option<PathBuf>,
    /// Size of the disk in bytes.
    pub size: u64,
    /// Whether the cluster stays up at the end.
    pub keep: bool,
}

/// Shows it.
///
/// # Errors
/// Something did not go as it should, or the user wanted no more. The folder is left then.
pub async fn run(config: DemoConfig, shutdown: Shutdown) -> Result<ExitCode, Failure> {
    let folder = DemoFolder::create(config.dir.as_deref())?;
    folder.check_space(config.size)?;
    let logs = folder.logs();
    let shown = async {
        let mut stage = Stage::new(folder, config.keep)?;
        story::tell(&mut stage, config.size).await?;
        stage.close(config.keep).await
    };
    let result = tokio::select! {
        result = shown => result,
        // Dropping the stage kills its processes.
        () = shutdown.requested() => {
            let refusal = Refusal::new(Class::Unavailable, "INTERRUPTED", "interrupted; the demo's processes are gone");
            Err(Failure::from(refusal.hint("its folder may be removed")).ending(ExitCode::Interrupted))
        }
    };
    result.map(|()| ExitCode::Done).map_err(|failure| with_logs(failure, &logs.display().to_string()))
}

fn with_logs(mut failure: Failure, logs: &str) -> Failure {
    let Refusal { hint, .. } = &mut *failure.refusal;
    if !hint.is_empty() {
        hint.push_str("; ");
    }
    hint.push_str(&format!("what each process said: {logs}"));
    failure
}
