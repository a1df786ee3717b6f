//! A file system of its own for each member: an image file, mounted through a loop device. Its power
//! can be cut: everything that was not made durable is gone, as after a real cut.
//!
//! The image must lie on a real disk; a copy of it while nothing is mounted is a copy of the disk.

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

/// EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN, which are the same number: _IOR('X', 125, __u32).
const SHUTDOWN: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(b'X', 125);

/// Neither data nor the journal is flushed: what was not made durable before is gone.
const NO_LOG_FLUSH: u32 = 2;

/// How long a file system may stay busy after its last process was killed.
const UNMOUNT_TIME: Duration = Duration::from_secs(20);

/// Which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsKind {
    /// ext4 as mkfs makes it: ordered data, delayed allocation.
    Ext4,
    /// XFS as mkfs makes it.
    Xfs,
}

impl FsKind {
    /// The smallest image that its mkfs takes, in bytes.
    pub const fn bytes_min(self) -> u64 {
        match self {
            FsKind::Ext4 => 16 << 20,
            FsKind::Xfs => 300 << 20,
        }
    }

    /// The program that makes it.
    pub const fn maker(self) -> &'static str {
        match self {
            FsKind::Ext4 => "mkfs.ext4",
            FsKind::Xfs => "mkfs.xfs",
        }
    }
}

impl fmt::Display for FsKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FsKind::Ext4 => "ext4",
            FsKind::Xfs => "xfs",
        })
    }
}

/// An image and where it is mounted. Dropping it unmounts.
#[derive(Debug)]
pub struct LoopFs {
    image: PathBuf,
    mount_point: PathBuf,
    mounted: bool,
}

impl LoopFs {
    /// A new file system in `FOLDER/NAME.img`, mounted at `FOLDER/NAME`.
    ///
    /// # Errors
    /// A tool fails.
    pub fn make(folder: &Path, name: &str, kind: FsKind, bytes: u64) -> Result<Self> {
        let image = folder.join(format!("{name}.img"));
        let mount_point = folder.join(name);
        let file = File::create_new(&image).with_context(|| format!("making {}", image.display()))?;
        file.set_len(bytes.max(kind.bytes_min()))?;
        drop(file);
        std::fs::create_dir(&mount_point)?;
        tool(kind.maker(), &["-q".as_ref(), image.as_os_str()])?;
        let mut fs = Self { image, mount_point, mounted: false };
        fs.mount()?;
        Ok(fs)
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// The file that is its disk.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Something that can cut its power later, from any thread.
    ///
    /// # Errors
    /// The mount point cannot be opened.
    pub fn switch(&self) -> Result<PowerSwitch> {
        let root = File::open(&self.mount_point).with_context(|| format!("opening {}", self.mount_point.display()))?;
        Ok(PowerSwitch { root })
    }

    /// Mounts it, which replays its journal.
    ///
    /// # Errors
    /// mount refuses.
    pub fn mount(&mut self) -> Result<()> {
        if !self.mounted {
            let arguments = ["-o".as_ref(), "loop".as_ref(), self.image.as_os_str(), self.mount_point.as_os_str()];
            tool("mount", &arguments)?;
            self.mounted = true;
        }
        Ok(())
    }

    /// Unmounts it. Its processes are gone: it may be busy for a moment only.
    ///
    /// # Errors
    /// It stays busy, or umount refuses.
    pub fn unmount(&mut self) -> Result<()> {
        if self.mounted {
            unmount(&self.mount_point)?;
            self.mounted = false;
        }
        Ok(())
    }

    /// Copies the image, holes and all. Nothing may be mounted.
    ///
    /// # Errors
    /// cp fails.
    pub fn copy_image(&self, target: &Path) -> Result<()> {
        let arguments = ["--sparse=always".as_ref(), self.image.as_os_str(), target.as_os_str()];
        tool("cp", &arguments)
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            eprintln!("chaos-tests: {} stays mounted: {error:#}", self.mount_point.display());
        }
    }
}

/// An open descriptor on a file system's root.
#[derive(Debug)]
pub struct PowerSwitch {
    root: File,
}

impl PowerSwitch {
    /// Shuts the file system down without flushing anything. From then on every write fails.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn cut(self) -> Result<()> {
        // SAFETY: the opcode is the kernel's for both file systems, and it reads one u32 through the
        // pointer, whatever the direction bits in its number say.
        let request = unsafe { rustix::ioctl::Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH) };
        // SAFETY: as above; the descriptor is open for the whole call.
        unsafe { rustix::ioctl::ioctl(&self.root, request) }.context("shutting the file system down")
    }
}

/// Unmounts a mount point as soon as nothing holds it.
///
/// # Errors
/// It stays busy.
pub fn unmount(mount_point: &Path) -> Result<()> {
    let begun = Instant::now();
    loop {
        match tool("umount", &[mount_point.as_os_str()]) {
            Err(_) if begun.elapsed() < UNMOUNT_TIME => std::thread::sleep(Duration::from_millis(20)),
            result => return result,
        }
    }
}

/// Runs a tool of the host.
///
/// # Errors
/// It is missing, or fails; what it said stands in the error.
pub fn tool(name: &str, arguments: &[&std::ffi::OsStr]) -> Result<()> {
    let program = find(name).with_context(|| format!("{name} is not installed"))?;
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output();
    let output = output.with_context(|| format!("running {name}"))?;
    if !output.status.success() {
        bail!("{name} {arguments:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A program in PATH or among the administrator's: Debian keeps mkfs where only root looks.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(admin).map(|folder| folder.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shutdown_call_has_the_number_of_the_kernel_headers() {
        assert_eq!(SHUTDOWN, 0x8004_587d);
    }
}
