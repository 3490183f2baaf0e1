//! From the command line and the environment to what was typed.
//!
//! Flags before or after a command are the same flags, so clap knows them all in every command. Those
//! that a command has no use for are hidden from its help and refused when typed. From the environment
//! they are ignored: it is set for other commands too.

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, error::ErrorKind, parser::ValueSource};

use super::Cli;

/// The flags that stand before or after a command, as clap names them.
const GLOBAL: [&str; 7] = [
    "home",
    "json",
    "rpc",
    "engine",
    "kernels",
    "threads",
    "log_level",
];

/// Which of [`GLOBAL`] a command uses.
fn used(command: &str) -> &'static [&'static str] {
    match command {
        "start" | "run" => &GLOBAL,
        "init" => &["home", "json", "engine"],
        "status" | "tx" | "query" => &["home", "json", "rpc"],
        "keys" | "export" => &["home", "json"],
        "verify" => &["home", "json", "rpc", "kernels", "threads"],
        "generate" | "golden" => &["json", "kernels", "threads"],
        "demo" => &["json", "engine", "kernels", "threads", "log_level"],
        "testnet" => &["json", "kernels", "threads", "log_level"],
        "functions" => &["home", "json", "log_level"],
        "pack" | "version" => &["json"],
        _ => &[],
    }
}

fn unused(command: &str) -> impl Iterator<Item = &'static str> + use<> {
    let used = used(command);
    GLOBAL.into_iter().filter(|id| !used.contains(id))
}

impl Cli {
    /// What this process was started with. Prints help, version or what was wrong, and ends the
    /// process then.
    pub fn read() -> Self {
        Self::read_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Reads a command line; its first word is the program.
    ///
    /// # Errors
    /// What clap says of it, and when it has a flag that the command does not use.
    pub fn read_from(
        words: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let mut matches = Self::told().try_get_matches_from(words)?;
        let command = matches.subcommand_name().unwrap_or_default().to_owned();
        for id in unused(&command) {
            match matches.value_source(id) {
                Some(ValueSource::CommandLine) => {
                    let flag = id.replace('_', "-");
                    let message =
                        format!("`r3mes {command}` has no use for --{flag}; leave it out");
                    return Err(Self::told().error(ErrorKind::ArgumentConflict, message));
                }
                Some(ValueSource::EnvVariable) => {
                    matches.try_clear_id(id).expect("clap knows its own flags");
                }
                _ => {}
            }
        }
        Self::from_arg_matches_mut(&mut matches)
    }

    /// The command line for clap, where each command's help has the flags that it uses.
    fn told() -> clap::Command {
        let root = Self::command();
        let arguments = root.get_arguments();
        let global: Vec<_> = arguments
            .filter(|argument| argument.is_global_set())
            .cloned()
            .collect();
        root.mut_subcommands(|command| {
            let hidden: Vec<_> = unused(command.get_name()).collect();
            let hidden = global
                .iter()
                .filter(|argument| hidden.contains(&argument.get_id().as_str()))
                .map(|argument| argument.clone().hide(true));
            command.args(hidden)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        Cli::read_from(line.split(' '))
    }

    #[test]
    fn the_list_of_global_flags_is_whole() {
        let command = Cli::command();
        let global = command
            .get_arguments()
            .filter(|argument| argument.is_global_set());
        let ids: Vec<_> = global.map(|argument| argument.get_id().as_str()).collect();
        assert_eq!(ids, GLOBAL);
        for command in command.get_subcommands() {
            let name = command.get_name();
            assert!(!used(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn a_flag_is_the_same_before_and_after_a_command() {
        Cli::told().debug_assert();
        for line in [
            "r3mes --home /h --rpc http://a query nodes",
            "r3mes query nodes --home /h --rpc http://a",
        ] {
            let cli = read(line).unwrap();
            assert_eq!(cli.home.unwrap().to_str(), Some("/h"));
            assert_eq!(cli.overrides.rpc.as_deref(), Some("http://a"));
        }
    }

    #[test]
    fn a_flag_that_a_command_does_not_use_is_refused_and_not_in_its_help() {
        for (line, flag) in [
            ("r3mes demo --rpc http://a", "--rpc"),
            ("r3mes --home /h demo", "--home"),
            ("r3mes testnet --dir /d --engine local", "--engine"),
            ("r3mes generate --log-level debug x", "--log-level"),
            ("r3mes keys show --threads 2", "--threads"),
        ] {
            let refusal = read(line).unwrap_err().to_string();
            assert!(refusal.contains(&format!("no use for {flag}")), "{refusal}");
        }
        let help = read("r3mes demo --help").unwrap_err().to_string();
        assert!(
            !help.contains("--rpc <URL>") && !help.contains("--home <DIR>"),
            "{help}"
        );
        assert!(
            help.contains("--threads <N>") && help.contains("Examples:"),
            "{help}"
        );
    }
}
