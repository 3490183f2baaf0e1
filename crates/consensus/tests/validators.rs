//! Several validators, each with the real CometBFT: who signs blocks follows the ledger's nodes, who
//! signs twice is punished, and who comes late takes a snapshot.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use r3mes_consensus::app::{LedgerApp, storage_options};
use r3mes_consensus::application::{
    Application, ApplicationError, BlockInput, BlockOutput, Check, CheckResult, Committed,
    InitChain, Proposal, Query, QueryResult,
};
use r3mes_consensus::block::tx_hash;
use r3mes_consensus::cometbft::home::{Settings, StateSync, node_id};
use r3mes_consensus::cometbft::{CometHandle, EngineError, Listener, Parts, SnapshotOptions, open};
use r3mes_consensus::genesis::Genesis;
use r3mes_consensus::key::ValidatorKey;
use r3mes_consensus::local::{TxInfo, TxState};
use r3mes_state::{Changes, Storage};
use r3mes_types::auth::QueryAccount;
use r3mes_types::beacon::{HashChains, MsgRegisterChain};
use r3mes_types::nodes::{MsgLeave, NodeStatus, QueryNode, QuerySlashes};
use r3mes_types::query::Query as Question;
use r3mes_types::tx::{Fee, Signer, Unsigned};
use r3mes_types::wire::Wire;
use r3mes_types::{Amount, Message, Time};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[path = "support/comet.rs"]
mod comet;
#[path = "support/founders.rs"]
mod founders;
#[path = "support/recorded.rs"]
mod recorded;

use comet::{Comet, PATIENCE, program, settings};
use founders::{CHAIN, ELEMENTS, FOUNDERS, Keys, STAKE, genesis};
use recorded::{Past, Recorded, replay};

/// The pause between blocks.
const INTERVAL: Duration = Duration::from_millis(50);
/// The same where snapshots must not be replaced before a node that joins has one.
const SLOW: Duration = Duration::from_millis(200);
/// Every how many blocks a snapshot is made.
const SNAPSHOT_EVERY: u64 = 20;
/// Blocks that are kept.
const KEPT_BLOCKS: u64 = 30;

/// A node's keys, with the one that its peers know it by.
struct Peer {
    keys: Keys,
    node: ValidatorKey,
}

impl Peer {
    fn of(number: u8) -> Self {
        Self {
            keys: Keys::of(number),
            node: ValidatorKey::from_seed(&[100 + number; 32]),
        }
    }
}

/// A node: the ledger in this process, CometBFT in its own.
struct Node {
    keys: Keys,
    /// The address of CometBFT's RPC.
    rpc: String,
    comet: Comet,
    handle: CometHandle,
    /// What its ledger executed, where that is written down.
    recorded: Option<Arc<Recorded>>,
    shutdown: CancellationToken,
    engine: JoinHandle<Result<(), EngineError>>,
}

impl Node {
    fn start(program: &Path, directory: PathBuf, peer: Peer, settings: &Settings) -> Self {
        let genesis = genesis();
        let beacon = HashChains::new(peer.keys.beacon, ELEMENTS);
        let storage = Storage::memory(storage_options()).unwrap();
        let app = LedgerApp::new(genesis, storage, Some(beacon));
        let recorded = Arc::new(Recorded::new(app, |_, _| ()));
        Self {
            recorded: Some(recorded.clone()),
            ..Self::start_with(program, directory, peer, settings, recorded)
        }
    }

    fn start_with(
        program: &Path,
        directory: PathBuf,
        peer: Peer,
        settings: &Settings,
        app: Arc<dyn Application>,
    ) -> Self {
        let genesis = genesis();
        let chain = Genesis::of_network(&genesis).unwrap();
        let parts = Parts {
            snapshots: Some(SnapshotOptions {
                folder: directory.join("snapshots"),
                every: SNAPSHOT_EVERY,
            }),
            // The other tests look back at all blocks.
            keep_blocks: (settings.block_interval == SLOW).then_some(KEPT_BLOCKS),
            ..Parts::new(chain, app)
        };
        let (engine, handle) = open(parts).unwrap();
        let listener = Listener::unix(&directory.join("abci")).unwrap();
        let shutdown = CancellationToken::new();
        let engine = tokio::spawn(engine.run(listener, shutdown.clone()));
        let Peer { keys, node } = peer;
        let both = [&keys.validator, &node];
        let comet = Comet::start(program, &directory, settings, &genesis, both);
        Self {
            keys,
            rpc: settings.rpc.replacen("tcp://", "http://", 1),
            comet,
            handle,
            recorded: None,
            shutdown,
            engine,
        }
    }

    /// What its ledger executed up to a height gives the same hashes without CometBFT.
    async fn replays_up_to(&self, height: u64) -> Past {
        self.reach(height + 1).await;
        let mut past = self.recorded.as_ref().unwrap().blocks();
        replay(genesis(), &past, &self.comet, height);
        past.split_off(&(height + 1));
        past
    }

    async fn ask<Q: Question>(&self, question: &Q) -> Q::Answer {
        let query = Query {
            path: Q::PATH.into(),
            data: question.encode(),
            ..Query::default()
        };
        let answer = self.handle.query(query).await.unwrap();
        assert_eq!(answer.code, 0, "{}", answer.log);
        Q::Answer::decode(&answer.value).unwrap()
    }

    /// Signs with the node's own key, sends, and waits for the block.
    async fn send(&self, messages: Vec<Message>) -> TxInfo {
        let key = &self.keys.operator;
        let question = QueryAccount {
            address: key.address(),
        };
        let account = self.ask(&question).await.account.unwrap();
        let signer = Signer {
            chain_id: CHAIN,
            account_number: account.number,
            sequence: account.sequence,
        };
        let tx = Unsigned::new(messages)
            .with_fee(Fee::of(Amount::remes(1), 1_000_000))
            .sign(key, &signer)
            .unwrap();
        self.comet.broadcast(&tx);
        match self.handle.wait_for_tx(tx_hash(&tx), PATIENCE).await {
            Ok(TxState::Included(info)) if info.result.code == 0 => info,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until CometBFT itself, which stores a block before the ledger has it, is at a height.
    async fn reach(&self, height: u64) {
        let reached = self.handle.wait_for_height(height - 1, PATIENCE).await;
        reached.unwrap();
    }

    /// Height of the oldest block that CometBFT has.
    fn earliest(&self) -> u64 {
        let status = self.comet.get("status");
        let earliest = status["sync_info"]["earliest_block_height"].as_str();
        earliest.unwrap().parse().unwrap()
    }

    /// Addresses of those who sign the block at a height.
    fn validators(&self, height: u64) -> BTreeSet<String> {
        let answer = self.comet.get(&format!("validators?height={height}"));
        let validators = answer["validators"].as_array().unwrap().iter();
        validators
            .map(|validator| validator["address"].as_str().unwrap().to_owned())
            .collect()
    }

    async fn stop(self) {
        drop(self.comet);
        self.shutdown.cancel();
        self.engine.await.unwrap().unwrap();
    }
}

/// Addresses on this machine that are free now.
fn free_addresses(count: usize) -> Vec<String> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let listeners: Vec<TcpListener> = listeners.collect();
    let addresses = listeners
        .iter()
        .map(|l| l.local_addr().unwrap().to_string());
    addresses.collect()
}

/// Starts a node for each of the keys, all of them peers of each other; gives also how they are named.
/// The first two have their RPC on a port.
fn start(
    program: &Path,
    folder: &TempDir,
    all: Vec<Peer>,
    interval: Duration,
) -> (Vec<Node>, Vec<String>) {
    let addresses = free_addresses(all.len() + 2);
    let (rpcs, addresses) = addresses.split_at(2);
    let peers: Vec<String> = all
        .iter()
        .zip(addresses)
        .map(|(peer, address)| format!("{}@{address}", node_id(&peer.node)))
        .collect();
    let mut nodes = Vec::new();
    for (number, peer) in all.into_iter().enumerate() {
        let directory = folder.path().join(number.to_string());
        std::fs::create_dir(&directory).unwrap();
        let others = peers
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != number);
        let usual = settings(&directory, interval);
        let settings = Settings {
            p2p: format!("tcp://{}", addresses[number]),
            persistent_peers: others.map(|(_, peer)| peer.clone()).collect(),
            rpc: match rpcs.get(number) {
                Some(address) => format!("tcp://{address}"),
                None => usual.rpc.clone(),
            },
            ..usual
        };
        nodes.push(Node::start(program, directory, peer, &settings));
    }
    (nodes, peers)
}

fn address(keys: &Keys) -> String {
    keys.validator.address().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_or_leaves_changes_who_signs_and_beacon_chains_go_on() {
    let Some(program) = program() else { return };
    let folder = tempfile::tempdir().unwrap();
    let all = (1..=FOUNDERS + 1).map(Peer::of).collect();
    let (mut nodes, _) = start(&program, &folder, all, INTERVAL);
    let joiner = nodes.last().unwrap();
    joiner.reach(2).await;
    let founders = joiner.validators(1);
    assert_eq!(founders.len(), usize::from(FOUNDERS));

    // The node and its first beacon chain, as `r3mes start` registers them.
    let chain = MsgRegisterChain {
        operator: joiner.keys.operator.address(),
        end: joiner.keys.chain().end(),
        length: ELEMENTS,
    };
    let joined = joiner
        .send(vec![joiner.keys.registration().into(), chain.into()])
        .await;
    joiner.reach(joined.height + 3).await;
    assert_eq!(joiner.validators(joined.height + 1), founders);
    let with_joiner = joiner.validators(joined.height + 2);
    assert_eq!(with_joiner.len(), usize::from(FOUNDERS) + 1);
    assert!(with_joiner.contains(&address(&joiner.keys)));

    // All chains of the beginning together have fewer elements than this has blocks, so each
    // proposer has gone on to another one; and the joiner has proposed.
    let enough = joined.height + (u64::from(FOUNDERS) + 1) * ELEMENTS + 10;
    joiner.reach(enough + 1).await;
    let mut proposers = BTreeSet::new();
    for height in joined.height + 3..=enough {
        let header = joiner.comet.header(height);
        proposers.insert(header["proposer_address"].as_str().unwrap().to_owned());
    }
    assert_eq!(proposers, with_joiner);

    let leave = MsgLeave {
        address: joiner.keys.operator.address(),
    };
    let left = joiner.send(vec![leave.into()]).await;
    joiner.reach(left.height + 3).await;
    assert_eq!(joiner.validators(left.height + 1), with_joiner);
    assert_eq!(joiner.validators(left.height + 2), founders);

    // One of four is away.
    nodes[1].comet.kill();
    let away = nodes[1].keys.validator.address();
    let first = &nodes[0];
    let newest = first.handle.height() + 4;
    let past = first.replays_up_to(newest).await;
    let (last, _) = &past[&newest];
    let missing = last.last_commit.iter().filter(|vote| !vote.signed);
    let missing: Vec<_> = missing.map(|vote| vote.validator).collect();
    assert_eq!(missing, [away]);
    let changes = past
        .values()
        .filter(|(_, output)| !output.validator_updates.is_empty());
    let changes: Vec<u64> = changes.map(|(input, _)| input.height).collect();
    assert_eq!(changes, [joined.height, left.height]);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_that_signs_twice_is_slashed_and_jailed() {
    let Some(program) = program() else { return };
    let folder = tempfile::tempdir().unwrap();
    // Another process with the last founder's key: both sign, each its own proposals.
    let mut all: Vec<Peer> = (1..=FOUNDERS).map(Peer::of).collect();
    all.push(Peer {
        node: ValidatorKey::from_seed(&[99; 32]),
        ..Peer::of(FOUNDERS)
    });
    let (nodes, _) = start(&program, &folder, all, INTERVAL);
    let (honest, twin) = (&nodes[0], &nodes[usize::from(FOUNDERS)]);
    let cheat = twin.keys.operator.address();
    let mut height = 0;
    let node = loop {
        height = honest
            .handle
            .wait_for_height(height, PATIENCE)
            .await
            .unwrap();
        let node = honest
            .ask(&QueryNode { address: cheat })
            .await
            .node
            .unwrap();
        if node.status != NodeStatus::Active {
            break node;
        }
    };
    assert_eq!(node.status, NodeStatus::Jailed);
    assert!(node.jail_reason.contains("signed two blocks"), "{node:?}");
    let question = QuerySlashes {
        node: Some(cheat),
        page: None,
    };
    let slashes = honest.ask(&question).await.slashes;
    let slashed = slashes.iter().map(|slash| slash.amount);
    let slashed = slashed.fold(Amount::ZERO, Amount::saturating_add);
    assert_eq!(
        slashes[0].amount,
        Amount::remes(50),
        "a twentieth of the stake"
    );
    assert_eq!(node.bonded, STAKE.saturating_sub(slashed));

    // It signs no more, and the others go on.
    honest.reach(height + 4).await;
    let validators = honest.validators(height + 3);
    assert!(!validators.contains(&address(&twin.keys)));
    assert_eq!(validators.len(), usize::from(FOUNDERS) - 1);
    let past = honest.replays_up_to(height + 3).await;
    let offences = past.values().flat_map(|(input, _)| &input.misbehaviour);
    let offenders: BTreeSet<_> = offences.map(|offence| offence.validator).collect();
    assert_eq!(offenders, [twin.keys.validator.address()].into());
    for node in nodes {
        node.stop().await;
    }
}

/// How a node starts that takes a snapshot from the first two.
fn by_snapshot(nodes: &[Node], peers: Vec<String>, directory: &Path) -> Settings {
    let trust_height = nodes[0].handle.height() - 1;
    let commit = nodes[0].comet.get(&format!("commit?height={trust_height}"));
    let hash = commit["signed_header"]["commit"]["block_id"]["hash"].as_str();
    let servers = nodes[..2].iter().map(|node| node.rpc.clone());
    Settings {
        persistent_peers: peers,
        state_sync: Some(StateSync {
            servers: servers.collect(),
            trust_height,
            trust_hash: hex::decode(hash.unwrap()).unwrap().try_into().unwrap(),
        }),
        ..settings(directory, SLOW)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_late_takes_a_snapshot_and_goes_on_from_there() {
    let Some(program) = program() else { return };
    let folder = tempfile::tempdir().unwrap();
    let all = (1..=FOUNDERS).map(Peer::of).collect();
    let (nodes, peers) = start(&program, &folder, all, SLOW);
    let old = &nodes[0];
    old.reach(SNAPSHOT_EVERY + 4).await;

    let directory = folder.path().join("late");
    std::fs::create_dir(&directory).unwrap();
    let settings = by_snapshot(&nodes, peers, &directory);
    let late = Node::start(&program, directory, Peer::of(FOUNDERS + 1), &settings);
    late.reach(SNAPSHOT_EVERY).await;
    let began = late.handle.height();
    late.reach(began + 3).await;
    assert!(late.earliest() > SNAPSHOT_EVERY);
    // Its state is the one that the others' headers name, and it has executed blocks on it.
    for height in [began + 1, began + 2] {
        assert_eq!(late.comet.header(height), old.comet.header(height));
    }
    let founder = QueryNode {
        address: Keys::of(1).operator.address(),
    };
    assert!(late.ask(&founder).await.node.is_some());
    // Nobody keeps blocks for ever.
    old.reach(KEPT_BLOCKS + 3).await;
    let oldest_kept = old.handle.height() - KEPT_BLOCKS;
    assert!((2..=oldest_kept + 1).contains(&old.earliest()));
    late.stop().await;
    for node in nodes {
        node.stop().await;
    }
}

/// The ledger, standing still once it has taken a snapshot over, before CometBFT knows.
struct Restoring {
    app: LedgerApp,
    /// Told the height.
    restored: Sender<u64>,
    /// Stands still until the other end is dropped.
    go_on: Mutex<Receiver<()>>,
}

impl Restoring {
    fn new(storage: &Storage, keys: &Keys) -> (Arc<Self>, Receiver<u64>, Sender<()>) {
        let (restored, is_restored) = channel();
        let (let_go, go_on) = channel();
        let app = Self {
            app: late_ledger(storage, keys),
            restored,
            go_on: Mutex::new(go_on),
        };
        (Arc::new(app), is_restored, let_go)
    }
}

impl Application for Restoring {
    fn committed(&self) -> Result<Option<Committed>, ApplicationError> {
        self.app.committed()
    }

    fn init_chain(&self) -> Result<InitChain, ApplicationError> {
        self.app.init_chain()
    }

    fn check(&self, tx: &[u8], context: &Check<'_>) -> Result<CheckResult, ApplicationError> {
        self.app.check(tx, context)
    }

    fn prepare(&self, proposal: Proposal<'_>) -> Result<Vec<Vec<u8>>, ApplicationError> {
        self.app.prepare(proposal)
    }

    fn process(&self, block: &BlockInput) -> Result<Result<(), String>, ApplicationError> {
        self.app.process(block)
    }

    fn finalize(&self, block: &BlockInput) -> Result<BlockOutput, ApplicationError> {
        self.app.finalize(block)
    }

    fn commit(&self) -> Result<(), ApplicationError> {
        self.app.commit()
    }

    fn sync(&self) -> Result<(), ApplicationError> {
        self.app.sync()
    }

    fn next_deadline(&self) -> Result<Option<Time>, ApplicationError> {
        self.app.next_deadline()
    }

    fn query(&self, query: &Query) -> Result<QueryResult, ApplicationError> {
        self.app.query(query)
    }

    fn restore(
        &self,
        height: u64,
        state: Changes,
        app_hash: [u8; 32],
    ) -> Result<bool, ApplicationError> {
        let restored = self.app.restore(height, state, app_hash)?;
        assert!(restored);
        self.restored.send(height).unwrap();
        assert!(self.go_on.lock().unwrap().recv().is_err(), "only dropped");
        Ok(restored)
    }
}

/// The ledger of the node that comes late, over the state that the one before left.
fn late_ledger(storage: &Storage, keys: &Keys) -> LedgerApp {
    let beacon = HashChains::new(keys.beacon, ELEMENTS);
    LedgerApp::new(genesis(), storage.clone(), Some(beacon))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_between_a_snapshot_s_last_chunk_and_cometbft_s_record_goes_on_by_itself() {
    let Some(program) = program() else { return };
    let folder = tempfile::tempdir().unwrap();
    let all = (1..=FOUNDERS).map(Peer::of).collect();
    let (nodes, peers) = start(&program, &folder, all, SLOW);
    let old = &nodes[0];
    old.reach(SNAPSHOT_EVERY + 4).await;
    let directory = folder.path().join("late");
    std::fs::create_dir(&directory).unwrap();
    let settings = by_snapshot(&nodes, peers, &directory);
    let storage = Storage::open(directory.join("state"), storage_options()).unwrap();
    let late = || Peer::of(FOUNDERS + 1);

    // Killed there at once and again, with the same snapshot on offer and with a later one.
    let mut taken = 0;
    for _ in 0..2 {
        let (app, restored, let_go) = Restoring::new(&storage, &late().keys);
        let mut node = Node::start_with(&program, directory.clone(), late(), &settings, app);
        let height = tokio::task::block_in_place(|| restored.recv_timeout(PATIENCE)).unwrap();
        assert!(
            height >= taken.max(SNAPSHOT_EVERY),
            "{height} after {taken}"
        );
        taken = height;
        node.comet.kill();
        drop(let_go);
        node.stop().await;
        assert_eq!(
            late_ledger(&storage, &late().keys)
                .committed()
                .unwrap()
                .unwrap()
                .height,
            taken
        );
    }
    old.reach(taken + SNAPSHOT_EVERY + 4).await;
    let app = Arc::new(late_ledger(&storage, &late().keys));
    let late = Node::start_with(&program, directory.clone(), late(), &settings, app);
    late.reach(taken + SNAPSHOT_EVERY).await;
    let began = late.handle.height();
    late.reach(began + 3).await;
    assert!(late.earliest() > taken, "it executed what it had skipped");
    for height in [began + 1, began + 2] {
        assert_eq!(late.comet.header(height), old.comet.header(height));
    }
    late.stop().await;
    for node in nodes {
        node.stop().await;
    }
}
