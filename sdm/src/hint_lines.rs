//! Every command line that a message of any crate tells the user to type is one that this command line takes. They are
//! collected from the sources, so that none is forgotten: in every string, `sdm NOUN …` up to the punctuation that ends
//! it, with stand-ins for what is filled in when it is said. In backticks, in
//! parentheses or alone it may also be the mere name of a command.

use crate::cli::Cli;
use crate::cli::command_line;
use clap::Parser;
use clap::error::ErrorKind;
use std::path::Path;
use std::path::PathBuf;

/// Folders whose messages reach users, beside the workspace's root.
const FOLDERS: [&str; 6] =
    ["proto/src", "raft-store/src", "raft-store/state/src", "coordinator/src", "storage-worker/src", "sdm/src"];

/// Documents whose examples are typed as they stand.
const DOCUMENTS: [&str; 2] = ["README.md", "docs/operations.md"];

/// A command line as it was found.
#[derive(Debug)]
struct Mention {
    place: String,
    words: String,
    /// It stands in backticks, in parentheses, or alone: then it may be the mere name of a command.
    quoted: bool,
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All files of Rust beneath a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The strings of a source, joined where they go on in the next line; without its comments and tests.
fn strings(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let (mut found, mut rest) = (Vec::new(), source);
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let (before, from) = rest.split_at(at);
        rest = if from.starts_with("//") {
            from.split_once('\n').map_or("", |(_, after)| after)
        } else if from.starts_with('"') {
            let raw = before.trim_end_matches('#').ends_with('r') && !before.ends_with("br");
            let (text, after) = if raw { raw_string(before, from) } else { string(from) };
            found.push(text);
            after
        } else if from.starts_with("'\"'") {
            from.get(3..).unwrap_or_default()
        } else if from.starts_with("'\\") {
            // An escaped character: its quote, the backslash and what that escapes are no string's.
            from.get(3..).unwrap_or_default()
        } else {
            from.get(1..).unwrap_or_default()
        };
    }
    found
}

fn raw_string<'a>(before: &str, from: &'a str) -> (String, &'a str) {
    let hashes = before.len() - before.trim_end_matches('#').len();
    let end = format!("\"{}", "#".repeat(hashes));
    let text = from.get(1..).unwrap_or_default();
    text.split_once(&end).map_or((String::new(), ""), |(text, after)| (text.to_owned(), after))
}

/// The string at the beginning of a text, and what comes after it.
fn string(from: &str) -> (String, &str) {
    let (mut text, mut characters) = (String::new(), from.char_indices().skip(1));
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (text, from.get(at + 1..).unwrap_or_default()),
            '\\' => match characters.next() {
                Some((_, 'n')) => text.push('\n'),
                // Goes on at the first character of the next line.
                Some((at, '\n')) => {
                    let after = from.get(at + 1..).unwrap_or_default();
                    let (joined, rest) = string_after(after.trim_start());
                    return (text + &joined, rest);
                }
                Some((_, other)) => text.push(other),
                None => break,
            },
            other => text.push(other),
        }
    }
    (text, "")
}

fn string_after(from: &str) -> (String, &str) {
    // As if it began here.
    let begun = format!("\"{from}");
    let (text, rest) = string(&begun);
    let length = rest.len();
    (text, from.get(from.len() - length..).unwrap_or_default())
}

/// The command lines in a text.
fn mentions(place: &str, text: &str, nouns: &[String]) -> Vec<Mention> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("sdm ") {
        let (before, from) = text.split_at(at);
        if before.ends_with(|c: char| c.is_alphanumeric() || "-_/.$".contains(c)) {
            continue;
        }
        let noun = from.split([' ', '`', ',', ';', ')', ':', '.', '\n']).nth(1).unwrap_or_default();
        if !nouns.iter().any(|known| known == noun) {
            continue;
        }
        let ticked = before.ends_with('`');
        let words = if ticked { from.split('`').next().unwrap_or_default() } else { typed(from) };
        let quoted = ticked
            || words == text
            || (before.ends_with('(') && from.get(words.len()..).is_some_and(|c| c.starts_with(')')));
        found.push(Mention { place: place.to_owned(), words: words.to_owned(), quoted });
    }
    found
}

/// A command line up to what ends it: a line's end, punctuation, or a word that goes on with the sentence.
fn typed(from: &str) -> &str {
    let (mut in_quotes, mut in_braces) = (false, false);
    let mut end = from.len();
    for (at, character) in from.char_indices() {
        match character {
            '"' => in_quotes = !in_quotes,
            '{' | '}' => in_braces = character == '{',
            _ if in_quotes || in_braces => continue,
            '\n' | ';' | ',' | '(' | ')' | '`' => end = at,
            '.' | ':' if from.get(at + 1..).is_none_or(|next| next.is_empty() || next.starts_with([' ', '\n'])) => {
                end = at
            }
            ' ' if [" or ", " and ", " - ", " -> "]
                .iter()
                .any(|word| from.get(at..).is_some_and(|f| f.starts_with(word))) =>
            {
                end = at;
            }
            _ => continue,
        }
        if end == at {
            break;
        }
    }
    from.get(..end).unwrap_or_default()
}

/// The words that a user would type, with stand-ins where the message is filled in.
fn arguments(words: &str) -> Vec<String> {
    let mut arguments: Vec<String> = Vec::new();
    let mut word = String::new();
    let (mut in_quotes, mut in_braces) = (false, false);
    for character in words.chars().chain([' ']) {
        match character {
            '"' => in_quotes = !in_quotes,
            '{' => in_braces = true,
            '}' => {
                in_braces = false;
                word.push('1');
            }
            _ if in_braces => {}
            '[' | ']' | '…' | '\\' => {}
            // Alternatives to what stands before: the first is looked at.
            ' ' if word == "|" => return arguments,
            ' ' if !in_quotes => {
                if !word.is_empty() {
                    let stands_for = stand_in(arguments.last().map(String::as_str), &word);
                    arguments.push(stands_for);
                }
                word.clear();
            }
            other => word.push(other),
        }
    }
    arguments
}

/// What stands for a word: the first of alternatives, a format where one is wanted, a number for a name in capitals.
fn stand_in(before: Option<&str>, word: &str) -> String {
    let first = word.split('|').next().unwrap_or_default();
    let stands_for_something = first.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    match before {
        Some("--format") if !matches!(first, "raw" | "qcow2") => "raw".to_owned(),
        _ if stands_for_something => "1".to_owned(),
        _ => first.to_owned(),
    }
}

/// Whether these words are the name of a command, perhaps with options that it has, and nothing more.
fn is_name(arguments: &[String]) -> bool {
    let mut tree = command_line();
    tree.build();
    for word in arguments.iter().skip(1) {
        let option = word.strip_prefix("--").map(|name| tree.get_arguments().any(|own| own.get_long() == Some(name)));
        match (option, tree.find_subcommand(word)) {
            (Some(known), _) if known => {}
            (None, Some(command)) => tree = command.clone(),
            _ => return false,
        }
    }
    true
}

/// Why it cannot be typed; None if it can.
fn trouble(mention: &Mention) -> Option<String> {
    let arguments = arguments(&mention.words);
    if mention.quoted && is_name(&arguments) {
        return None;
    }
    let error = Cli::try_parse_from(&arguments).err().filter(|error| error.kind() != ErrorKind::DisplayHelp)?;
    let first = error.to_string().lines().take(2).collect::<Vec<_>>().join(" ");
    Some(format!("{}: {}\n    {first}", mention.place, mention.words))
}

fn nouns() -> Vec<String> {
    command_line().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

#[test]
fn every_command_line_in_a_message_can_be_typed() {
    let (root, nouns) = (workspace(), nouns());
    let mut files = Vec::new();
    FOLDERS.iter().for_each(|folder| sources(&root.join(folder), &mut files));
    // What is written here is no message.
    files.retain(|file| !file.ends_with("hint_lines.rs"));
    let mut found = Vec::new();
    for file in &files {
        let place = file.strip_prefix(&root).unwrap_or(file).display().to_string();
        let source = std::fs::read_to_string(file).unwrap();
        found.extend(strings(&source).iter().flat_map(|text| mentions(&place, text, &nouns)));
    }
    // A collection that finds nothing proves nothing.
    assert!(found.len() > 200, "only {} command lines were found", found.len());
    let bad: Vec<String> = found.iter().filter_map(trouble).collect();
    assert!(bad.is_empty(), "{} of {} cannot be typed:\n{}", bad.len(), found.len(), bad.join("\n"));
}

#[test]
fn every_command_line_in_the_documents_can_be_typed() {
    let (root, nouns) = (workspace(), nouns());
    let mut bad = Vec::new();
    for document in DOCUMENTS {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        let found = mentions(document, &text, &nouns);
        assert!(found.len() > 10, "{document}: only {} command lines were found", found.len());
        bad.extend(found.iter().filter(|mention| mention.quoted).filter_map(trouble));
    }
    assert!(bad.is_empty(), "{} cannot be typed:\n{}", bad.len(), bad.join("\n"));
}

#[test]
fn strings_and_what_is_typed_are_told_from_what_stands_around_them() {
    let source = "let x = '\"'; // sdm disk \"none\"\nhint(\"see sdm disk list; or \\\n   sdm txn show {id}, now\", r#\"a \"b\" c\"#)";
    assert_eq!(strings(source), ["see sdm disk list; or sdm txn show {id}, now", "a \"b\" c"]);
    let nouns = ["disk".to_owned(), "txn".to_owned()];
    let found = mentions("here", &strings(source)[0], &nouns);
    let words: Vec<&str> = found.iter().map(|mention| mention.words.as_str()).collect();
    assert_eq!(words, ["sdm disk list", "sdm txn show {id}"]);
    assert!(found.iter().all(|mention| trouble(mention).is_none()));
    let bad = Mention { place: String::new(), words: "sdm disk detach".to_owned(), quoted: false };
    assert!(trouble(&bad).is_some(), "a disk is missing");
    assert!(trouble(&Mention { quoted: true, ..bad }).is_none(), "the name of a command");
}
