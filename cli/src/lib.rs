//! The `sinew` command: what a node does and why, asked of its agent or of a folder of objects.
//!
//! Each command is one module: it asks (`agent.rs`, or `folder.rs` without an agent), builds its answer as a message
//! or a text, and shows it (`output.rs`). Names are looked up in `names.rs`; a failure carries its exit code
//! (`failure.rs`). Nothing here decides: verdicts come from `sinew_engine`, which runs the verdict code of the kernel.

mod agent;
mod completion;
mod conntrack;
mod endpoint;
mod explain;
mod failure;
mod folder;
mod identity;
mod list;
mod map;
mod monitor;
mod names;
mod observe;
mod offline;
mod output;
mod policy;
mod server;
mod status;
mod unread;
mod version;
mod watch;
mod when;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::failure::{Code, Failure};
use crate::output::{ColourChoice, Format, Screen};

/// Under every `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused or failed
  2  not done in time, or the command line is wrong
  3  a name is unknown or fits several
  4  no agent answers at the socket";

#[derive(Parser)]
#[command(name = "sinew", version, about = "What this node allows, drops and knows, and why")]
#[command(max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The node's state in one screen; exits 1 when something does not work
    Status(status::StatusArgs),
    /// Pods' interfaces and what is enforced on them
    #[command(subcommand, visible_alias = "ep")]
    Endpoint(endpoint::EndpointCommand),
    /// Numbers for label sets
    #[command(subcommand, visible_alias = "id")]
    Identity(identity::IdentityCommand),
    /// Policies: what is in force, what a change would do, why a packet was refused
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Connections that the node tracks
    #[command(subcommand, visible_alias = "ct")]
    Conntrack(conntrack::ConntrackCommand),
    /// Tables of the datapath and how full they are
    #[command(subcommand)]
    Map(map::MapCommand),
    /// Raw events of the kernel as they come, without names; each CPU numbers (#) its own
    Monitor(monitor::MonitorArgs),
    /// Flows, live and past: who talked to whom, what became of it, and which policy decided
    Observe(Box<observe::ObserveArgs>),
    /// What a server of flows knows: nodes, namespaces
    #[command(subcommand)]
    List(list::ListCommand),
    /// What a server of flows tells as it changes: its nodes
    #[command(subcommand)]
    Watch(watch::WatchCommand),
    /// Versions of this command and of the agent
    Version(version::VersionArgs),
    /// Completion script for a shell
    Completion(completion::CompletionArgs),
}

/// How an answer looks.
#[derive(Args, Clone, Copy)]
struct OutputArgs {
    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// When to use colours
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: ColourChoice,
}

impl OutputArgs {
    fn screen(self) -> Screen {
        Screen::of_stdout(self.output, self.color)
    }
}

/// Which agent is asked, and how its answer looks.
#[derive(Args, Clone)]
struct AgentArgs {
    /// Socket of the node's agent
    #[arg(long, env = "SINEW_AGENT_SOCKET", default_value = "/run/sinew/agent.sock", value_name = "PATH")]
    socket: PathBuf,
    /// How long an answer may take
    #[arg(long, default_value = "12s", value_parser = humantime::parse_duration, value_name = "TIME")]
    request_timeout: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

impl AgentArgs {
    async fn connect(&self) -> Result<agent::Agent, Failure> {
        agent::connect(&self.socket, self.request_timeout).await
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        agent::within(self.request_timeout, message)
    }

    fn screen(&self) -> Screen {
        self.output.screen()
    }
}

/// Runs one command line and says how it went.
pub fn run(command_line: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = command_line.into_iter().collect();
    let mut parsed = Cli::command_tree().try_get_matches_from(&words);
    if let Ok(matches) = &parsed
        && let Some(file) = server::config::named(matches)
    {
        // What the file says is known only when it has been found on the command line.
        let tree = server::config::with_defaults(Cli::command_tree(), &file, |name| std::env::var(name).ok());
        parsed = match tree {
            Ok(tree) => tree.try_get_matches_from(&words),
            Err(failure) => {
                output::tell(&failure);
                return ExitCode::from(failure.code as u8);
            }
        };
    }
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(usage) => {
            // Printing fails only if the terminal is gone; the code still tells.
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(Code::TimedOut as u8));
        }
    };
    match execute(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.downcast_ref::<Failure>().map_or(Code::Failed, |failure| failure.code);
            output::tell(format_args!("{error:#}"));
            ExitCode::from(code as u8)
        }
    }
}

/// `sinew … | head` has read what it wanted.
fn reader_left(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

fn execute(command: Command) -> Result<()> {
    match &command {
        Command::Completion(args) => return completion::run(args, Cli::command_tree()),
        Command::Policy(policy) if policy.is_offline() => return policy::run_offline(policy),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the async runtime")?;
    runtime.block_on(async {
        match command {
            Command::Status(args) => status::run(&args).await,
            Command::Endpoint(command) => endpoint::run(&command).await,
            Command::Identity(command) => identity::run(&command).await,
            Command::Policy(command) => policy::run(&command).await,
            Command::Conntrack(command) => conntrack::run(&command).await,
            Command::Map(command) => map::run(&command).await,
            Command::Monitor(args) => monitor::run(&args).await,
            Command::Observe(args) => observe::run(&args).await,
            Command::List(command) => list::run(&command).await,
            Command::Watch(command) => watch::run(&command).await,
            Command::Version(args) => version::run(&args).await,
            Command::Completion(_) => unreachable!("answered without a runtime above"),
        }
    })
}

impl Cli {
    /// The command line, with the exit codes under the help of every command.
    fn command_tree() -> clap::Command {
        let tree = with_exit_codes(<Self as CommandFactory>::command());
        // Commands that Hubble's client has too.
        ["observe", "list", "watch"]
            .into_iter()
            .fold(tree, |tree, name| tree.mut_subcommand(name, server::like_hubbles))
    }
}

fn with_exit_codes(command: clap::Command) -> clap::Command {
    let command = if command.get_after_help().is_none() { command.after_help(EXIT_CODES) } else { command };
    command.mut_subcommands(with_exit_codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command_tree().debug_assert();
    }

    #[test]
    fn flags_of_hubbles_client_take_a_value_behind_an_equals_sign() {
        let flag = |words: &[&str], name: &str| {
            let line = ["sinew", "observe"].into_iter().chain(words.iter().copied());
            let matches =
                Cli::command_tree().try_get_matches_from(line).unwrap_or_else(|error| panic!("{error}"));
            let (_, matches) = matches.subcommand().expect("observe");
            *matches.get_one::<bool>(name).expect("a flag has a value")
        };
        for (words, name, expected) in [
            (&[][..], "follow", false),
            (&["-f"], "follow", true),
            (&["--follow=false"], "follow", false),
            (&["--follow", "--follow=false"], "follow", false),
            (&["-f=true"], "follow", true),
            (&["--all=true"], "all", true),
            (&["-f", "--all=f"], "all", false),
            (&["--numeric=1"], "numeric", true),
            (&["-sfD"], "follow", true),
            (&["-sfD"], "debug", true),
            (&["--tls=false"], "tls", false),
            (&["--ip-translation=false"], "ip_translation", false),
            (&["--last", "1", "--last", "2", "-f"], "follow", true),
        ] {
            assert_eq!(flag(words, name), expected, "{words:?}");
        }
        for refused in [&["--follow", "false"][..], &["--all=maybe"], &["-f", "true"]] {
            let line = ["sinew", "observe"].into_iter().chain(refused.iter().copied());
            assert!(Cli::command_tree().try_get_matches_from(line).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn every_help_ends_with_something_on_exit_codes_or_its_own_words() {
        fn check(command: &clap::Command) {
            assert!(command.get_after_help().is_some(), "{}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command_tree());
    }
}
