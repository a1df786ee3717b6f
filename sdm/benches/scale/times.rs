//! How long calls took.

use std::fmt;
use std::time::Duration;

/// Some calls.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// One more.
    pub fn add(&mut self, took: Duration) {
        self.0.push(took);
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let Some(longest) = sorted.last() else { return f.write_str("no calls") };
        let at = |share: f64| sorted[((sorted.len() as f64 * share) as usize).min(sorted.len() - 1)];
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "{} calls: median {:.2} ms, p99 {:.2} ms, longest {:.2} ms",
            sorted.len(),
            ms(at(0.5)),
            ms(at(0.99)),
            ms(*longest)
        )
    }
}
