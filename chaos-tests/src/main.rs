//! The adversary: starts a cluster of real members, takes their power or damages their disks while
//! clients work, and demands what was promised.
//!
//! ```text
//!  cli ─ scenario (power_cut/, disk_full, flipped_byte, sync_race)
//!            │ breaks                         │ asks
//!        cluster/ ─ process ─ member_process  load ─ client/ ──▶ history ◀── check/
//!            └ loop_fs                        (mutations, as they were told)  (what members say now)
//! ```
//!
//! Nothing of the product is replaced: a member is `sdm_coordinator::run` on a real file system, in a
//! process of its own. Only the power is not real: a loop-mounted file system is shut down. What must hold of a whole
//! history, whoever recorded it, is for `checkers`.

mod check;
mod checkers;
mod cli;
mod client;
mod cluster;
mod disk_full;
mod evidence;
mod flipped_byte;
mod history;
mod janitor;
mod load;
mod loop_fs;
mod member_process;
mod power_cut;
mod process;
mod requirements;
mod run_folder;
mod sim;
mod sync_race;

fn main() -> std::process::ExitCode {
    member_process::run_hidden().unwrap_or_else(cli::run)
}
