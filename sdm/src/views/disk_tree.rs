//! A disk's chain, layer on layer, as `sdm disk tree` prints it.

use super::DiskView;
use super::volume::VolumeView;
use crate::output::Report;
use crate::output::bytes_text;
use serde::Serialize;
use std::fmt::Write as _;

/// Sharers that a line names.
const NAMED_MAX: usize = 4;

/// A disk whose text is its tree; its JSON is the disk.
#[derive(Serialize)]
#[serde(transparent)]
pub struct DiskTree(DiskView);

impl DiskTree {
    /// Of this disk.
    #[must_use]
    pub fn of(disk: DiskView) -> Self {
        Self(disk)
    }
}

impl Report for DiskTree {
    fn text(&self) -> String {
        let Self(disk) = self;
        let kind = if disk.template { "template" } else { "disk" };
        let layers = match disk.volumes.len() {
            1 => "1 volume".to_owned(),
            many => format!("{many} volumes"),
        };
        let mut text =
            format!("{kind} {} on {} ({}, {layers})\n", disk.name, disk.domain, bytes_text(disk.virtual_size));
        for (depth, volume) in disk.volumes.iter().enumerate() {
            _ = writeln!(text, "{:indent$}`- {}", "", layer(volume, &disk.id), indent = depth * 3);
        }
        text
    }
}

fn layer(volume: &VolumeView, disk: &str) -> String {
    // What another disk froze is no snapshot of this one, and of nobody once that disk is gone.
    let what = match (&volume.snapshot, &volume.made_by) {
        (Some(name), Some(maker)) if maker.id != disk => match &maker.name {
            Some(owner) => format!("snapshot {name} of {owner}"),
            None => "layer of a deleted disk".to_owned(),
        },
        (Some(name), _) => format!("snapshot {name}"),
        (None, _) => volume.role.clone(),
    };
    let mut line = format!(
        "{}  {}  {what}  {} seen, {} on storage",
        volume.id,
        volume.format,
        bytes_text(volume.virtual_size),
        bytes_text(volume.allocated_bytes)
    );
    if volume.preallocated {
        line += ", preallocated";
    }
    if !volume.legal {
        line += ", ILLEGAL";
    }
    let others: Vec<_> = volume.users.iter().filter(|user| user.id != disk).collect();
    if !others.is_empty() {
        let named: Vec<_> = others.iter().take(NAMED_MAX).map(|user| user.word()).collect();
        let all = usize::try_from(volume.users_count.saturating_sub(1)).unwrap_or(usize::MAX).max(others.len());
        let more = if all > named.len() { format!(" and {} more", all - named.len()) } else { String::new() };
        _ = write!(line, "  shared with {}{more}", named.join(", "));
    }
    line
}
