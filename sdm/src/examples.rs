//! An example for each command, at the foot of its help. Those whose help has more to say hold theirs themselves.

use clap::Command;

/// A command's words, and what an operator would type.
const EXAMPLES: &[&str] = &[
    "coordinator|--name a --listen 10.0.0.1:7400 --data-dir /var/lib/sdm/member --secret-file /etc/sdm/secret --bootstrap",
    "worker|--name kvm1 --listen 10.0.0.11:7500 --data-dir /var/lib/sdm/worker --coordinators 10.0.0.1:7400,10.0.0.2:7400",
    "worker list|--wait 3",
    "worker show|kvm1",
    "worker drain|kvm1 --reason \"new memory\"",
    "worker undrain|kvm1",
    "worker remove|kvm1",
    "demo|--size 256MiB",
    "status|--check",
    "member list|",
    "member add|d --address 10.0.0.4:7400",
    "member promote|d",
    "member remove|c",
    "member replace|c --with d",
    "member transfer-leader|--to b",
    "domain create|nfs1 --path /mnt/nfs1",
    "domain set|nfs1 --retention 7d",
    "domain activate|nfs1",
    "domain detach|nfs1",
    "domain delete|nfs1",
    "domain forget|nfs1 --reason \"its array burned\" --confirm nfs1",
    "domain check|nfs1",
    "domain list|",
    "domain show|nfs1",
    "disk detach|web-01 --host kvm1",
    "disk attachments|--host kvm1",
    "disk list|--domain nfs1",
    "disk show|web-01",
    "disk tree|web-01",
    "snapshot list|web-01",
    "snapshot show|web-01 before-upgrade",
    "template list|",
    "template show|debian-12",
    "volume show|6f1c2a0e-8f0b-5c53-9d0e-0d6a2d0f7a11",
    "lock list|",
    "lock explain|disk/web-01",
    "lock release|812 --session 41/41",
    "lock break|812 --reason \"its script hangs\"",
    "lock acquire|backup --wait 5m -- ./backup.sh",
    "txn list|--open",
    "txn log|--object disk/web-01 --since 2h -o jsonl",
    "txn watch|6f1c2a0e-8f0b-5c53-9d0e-0d6a2d0f7a11",
    "txn retry|6f1c2a0e-8f0b-5c53-9d0e-0d6a2d0f7a11",
    "txn show|6f1c2a0e-8f0b-5c53-9d0e-0d6a2d0f7a11",
    "txn abort|6f1c2a0e-8f0b-5c53-9d0e-0d6a2d0f7a11 --reason \"wrong disk\"",
    "job list|",
    "gc status|",
    "gc list|--domain nfs1",
    "gc show|1-812-0",
    "gc plan|--domain nfs1",
    "gc show-plan|812",
    "gc apply|812",
    "gc run|--dry-run",
    "gc audit|nfs1",
    "gc hold|1-812-0 --reason \"may be needed\"",
    "gc unhold|1-812-0",
    "gc trash list|",
    "gc trash show|1-812-0",
    "gc trash restore|1-812-0 --name web-01",
    "gc trash purge|1-812-0",
    "events|--since 812 --follow",
    "explain|disk/web-01",
    "backup create|/backup/sdm.backup",
    "backup verify|/backup/sdm.backup",
    "backup restore|/backup/sdm.backup --data-dir /var/lib/sdm/member --name a --advertise 10.0.0.1:7400",
    "backup reconcile|--dry-run",
    "offline dump|/var/lib/sdm/member --from 800 --to 812",
    "offline verify|/var/lib/sdm/member",
    "offline replay|/var/lib/sdm/member --to 812 --dump disks",
    "bench locks|--clients 16 --seconds 5",
    "bench txns|--clients 8 --seconds 5",
    "bench disks|--domain nfs1 --clients 16 --seconds 5",
    "bench fill|--data-dir /tmp/large --volumes 100000",
    "request-id|",
    "version|",
    "exit-codes|",
];

/// The tree with an example for each command that has none of its own.
#[must_use]
pub fn with_examples(tree: Command) -> Command {
    EXAMPLES.iter().fold(tree, |tree, example| {
        let (path, arguments) = example.split_once('|').unwrap_or((example, ""));
        let words: Vec<&str> = path.split(' ').collect();
        let line = format!("Example: sdm {path} {arguments}");
        at(tree, &words, line.trim_end())
    })
}

fn at(command: Command, words: &[&str], line: &str) -> Command {
    match words {
        [first, rest @ ..] if command.find_subcommand(first).is_some() => {
            command.mut_subcommand(first, |command| at(command, rest, line))
        }
        // A command that there is not gets no example; a test sees to it that all of these are there.
        [_, ..] => command,
        [] => {
            let text = match command.get_after_help() {
                Some(own) if own.to_string().contains("Example") => return command,
                Some(own) => format!("{own}\n\n{line}"),
                None => line.to_owned(),
            };
            command.after_help(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use crate::cli::command_line;
    use clap::Parser;

    /// Whether the words can follow `sdm`; with quotes as a shell takes them.
    fn parses(line: &str) -> Result<(), clap::Error> {
        let (mut words, mut quoted) = (vec![String::new()], false);
        for character in line.chars() {
            match character {
                '"' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                other => words.last_mut().unwrap().push(other),
            }
        }
        words.retain(|word| !word.is_empty());
        Cli::try_parse_from(words).map(drop)
    }

    #[test]
    fn each_example_is_of_a_command_that_there_is_and_can_be_typed() {
        for example in EXAMPLES {
            let line = format!("sdm {}", example.replacen('|', " ", 1));
            if let Err(error) = parses(line.trim_end()) {
                panic!("{line}: {error}");
            }
        }
    }

    fn without(command: &Command, path: &str, found: &mut Vec<String>) {
        let visible = || command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
        let path = format!("{path} {}", command.get_name());
        let is_leaf = visible().next().is_none();
        let example = command.get_after_help().is_some_and(|text| text.to_string().contains("Example"));
        if is_leaf && !example {
            found.push(path.clone());
        }
        visible().for_each(|sub| without(sub, &path, found));
    }

    #[test]
    fn every_command_has_an_example_in_its_help() {
        let mut found = Vec::new();
        without(&command_line(), "", &mut found);
        assert!(found.is_empty(), "without an example: {found:?}");
    }
}
