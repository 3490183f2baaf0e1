//! The binary `r3mes`: what was typed becomes what is valid, then runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    let typed = r3mes_node::cli::Cli::read();
    match r3mes_node::cli::run(typed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", r3mes_node::cli::explain(&error));
            ExitCode::FAILURE
        }
    }
}
