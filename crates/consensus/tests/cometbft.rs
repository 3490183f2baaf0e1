//! Engine `cometbft` with the real program: transfers, kills in mid-block, and the same hashes as
//! without it.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use r3mes_consensus::app::{LedgerApp, storage_options};
use r3mes_consensus::application::{Application, Query};
use r3mes_consensus::block::tx_hash;
use r3mes_consensus::cometbft::{CometHandle, EngineError, Listener, Parts, open};
use r3mes_consensus::genesis::Genesis;
use r3mes_consensus::key::ValidatorKey;
use r3mes_consensus::local::TxState;
use r3mes_ledger::genesis::{DEVELOPMENT_CHAIN, DEVELOPMENT_SECRET};
use r3mes_state::Storage;
use r3mes_types::auth::QueryAccount;
use r3mes_types::beacon::HashChains;
use r3mes_types::query::Query as Question;
use r3mes_types::tx::Signer;
use r3mes_types::wire::Wire;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[path = "support/bank.rs"]
mod bank;
#[path = "support/comet.rs"]
mod comet;
#[path = "support/recorded.rs"]
mod recorded;

use bank::{CHAIN, key, ledger_genesis, send, validator};
use comet::{Comet, PATIENCE, program, settings};
use recorded::{Recorded, Step, replay};

/// The pause between blocks.
const INTERVAL: Duration = Duration::from_millis(50);

/// A pause at one step of one block: it tells that it is reached, and waits.
struct Pause {
    step: Step,
    height: u64,
    reached: Sender<()>,
    go_on: Receiver<()>,
}

/// Where the application stands still next.
#[derive(Clone, Default)]
struct Pauses(Arc<Mutex<Option<Pause>>>);

impl Pauses {
    /// Stops at a step; tells when it is reached, and goes on when the sender is dropped.
    fn pause_at(&self, step: Step, height: u64) -> (Receiver<()>, Sender<()>) {
        let (reached, is_reached) = channel();
        let (let_go, go_on) = channel();
        *self.0.lock().unwrap() = Some(Pause {
            step,
            height,
            reached,
            go_on,
        });
        (is_reached, let_go)
    }

    fn pass(&self, step: Step, height: u64) {
        let pause = self
            .0
            .lock()
            .unwrap()
            .take_if(|pause| pause.step == step && pause.height == height);
        if let Some(pause) = pause {
            pause.reached.send(()).unwrap();
            assert!(pause.go_on.recv().is_err(), "only dropped, never used");
        }
    }
}

/// The application, listening for CometBFT.
struct Running {
    app: Arc<Recorded>,
    pauses: Pauses,
    handle: CometHandle,
    shutdown: CancellationToken,
    engine: JoinHandle<Result<(), EngineError>>,
}

fn listen(directory: &Path, storage: Storage) -> Running {
    let genesis = ledger_genesis();
    let beacon = HashChains::new(DEVELOPMENT_SECRET, DEVELOPMENT_CHAIN);
    let app = LedgerApp::new(genesis.clone(), storage, Some(beacon));
    let pauses = Pauses::default();
    let passed = pauses.clone();
    let app = Arc::new(Recorded::new(app, move |step, height| {
        passed.pass(step, height);
    }));
    let chain = Genesis::new(&genesis.chain_id, genesis.time).unwrap();
    let (engine, handle) = open(Parts::new(chain, app.clone())).unwrap();
    let listener = Listener::unix(&directory.join("abci")).unwrap();
    let shutdown = CancellationToken::new();
    Running {
        app,
        pauses,
        handle,
        engine: tokio::spawn(engine.run(listener, shutdown.clone())),
        shutdown,
    }
}

impl Running {
    async fn reach(&self, height: u64) {
        let reached = self.handle.wait_for_height(height - 1, PATIENCE).await;
        reached.unwrap();
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.engine.await.unwrap().unwrap();
    }
}

/// Starts CometBFT for the application at `directory/abci`.
fn start_comet(program: &Path, directory: &Path) -> Comet {
    let node = ValidatorKey::from_seed(&[6; 32]);
    let settings = settings(directory, INTERVAL);
    Comet::start(
        program,
        directory,
        &settings,
        &ledger_genesis(),
        [&validator(), &node],
    )
}

/// A transfer from the first account to the second.
fn transfer(sequence: u64) -> Vec<u8> {
    let app = LedgerApp::new(
        ledger_genesis(),
        Storage::memory(storage_options()).unwrap(),
        None,
    );
    app.init_chain().unwrap();
    let question = QueryAccount {
        address: key(1).address(),
    };
    let query = Query {
        path: QueryAccount::PATH.into(),
        data: question.encode(),
        ..Query::default()
    };
    let answer = app.query(&query).unwrap();
    let account = <QueryAccount as Question>::Answer::decode(&answer.value).unwrap();
    let signer = Signer {
        chain_id: CHAIN,
        account_number: account.account.unwrap().number,
        sequence,
    };
    send(&key(1), &key(2), &signer)
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_and_a_kill_of_cometbft_in_mid_block_give_the_hashes_of_a_replay() {
    let Some(program) = program() else { return };
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::open(directory.path().join("state"), storage_options()).unwrap();
    let running = listen(directory.path(), storage);
    let mut comet = start_comet(&program, directory.path());
    running.reach(2).await;
    for sequence in 0..3 {
        let tx = transfer(sequence);
        comet.broadcast(&tx);
        let state = running.handle.wait_for_tx(tx_hash(&tx), PATIENCE).await;
        let state = state.unwrap();
        assert!(
            matches!(&state, TxState::Included(info) if info.result.code == 0),
            "{state:?}"
        );
    }
    let forged = {
        let mut tx = transfer(3);
        *tx.last_mut().unwrap() ^= 1;
        hex::encode(tx)
    };
    let refused = comet.get(&format!("broadcast_tx_sync?tx=0x{forged}"));
    assert_ne!(refused["code"], 0, "{refused}");

    for step in [Step::Executed, Step::Committed] {
        let height = running.handle.height() + 3;
        let (reached, let_go) = running.pauses.pause_at(step, height);
        tokio::task::block_in_place(|| reached.recv_timeout(PATIENCE)).unwrap();
        comet.kill();
        drop(let_go);
        comet = start_comet(&program, directory.path());
        running.reach(height + 2).await;
    }
    let newest = running.handle.height() + 2;
    running.reach(newest + 1).await;
    let past = running.app.blocks();
    replay(ledger_genesis(), &past, &comet, newest);
    for (input, _) in past.range(..=newest).map(|(_, block)| block) {
        let signers: Vec<bool> = input.last_commit.iter().map(|vote| vote.signed).collect();
        assert_eq!(signers, vec![true; usize::from(input.height > 1)]);
    }
    running.stop().await;
}

const CHILD_DIRECTORY: &str = "R3MES_COMETBFT_TEST_DIRECTORY";
const CHILD_PAUSE: &str = "R3MES_COMETBFT_TEST_PAUSE";

/// Run by the test below in a process of its own: answers CometBFT until it is killed, and stands still
/// at a step of some block.
#[tokio::test(flavor = "multi_thread")]
async fn an_application_in_its_own_process_answers_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else {
        return;
    };
    let directory = Path::new(&directory);
    let storage = Storage::open(directory.join("state"), storage_options()).unwrap();
    let running = listen(directory, storage);
    println!("listening {}", running.handle.height());
    let step = match std::env::var(CHILD_PAUSE).unwrap().as_str() {
        "executed" => Step::Executed,
        _ => Step::Committed,
    };
    let (reached, _let_go) = running.pauses.pause_at(step, running.handle.height() + 4);
    tokio::task::block_in_place(|| reached.recv_timeout(PATIENCE)).unwrap();
    println!("paused");
    running.engine.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_killed_in_mid_block_comes_back_with_the_same_hashes() {
    let Some(program) = program() else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut hashes: BTreeMap<u64, String> = BTreeMap::new();
    for (step, heights) in [("executed", 0), ("committed", 3), ("executed", 7)] {
        let mut app = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "an_application_in_its_own_process_answers_until_it_is_killed",
            ])
            .args(["--nocapture", "--test-threads=1"])
            .env(CHILD_DIRECTORY, directory.path())
            .env(CHILD_PAUSE, step)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut comet = None;
        for line in BufReader::new(app.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some((_, height)) = line.split_once("listening ") {
                // What was executed and not committed is gone; what was committed is not.
                assert_eq!(height, heights.to_string(), "{step}");
                comet = Some(start_comet(&program, directory.path()));
            } else if let Some((_, executed)) = line.split_once("executed ") {
                let (height, hash) = executed.split_once(' ').unwrap();
                let before = hashes.insert(height.parse().unwrap(), hash.to_owned());
                assert!(before.is_none_or(|before| before == hash), "{line}");
            } else if line.ends_with("paused") {
                break;
            }
        }
        app.kill().unwrap();
        app.wait().unwrap();
        // CometBFT ends when its application is gone.
        drop(comet.unwrap());
    }

    let storage = Storage::open(directory.path().join("state"), storage_options()).unwrap();
    let running = listen(directory.path(), storage);
    let comet = start_comet(&program, directory.path());
    let tx = transfer(0);
    running.reach(running.handle.height() + 2).await;
    comet.broadcast(&tx);
    let state = running.handle.wait_for_tx(tx_hash(&tx), PATIENCE).await;
    assert!(matches!(state, Ok(TxState::Included(info)) if info.result.code == 0));
    for (height, (_, output)) in &running.app.blocks() {
        let before = hashes.insert(*height, format!("{:?}", output.app_hash));
        assert!(before.is_none_or(|before| before == hashes[height]));
    }
    let newest = *hashes.keys().last().unwrap();
    assert_eq!(hashes.len() as u64, newest, "a block was never executed");
    for (height, hash) in hashes.range(..newest) {
        let app_hash = comet.header(height + 1)["app_hash"].clone();
        let bytes = hex::decode(app_hash.as_str().unwrap()).unwrap();
        assert_eq!(&format!("{bytes:?}"), hash);
    }
    drop(comet);
    running.stop().await;
}
