//! The binary `r3mes`: what was typed becomes what is valid, then runs.

use std::process::ExitCode;

use r3mes_node::process::ERROR;

fn main() -> ExitCode {
    let typed = r3mes_node::cli::Cli::read();
    match r3mes_node::cli::run(typed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{ERROR}{}", r3mes_node::cli::explain(&error));
            r3mes_node::cli::exit_code(&error)
        }
    }
}
