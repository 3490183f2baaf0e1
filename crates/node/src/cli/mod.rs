//! What a person types, and what answers.

mod args;
mod compute;
mod demo;
#[cfg(test)]
mod documents;
mod export;
mod functions;
mod init;
mod keys;
mod output;
mod proof;
mod query;
pub(crate) mod receipt;
mod registry;
mod start;
mod status;
mod testnet;
mod tx;
mod verify;

use std::process::ExitCode;

pub use args::Cli;
use args::Command;

use crate::{config::Config, golden, home::Home, process};

/// Runs a command to its end.
///
/// # Errors
/// Whatever the command met, with its causes; [`explain`] puts it in words.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    let home = Home::new(cli.home.clone().unwrap_or_else(Home::default_root));
    let out = output::Output { json: cli.json };
    match &cli.command {
        Command::Init(typed) => init::run(&home, typed, &cli.overrides, &out),
        Command::Start(typed) => start::run(&home, typed, &cli.overrides, &out),
        Command::Run(typed) => start::run_service(&home, typed, &cli.overrides, &out),
        Command::Status => status::run(&home, &cli.overrides, &out),
        Command::Keys(typed) => keys::run(&home, typed, &cli.overrides, &out),
        Command::Tx(typed) => tx::run(&home, typed, &cli.overrides, &out),
        Command::Query(typed) => query::run(&home, typed, &cli.overrides, &out),
        Command::Verify(typed) => verify::run(&home, typed, &cli.overrides, &out),
        Command::Export(typed) => export::run(&home, typed, &cli.overrides, &out),
        Command::Generate(typed) => compute::generate(typed, &cli.overrides, &out),
        Command::Pack(typed) => compute::pack(typed, &out),
        Command::Golden(typed) => compute::golden(typed.hashes, &cli.overrides, &out),
        Command::Functions(typed) => functions::run(&home, typed, &cli.overrides, &out),
        Command::Demo(typed) => demo::run(typed, &cli.overrides, &out),
        Command::Testnet(typed) => testnet::run(typed, &cli.overrides, &out),
        Command::Version(typed) => output::version(typed.backends, &out),
    }
}

/// An error and its causes, outermost first, each once.
pub fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut last = String::new();
    for (i, cause) in error.chain().enumerate() {
        let cause = cause.to_string();
        if i > 0 && last.contains(&cause) {
            continue;
        }
        if i > 0 {
            text.push_str("\n  because: ");
        }
        text.push_str(&cause);
        last = cause;
    }
    text
}

/// The status that a command ends with after an error: [`process::UNFIT`] where trying again on this
/// machine is of no use.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error.is::<golden::Unfit>() {
        true => ExitCode::from(process::UNFIT),
        false => ExitCode::FAILURE,
    }
}

/// A multi-threaded runtime for commands that talk to the network.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()?)
}

/// A home's configuration with what was typed laid over it.
fn load(home: &Home, overrides: &args::Overrides) -> anyhow::Result<Config> {
    let mut config = Config::load(home)?;
    overrides.apply(&mut config)?;
    Ok(config)
}

/// As [`load`]; the defaults where no home was initialised, so that queries work from anywhere.
fn load_or_default(home: &Home, overrides: &args::Overrides) -> anyhow::Result<Config> {
    if home.is_initialised() {
        return load(home, overrides);
    }
    let mut config = Config::default();
    overrides.apply(&mut config)?;
    Ok(config)
}

/// Cancels the token at the first Ctrl-C or SIGTERM, or when the terminal is closed; a second Ctrl-C ends
/// the process at once.
fn cancel_on_signal(token: tokio_util::sync::CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // What `nohup` starts is to outlive the terminal.
    let mut hangup = match process::ignores_hangup() {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    tokio::spawn(async move {
        let closed = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = closed => {} }
        token.cancel();
        interrupt.recv().await;
        process::abandon();
    });
    Ok(())
}
