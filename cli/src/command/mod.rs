//! The commands: one file per verb. Each asks the daemon and prints the answer.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the shell: files, clocks and processes"
)]

mod attach;
mod capture;
mod connect;
mod detach;
mod dns;
mod expose;
mod forget;
mod launch;
mod network;
mod ps;
mod report;
mod reset;
mod revoke;
mod rmpeer;
mod rotate;
mod secret;
mod status;
mod stop;
mod version;
mod vtep;

use std::process::ExitCode;

use crate::args::{Cli, Command, Common, Format, SecretCommand};
use crate::client::Client;
use crate::demo;
use crate::failure::{Failure, code};

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Launch(args) => launch::run(&cli.common, *args),
        Command::Demo(args) => {
            let done = demo::run(&args, cli.common.output == Format::Json);
            done.map_err(|e| Failure::new(code::DEMO_FAILED, format!("{e:#}")))
        }
        Command::Secret(SecretCommand::Generate { file }) => {
            secret::generate(cli.common.output, file)?;
            Ok(ExitCode::SUCCESS)
        }
        command => {
            runtime()?.block_on(ask(&cli.common, command))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn ask(common: &Common, command: Command) -> Result<(), Failure> {
    let client = Client::new(&common.run_dir);
    let format = common.output;
    match command {
        Command::Connect(args) => connect::run(&client, format, &args).await,
        Command::Forget(args) => forget::run(&client, format, &args).await,
        Command::Attach(args) => attach::run(&client, format, args).await,
        Command::Detach(args) => detach::run(&client, format, args).await,
        Command::Expose(args) => expose::expose(&client, format, args).await,
        Command::Hide(args) => expose::hide(&client, format, args).await,
        Command::Ps => ps::run(&client, format).await,
        Command::Report(args) => report::run(&client, &args).await,
        Command::Capture(args) => capture::run(&client, format, &args).await,
        Command::DnsAdd(args) => dns::add(&client, format, args).await,
        Command::DnsRemove(args) => dns::remove(&client, format, args).await,
        Command::DnsLookup(args) => dns::lookup(&client, format, args).await,
        Command::Network(command) => network::run(&client, format, command).await,
        Command::Vtep(command) => vtep::run(&client, format, command).await,
        Command::Status(args) => status::run(&client, format, &args).await,
        Command::Rmpeer(args) => rmpeer::run(&client, format, args).await,
        Command::Revoke(args) => revoke::run(&client, format, args).await,
        Command::Secret(SecretCommand::Rotate(args)) => rotate::run(&client, format, &args).await,
        Command::Stop => stop::run(&client, common).await,
        Command::Reset(args) => reset::run(&client, common, &args).await,
        Command::Version => version::run(&client, format).await,
        Command::Launch(_) | Command::Demo(_) | Command::Secret(SecretCommand::Generate { .. }) => Ok(()),
    }
}

/// One thread is plenty: nothing here is in a hurry twice.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::internal)
}
