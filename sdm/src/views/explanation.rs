//! An explanation as it is printed: the thing in one line, the chain from it to whoever acts, what it waits for and
//! what it blocks, the safe ways out with their commands, what is not safe, and what happened last.

use super::ClusterEventView;
use crate::output::Report;
use crate::output::age_text;
use crate::output::one_line;
use sdm_proto::wire::v1;
use serde::Serialize;
use std::fmt::Write as _;

/// What is known of one thing.
#[derive(Serialize)]
pub struct ExplanationView {
    kind: String,
    id: String,
    name: String,
    title: String,
    state: String,
    chain: Vec<LinkView>,
    waits_for: Vec<LinkView>,
    blocks: Vec<LinkView>,
    facts: Vec<FactView>,
    ways_out: Vec<WayOutView>,
    not_safe: Vec<String>,
    events: Vec<ClusterEventView>,
    clock_ms: u64,
}

/// One thing in relation to the one before.
#[derive(Serialize)]
struct LinkView {
    role: String,
    kind: String,
    id: String,
    name: String,
    state: String,
    since_ms: u64,
    position: u32,
    text: String,
}

#[derive(Serialize)]
struct FactView {
    name: String,
    value: String,
}

#[derive(Serialize)]
struct WayOutView {
    text: String,
    command: Option<String>,
}

impl From<v1::ExplainedLink> for LinkView {
    fn from(link: v1::ExplainedLink) -> Self {
        let v1::ExplainedLink { role, kind, id, name, state, since_ms, position, text } = link;
        Self { role, kind, id, name, state, since_ms, position, text }
    }
}

impl LinkView {
    fn line(&self, now_ms: u64) -> String {
        let mut line = format!("{:<12}  {}", self.role, self.name);
        if !self.state.is_empty() {
            _ = write!(line, "  {}", self.state);
        }
        if self.since_ms > 0 {
            _ = write!(line, " for {}", age_text(now_ms.saturating_sub(self.since_ms)));
        }
        if self.position > 0 {
            _ = write!(line, ", position {}", self.position);
        }
        if !self.text.is_empty() {
            _ = write!(line, "  {}", self.text);
        }
        one_line(&line)
    }
}

impl ExplanationView {
    /// As seen at this moment of the cluster's clock.
    #[must_use]
    pub fn new(told: v1::Explanation, clock_ms: u64) -> Self {
        let links = |links: Vec<v1::ExplainedLink>| links.into_iter().map(LinkView::from).collect();
        Self {
            kind: told.kind,
            id: told.id,
            name: told.name,
            title: told.title,
            state: told.state,
            chain: links(told.chain),
            waits_for: links(told.waits_for),
            blocks: links(told.blocks),
            facts: told.facts.into_iter().map(|fact| FactView { name: fact.name, value: fact.value }).collect(),
            ways_out: told
                .ways_out
                .into_iter()
                .map(|way| WayOutView { text: way.text, command: Some(way.command).filter(|text| !text.is_empty()) })
                .collect(),
            not_safe: told.not_safe,
            events: told.events.into_iter().map(|event| ClusterEventView::new(event, clock_ms)).collect(),
            clock_ms,
        }
    }
}

impl Report for ExplanationView {
    fn text(&self) -> String {
        // Writing to a String cannot fail, here and below.
        let mut text = String::new();
        _ = writeln!(text, "{}  {}  {}", one_line(&self.name), one_line(&self.state), one_line(&self.title));
        for link in self.chain.iter().chain(&self.waits_for) {
            _ = writeln!(text, " {}", link.line(self.clock_ms));
        }
        for fact in &self.facts {
            _ = writeln!(text, " {:<12}  {}", one_line(&fact.name), one_line(&fact.value));
        }
        for (at, link) in self.blocks.iter().enumerate() {
            let line = link.line(self.clock_ms);
            let rest = line.strip_prefix("waits").map_or(line.as_str(), str::trim_start);
            _ = writeln!(text, " {:<12}  {rest}", if at == 0 { "blocks" } else { "" });
        }
        if !self.ways_out.is_empty() {
            text.push_str(" safe ways out\n");
        }
        for (at, way) in self.ways_out.iter().enumerate() {
            let command = way.command.as_ref().map(|command| format!("  -> {command}")).unwrap_or_default();
            _ = writeln!(text, "   {}. {}{command}", at + 1, one_line(&way.text));
        }
        for not_safe in &self.not_safe {
            _ = writeln!(text, "   not safe: {}", one_line(not_safe));
        }
        if !self.events.is_empty() {
            text.push_str(" last events\n");
        }
        for event in &self.events {
            text.push_str(&event.text());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_reads_like_a_story_with_numbered_ways_out() {
        let link = |role: &str, name: &str, state: &str, text: &str| v1::ExplainedLink {
            role: role.into(),
            name: name.into(),
            state: state.into(),
            since_ms: 1_000,
            text: text.into(),
            ..Default::default()
        };
        let told = v1::Explanation {
            name: "lock/812".into(),
            title: "X on disk/old, token 1-812-0".into(),
            state: "fencing".into(),
            chain: vec![
                link("held for", "txn/5512", "running", "merge, by alice"),
                link("at", "worker/node-d", "lost", ""),
            ],
            blocks: vec![v1::ExplainedLink { position: 1, ..link("waits", "lock/815", "waiting", "move") }],
            ways_out: vec![
                v1::WayOut { text: "it comes back".into(), command: String::new() },
                v1::WayOut { text: "it is down".into(), command: "sdm worker confirm-down node-d".into() },
            ],
            not_safe: vec!["lock break before that".into()],
            ..Default::default()
        };
        let expected = "lock/812  fencing  X on disk/old, token 1-812-0\n \
                        held for      txn/5512  running for 1m00s  merge, by alice\n \
                        at            worker/node-d  lost for 1m00s\n \
                        blocks        lock/815  waiting for 1m00s, position 1  move\n \
                        safe ways out\n   1. it comes back\n   2. it is down  -> sdm worker confirm-down node-d\n   \
                        not safe: lock break before that\n";
        assert_eq!(ExplanationView::new(told, 61_000).text(), expected);
    }
}
