//! The whole metadata plane against a naive model: users, guests, hosts, workers, collectors, audits, late
//! copies and time do anything in any order, the orders of the state are carried out on a naive storage, and
//! after each entry every disk, snapshot and deleted disk holds what its users last knew it to hold, nobody
//! else writes it, and every refusal is true. In the end all is healed, and the storage is what the catalog
//! says and nothing else.
//!
//! The quick form runs with all tests. The long form:
//! `SDM_HISTORIES=100000 cargo test --release -p sdm-state --test contents_model`. A failure names the seed of its
//! history and the fewest of its steps that still fail; `SDM_SEED=… SDM_HISTORIES=1` runs it again.

mod plane;
mod world;

use plane::Coverage;
use plane::Founded;
use plane::History;
use plane::shrunk;
use plane::steps_of;

/// Histories of the quick form.
const HISTORIES: u64 = 25;

/// So many histories come by everything that is to be covered.
const COVERING: u64 = 1000;

/// Steps of a history, before it is healed.
const STEPS: usize = 60;

/// Longest line of a failed history's story.
const STORY_LINE_MAX: usize = 600;

/// What must have happened somewhere, or the histories prove nothing.
const COVERED: &[&str] = &[
    "disk-create committed",
    "disk-import committed",
    "disk-export committed",
    "disk-move committed",
    "disk-delete committed",
    "disk-rename committed",
    "disk-describe committed",
    "disk-resize committed",
    "disk-copy committed",
    "template-make committed",
    "disk-clone committed",
    "disk-convert committed",
    "snapshot-create committed",
    "snapshot-delete committed",
    "snapshot-revert committed",
    "volume-legality committed",
    "projection-repair committed",
    "disk-attach committed",
    "disk-attach refused",
    "disk-detach committed",
    "disk-detach refused",
    "domain-create committed",
    "domain-maintenance committed",
    "domain-activate committed",
    "domain-rename committed",
    "domain-detach committed",
    "domain-attach committed",
    "domain-delete committed",
    "worker-drain committed",
    "worker-undrain committed",
    "worker-remove committed",
    "worker-confirm-down committed",
    "trash-restore committed",
    "trash-purge committed",
    "gc-hold committed",
    "gc-plan committed",
    "gc-apply committed",
    "gc-audit committed",
    "domain-set committed",
    "late hands",
    "guest writes",
];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn users_find_in_their_disks_what_they_left_there_whatever_happens() {
    let base = Founded::new();
    let histories = number("SDM_HISTORIES").unwrap_or(HISTORIES);
    let first = number("SDM_SEED").unwrap_or(1);
    let (mut entries, mut coverage) = (0, Coverage::new());
    for seed in first..first + histories {
        let mut history = History::new(&base);
        let steps = steps_of(seed, STEPS);
        if history.take_all(&steps).is_err() {
            let (left, story, wrong) = shrunk(&base, steps);
            let told = story.iter().map(|line| line.chars().take(STORY_LINE_MAX).collect::<String>());
            let told = told.collect::<Vec<_>>().join("\n");
            panic!("seed {seed}, {left} of its {STEPS} steps:\n{told}\n\n{wrong}");
        }
        entries += history.story.len();
        for (what, times) in history.coverage {
            *coverage.entry(what).or_default() += times;
        }
    }
    println!("{histories} histories, {entries} entries: {coverage:?}");
    let missing: Vec<_> = COVERED.iter().filter(|what| !coverage.contains_key(**what)).collect();
    assert!(histories < COVERING || missing.is_empty(), "never done: {missing:?}");
}
