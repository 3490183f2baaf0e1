//! Homes with ports of their own, and what runs in them.

use std::{
    fs::{self, File},
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

/// `r3mes start --json`, stopped with the test. What it and its services have logged is checked then.
pub(crate) struct Running {
    child: Child,
    home: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = fs::read_to_string(self.home.join(START_LOG)).unwrap_or_default();
            eprintln!("{} said:\n{said}", self.home.display());
        } else {
            assert_logs_are_json(&self.home);
        }
    }
}

/// Where the homes here keep what `r3mes start` itself says.
const START_LOG: &str = "start.log";

/// Every line that a home has logged is one JSON object of the documented fields.
fn assert_logs_are_json(home: &Path) {
    let services = fs::read_dir(home.join("logs")).unwrap();
    let services = services.map(|entry| entry.unwrap().path());
    // CometBFT is another program, with a form of its own.
    let ours = services.filter(|path| !path.ends_with("cometbft.log"));
    let mut lines = 0;
    for path in ours.chain([home.join(START_LOG)]) {
        for line in fs::read_to_string(&path).unwrap().lines() {
            // What a process ends with is told in plain text, and it is started again.
            if line.starts_with("error: ") || line.starts_with("  because: ") {
                continue;
            }
            let place = format!("{}: {line}", path.display());
            let entry: Value = serde_json::from_str(line).expect(&place);
            for field in ["timestamp", "level", "target"] {
                assert!(entry[field].is_string(), "{place}");
            }
            let levels = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
            let level = entry["level"].as_str();
            assert!(
                level.is_some_and(|level| levels.contains(&level)),
                "{place}"
            );
            assert!(entry["fields"]["message"].is_string(), "{place}");
            lines += 1;
        }
    }
    assert!(lines > 0, "{} has logged nothing", home.display());
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
    try_json(home, arguments).unwrap_or_else(|complaint| panic!("{arguments:?}: {complaint}"))
}

/// What a command prints that has no use for a home.
pub(crate) fn json_alone(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_r3mes"))
        .arg("--json")
        .args(arguments)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a command prints, or its complaint.
pub(crate) fn try_json(home: &Path, arguments: &[&str]) -> Result<Value, String> {
    let output = r3mes(home, arguments);
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

pub(crate) fn complaint(home: &Path, arguments: &[&str]) -> String {
    let output = r3mes(home, arguments);
    assert!(!output.status.success(), "{arguments:?} is believed");
    String::from_utf8(output.stderr).unwrap()
}

/// Addresses that every home would listen on.
const USUAL: [&str; 10] = [
    "127.0.0.1:26657",
    "127.0.0.1:8090",
    "127.0.0.1:8000",
    "127.0.0.1:9090",
    "127.0.0.1:1317",
    "127.0.0.1:8091",
    "127.0.0.1:8092",
    "127.0.0.1:8093",
    "127.0.0.1:8094",
    "127.0.0.1:8100",
];

impl Home {
    /// A home of a network of its own, with ports of its own.
    pub(crate) fn found(dir: PathBuf) -> Self {
        Self::make(
            dir,
            &["--chain-id", "chains-1", "--roles", "miner,proposer"],
        )
    }

    /// A home that `r3mes init` makes, with ports of its own.
    pub(crate) fn make(dir: PathBuf, arguments: &[&str]) -> Self {
        json(&dir, &[&["init"], arguments].concat());
        let config = dir.join("config.yaml");
        let mut text = fs::read_to_string(&config).unwrap();
        let listeners = USUAL.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        for (usual, free) in USUAL.iter().zip(&listeners) {
            text = text.replace(usual, &free.local_addr().unwrap().to_string());
        }
        fs::write(&config, &text).unwrap();
        let rpc = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("rpc: "));
        let rpc = rpc.unwrap().to_owned();
        Self { dir, rpc }
    }

    /// Starts the ledger, and waits until it answers.
    pub(crate) fn start(&self) -> Running {
        self.start_with(&[])
    }

    /// Starts the ledger and more, and waits until the ledger answers.
    pub(crate) fn start_with(&self, more: &[&str]) -> Running {
        let mut running = self.spawn(&[&["--services", "node"], more].concat());
        let began = Instant::now();
        while json(&self.dir, &["status"])["network"].is_null() {
            assert!(running.child.try_wait().unwrap().is_none(), "it ended");
            assert!(began.elapsed() < PATIENCE, "it does not answer");
            std::thread::sleep(POLL);
        }
        running
    }

    /// Starts what the arguments name.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Running {
        self.running(self.starting(arguments))
    }

    /// As [`Home::spawn`], by the ledger that `R3MES_BLOCKCHAIN_URL` names.
    pub(crate) fn spawn_by(&self, ledger: &str, arguments: &[&str]) -> Running {
        let mut command = self.starting(arguments);
        command.env("R3MES_BLOCKCHAIN_URL", ledger);
        self.running(command)
    }

    fn running(&self, mut command: Command) -> Running {
        let path = self.dir.join(START_LOG);
        let log = File::options().create(true).append(true).open(path);
        Running {
            child: command.stderr(log.unwrap()).spawn().unwrap(),
            home: self.dir.clone(),
        }
    }

    /// What `r3mes start` complains of when `R3MES_BLOCKCHAIN_URL` names this ledger.
    pub(crate) fn complaint_by(&self, ledger: &str) -> String {
        let mut command = self.starting(&["--services", "api"]);
        let output = command
            .env("R3MES_BLOCKCHAIN_URL", ledger)
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    fn starting(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_r3mes"));
        command.arg("--json");
        command.arg("--home").arg(&self.dir).arg("start");
        command.args(arguments).stdout(Stdio::null());
        command
    }
}

/// Asks until there is what is wanted.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(POLL);
    }
}
