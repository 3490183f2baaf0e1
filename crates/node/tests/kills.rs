//! Every role of a real network, each in its own process, is killed in the middle of a round. It is
//! started again, the rounds close, and nobody is paid twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Rounds to run.
const ROUNDS: usize = 3;
/// Longest the whole may take.
const PATIENCE: Duration = Duration::from_secs(400);
/// How often the files of the demonstration are looked at.
const POLL: Duration = Duration::from_millis(20);
/// Reward of a closed round in uremes, of which at most so much is paid.
const REWARD: u64 = 3_000_000;

fn start(dir: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_r3mes"))
        .args(["--json", "demo", "--check", "--keep", "--port", "0"])
        .args(["--rounds", &ROUNDS.to_string(), "--beacon", "5", "--dir"])
        .arg(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the demonstration starts")
}

/// Label to process id of everything that is ready.
fn running(dir: &Path) -> BTreeMap<String, i32> {
    let Ok(bytes) = fs::read(dir.join("network/run/status.json")) else {
        return BTreeMap::new();
    };
    let board: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let services = board.as_object().into_iter().flatten();
    let ready = services.filter(|(_, status)| status["phase"] == "ready");
    ready
        .filter_map(|(label, status)| {
            Some((label.clone(), i32::try_from(status["pid"].as_i64()?).ok()?))
        })
        .collect()
}

/// How far a miner is: how many states of the round it has stored.
fn states(dir: &Path, miner: &str) -> usize {
    let work = dir.join(miner).join("data/miner/work/1-0");
    let names = fs::read_dir(work).into_iter().flatten().flatten();
    names
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("state-"))
        .count()
}

#[test]
fn every_role_killed_in_mid_round_goes_on_and_nothing_is_paid_twice() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("demo");
    let mut demo = start(&dir);
    let began = Instant::now();
    let mut killed = BTreeSet::new();
    let victims = [
        "miner-1",
        "validator-1",
        "proposer",
        "serving",
        "ledger",
        "gateway",
    ];
    while demo
        .try_wait()
        .expect("the demonstration can be waited for")
        .is_none()
    {
        assert!(
            began.elapsed() < PATIENCE,
            "the rounds did not close; killed so far: {killed:?}"
        );
        // The first round is under way once a miner has stored a few steps of it.
        if states(&dir, "miner-1") >= 3 {
            for (label, pid) in running(&dir) {
                if victims.contains(&label.as_str()) && killed.insert(label) {
                    let pid = Pid::from_raw(pid).expect("a process id is not 0");
                    kill_process(pid, Signal::KILL).expect("the process runs");
                }
            }
        }
        std::thread::sleep(POLL);
    }
    let output = demo
        .wait_with_output()
        .expect("the demonstration has ended");
    let figures: Value = serde_json::from_slice(&output.stdout).expect("the figures are JSON");
    assert_eq!(
        killed.len(),
        victims.len(),
        "not all were running: {killed:?}"
    );

    let rounds = figures["rounds"].as_array().expect("a list of rounds");
    assert_eq!(rounds.len(), ROUNDS);
    for round in rounds {
        assert_eq!(round["accepted"], 3, "{round}");
        assert!(
            round["paid_uremes"]
                .as_u64()
                .is_some_and(|paid| paid <= REWARD),
            "{round}"
        );
    }
    let checks = figures["checks"].as_array().expect("a list of checks");
    for check in checks {
        let about_loss = check["name"]
            .as_str()
            .is_some_and(|name| name.contains("loss fell"));
        assert!(about_loss || check["holds"] == true, "{check}");
    }
}
