//! One history for every engine. Blocks with the beacon's reveals, with changes of who signs and with
//! proven misbehaviour give the same app hashes and results to whoever executes them: each proposer,
//! one that only follows, one that is started again in the middle of every block, and the ledger
//! behind ABCI.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;

use r3mes_consensus::app::{LedgerApp, storage_options};
use r3mes_consensus::application::{
    Application, BlockInput, BlockOutput, CommitVote, Misbehaviour, Proposal, Query, TxResult,
    ValidatorUpdate,
};
use r3mes_consensus::block::results_hash;
use r3mes_consensus::cometbft::{Listener, Parts, open};
use r3mes_consensus::genesis::Genesis;
use r3mes_state::Storage;
use r3mes_types::auth::QueryAccount;
use r3mes_types::beacon::{HashChains, MsgRegisterChain};
use r3mes_types::nodes::{MsgLeave, MsgUpdate};
use r3mes_types::query::Query as Question;
use r3mes_types::tx::{Fee, Signer, Unsigned};
use r3mes_types::wire::Wire;
use r3mes_types::{Amount, ConsensusKey, Message, Millis, Time};
use tendermint_proto::google::protobuf::Timestamp;
use tendermint_proto::v0_38::abci::{
    CommitInfo, ExecTxResult, Misbehavior, MisbehaviorType, RequestCommit, RequestFinalizeBlock,
    RequestInfo, RequestInitChain, Validator, ValidatorUpdate as AbciUpdate, VoteInfo, request,
    response,
};
use tendermint_proto::v0_38::crypto::{PublicKey, public_key::Sum};
use tokio_util::sync::CancellationToken;

#[path = "support/founders.rs"]
mod founders;
#[path = "support/socket.rs"]
mod socket;

use founders::{CHAIN, ELEMENTS, FOUNDERS, Keys, STAKE, genesis};
use socket::Connection;

/// More blocks than the chains that the beacon begins with last for.
const BLOCKS: u64 = (FOUNDERS as u64 + 1) * ELEMENTS + 10;
/// The node that is no founder, in the order of keys, and when it is there.
const JOINER: usize = FOUNDERS as usize;
const JOINS: u64 = 2;
const LEAVES: u64 = 30;
/// A founder that takes more stake.
const RICHER: usize = 0;
const GROWS: u64 = 4;
const MORE_STAKE: Amount = Amount::remes(2_000);
/// A founder that signs twice.
const CHEAT: usize = 3;
const CHEATS: u64 = 20;
/// Heights after which a change of who signs is in force.
const IN_FORCE: u64 = 2;

/// A block, and what it did.
type Past = (BlockInput, BlockOutput);

/// Everybody who may propose, each with a ledger of its own.
struct Network {
    keys: Vec<Keys>,
    apps: Vec<LedgerApp>,
}

impl Network {
    fn begin() -> Self {
        let keys: Vec<Keys> = (1..=FOUNDERS + 1).map(Keys::of).collect();
        let apps = keys.iter().map(|keys| {
            let chains = HashChains::new(keys.beacon, ELEMENTS);
            let app = ledger(Storage::memory(storage_options()).unwrap(), Some(chains));
            app.init_chain().unwrap();
            app
        });
        let apps = apps.collect();
        Self { keys, apps }
    }

    /// What is new in the block at a height.
    fn transactions(&self, height: u64) -> Vec<Vec<u8>> {
        let joiner = &self.keys[JOINER];
        let richer = &self.keys[RICHER];
        let (keys, messages): (&Keys, Vec<Message>) = match height {
            JOINS => {
                let chain = MsgRegisterChain {
                    operator: joiner.operator.address(),
                    end: joiner.chain().end(),
                    length: ELEMENTS,
                };
                (joiner, vec![joiner.registration().into(), chain.into()])
            }
            GROWS => {
                let mut spec = richer.registration().spec;
                spec.stake = MORE_STAKE;
                let address = richer.operator.address();
                (richer, vec![MsgUpdate { address, spec }.into()])
            }
            LEAVES => {
                let address = joiner.operator.address();
                (joiner, vec![MsgLeave { address }.into()])
            }
            _ => return Vec::new(),
        };
        let question = QueryAccount {
            address: keys.operator.address(),
        };
        let query = Query {
            path: QueryAccount::PATH.into(),
            data: question.encode(),
            ..Query::default()
        };
        let answer = self.apps[0].query(&query).unwrap();
        let account = <QueryAccount as Question>::Answer::decode(&answer.value).unwrap();
        let account = account.account.unwrap();
        let signer = Signer {
            chain_id: CHAIN,
            account_number: account.number,
            sequence: account.sequence,
        };
        let signed = Unsigned::new(messages)
            .with_fee(Fee::of(Amount::remes(1), 1_000_000))
            .sign(&keys.operator, &signer);
        vec![signed.unwrap()]
    }

    /// Makes the block at a height and has everybody execute it.
    fn block(&self, height: u64) -> Past {
        let signers: Vec<&Keys> = signers(height).map(|number| &self.keys[number]).collect();
        let number = signers[height as usize % signers.len()];
        let proposer = self
            .keys
            .iter()
            .position(|keys| keys.beacon == number.beacon);
        let proposal = Proposal {
            height,
            time: time(height),
            proposer: number.validator.address(),
            txs: &self.transactions(height),
            max_bytes: 1 << 20,
        };
        let txs = self.apps[proposer.unwrap()].prepare(proposal).unwrap();
        let vote = |keys: &&Keys| CommitVote {
            validator: keys.validator.address(),
            power: 1_000,
            signed: true,
        };
        let cheat = Misbehaviour {
            validator: self.keys[CHEAT].validator.address(),
            power: 1_000,
            height: height - 1,
            time: time(height - 1),
        };
        let input = BlockInput {
            height,
            time: time(height),
            proposer: number.validator.address(),
            last_commit: signers.iter().map(vote).collect(),
            misbehaviour: (height == CHEATS).then_some(cheat).into_iter().collect(),
            txs,
        };
        let outputs: Vec<BlockOutput> = self
            .apps
            .iter()
            .map(|app| {
                assert_eq!(app.process(&input).unwrap(), Ok(()), "{height}");
                execute(app, &input)
            })
            .collect();
        for output in &outputs[1..] {
            assert_eq!(output, &outputs[0], "{height}");
        }
        (input, outputs[0].clone())
    }
}

fn ledger(storage: Storage, chains: Option<HashChains>) -> LedgerApp {
    LedgerApp::new(genesis(), storage, chains)
}

fn execute(app: &LedgerApp, input: &BlockInput) -> BlockOutput {
    let output = app.finalize(input).unwrap();
    app.commit().unwrap();
    output
}

/// Who signs the block at a height.
fn signers(height: u64) -> impl Iterator<Item = usize> {
    let there = move |number: &usize| match *number {
        JOINER => (JOINS + IN_FORCE..LEAVES + IN_FORCE).contains(&height),
        CHEAT => height < CHEATS + IN_FORCE,
        _ => true,
    };
    (0..=JOINER).filter(there)
}

/// A second a block.
fn time(height: u64) -> Time {
    genesis().time.after(Millis::seconds(height))
}

/// A history in which everything happens that a block can bring.
fn history() -> Vec<Past> {
    let network = Network::begin();
    let past: Vec<Past> = (1..=BLOCKS).map(|height| network.block(height)).collect();
    let did_nothing = past
        .iter()
        .flat_map(|(_, output)| &output.tx_results)
        .find(|result| result.code != 0);
    assert_eq!(did_nothing, None);
    let update = |height: u64, number: usize, power| {
        let key = network.keys[number].validator.public_key();
        let (_, output) = &past[height as usize - 1];
        assert_eq!(output.validator_updates, [ValidatorUpdate { key, power }]);
    };
    update(JOINS, JOINER, 1_000);
    update(GROWS, RICHER, 2_000);
    update(CHEATS, CHEAT, 0);
    update(LEAVES, JOINER, 0);
    past
}

#[test]
fn a_history_gives_the_same_hashes_to_one_that_follows_and_to_one_that_starts_again_in_each_block()
{
    assert!(STAKE < MORE_STAKE);
    let past = history();
    let follower = ledger(Storage::memory(storage_options()).unwrap(), None);
    follower.init_chain().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let reopened = || {
        let storage = Storage::open(directory.path().join("state"), storage_options()).unwrap();
        ledger(storage, None)
    };
    reopened().init_chain().unwrap();
    for (input, output) in &past {
        assert_eq!(execute(&follower, input), *output, "{}", input.height);
        // Executed and not committed; and committed before it is on disk.
        assert_eq!(reopened().finalize(input).unwrap(), *output);
        let app = reopened();
        assert_eq!(execute(&app, input), *output, "{}", input.height);
        app.sync().unwrap();
    }
}

#[tokio::test]
async fn a_history_gives_the_same_hashes_over_abci_whichever_way_a_validator_signed_twice() {
    let past = history();
    for kind in [
        MisbehaviorType::DuplicateVote,
        MisbehaviorType::LightClientAttack,
    ] {
        gives_the_same_over_abci(&past, kind).await;
    }
}

async fn gives_the_same_over_abci(past: &[Past], kind: MisbehaviorType) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("abci");
    let chain = Genesis::of_network(&genesis()).unwrap();
    let app = Arc::new(ledger(Storage::memory(storage_options()).unwrap(), None));
    let (engine, _) = open(Parts::new(chain.clone(), app)).unwrap();
    let listener = Listener::unix(&socket).unwrap();
    let shutdown = CancellationToken::new();
    let engine = tokio::spawn(engine.run(listener, shutdown.clone()));
    let mut connection = Connection::open(folder.path()).await;
    let begun = connection.ask(request::Value::InitChain(first_words(&chain)));
    assert!(matches!(begun.await, response::Value::InitChain(_)));
    for (input, output) in past {
        let answer = connection.ask(request::Value::FinalizeBlock(told(input, kind)));
        let response::Value::FinalizeBlock(answer) = answer.await else {
            panic!("block {} has another answer", input.height)
        };
        assert_eq!(
            answer.app_hash,
            output.app_hash.to_vec(),
            "{}",
            input.height
        );
        let results: Vec<TxResult> = answer.tx_results.into_iter().map(result).collect();
        assert_eq!(results_hash(&results), results_hash(&output.tx_results));
        let updates: Vec<AbciUpdate> = output
            .validator_updates
            .iter()
            .map(|update| power(&update.key, update.power))
            .collect();
        assert_eq!(answer.validator_updates, updates, "{}", input.height);
        let committed = connection.ask(request::Value::Commit(RequestCommit {}));
        assert!(matches!(committed.await, response::Value::Commit(_)));
    }
    let info = connection.ask(request::Value::Info(RequestInfo::default()));
    let response::Value::Info(info) = info.await else {
        panic!("no information")
    };
    assert_eq!(info.last_block_height, BLOCKS as i64);
    shutdown.cancel();
    engine.await.unwrap().unwrap();
}

fn first_words(chain: &Genesis) -> RequestInitChain {
    let validators = genesis().validators;
    RequestInitChain {
        time: Some(stamp(chain.time)),
        chain_id: chain.chain_id.to_string(),
        validators: validators
            .iter()
            .map(|validator| power(&validator.key, validator.power))
            .collect(),
        initial_height: 1,
        ..RequestInitChain::default()
    }
}

/// A block in CometBFT's words, with evidence of a kind.
fn told(input: &BlockInput, kind: MisbehaviorType) -> RequestFinalizeBlock {
    let validator = |address: &[u8], power: u64| Validator {
        address: address.to_vec().into(),
        power: power as i64,
    };
    let vote = |vote: &CommitVote| VoteInfo {
        validator: Some(validator(vote.validator.as_bytes(), vote.power)),
        block_id_flag: 2,
    };
    let offence = |offence: &Misbehaviour| Misbehavior {
        r#type: kind.into(),
        validator: Some(validator(offence.validator.as_bytes(), offence.power)),
        height: offence.height as i64,
        time: Some(stamp(offence.time)),
        total_voting_power: 0,
    };
    RequestFinalizeBlock {
        txs: input.txs.iter().map(|tx| tx.clone().into()).collect(),
        decided_last_commit: Some(CommitInfo {
            round: 0,
            votes: input.last_commit.iter().map(vote).collect(),
        }),
        misbehavior: input.misbehaviour.iter().map(offence).collect(),
        height: input.height as i64,
        time: Some(stamp(input.time)),
        proposer_address: input.proposer.as_bytes().to_vec().into(),
        ..RequestFinalizeBlock::default()
    }
}

fn result(told: ExecTxResult) -> TxResult {
    TxResult {
        code: told.code,
        codespace: told.codespace,
        data: told.data.to_vec(),
        gas_wanted: told.gas_wanted as u64,
        gas_used: told.gas_used as u64,
        ..TxResult::default()
    }
}

fn power(key: &ConsensusKey, power: u64) -> AbciUpdate {
    AbciUpdate {
        pub_key: Some(PublicKey {
            sum: Some(Sum::Ed25519(key.as_bytes().to_vec())),
        }),
        power: power as i64,
    }
}

fn stamp(time: Time) -> Timestamp {
    Timestamp {
        seconds: (time.nanos() / 1_000_000_000) as i64,
        nanos: (time.nanos() % 1_000_000_000) as i32,
    }
}
