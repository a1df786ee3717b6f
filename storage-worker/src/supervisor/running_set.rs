//! The supervisor's loop: compares the mandate with what runs, starts what is new, stops what is
//! absent, and passes on what attempts say.
//!
//! ```text
//!              named by a set                    says its last word
//!   (unknown) ────────────────► Running ──────────────────────────► Answered
//!                                │  absent, or tenure over             │ absent
//!                                ▼                                     ▼
//!                             Stopping ──── over, still named ──► Answered(Stopped)
//!                                │ over, absent
//!                                ▼
//!                            (unknown)
//! ```

use super::answers;
use super::assignment::Reading;
use super::attempt::Attempt;
use super::attempt::Said;
use super::attempt::Word;
use super::attempt::Workshop;
use super::domain_process::DomainProcess;
use super::domain_process::DomainProcesses;
use super::reach::Reach;
use super::task::Task;
use crate::gateway::Mandate;
use crate::gateway::Outbox;
use crate::gateway::SessionFacts;
use crate::work::DomainRoot;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::report::Outcome as Answer;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Words of attempts on their way; an attempt waits for room.
const WORDS_MAX: usize = 2 * limits::ASSIGNMENTS_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Stopping,
    Answered,
}

/// What the supervisor keeps of an attempt.
struct Entry {
    incarnation: u64,
    tenure: u64,
    phase: Phase,
    /// Whether its task still runs (a door stays open after the answer).
    alive: bool,
    may_begin_again: bool,
    /// Whose process it may use.
    domain: Option<Uuid>,
    stop: CancellationToken,
}

/// Makes what runs equal to the mandate.
pub(crate) struct Supervisor {
    workshop: Workshop,
    domains_from: DomainProcesses,
    reach: Reach,
    outbox: Outbox,
    mandate: watch::Receiver<Mandate>,
    entries: BTreeMap<String, Entry>,
    domains: BTreeMap<Uuid, (DomainRoot, DomainProcess)>,
    words: mpsc::Receiver<Word>,
    words_from: mpsc::Sender<Word>,
    incarnations: u64,
    /// The mandate as it is being followed, and the last tenure that was.
    wanted: Mandate,
    tenure: u64,
}

enum Event {
    Mandate,
    Word(Word),
    GatewayGone,
}

impl Supervisor {
    /// A supervisor that runs nothing yet.
    pub(crate) fn new(
        workshop: Workshop,
        reach: Vec<PathBuf>,
        outbox: Outbox,
        mandate: watch::Receiver<Mandate>,
    ) -> Self {
        let (words_from, words) = mpsc::channel(WORDS_MAX);
        let domains_from = DomainProcesses {
            processes: Arc::clone(&workshop.processes),
            lock: workshop.lock.clone(),
            clock: Arc::clone(&workshop.clock),
            outbox: outbox.clone(),
        };
        Self {
            workshop,
            domains_from,
            reach: Reach::new(reach),
            outbox,
            mandate,
            entries: BTreeMap::new(),
            domains: BTreeMap::new(),
            words,
            words_from,
            incarnations: 0,
            wanted: Mandate::default(),
            tenure: 0,
        }
    }

    /// Runs until told to stop; then everything is stopped, and this returns when the last process
    /// of an attempt was reaped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let told = async {
            loop {
                let event = self.next_event().await;
                if !self.on_event(event) {
                    return;
                }
            }
        };
        tokio::select! {
            () = told => {}
            () = stop.cancelled() => {}
        }
        self.wanted = Mandate { tenure: u64::MAX, ..Mandate::default() };
        self.follow();
        while self.entries.values().any(|entry| entry.alive) {
            match self.words.recv().await {
                Some(word) => self.on_word(word),
                None => return,
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        tokio::select! {
            changed = self.mandate.changed() => if changed.is_ok() { Event::Mandate } else { Event::GatewayGone },
            word = self.words.recv() => word.map_or(Event::GatewayGone, Event::Word),
        }
    }

    fn on_event(&mut self, event: Event) -> bool {
        match event {
            Event::Mandate => {
                self.wanted = self.mandate.borrow_and_update().clone();
                self.follow();
            }
            Event::Word(word) => self.on_word(word),
            Event::GatewayGone => return false,
        }
        true
    }

    /// Makes what runs equal to what is wanted.
    fn follow(&mut self) {
        let wanted = self.wanted.clone();
        let items: BTreeMap<&str, &wire::Assignment> = wanted
            .assignments
            .iter()
            .flat_map(|set| &set.items)
            .take(limits::ASSIGNMENTS_MAX)
            .map(|assignment| (assignment.token.as_str(), assignment))
            .collect();
        if self.tenure != wanted.tenure {
            self.tenure = wanted.tenure;
            // A process that is killed writes no more; asking each step to stop would take longer
            // than the lease has left.
            self.domains.values().for_each(|(_, process)| process.kill());
        }
        self.drop_absent(&items, wanted.tenure);
        if let (Some(facts), Some(set)) = (&wanted.session, &wanted.assignments) {
            self.follow_domains(facts, &set.domains);
            for assignment in items.into_values() {
                if !self.entries.contains_key(&assignment.token) {
                    self.start(facts, assignment);
                }
            }
        }
        self.drop_unused_domains();
    }

    /// Stops what no longer is to run, and settles what has ended.
    fn drop_absent(&mut self, items: &BTreeMap<&str, &wire::Assignment>, tenure: u64) {
        let outbox = &self.outbox;
        // While no set counts (the lease ran out), everything stops, but nothing is known to be
        // absent: the next set may name it again.
        let asked = self.wanted.assignments.is_some();
        self.entries.retain(|token, entry| {
            let item = items.get(token.as_str());
            let (named, stopped) = (item.is_some(), item.is_some_and(|item| item.stop));
            if !named || (stopped || entry.tenure != tenure) && entry.phase == Phase::Running {
                entry.stop.cancel();
                if entry.phase == Phase::Running {
                    entry.phase = Phase::Stopping;
                }
            }
            if asked && !named {
                outbox.forget(token);
            }
            if entry.alive || !asked {
                return true;
            }
            named && entry.settle(token, outbox)
        });
    }

    /// Probes the domains that the set names, beneath this worker's prefixes.
    fn follow_domains(&mut self, facts: &Arc<SessionFacts>, targets: &[wire::DomainTarget]) {
        let reading = Reading { facts, now_s: 0 };
        let mut probed = BTreeSet::new();
        for target in targets {
            match reading.root(target) {
                Ok(root) if self.reach.covers(&root.path) => {
                    probed.insert(root.domain);
                    self.domain(root).probe(true);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(domain = target.domain_id, %error, "a domain cannot be probed"),
            }
        }
        for (id, (_, process)) in &self.domains {
            if !probed.contains(id) {
                process.probe(false);
                self.outbox.forget_domain(&id.to_string());
            }
        }
    }

    /// The process of a domain, made when it is first needed.
    fn domain(&mut self, root: DomainRoot) -> DomainProcess {
        match self.domains.get(&root.domain) {
            Some((of, process)) if *of == root => process.clone(),
            _ => {
                let process = self.domains_from.of(root.clone());
                self.domains.insert(root.domain, (root, process.clone()));
                process
            }
        }
    }

    fn drop_unused_domains(&mut self) {
        let entries = &self.entries;
        self.domains.retain(|id, (_, process)| {
            process.is_probed() || entries.values().any(|entry| entry.alive && entry.domain == Some(*id))
        });
    }

    fn start(&mut self, facts: &Arc<SessionFacts>, assignment: &wire::Assignment) {
        if assignment.stop {
            // Nothing of it runs here: its process ended with the supervisor that had it.
            return self.answer_at_once(&assignment.token, Answer::Stopped(wire::Stopped {}));
        }
        if let Some(wire::assignment::Order::Noop(_)) = &assignment.order {
            // It touches no storage, so no process is needed.
            return self.answer_at_once(&assignment.token, Answer::Done(wire::Done::default()));
        }
        let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let read = Reading { facts, now_s }.task(assignment);
        let task = match read {
            Ok(task) => task,
            Err(error) => {
                tracing::error!(token = assignment.token, %error, "an assignment is not understood");
                // Another worker may be newer, so this is no refusal: the next attempt goes there first.
                let message = format!("worker {} ({}): {error}", self.workshop.name, env!("CARGO_PKG_VERSION"));
                let hint = "upgrade this worker: workers are upgraded before the members";
                let answer = answers::failed("ASSIGNMENT_UNREADABLE", message, hint);
                return self.answer_at_once(&assignment.token, answer);
            }
        };
        if let Some(path) = task.paths().into_iter().find(|path| !self.reach.covers(path)) {
            let message = format!("{} is not beneath one of this worker's prefixes", path.display());
            let refusal = Refusal::new(Class::Unavailable, "OUT_OF_REACH", message).hint("see --reach of the worker");
            return self.answer_at_once(&assignment.token, answers::refused(refusal));
        }
        tracing::info!(
            token = task.token,
            txn = assignment.transaction_id,
            attempt = task.attempt,
            domain = %task.domain().domain,
            "starting an attempt"
        );
        self.spawn(task);
    }

    fn spawn(&mut self, task: Task) {
        let domain = self.domain(task.domain().clone());
        self.incarnations += 1;
        let entry = Entry {
            incarnation: self.incarnations,
            tenure: self.wanted.tenure,
            phase: Phase::Running,
            alive: true,
            may_begin_again: task.may_begin_again(),
            domain: Some(task.domain().domain),
            stop: CancellationToken::new(),
        };
        let attempt = Attempt {
            workshop: self.workshop.clone(),
            incarnation: entry.incarnation,
            stop: entry.stop.clone(),
            words: self.words_from.clone(),
            task,
        };
        self.entries.insert(attempt.task.token.clone(), entry);
        tokio::spawn(attempt.run(domain));
    }

    /// An answer without an attempt.
    fn answer_at_once(&mut self, token: &str, answer: Answer) {
        let entry = Entry {
            incarnation: 0,
            tenure: self.wanted.tenure,
            phase: Phase::Answered,
            alive: false,
            may_begin_again: false,
            domain: None,
            stop: CancellationToken::new(),
        };
        self.entries.insert(token.to_owned(), entry);
        self.outbox.report(token, answer);
    }

    fn on_word(&mut self, word: Word) {
        let Word { token, incarnation, said } = word;
        let Some(entry) = self.entries.get_mut(&token).filter(|entry| entry.incarnation == incarnation) else { return };
        match said {
            Said::Answer(answer @ (Answer::Checkpoint(_) | Answer::Sender(_))) => {
                if entry.phase == Phase::Running {
                    self.outbox.report(&token, answer);
                }
            }
            Said::Answer(answer) => {
                // An attempt that was stopped is answered when it is over, so that nothing is said
                // twice and in another sense; but what was done is done.
                if entry.phase == Phase::Running || matches!(answer, Answer::Done(_)) {
                    tracing::info!(token, answer = ?summary(&answer), "an attempt has its answer");
                    entry.phase = Phase::Answered;
                    self.outbox.report(&token, answer);
                }
            }
            Said::Over => self.on_over(&token),
        }
    }

    fn on_over(&mut self, token: &str) {
        let Some(entry) = self.entries.get_mut(token) else { return };
        entry.alive = false;
        if let Some(set) = &self.wanted.assignments {
            let named = set.items.iter().any(|item| item.token == token);
            if !named {
                self.outbox.forget(token);
            }
            if !(named && entry.settle(token, &self.outbox)) {
                self.entries.remove(token);
                if named {
                    return self.follow();
                }
            }
        }
        self.drop_unused_domains();
    }
}

impl Drop for Entry {
    /// What nobody keeps track of must not run.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Entry {
    /// Its task is over and a set names it: an attempt that may begin again is forgotten (false),
    /// any other has an answer, at least that it was stopped.
    fn settle(&mut self, token: &str, outbox: &Outbox) -> bool {
        if self.phase == Phase::Answered {
            return true;
        }
        if self.may_begin_again {
            return false;
        }
        self.phase = Phase::Answered;
        outbox.report(token, Answer::Stopped(wire::Stopped {}));
        true
    }
}

/// An answer in a word, for the log.
fn summary(answer: &Answer) -> String {
    match answer {
        Answer::Done(done) => format!("done, {} bytes", done.bytes),
        Answer::Refused(refusal) => format!("refused: {}", refusal.message),
        Answer::Failed(failed) => format!("failed: {}", failed.message),
        Answer::Stopped(_) => "stopped".to_owned(),
        Answer::Checkpoint(_) | Answer::Sender(_) => "going on".to_owned(),
    }
}
