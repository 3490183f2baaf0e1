//! Homes with ports of their own, and what runs in them.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// Longest anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(50);

/// A home, and where its RPC answers.
pub(crate) struct Home {
    pub(crate) dir: PathBuf,
    pub(crate) rpc: String,
}

/// `r3mes start`, stopped with the test.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.0.id().try_into().unwrap()).unwrap();
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

fn r3mes(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_r3mes"))
        .arg("--json")
        .arg("--home")
        .arg(home)
        .args(arguments)
        .output()
        .unwrap()
}

pub(crate) fn json(home: &Path, arguments: &[&str]) -> Value {
    let output = r3mes(home, arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn complaint(home: &Path, arguments: &[&str]) -> String {
    let output = r3mes(home, arguments);
    assert!(!output.status.success(), "{arguments:?} is believed");
    String::from_utf8(output.stderr).unwrap()
}

impl Home {
    /// A home of a network of its own, with ports of its own.
    pub(crate) fn found(dir: PathBuf) -> Self {
        json(
            &dir,
            &[
                "init",
                "--chain-id",
                "chains-1",
                "--roles",
                "miner,proposer",
            ],
        );
        let usual = [
            "127.0.0.1:26657",
            "127.0.0.1:8090",
            "127.0.0.1:8000",
            "127.0.0.1:9090",
            "127.0.0.1:1317",
        ];
        let free: Vec<TcpListener> = usual
            .iter()
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let config = dir.join("config.yaml");
        let mut text = fs::read_to_string(&config).unwrap();
        for (usual, free) in usual.iter().zip(&free) {
            text = text.replace(usual, &free.local_addr().unwrap().to_string());
        }
        fs::write(&config, text).unwrap();
        let rpc = format!("http://{}", free[0].local_addr().unwrap());
        Self { dir, rpc }
    }

    /// Starts the ledger, and waits until it answers.
    pub(crate) fn start(&self) -> Running {
        let child = Command::new(env!("CARGO_BIN_EXE_r3mes"))
            .arg("--home")
            .arg(&self.dir)
            .args(["start", "--services", "node"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut running = Running(child);
        let began = Instant::now();
        while json(&self.dir, &["status"])["network"].is_null() {
            assert!(running.0.try_wait().unwrap().is_none(), "it ended");
            assert!(began.elapsed() < PATIENCE, "it does not answer");
            std::thread::sleep(POLL);
        }
        running
    }
}
