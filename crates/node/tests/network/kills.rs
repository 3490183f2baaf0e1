//! Kills in every phase of a round.
//!
//! A phase ends when all who owe an answer in it have given it. So one of them is stopped before the
//! phase begins: it lasts until that one goes on, however fast or slow the machine is.

use std::{collections::BTreeMap, fs, time::Instant};

use r3mes_gateway::rpc;
use r3mes_node::{config::Config, home::Home, keyring::Keyring};
use r3mes_types::training::{Phase, QueryObligations, QueryRound};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Network, POLL, RUN};

/// What happens in one phase.
struct Stage {
    phase: Phase,
    /// Who owes an answer in it and is stopped, so that it lasts; where nobody surely owes one, the
    /// pause between blocks is long enough to see it.
    held_by: Option<&'static str>,
    /// Who is killed in it; where nobody is stopped, those of them that owe an answer, and the ledger.
    victims: &'static [&'static str],
    /// Milliseconds between blocks from then on, where the ledger is among the victims.
    block_interval_ms: u64,
}

impl Stage {
    const fn held(phase: Phase, held_by: &'static str, victims: &'static [&'static str]) -> Self {
        Self {
            phase,
            held_by: Some(held_by),
            victims,
            block_interval_ms: SLOW,
        }
    }

    const fn slow(phase: Phase, victims: &'static [&'static str], block_interval_ms: u64) -> Self {
        Self {
            phase,
            held_by: None,
            victims,
            block_interval_ms,
        }
    }
}

/// Pause between blocks, in milliseconds, where a phase is to be seen that nobody holds up.
const SLOW: u64 = 1_000;
/// As the demonstration has it.
const FAST: u64 = 5;
/// All phases that can be seen between two blocks. No panel is sure to have both validators in it.
const STAGES: [Stage; 10] = [
    Stage::held(Phase::Commit, "miner-2", &["miner-1", "serving", "gateway"]),
    Stage::held(Phase::Reveal, "miner-3", &["miner-2"]),
    Stage::held(
        Phase::Availability,
        "validator-2",
        &["validator-1", "ledger"],
    ),
    Stage::slow(Phase::Draw, &["ledger"], SLOW),
    Stage::held(Phase::Serve, "miner-1", &["miner-3"]),
    Stage::slow(Phase::Verify, &["validator-1", "validator-2"], SLOW),
    Stage::slow(
        Phase::Verdict,
        &["validator-1", "validator-2", "ledger"],
        FAST,
    ),
    Stage::held(Phase::Open, "miner-2", &["liar"]),
    Stage::held(Phase::Court, "validator-1", &["validator-2"]),
    Stage::held(Phase::Aggregate, "validator-2", &["proposer"]),
];

/// A process that is stopped as long as this lives.
struct Stopped(Pid);

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may be gone by now, with the demonstration.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Waits until the first round's training is under way: whoever is killed then loses work.
pub(crate) async fn training(network: &mut Network) {
    let began = Instant::now();
    while network.states("miner-1") < 3 {
        network.assert_running(began, "the first round's training");
        tokio::time::sleep(POLL).await;
    }
}

/// Kills in every phase of the first round, and waits for the figures of all rounds.
pub(crate) async fn kill_in_every_phase(network: &mut Network, ledger: &rpc::Client) -> Value {
    let began = Instant::now();
    let mut stopped = STAGES[0].held_by.map(|first| stop(network, first));
    for (number, stage) in STAGES.iter().enumerate() {
        let name = format!("phase {} of the first round", stage.phase);
        while phase(ledger).await != Some(stage.phase) {
            network.assert_running(began, &name);
            tokio::time::sleep(POLL).await;
        }
        let next = STAGES.get(number + 1).and_then(|next| next.held_by);
        let Some(_) = stage.held_by else {
            // None of those who owe an answer in the next phase owes one in this.
            stopped = next.map(|next| stop(network, next));
            let victims = who_owes(network, ledger, stage).await;
            // Who owes an answer and was killed before holds the phase up until it is back.
            while !victims
                .iter()
                .all(|label| network.running().contains_key(*label))
            {
                network.assert_running(began, &format!("{victims:?} in {name}"));
                tokio::time::sleep(POLL).await;
            }
            kill(network, stage, &victims);
            continue;
        };
        for (label, pid) in kill(network, stage, stage.victims) {
            while network.running().get(label).is_none_or(|now| *now == pid) {
                network.assert_running(began, &format!("{label} after its kill in {name}"));
                tokio::time::sleep(POLL).await;
            }
        }
        if let Some(next) = next {
            while owes(network, ledger, next).await {
                network.assert_running(began, &format!("the answer of {next} in {name}"));
                tokio::time::sleep(POLL).await;
            }
        }
        assert_eq!(phase(ledger).await, Some(stage.phase), "it was held up");
        let next = next.map(|next| stop(network, next));
        drop(std::mem::replace(&mut stopped, next));
    }
    drop(stopped);
    loop {
        if let Ok(figures) = network.figures.try_recv() {
            return figures;
        }
        network.assert_running(began, "the last round");
        tokio::time::sleep(POLL).await;
    }
}

/// The phase of the first round.
async fn phase(ledger: &rpc::Client) -> Option<Phase> {
    let question = QueryRound { run: RUN, round: 0 };
    let record = ledger.query(&question).await.unwrap();
    record.head.map(|head| head.phase)
}

/// Whether a member owes an answer in this phase.
async fn owes(network: &Network, ledger: &rpc::Client, label: &str) -> bool {
    let keyring = Keyring::new(&Home::new(network.dir.join(label)));
    let address = keyring.account_address().unwrap();
    let owed = ledger.query(&QueryObligations { address }).await.unwrap();
    !owed.obligations.is_empty()
}

/// Of a stage's victims the ledger, and who owes an answer.
async fn who_owes(network: &Network, ledger: &rpc::Client, stage: &Stage) -> Vec<&'static str> {
    let mut found = Vec::new();
    for label in stage.victims {
        if *label == "ledger" || owes(network, ledger, label).await {
            found.push(*label);
        }
    }
    assert!(
        !found.is_empty(),
        "nobody owes an answer in {}",
        stage.phase
    );
    found
}

fn stop(network: &Network, label: &str) -> Stopped {
    let pid = network.running()[label];
    kill_process(pid, Signal::STOP).unwrap();
    Stopped(pid)
}

/// Kills these in a stage; their process ids.
fn kill(network: &Network, stage: &Stage, victims: &[&'static str]) -> BTreeMap<&'static str, Pid> {
    let running = network.running();
    if victims.contains(&"ledger") {
        set_block_interval(network, stage.block_interval_ms);
    }
    let killed = victims.iter().map(|label| (*label, running[*label]));
    let killed: BTreeMap<_, _> = killed.collect();
    for pid in killed.values() {
        kill_process(*pid, Signal::KILL).unwrap();
    }
    killed
}

/// Sets the pause between blocks that the ledger makes when it is started the next time.
fn set_block_interval(network: &Network, milliseconds: u64) {
    let home = Home::new(network.dir.join("network"));
    let mut config = Config::load(&home).unwrap();
    let ledger = config.services.ledger.as_mut().unwrap();
    ledger.block_interval_ms = Some(milliseconds);
    fs::write(home.config_file(), config.to_yaml()).unwrap();
}
