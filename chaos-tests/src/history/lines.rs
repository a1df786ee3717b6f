//! Histories as JSON lines, read and written one event at a time. What does not read is refused with its line's number
//! and the reason: a checker that guesses what it read proves nothing.

use super::event::Event;
use std::io;
use std::io::BufRead;
use std::io::Read;
use std::io::Write;

/// Longest line: a list of every lock and its holder is far shorter.
const LINE_BYTES_MAX: usize = 8 << 20;

/// How much of a bad line is shown.
const SHOWN_CHARS: usize = 120;

/// Why a history does not read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file system's.
    #[error("line {line} of the history cannot be read")]
    Read {
        /// The line that was to be read, counted from 1.
        line: usize,
        /// Why.
        source: io::Error,
    },
    /// A line that is no event.
    #[error(
        "line {line} of the history is no event: {text}: one JSON object a line is expected, with index, time, type, process and f"
    )]
    NoEvent {
        /// Its number, counted from 1.
        line: usize,
        /// Its beginning.
        text: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A line that is too long for an event.
    #[error("line {line} of the history is longer than {LINE_BYTES_MAX} bytes, and so no event")]
    TooLong {
        /// Its number, counted from 1.
        line: usize,
    },
    /// An event whose number is not the one after the event before.
    #[error("line {line} of the history is event {index} after event {before}: events are missing or were reordered")]
    OutOfOrder {
        /// Its line, counted from 1.
        line: usize,
        /// Its number.
        index: u64,
        /// The number of the event before.
        before: u64,
    },
    /// An event that is older than the one before.
    #[error("line {line} of the history is of {time} ns, and the event before of {before} ns")]
    TimeGoesBack {
        /// Its line, counted from 1.
        line: usize,
        /// Its time in nanoseconds.
        time: u64,
        /// The time of the event before.
        before: u64,
    },
}

/// The events of a file, in order. Ends at the first that does not read.
#[derive(Debug)]
pub struct Lines<R> {
    from: R,
    line: usize,
    before: Option<(u64, u64)>,
    over: bool,
}

impl<R: BufRead> Lines<R> {
    /// Of this file.
    pub fn new(from: R) -> Self {
        Self { from, line: 0, before: None, over: false }
    }

    fn read(&mut self) -> Result<Option<Event>, HistoryError> {
        loop {
            self.line += 1;
            let line = self.line;
            let mut bytes = Vec::new();
            let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
            let read = (&mut self.from).take(limit).read_until(b'\n', &mut bytes);
            if read.map_err(|source| HistoryError::Read { line, source })? == 0 {
                return Ok(None);
            }
            if bytes.len() > LINE_BYTES_MAX {
                return Err(HistoryError::TooLong { line });
            }
            if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let event: Event = serde_json::from_slice(&bytes).map_err(|source| HistoryError::NoEvent {
                line,
                text: String::from_utf8_lossy(&bytes).trim_end().chars().take(SHOWN_CHARS).collect(),
                source,
            })?;
            return self.in_order(event).map(Some);
        }
    }

    fn in_order(&mut self, event: Event) -> Result<Event, HistoryError> {
        let (line, index, time) = (self.line, event.index, event.time);
        if let Some((before, then)) = self.before {
            if before.checked_add(1) != Some(index) {
                return Err(HistoryError::OutOfOrder { line, index, before });
            }
            if time < then {
                return Err(HistoryError::TimeGoesBack { line, time, before: then });
            }
        }
        self.before = Some((index, time));
        Ok(event)
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Event, HistoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.read().transpose();
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Writes one event as a line.
///
/// # Errors
/// The file system's.
pub fn write_event(to: &mut impl Write, event: &Event) -> io::Result<()> {
    serde_json::to_writer(&mut *to, event)?;
    to.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Result<Event, HistoryError>> {
        Lines::new(text.as_bytes()).collect()
    }

    fn line(index: u64, time: u64) -> String {
        format!(r#"{{"index":{index},"time":{time},"type":"invoke","process":0,"f":"read"}}"#) + "\n"
    }

    #[test]
    fn what_was_written_is_read_and_empty_lines_are_passed_over() {
        let events: Vec<Event> = read(&(line(3, 5) + "\n" + &line(4, 5))).into_iter().map(Result::unwrap).collect();
        let mut text = Vec::new();
        for event in &events {
            write_event(&mut text, event).expect("memory");
        }
        let again: Vec<Event> = Lines::new(text.as_slice()).map(Result::unwrap).collect();
        assert_eq!((again.len(), again), (2, events));
    }

    #[test]
    fn a_bad_line_is_told_with_its_number_and_why_and_nothing_is_read_after_it() {
        let found = read(&(line(0, 0) + "{\"index\":1,\"time\":1,\"type\":\"maybe\"}\n" + &line(2, 2)));
        assert_eq!(found.len(), 2);
        match &found[1] {
            Err(HistoryError::NoEvent { line: 2, source, .. }) => assert!(source.to_string().contains("maybe")),
            other => panic!("{other:?}"),
        }
        assert!(matches!(read("{\"index\":0").pop(), Some(Err(HistoryError::NoEvent { line: 1, .. }))));
    }

    #[test]
    fn missing_events_and_time_that_goes_back_are_seen() {
        let missing = read(&(line(0, 0) + &line(2, 2))).pop();
        assert!(matches!(missing, Some(Err(HistoryError::OutOfOrder { line: 2, index: 2, before: 0 }))));
        let back = read(&(line(0, 9) + &line(1, 8))).pop();
        assert!(matches!(back, Some(Err(HistoryError::TimeGoesBack { line: 2, time: 8, before: 9 }))));
    }
}
