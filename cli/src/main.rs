//! `slm`: a swarm of small expert models, on this machine or in a cluster.
//!
//! One binary: the servers `worker`, `router` and `operator`; `up`, which runs a worker for every model and a router for a
//! folder of manifests; and the commands that people type. Each command has its own module. This file has the list of
//! commands and the life of the process.

// A binary has no public interface: `pub` says what leaves a module.
#![allow(unreachable_pub)]

/// The system's allocator keeps what a large request has left behind for as long as anything small lies above it: under a flood of
/// large bodies a router grew by 60 MB at a time. This one gives free pages back wherever they are.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod args;
mod credentials;
mod logs;
mod open_files;

// The processes of a swarm.
mod egress;
mod operator;
mod router;
mod snapshots;
mod stdin;
mod worker;

// A swarm from manifests.
mod up;

// Models without a swarm.
mod convert;
mod doctor;
mod fetch;
mod score;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use slm_client::{chat, embed, explain, get, index, ping, route, run, tokens};
use slm_console::{
    exit::{self, Failure},
    output,
};

const AFTER_HELP: &str = "\
Exit codes:
  0    it worked
  1    it failed; the message says what and why
  2    wrong usage, or manifests that are not valid
  130  interrupted by Ctrl-C

Examples:
  slm up -f examples/quickstart    # `make setup` fetches its model
  slm run banking \"put a freeze on my bank account right now\"
  slm get all
  slm doctor";

/// A swarm of small expert models behind one endpoint.
///
/// `slm up` reads a folder of manifests (SlmModel, LoraAdapter, SwarmRoute), starts a worker for each base model and a
/// router before them, and follows the folder: edit a manifest and the swarm follows. The other commands ask a running
/// swarm, or work on model files alone.
#[derive(Parser)]
#[command(name = "slm", version, after_help = AFTER_HELP, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(up::UpArgs),
    Run(run::RunArgs),
    Embed(embed::EmbedArgs),
    Index(index::IndexArgs),
    Tokens(tokens::TokensArgs),
    Chat(chat::ChatArgs),
    Get(get::GetArgs),
    Explain(explain::ExplainArgs),
    #[command(subcommand)]
    Route(route::RouteCommand),
    Ping(ping::PingArgs),
    Score(score::ScoreArgs),
    Convert(convert::ConvertArgs),
    Fetch(fetch::FetchArgs),
    Doctor(doctor::DoctorArgs),
    Worker(worker::WorkerArgs),
    Router(router::RouterArgs),
    Egress(egress::EgressArgs),
    Operator(operator::OperatorArgs),
    /// Prints the completion script of a shell.
    ///
    /// Source it from the shell's start-up file.
    #[command(after_help = "Examples:\n  slm completions bash > ~/.local/share/bash-completion/completions/slm\n  \
                            slm completions zsh > ~/.zfunc/_slm\n  slm completions fish > ~/.config/fish/completions/slm.fish")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    logs::init(matches!(
        cli.command,
        Command::Worker(_) | Command::Router(_) | Command::Egress(_) | Command::Operator(_)
    ));
    open_files::raise_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(Err(Failure::failed(format!("starting threads: {error}")))),
    };
    let outcome = runtime.block_on(execute(cli.command));
    // Something may still block in a thread, such as a conversion that was interrupted: it ends with the process.
    runtime.shutdown_background();
    exit::report(outcome)
}

async fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(args) => up::execute(args).await,
        Command::Worker(args) => worker::execute(args).await,
        Command::Router(args) => router::execute(args).await,
        Command::Egress(args) => egress::execute(args).await,
        Command::Operator(args) => operator::execute(args).await,
        Command::Embed(args) => exit::or_interrupted(embed::execute(args)).await,
        Command::Index(args) => exit::or_interrupted(index::execute(args)).await,
        Command::Tokens(args) => exit::or_interrupted(tokens::execute(args)).await,
        // Ctrl-C is its own: it ends an answer.
        Command::Chat(args) => chat::execute(args).await,
        Command::Run(args) => exit::or_interrupted(run::execute(args)).await,
        Command::Get(args) => exit::or_interrupted(get::execute(args)).await,
        Command::Explain(args) => exit::or_interrupted(explain::execute(args)).await,
        Command::Route(command) => exit::or_interrupted(route::execute(command)).await,
        Command::Ping(args) => exit::or_interrupted(ping::execute(args)).await,
        Command::Score(args) => exit::or_interrupted(score::execute(args)).await,
        Command::Convert(args) => exit::or_interrupted(convert::execute(args)).await,
        Command::Fetch(args) => exit::or_interrupted(fetch::execute(args)).await,
        Command::Doctor(args) => exit::or_interrupted(doctor::execute(args)).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "slm", &mut script);
            output::bytes(&script)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
