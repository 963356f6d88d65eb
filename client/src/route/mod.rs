//! `slm route`: the head of a route, and how well a route decides.

mod encode;
mod eval;
mod train;

use clap::Subcommand;

use slm_console::exit::Failure;

/// Trains the head of a route, and evaluates routes.
#[derive(Subcommand, Debug)]
#[expect(missing_docs, reason = "help shows the text of each command's arguments")]
pub enum RouteCommand {
    Train(train::TrainArgs),
    Eval(eval::EvalArgs),
}

/// Runs it.
pub async fn execute(command: RouteCommand) -> Result<(), Failure> {
    match command {
        RouteCommand::Train(args) => train::execute(args).await,
        RouteCommand::Eval(args) => eval::execute(args).await,
    }
}
