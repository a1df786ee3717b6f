//! One member with its file system.

use super::Shape;
use crate::loop_fs::LoopFs;
use crate::loop_fs::PowerSwitch;
use crate::process::Process;
use crate::process::Program;
use anyhow::Context;
use anyhow::Result;
use std::path::Path;
use std::path::PathBuf;

/// A member, its process and its disk.
#[derive(Debug)]
pub struct Node {
    name: String,
    address: String,
    join: Option<String>,
    program: Program,
    log: PathBuf,
    // In this order: the process lets go of the file system before that is unmounted.
    process: Option<Process>,
    fs: LoopFs,
}

impl Node {
    /// Makes its file system. It is not started.
    ///
    /// # Errors
    /// A tool fails.
    pub fn make(folder: &Path, name: &str, address: String, join: Option<String>, shape: &Shape) -> Result<Self> {
        let fs = LoopFs::make(folder, name, shape.fs, shape.bytes)?;
        Ok(Self {
            name: name.to_owned(),
            address,
            join,
            program: shape.program.clone(),
            log: folder.join(format!("{name}.log")),
            process: None,
            fs,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.fs.mount_point().join("data")
    }

    /// Its file system.
    pub fn fs(&self) -> &LoopFs {
        &self.fs
    }

    /// Where all its processes write what they say.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its process, if one was started.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Starts it, or starts it again with the very arguments of the first time.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let join = self.join.as_deref();
        self.process = Some(self.program.start_member(&self.name, &self.address, &self.data_dir(), join, &self.log)?);
        Ok(())
    }

    /// What cuts its power.
    ///
    /// # Errors
    /// Its file system cannot be opened.
    pub fn switch(&self) -> Result<PowerSwitch> {
        self.fs.switch()
    }

    /// Kills its process, without waiting for its end.
    pub fn send_kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.send_kill();
        }
    }

    /// Waits until its process is gone.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// After a cut and a kill: unmounts, copies the image as the cut left it, mounts again.
    ///
    /// # Errors
    /// A tool fails: also a finding, if it is the mount.
    pub fn power_on(&mut self, crash_image: Option<&Path>) -> Result<()> {
        self.kill();
        self.fs.unmount()?;
        if let Some(copy) = crash_image {
            self.fs.copy_image(copy)?;
        }
        self.fs.mount().with_context(|| format!("{} cannot be mounted after the cut", self.name))
    }

    /// Kills its process and unmounts its file system for good.
    ///
    /// # Errors
    /// It stays busy.
    pub fn power_off(&mut self) -> Result<()> {
        self.kill();
        self.fs.unmount()
    }

    /// Ends it in order; says whether it did.
    pub fn stop(&mut self, patience: std::time::Duration) -> bool {
        let Some(process) = &mut self.process else { return true };
        process.terminate();
        let ended = process.ends_within(patience).is_some_and(|status| status.success());
        self.process = None;
        ended
    }

    /// The first line in which its process says that it panicked.
    pub fn panicked(&mut self) -> Option<String> {
        let said = self.process.as_ref()?.said();
        let line = said.lines().find(|line| line.contains("panicked at"))?;
        Some(format!("{}: {line}", self.name))
    }

    /// Why its process is not alive, with its last words; None while it runs.
    pub fn death(&mut self) -> Option<String> {
        let Some(process) = &mut self.process else { return Some(format!("{} is not started", self.name)) };
        let status = process.ended()?;
        Some(format!("{} ended by itself ({status}):\n{}", self.name, process.last_words(12)))
    }
}
