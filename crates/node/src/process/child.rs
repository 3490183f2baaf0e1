//! Starting and ending one child process.

use std::{
    fs::OpenOptions,
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use super::Spec;

/// What a person sets for a command of one home. A child is told all that it should know on its
/// command line, and is often of another home.
const OF_ONE_HOME: [&str; 7] = [
    "R3MES_HOME",
    "R3MES_RPC",
    "R3MES_BLOCKCHAIN_URL",
    "R3MES_ENGINE",
    "R3MES_KERNELS",
    "R3MES_THREADS",
    "R3MES_LOG_LEVEL",
];

/// Runs a command as a child in a process group of its own, its log appended to its home's log file.
pub(super) fn spawn(spec: &Spec, mut command: Command) -> io::Result<Child> {
    let path = spec.home.log(&spec.service.to_string());
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let log = OpenOptions::new().create(true).append(true).open(path)?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// This program, to do the work of a service.
pub(super) fn command(spec: &Spec) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--home")
        .arg(spec.home.root())
        .arg("run")
        .arg(spec.service.to_string())
        .arg("--supervisor")
        .arg(std::process::id().to_string())
        .args(&spec.extra_args);
    for variable in OF_ONE_HOME {
        command.env_remove(variable);
    }
    Ok(command)
}

/// Asks the child's whole process group to end, and kills it if it has not within `grace`.
pub(super) async fn stop(child: &mut Child, grace: Duration) -> io::Result<ExitStatus> {
    signal(child, Signal::TERM);
    match tokio::time::timeout(grace, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            signal(child, Signal::KILL);
            child.wait().await
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // The group may have ended by itself a moment ago; that is what was wanted.
        let _ = kill_process_group(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::{cli::Cli, home::Home, process::Service};

    #[test]
    fn a_child_inherits_no_setting_from_the_environment() {
        let spec = Spec::of(&Home::new("/home-of-its-own"), Service::Ledger);
        let command = command(&spec).unwrap();
        let kept_from = |name: &std::ffi::OsStr| {
            let mut changed = command.as_std().get_envs();
            changed.any(|(variable, value)| variable == name && value.is_none())
        };
        let cli = Cli::command();
        let start = cli.find_subcommand("start").unwrap();
        let arguments = cli.get_arguments().chain(start.get_arguments());
        let variables: Vec<_> = arguments.filter_map(clap::Arg::get_env).collect();
        assert_eq!(variables.len(), OF_ONE_HOME.len());
        for variable in variables {
            assert!(kept_from(variable), "{variable:?}");
        }
    }
}
