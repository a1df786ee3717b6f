//! Histories in EDN, one operation map a line, as Knossos and Elle read them. A process that was not told how something
//! ended has crashed for them and never acts again, so it goes on under another number; names become numbers, except
//! the nemesis, an observer and whoever else asks for nothing, which become keywords. What is done on a key has the
//! value `[key value]`, as Jepsen's `independent` takes histories apart.

use super::event::Event;
use super::event::Kind;
use super::event::Process;
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write;

/// What a line's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// `[key value]`, for `independent` and Knossos.
    Keyed,
    /// A transaction of one micro-operation, for Elle's rw-register: `[[:w key value]]` or `[[:r key value]]`. What
    /// neither reads nor writes a register keeps its own `:f`.
    Transactions,
}

/// Turns events into lines, one after the other.
#[derive(Debug)]
pub struct Edn {
    values: Values,
    clients: BTreeSet<Process>,
    numbers: BTreeMap<Process, u64>,
    next: u64,
}

impl Edn {
    /// For these events: who asks for something is a client.
    pub fn new(values: Values, events: &[Event]) -> Self {
        let asking = events.iter().filter(|event| event.kind == Kind::Invoke);
        Self { values, clients: asking.map(|event| event.process.clone()).collect(), numbers: BTreeMap::new(), next: 0 }
    }

    /// The line of this event.
    pub fn line(&mut self, event: &Event) -> String {
        let process = self.process(event);
        let kind = match event.kind {
            Kind::Invoke => ":invoke",
            Kind::Ok => ":ok",
            Kind::Fail => ":fail",
            Kind::Info => ":info",
        };
        let (f, value) = self.meaning(event);
        format!(
            "{{:index {}, :time {}, :type {kind}, :process {process}, :f {}, :value {value}}}",
            event.index,
            event.time,
            keyword(f)
        )
    }

    fn process(&mut self, event: &Event) -> String {
        if !self.clients.contains(&event.process) {
            return keyword(&event.process.to_string());
        }
        let next = &mut self.next;
        let number = *self.numbers.entry(event.process.clone()).or_insert_with(|| {
            *next += 1;
            *next - 1
        });
        if event.kind == Kind::Info {
            self.numbers.remove(&event.process);
        }
        number.to_string()
    }

    fn meaning<'a>(&self, event: &'a Event) -> (&'a str, String) {
        let (key, value) = (quoted(&event.key), edn(&event.value));
        let is_client = self.clients.contains(&event.process);
        match (self.values, event.f.as_str()) {
            _ if !is_client => (&event.f, value),
            (Values::Transactions, "read") => ("txn", format!("[[:r {key} {value}]]")),
            (Values::Transactions, "write" | "acquire" | "create") => ("txn", format!("[[:w {key} {value}]]")),
            _ if event.key.is_empty() => (&event.f, value),
            _ => (&event.f, format!("[{key} {value}]")),
        }
    }
}

/// A keyword of whatever text.
fn keyword(text: &str) -> String {
    let sound = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    format!(":{}", text.chars().map(sound).collect::<String>())
}

fn quoted(text: &str) -> String {
    let mut to = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '\r' => to.push_str("\\r"),
            '\t' => to.push_str("\\t"),
            c => to.push(c),
        }
    }
    to.push('"');
    to
}

/// A JSON value in EDN; fields become keywords.
fn edn(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(edn).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let mut to = String::from("{");
            for (number, (name, value)) in fields.iter().enumerate() {
                let comma = if number == 0 { "" } else { ", " };
                // Writing to a string does not fail.
                let _ = write!(to, "{comma}{} {}", keyword(name), edn(value));
            }
            to.push('}');
            to
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(kind: Kind, process: &str, f: &str, value: Value) -> Event {
        Event { index: 4, time: 9, kind, process: Process::of(process), f: f.into(), key: "r".into(), value }
    }

    fn lines(values: Values, events: &[Event]) -> Vec<String> {
        let mut edn = Edn::new(values, events);
        events.iter().map(|event| edn.line(event)).collect()
    }

    #[test]
    fn knossos_gets_op_maps_and_a_new_process_after_an_unknown_end() {
        let events = [
            event(Kind::Invoke, "a.0", "write", json!(3)),
            event(Kind::Info, "nemesis", "partition", json!({ "cut": ["m1"] })),
            event(Kind::Info, "a.0", "write", json!("no answer \"in time\"")),
            event(Kind::Invoke, "a.0", "read", json!(null)),
        ];
        assert_eq!(
            lines(Values::Keyed, &events),
            [
                r#"{:index 4, :time 9, :type :invoke, :process 0, :f :write, :value ["r" 3]}"#,
                r#"{:index 4, :time 9, :type :info, :process :nemesis, :f :partition, :value {:cut ["m1"]}}"#,
                r#"{:index 4, :time 9, :type :info, :process 0, :f :write, :value ["r" "no answer \"in time\""]}"#,
                r#"{:index 4, :time 9, :type :invoke, :process 1, :f :read, :value ["r" nil]}"#,
            ]
        );
    }

    #[test]
    fn elle_gets_transactions_of_one_read_or_write() {
        let events = [event(Kind::Invoke, "1", "write", json!(3)), event(Kind::Ok, "1", "read", json!(3))];
        let found = lines(Values::Transactions, &events);
        assert!(found[0].contains(r#":f :txn, :value [[:w "r" 3]]"#));
        assert!(found[1].contains(r#":f :txn, :value [[:r "r" 3]]"#));
    }
}
