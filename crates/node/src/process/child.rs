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

/// How long a child has to end after it was asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// Starts a child in a process group of its own, its log appended to its home's log file.
pub(super) fn spawn(spec: &Spec) -> io::Result<Child> {
    let path = spec.home.log(&spec.service.to_string());
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let log = OpenOptions::new().create(true).append(true).open(path)?;
    Command::new(std::env::current_exe()?)
        .arg("--home")
        .arg(spec.home.root())
        .arg("run")
        .arg(spec.service.to_string())
        .args(&spec.extra_args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Asks the child's whole process group to end, and kills it if it has not within [`GRACE`].
pub(super) async fn stop(child: &mut Child) -> io::Result<ExitStatus> {
    signal(child, Signal::TERM);
    match tokio::time::timeout(GRACE, child.wait()).await {
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
