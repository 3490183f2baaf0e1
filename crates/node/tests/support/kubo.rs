//! The real Kubo, which nobody here wrote, as a store of a node's blobs.

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// Set to 1 where Kubo cannot be built.
const SKIP: &str = "R3MES_SKIP_IPFS";

/// A Kubo node without a network. It ends when it is dropped.
pub(crate) struct Kubo {
    program: PathBuf,
    home: TempDir,
    daemon: Child,
    /// Base URL of its RPC.
    pub(crate) rpc: String,
}

impl Drop for Kubo {
    fn drop(&mut self) {
        // It may have ended by itself, which whoever asked it has seen.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Kubo {
    /// Starts a node, or says that it is left out.
    pub(crate) fn start() -> Option<Self> {
        if env::var_os(SKIP).is_some_and(|skip| !skip.is_empty()) {
            eprintln!("Kubo left out, because {SKIP} is set");
            return None;
        }
        let programs = env::var_os("R3MES_PROGRAMS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.programs/bin"),
            PathBuf::from,
        );
        let program = programs.join("ipfs");
        assert!(
            program.is_file(),
            "{} is missing: build it with tools/programs ipfs, or leave it out with {SKIP}=1",
            program.display()
        );
        let home = TempDir::new().unwrap();
        for arguments in [
            &["init", "--empty-repo", "--profile=test"][..],
            &["config", "--json", "AutoConf.Enabled", "false"],
            &["config", "--json", "DNS.Resolvers", "{}"],
            &["config", "--json", "Ipns.DelegatedPublishers", "[]"],
            &["config", "--json", "Routing.DelegatedRouters", "[]"],
        ] {
            run(&program, home.path(), arguments);
        }
        let mut daemon = ipfs(&program, home.path())
            .args(["daemon", "--offline"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
        let mut rpc = String::new();
        loop {
            let line = lines.next().expect("Kubo ended early").unwrap();
            if line.starts_with("RPC API server listening") {
                let port = line.rsplit('/').next().unwrap();
                rpc = format!("http://127.0.0.1:{port}");
            }
            if line == "Daemon is ready" {
                break;
            }
        }
        // Read on, so that the daemon never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self {
            program,
            home,
            daemon,
            rpc,
        })
    }

    /// The file's bytes.
    pub(crate) fn cat(&self, cid: &str) -> Vec<u8> {
        run(&self.program, self.home.path(), &["cat", "--offline", cid])
    }
}

fn ipfs(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("IPFS_PATH", home).env("IPFS_TELEMETRY", "off");
    command
}

/// Runs a command of Kubo's that must succeed; what it prints.
fn run(program: &Path, home: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = ipfs(program, home).args(arguments).output().unwrap();
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {why}");
    output.stdout
}
