//! Reports on their way into the log: those of one attempt one after the other, those of different
//! attempts side by side. It forgets nothing that a worker would not say again: a full queue drops,
//! and the worker repeats.

use sdm_proto::token::Token;
use sdm_state::work::Report;
use std::collections::BTreeMap;
use std::collections::VecDeque;

/// Reports that wait at most: twice what a worker can have assigned, since one attempt can have a
/// checkpoint, a change of its other end and a last word on the way.
const WAITING_MAX: usize = 4 * sdm_proto::limits::ASSIGNMENTS_MAX;

/// Reports of one worker that are proposed at the same time, one for each attempt that it can have: the
/// log merges them into few writes.
const RUNNING_MAX: usize = sdm_proto::limits::ASSIGNMENTS_MAX;

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It will be proposed.
    New,
    /// It is on its way already.
    Known,
    /// There is no room; the worker will say it again.
    Full,
}

#[derive(Debug)]
struct Waiting {
    sequence: u64,
    report: Report,
}

#[derive(Debug, Default)]
struct Line {
    /// Number of the report that is being proposed.
    running: Option<u64>,
    waiting: VecDeque<Waiting>,
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub(super) struct ReportQueue {
    lines: BTreeMap<Token, Line>,
    /// Attempts with something to propose and nothing being proposed, first come first served.
    ready: VecDeque<Token>,
    waiting: usize,
    running: usize,
}

impl ReportQueue {
    /// Takes a report in.
    pub(super) fn push(&mut self, token: Token, sequence: u64, report: Report) -> Taken {
        let full = self.waiting >= WAITING_MAX;
        let known = self.lines.get(&token).is_some_and(|line| {
            line.running == Some(sequence) || line.waiting.iter().any(|waiting| waiting.sequence == sequence)
        });
        if known {
            return Taken::Known;
        }
        if full {
            return Taken::Full;
        }
        let line = self.lines.entry(token).or_default();
        let newer = Waiting { sequence, report };
        // A later checkpoint says all that the one before said.
        match line.waiting.back_mut() {
            Some(last) if is_checkpoint(&last.report) && is_checkpoint(&newer.report) => *last = newer,
            _ => {
                line.waiting.push_back(newer);
                self.waiting += 1;
                if line.running.is_none() && line.waiting.len() == 1 {
                    self.ready.push_back(token);
                }
            }
        }
        Taken::New
    }

    /// The next report that may be proposed; it counts as being proposed from now on.
    pub(super) fn next(&mut self) -> Option<(Token, Report)> {
        if self.running >= RUNNING_MAX {
            return None;
        }
        let token = self.ready.pop_front()?;
        let line = self.lines.get_mut(&token)?;
        let Waiting { sequence, report } = line.waiting.pop_front()?;
        line.running = Some(sequence);
        self.waiting -= 1;
        self.running += 1;
        Some((token, report))
    }

    /// Whether nothing waits and nothing is being proposed.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The proposal for this attempt was answered.
    pub(super) fn finished(&mut self, token: Token) {
        let Some(line) = self.lines.get_mut(&token).filter(|line| line.running.is_some()) else { return };
        line.running = None;
        self.running -= 1;
        if line.waiting.is_empty() {
            self.lines.remove(&token);
        } else {
            self.ready.push_back(token);
        }
    }
}

fn is_checkpoint(report: &Report) -> bool {
    matches!(report, Report::Checkpoint { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(index: u64) -> Token {
        Token { epoch: 1, index, ordinal: 0 }
    }

    fn checkpoint(durable_bytes: u64) -> Report {
        Report::Checkpoint { durable_bytes }
    }

    #[test]
    fn reports_of_one_attempt_follow_each_other_and_those_of_others_do_not_wait() {
        let mut queue = ReportQueue::default();
        queue.push(token(1), 1, Report::Peer { connected: true });
        queue.push(token(1), 2, Report::Stopped);
        queue.push(token(2), 3, Report::Stopped);
        assert_eq!(queue.next(), Some((token(1), Report::Peer { connected: true })));
        assert_eq!(queue.next(), Some((token(2), Report::Stopped)));
        assert_eq!(queue.next(), None);
        queue.finished(token(1));
        assert_eq!(queue.next(), Some((token(1), Report::Stopped)));
        queue.finished(token(1));
        queue.finished(token(2));
        assert!(queue.lines.is_empty());
        assert_eq!((queue.waiting, queue.running), (0, 0));
    }

    #[test]
    fn a_repetition_of_what_is_on_its_way_is_not_proposed_again() {
        let mut queue = ReportQueue::default();
        assert_eq!(queue.push(token(1), 7, Report::Stopped), Taken::New);
        assert_eq!(queue.push(token(1), 7, Report::Stopped), Taken::Known);
        queue.next();
        assert_eq!(queue.push(token(1), 7, Report::Stopped), Taken::Known);
        queue.finished(token(1));
        assert_eq!(queue.push(token(1), 7, Report::Stopped), Taken::New);
    }

    #[test]
    fn only_the_latest_waiting_checkpoint_is_proposed() {
        let mut queue = ReportQueue::default();
        queue.push(token(1), 1, checkpoint(10));
        queue.next();
        queue.push(token(1), 2, checkpoint(20));
        queue.push(token(1), 3, checkpoint(30));
        assert_eq!(queue.waiting, 1);
        queue.finished(token(1));
        assert_eq!(queue.next(), Some((token(1), checkpoint(30))));
    }

    #[test]
    fn what_waits_and_what_runs_is_bounded() {
        let mut queue = ReportQueue::default();
        for index in 0..WAITING_MAX as u64 {
            assert_eq!(queue.push(token(index), index, Report::Stopped), Taken::New);
        }
        assert_eq!(queue.push(token(1 << 40), 1, Report::Stopped), Taken::Full);
        let mut running = 0;
        while queue.next().is_some() {
            running += 1;
        }
        assert_eq!(running, RUNNING_MAX);
        assert_eq!(queue.push(token(1 << 40), 1, Report::Stopped), Taken::New);
    }
}
