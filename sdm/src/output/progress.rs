//! Progress on stderr: a bar when it is a terminal, else one plain line every few seconds, so that a
//! log shows life without drowning in it.

use super::Format;
use super::age_text;
use super::bytes_text;
use super::one_line;
use super::percent_text;
use indicatif::ProgressBar;
use indicatif::ProgressDrawTarget;
use indicatif::ProgressStyle;
use std::io::IsTerminal;
use std::io::Write;
use std::time::Duration;
use std::time::Instant;

/// Time between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// How often a bar is drawn anew, per second.
const BAR_HZ: u8 = 8;

/// How far something is, shown to the user.
pub struct Progress {
    label: String,
    form: Form,
    shown: String,
}

enum Form {
    Bar(ProgressBar),
    Lines {
        last: Instant,
    },
    /// For programs: their stderr holds errors and warnings alone.
    Silent,
}

impl Progress {
    /// Begins with this label ("move web-01").
    #[must_use]
    pub fn begin(label: &str, format: Format) -> Self {
        let form = if format != Format::Table {
            Form::Silent
        } else if std::io::stderr().is_terminal() {
            let target = ProgressDrawTarget::stderr_with_hz(BAR_HZ);
            let bar = ProgressBar::with_draw_target(None, target).with_prefix(label.to_owned());
            bar.set_style(spinner_style());
            Form::Bar(bar)
        } else {
            Form::Lines { last: Instant::now() }
        };
        Self { label: label.to_owned(), form, shown: String::new() }
    }

    /// Shows bytes of a phase. `per_second` 0 means unknown.
    pub fn bytes(&mut self, phase: &str, done: u64, total: u64, per_second: u64) {
        match &self.form {
            Form::Bar(bar) => {
                if bar.length() != Some(total) {
                    bar.set_length(total);
                    bar.set_style(bar_style());
                }
                bar.set_message(one_line(&format!("{phase} {}", bytes_and_rate(done, total, per_second))));
                bar.set_position(done.min(total));
            }
            Form::Lines { .. } => {
                let amount = bytes_and_rate(done, total, per_second);
                self.line(&format!("{phase} {} ({amount})", percent_text(done, total)), false);
            }
            Form::Silent => {}
        }
    }

    /// Shows a state that has no bytes, once for each change: a bar of bytes stays as it is.
    pub fn state(&mut self, text: &str) {
        let changed = self.shown != text;
        text.clone_into(&mut self.shown);
        match &self.form {
            Form::Bar(bar) if changed => bar.set_message(one_line(text)),
            Form::Bar(_) | Form::Silent => {}
            Form::Lines { .. } => self.line(text, changed),
        }
    }

    /// Says something beside the progress ("member b no longer answers, going on at c").
    pub fn note(&mut self, text: &str) {
        let text = one_line(text);
        self.aside(|| write_line(&text));
    }

    /// Does something that writes to the terminal, with the bar out of its way.
    pub fn aside(&mut self, write: impl FnOnce()) {
        match &self.form {
            Form::Bar(bar) => bar.suspend(write),
            Form::Lines { .. } => write(),
            Form::Silent => {}
        }
    }

    /// Takes the bar away; what was done is told by the result.
    pub fn end(&mut self) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
    }

    fn line(&mut self, text: &str, at_once: bool) {
        if let Form::Lines { last } = &mut self.form
            && (at_once || last.elapsed() >= LINE_INTERVAL)
        {
            *last = Instant::now();
            write_line(&format!("{}: {}", self.label, one_line(text)));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

// Progress is for whoever looks; a stderr that is closed does not stop the work.
fn write_line(text: &str) {
    _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn bytes_and_rate(done: u64, total: u64, per_second: u64) -> String {
    let amount = format!("{} of {}", bytes_text(done), bytes_text(total));
    if per_second == 0 {
        return amount;
    }
    let left = age_text(total.saturating_sub(done) / per_second * 1000);
    format!("{amount}, {}/s, {left} left", bytes_text(per_second))
}

// A message that does not fit is cut: a line that wraps cannot be drawn over.
const BAR_TEMPLATE: &str = "{prefix}  [{bar:20}] {percent:>3} %  {wide_msg}";
const SPINNER_TEMPLATE: &str = "{prefix}  {wide_msg}";

// Both templates are constants: should one not parse, the plain style shows the same with less.
fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template(BAR_TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("##-")
}

fn spinner_style() -> ProgressStyle {
    ProgressStyle::with_template(SPINNER_TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_parse() {
        assert!(ProgressStyle::with_template(SPINNER_TEMPLATE).is_ok());
        assert!(ProgressStyle::with_template(BAR_TEMPLATE).is_ok());
    }

    #[test]
    fn a_rate_tells_the_time_that_is_left() {
        assert_eq!(bytes_and_rate(1 << 30, 3 << 30, 1 << 28), "1.0 GiB of 3.0 GiB, 256.0 MiB/s, 8.0s left");
        assert_eq!(bytes_and_rate(1, 2, 0), "1 B of 2 B");
    }
}
