//! The command line: global options, the nouns, and how a parsed command is run to its exit code.

use crate::commands::Command;
use crate::commands::LockCommand;
use crate::commands::become_command;
use crate::context::Context;
use crate::examples::with_examples;
use crate::output::EXIT_CODES;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Format;
use crate::output::Printer;
use crate::shutdown::Shutdown;
use crate::values::parse_addresses;
use crate::values::parse_duration;
use clap::CommandFactory;
use clap::FromArgMatches;
use clap::Parser;
use clap::error::ContextKind;
use clap::error::ContextValue;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams::TcpTransport;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where a member listens when nobody says otherwise.
const DEFAULT_ENDPOINT: &str = "127.0.0.1:7400";

/// Permissions of a file's group and of all others.
const OTHERS: u32 = 0o077;

/// Storage Domain Manager: manages the shared storage of a virtualization cluster without a special
/// host. `sdm demo` shows it at work.
#[derive(Parser, Debug)]
#[command(name = "sdm", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

/// Options that may stand before or after the noun.
#[derive(clap::Args, Debug, Clone)]
pub struct GlobalOptions {
    /// Members to talk to, any of them, HOST:PORT separated by commas [default: 127.0.0.1:7400]
    #[arg(
        long,
        global = true,
        env = "SDM_ENDPOINTS",
        value_delimiter = ',',
        value_name = "A,B,C",
        help_heading = "Global options"
    )]
    pub endpoints: Vec<String>,
    /// How results are printed: table, json (one object, no field omitted), or jsonl (a line for each item)
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        hide_possible_values = true,
        default_value = "table",
        value_name = "FORMAT",
        help_heading = "Global options"
    )]
    pub output: Format,
    /// File with the cluster's secret
    #[arg(long, global = true, env = "SDM_SECRET_FILE", value_name = "FILE", help_heading = "Global options")]
    pub secret_file: Option<PathBuf>,
    /// End the command after this long (30s, 5m); what it has begun goes on
    #[arg(long, global = true, value_name = "DURATION", help_heading = "Global options")]
    pub timeout: Option<String>,
    /// How log lines on stderr look: text or json (RUST_LOG says how many)
    #[arg(
        long,
        global = true,
        value_enum,
        hide_possible_values = true,
        default_value = "text",
        env = crate::logging::FORMAT_VARIABLE,
        value_name = "FORMAT",
        help_heading = "Global options"
    )]
    pub log_format: crate::logging::LogFormat,
}

impl GlobalOptions {
    /// The secret, if a file is named.
    ///
    /// # Errors
    /// It cannot be read or is too short.
    pub fn secret(&self) -> Result<ClusterSecret, Failure> {
        let Some(path) = &self.secret_file else { return Ok(ClusterSecret::default()) };
        ClusterSecret::from_file(path).map_err(|error| {
            Refusal::new(Class::Invalid, "BAD_SECRET_FILE", error.to_string())
                .hint("a secret file holds at least 16 random bytes: head -c 32 /dev/urandom | base64 > FILE")
                .into()
        })
    }

    /// What is wrong with the secret's file although it can be read: others can read it, too.
    fn secret_doubt(&self) -> Option<String> {
        let path = self.secret_file.as_ref()?;
        let mode = std::fs::metadata(path).ok()?.permissions().mode();
        (mode & OTHERS != 0).then(|| format!("secret file {} is open to its group or to all", path.display()))
    }

    /// Tells the user that.
    pub fn warn_of_secret(&self, printer: &Printer) {
        if let Some(doubt) = self.secret_doubt() {
            printer.warn(&doubt, "chmod 600 makes it its owner's alone");
        }
    }

    /// Logs that, for processes that stay.
    pub fn log_secret_doubt(&self) {
        if let Some(doubt) = self.secret_doubt() {
            tracing::warn!("{doubt}; chmod 600 makes it its owner's alone");
        }
    }

    /// The time that the whole command may take.
    ///
    /// # Errors
    /// It does not read as a duration.
    pub fn timeout(&self) -> Result<Option<Duration>, Failure> {
        Ok(self.timeout.as_deref().map(|text| parse_duration("--timeout", text)).transpose()?)
    }

    fn addresses(&self) -> Result<Vec<String>, Failure> {
        // Named but empty is a variable that somebody forgot to set: no reason to talk to whoever listens
        // at the default.
        if self.endpoints.is_empty() {
            return Ok(vec![DEFAULT_ENDPOINT.to_owned()]);
        }
        Ok(parse_addresses("--endpoints", &self.endpoints)?)
    }

    /// What an operator's command works with, to be ended early by this.
    ///
    /// # Errors
    /// An option does not read as what it should be.
    pub fn context(&self, shutdown: Shutdown) -> Result<Context, Failure> {
        let printer = Printer { format: self.output };
        Context::new(&self.addresses()?, self.secret()?, Arc::new(TcpTransport), printer, shutdown)
    }
}

/// Parses this process's arguments and does what they say.
pub fn run() -> ExitCode {
    let matches = match command_line().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return usage(without_global_options(error), asked_format(std::env::args())),
    };
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => execute(cli),
        Err(error) => usage(without_global_options(error), asked_format(std::env::args())),
    }
}

/// The whole tree, with the exit codes at the foot of the long help.
pub fn command_line() -> clap::Command {
    with_examples(Cli::command()).after_long_help(exit_codes_text())
}

/// The exit codes as text.
pub fn exit_codes_text() -> String {
    let line = |(_, number, meaning): &(ExitCode, u8, &str)| format!("  {number:>3}  {meaning}\n");
    format!(
        "Exit codes:\n{}\nAn operation that was refused or aborted ends with the code of its reason.",
        EXIT_CODES.iter().map(line).collect::<String>()
    )
}

fn execute(cli: Cli) -> ExitCode {
    let Cli { global, command } = cli;
    let printer = Printer { format: global.output };
    // What is about to become another program must die of signals as that one would.
    if let Command::Lock(LockCommand::Become { holder, command }) = &command {
        return printer.fail(&become_command(*holder, command));
    }
    let shutdown = Shutdown::listen().unwrap_or_else(|_| Shutdown::never());
    let runtime = match runtime_of(&command).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let message = format!("the runtime cannot start: {error}");
            return printer.fail(&Failure::new(Class::Internal, "NO_RUNTIME", message));
        }
    };
    let result = runtime.block_on(dispatch(command, &global, shutdown));
    // A read from a hung file system must not hold the command's end.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(failure) => printer.fail(&failure),
    }
}

/// How the command runs. A member has one thread for its connections, Raft and answers, beside those
/// for its log, snapshots and other blocking work: what one task tells another then costs no wakeup of
/// a thread, which was a third of a member's processor time under load (docs/adr/0015). So have the
/// commands of operators, which wait for members. TOKIO_WORKER_THREADS says otherwise.
fn runtime_of(command: &Command) -> tokio::runtime::Builder {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all();
    let moves_data = matches!(command, Command::Worker(_) | Command::Demo(_));
    if !moves_data && std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        runtime.worker_threads(1);
    }
    runtime
}

async fn dispatch(command: Command, global: &GlobalOptions, shutdown: Shutdown) -> Result<ExitCode, Failure> {
    match command {
        Command::Coordinator(command) => command.run(global, shutdown).await,
        Command::Worker(command) if command.is_process() => command.run(global, shutdown).await,
        Command::Demo(command) => command.run(global, shutdown).await,
        Command::Lock(LockCommand::Acquire(command)) => command.run(global, shutdown).await,
        command => operate(command, global, shutdown).await,
    }
}

/// Runs an operator's command until it is done, its time is over, or the user wants no more.
async fn operate(command: Command, global: &GlobalOptions, shutdown: Shutdown) -> Result<ExitCode, Failure> {
    crate::logging::begin_quiet(global.log_format);
    let timeout = global.timeout()?;
    let context = global.context(shutdown)?.within(timeout);
    global.warn_of_secret(&context.printer);
    let ends_itself = command.ends_itself();
    let result = tokio::select! {
        result = command.operate(&context) => result,
        failure = context.unwanted(), if !ends_itself => Err(failure),
    };
    let result = match result {
        Err(failure) => Err(context.let_go(failure).await),
        done => done,
    };
    // A thread that still writes one does not learn that the command has ended.
    context.parts.remove_all();
    result
}

/// The error with a usage that names what the command needs: clap also lists the global options that
/// were given, from the environment too, as if they were needed.
fn without_global_options(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::StyledStr(usage)) = error.remove(ContextKind::Usage) else { return error };
    let mut text = usage.to_string();
    // Unbuilt, an option does not know how it is written.
    let mut tree = Cli::command();
    tree.build();
    for option in tree.get_arguments().filter(|argument| argument.is_global_set()) {
        // As it stands in the usage: "--endpoints <A,B,C>".
        text = text.replace(&format!(" {option}"), "");
    }
    error.insert(ContextKind::Usage, ContextValue::StyledStr(text.into()));
    error
}

/// Tells clap's own errors in the form of all errors; help and version are results.
fn usage(error: clap::Error, format: Format) -> ExitCode {
    use clap::error::ErrorKind;
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if asked || format == Format::Table {
        // Stdout or stderr is gone: the code still tells.
        _ = error.print();
        return if asked { ExitCode::Done } else { ExitCode::Usage };
    }
    Printer { format }.fail(&usage_failure(&error))
}

/// The same as one line: what is wrong, with every argument that clap names on a line of its own; as the hint its tips
/// and the usage.
fn usage_failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim);
    let wrong: Vec<&str> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    let message = match (error.kind(), wrong.as_slice()) {
        (clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, _) => "a command is missing".to_owned(),
        (_, [first]) => (*first).to_owned(),
        (_, [first, named @ ..]) => format!("{first} {}", named.join(", ")),
        (_, []) => text.clone(),
    };
    let advice = |line: &&str| line.starts_with("tip: ") || line.starts_with("Usage: ");
    let hint = text.lines().map(str::trim).filter(advice).collect::<Vec<_>>().join("; ");
    Refusal::new(Class::Invalid, "USAGE", message.trim_start_matches("error: "))
        .hint(format!("{hint}; all options: the same command with --help"))
        .into()
}

/// The format that the user asks for, read without the parser that has just refused the arguments.
fn asked_format(arguments: impl Iterator<Item = String>) -> Format {
    let arguments: Vec<String> = arguments.collect();
    let is_json = |value: &str| matches!(value, "json" | "jsonl");
    let joined = |argument: &String| {
        let value = ["--output=", "-o=", "-o"].into_iter().find_map(|option| argument.strip_prefix(option));
        value.is_some_and(is_json)
    };
    let apart =
        |pair: &[String]| matches!(pair, [name, value] if (name == "-o" || name == "--output") && is_json(value));
    if arguments.iter().any(joined) || arguments.windows(2).any(apart) { Format::Json } else { Format::Table }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_tree_is_sound() {
        command_line().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_noun() {
        for line in [
            "sdm -o json --endpoints a:1,b:1 disk list",
            "sdm disk -o json --endpoints a:1,b:1 list",
            "sdm disk list -o json --endpoints a:1,b:1",
            "sdm worker --endpoints a:1,b:1 list --output=json",
            "sdm -ojson status --endpoints a:1,b:1",
        ] {
            let cli = parsed(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(cli.global.output, Format::Json, "{line}");
            assert_eq!(cli.global.endpoints, ["a:1", "b:1"], "{line}");
        }
    }

    #[test]
    fn every_command_of_the_manual_parses() {
        for line in [
            "sdm coordinator --name a --listen 127.0.0.1:0 --data-dir /d --bootstrap",
            "sdm coordinator --name a --listen 127.0.0.1:0 --data-dir /d --join b:1 --learner --advertise c:1",
            "sdm coordinator --name a --listen 127.0.0.1:0 --data-dir /d",
            "sdm worker --name w --listen x:0 --data-dir /d --coordinators a:1,b:1 --reach /x,/y --advertise c:1",
            "sdm worker list --wait 2",
            "sdm demo --dir /d --size 1GiB --keep",
            "sdm status --check --wait",
            "sdm status --wait=5s",
            "sdm member list",
            "sdm domain create nfs1 --path /p --local --request-id x --no-wait",
            "sdm domain maintenance nfs1 --reason switch",
            "sdm domain activate nfs1 --dry-run",
            "sdm domain rename nfs1 archive",
            "sdm domain detach nfs1 --yes",
            "sdm domain attach /srv/a/6f1c2a0e-8f0b-5c53-9d0e-0d6a2d0f7a11 --local --name b --rename-prefix old-",
            "sdm domain delete nfs1 --yes",
            "sdm domain check nfs1 --hash",
            "sdm disk attach web-01 --host kvm1 --read-only --session 7 --reason vm",
            "sdm disk attach web-01 --host kvm1 --durable",
            "sdm disk detach web-01 --host kvm1 --stopped --reason looked",
            "sdm disk attachments web-01 --host kvm1",
            "sdm worker show kvm1",
            "sdm worker drain kvm1 --reason memory",
            "sdm worker undrain kvm1",
            "sdm worker remove kvm1 --yes",
            "sdm worker confirm-down kvm1 --session 7 --reason dead",
            "sdm domain list",
            "sdm domain show nfs1",
            "sdm disk create web-01 --domain nfs1 --size 10G --format qcow2",
            "sdm disk import FILE --name web-01 --domain nfs1 --format raw --no-wait-lock",
            "sdm disk export web-01 FILE --overwrite",
            "sdm disk move web-01 --to nfs2 --no-wait --wait-lock 30s --reason because",
            "sdm disk delete web-01",
            "sdm disk list --domain nfs1",
            "sdm disk show web-01",
            "sdm disk tree web-01",
            "sdm disk create a --domain d --size 1G --preallocate --description words --dry-run",
            "sdm disk rename web-01 web-old --dry-run",
            "sdm disk describe web-01 words",
            "sdm disk resize web-01 +10G --dry-run",
            "sdm disk copy web-01 web-02 --to nfs2 --format qcow2 --preallocate --snapshot s --collapse",
            "sdm disk clone web-01 web-02 --linked --snapshot s",
            "sdm disk clone web-01 web-02 --full",
            "sdm disk convert web-01 --format raw --preallocate",
            "sdm snapshot create web-01",
            "sdm snapshot create web-01 before --description words --no-wait",
            "sdm snapshot list web-01",
            "sdm snapshot show web-01 before",
            "sdm snapshot delete web-01 before --in-place",
            "sdm snapshot revert web-01 before --discard-newer",
            "sdm template make web-01 base --to nfs2 --snapshot s --format qcow2",
            "sdm template list --domain nfs1",
            "sdm template show base",
            "sdm template delete base",
            "sdm volume show ID",
            "sdm volume set-illegal ID --reason because",
            "sdm volume set-legal ID --reason because",
            "sdm volume repair web-01",
            "sdm lock list",
            "sdm lock show 812",
            "sdm lock explain user/backup",
            "sdm lock release 812 --session 41/41 --dry-run",
            "sdm lock break 812 --reason because --dry-run",
            "sdm lock acquire disk/web-01 domain/nfs2:IX -- sdm disk move web-01 --to nfs2",
            "sdm events --since 812 --follow --kind txn -o jsonl",
            "sdm explain web-01",
            "sdm txn list --kind disk --object web-01 --since 2h --actor ann",
            "sdm txn watch ID",
            "sdm txn retry ID --dry-run",
            "sdm txn log --object disk/web-01 --since 1h --actor ann -o jsonl",
            "sdm lock acquire backup -- rsync -a /a /b",
            "sdm lock acquire user/backup --mode S --wait 5m --ttl 30s --reason nightly -- true",
            "sdm txn list --open",
            "sdm txn show ID",
            "sdm txn abort ID --reason because",
            "sdm job list",
            "sdm gc run --no-wait",
            "sdm gc list",
            "sdm backup create FILE --force",
            "sdm backup verify FILE",
            "sdm backup restore FILE --data-dir /d --name a --advertise a:1",
            "sdm backup restore FILE --data-dir /d --name a --listen a:1",
            "sdm backup reconcile --dry-run --take-from ID",
            "sdm backup reconcile --release --without nfs1,nfs2",
            "sdm offline dump /d --from 1 --to 9",
            "sdm offline verify /d --scratch /var/tmp",
            "sdm offline replay /d --to 9 --dump disks",
            "sdm worker --name w --listen x:0 --data-dir /d --coordinators a:1 --readmit ID",
            "sdm bench locks --clients 64 --seconds 10",
            "sdm bench txns --clients 8 --seconds 5 -o json",
            "sdm request-id",
            "sdm version",
            "sdm exit-codes",
        ] {
            assert!(parsed(line).is_ok(), "{line}: {}", parsed(line).err().map(|e| e.to_string()).unwrap_or_default());
        }
    }

    #[test]
    fn the_usage_of_an_error_names_no_global_option() {
        for line in ["sdm --endpoints a:1 -o json disk create x", "sdm disk move x --timeout 5s"] {
            let told = without_global_options(parsed(line).unwrap_err()).render().to_string();
            let usage = told.lines().find(|line| line.starts_with("Usage:")).unwrap_or_default();
            assert!(usage.contains("sdm disk "), "{told}");
            for option in ["--endpoints", "--output", "--timeout"] {
                assert!(!usage.contains(option), "{usage}");
            }
        }
    }

    #[test]
    fn a_usage_error_for_programs_names_every_argument_and_the_usage() {
        let told = |line: &str| usage_failure(&without_global_options(parsed(line).unwrap_err())).refusal;
        let missing = told("sdm disk create x");
        assert!(missing.message.contains("--domain <D>") && missing.message.contains("--size <"), "{missing}");
        assert!(!missing.message.contains('\n') && missing.hint.contains("Usage: sdm disk create"), "{missing}");
        let slip = told("sdm disk lst");
        assert!(slip.message.contains("'lst'") && slip.hint.contains("'list'"), "{slip}");
        let value = told("sdm disk create x --domain d --size 1G --format vmdk");
        assert!(value.message.contains("raw") && value.message.contains("qcow2"), "{value}");
        assert_eq!(told("sdm disk").message, "a command is missing");
    }

    #[test]
    fn contradictions_are_refused() {
        for line in [
            "sdm coordinator --name a --listen x:1 --data-dir /d --bootstrap --join b:1",
            "sdm disk move web-01 --to nfs2 --wait-lock 1s --no-wait-lock",
            "sdm disk move web-01",
            "sdm nonsense",
            "sdm lock acquire backup",
            "sdm lock acquire backup true",
            "sdm disk create web-01 --domain d --size 1G --format vmdk",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_asked_format_is_known_even_when_the_arguments_are_wrong() {
        let format = |line: &str| asked_format(line.split(' ').map(str::to_owned));
        assert_eq!(format("sdm nonsense -o json"), Format::Json);
        assert_eq!(format("sdm --output=json nonsense"), Format::Json);
        assert_eq!(format("sdm nonsense -o table json"), Format::Table);
    }
}
