//! One cut: power, then processes, then power again.

use crate::cluster::Cluster;
use crate::loop_fs::PowerSwitch;
use anyhow::Result;
use std::path::Path;
use std::sync::Barrier;
use std::time::Duration;

/// Cuts the power of these members at once, lets their processes run on for a moment (whatever they
/// acknowledge then must be durable all the same), kills them, and mounts what is left. They are not
/// started. The images as the cut left them are copied to `crash_images` first.
///
/// # Errors
/// A tool fails.
pub fn cut_power(cluster: &mut Cluster, victims: &[usize], linger: Duration, crash_images: &Path) -> Result<()> {
    let mut switches = Vec::new();
    for node in pick(cluster, victims) {
        switches.push(node.switch()?);
    }
    throw(switches)?;
    std::thread::sleep(linger);
    for node in pick(cluster, victims) {
        node.send_kill();
    }
    std::fs::create_dir_all(crash_images)?;
    for node in pick(cluster, victims) {
        let copy = crash_images.join(format!("{}.img", node.name()));
        node.power_on(Some(&copy))?;
    }
    Ok(())
}

/// The victims among the members.
fn pick<'a>(cluster: &'a mut Cluster, victims: &'a [usize]) -> impl Iterator<Item = &'a mut crate::cluster::Node> {
    let numbered = cluster.nodes.iter_mut().enumerate();
    numbered.filter(|(number, _)| victims.contains(number)).map(|(_, node)| node)
}

/// Throws all switches at once.
///
/// # Errors
/// The kernel refuses one.
pub fn throw(switches: Vec<PowerSwitch>) -> Result<()> {
    let together = Barrier::new(switches.len());
    std::thread::scope(|scope| {
        let throwing: Vec<_> = switches
            .into_iter()
            .map(|switch| {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    switch.cut()
                })
            })
            .collect();
        for thrown in throwing {
            thrown.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a switch panicked")))?;
        }
        Ok(())
    })
}
