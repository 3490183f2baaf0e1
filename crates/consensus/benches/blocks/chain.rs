//! A chain without an engine: an application, and what it takes to make blocks for it.

use std::time::Duration;

use r3mes_consensus::app::{LedgerApp, storage_options};
use r3mes_consensus::application::{Application, BlockInput, Check, Proposal, Query, Waiting};
use r3mes_ledger::genesis::{DEVELOPMENT_CHAIN, DEVELOPMENT_SECRET, development};
use r3mes_state::Storage;
use r3mes_types::auth::{AccountAnswer, QueryAccount};
use r3mes_types::bank::Balance;
use r3mes_types::beacon::HashChains;
use r3mes_types::query::Query as _;
use r3mes_types::tx::{Fee, Signer, Unsigned};
use r3mes_types::wire::Wire;
use r3mes_types::{Address, Amount, ConsensusAddress, Message, Millis, SecretKey, Time};
use rustix::time::{ClockId, clock_gettime};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

const CHAIN_ID: &str = "r3mes-bench";
/// Gas that each message may use, and the fee for it.
const GAS: u64 = 60_000;
const FEE: Amount = Amount::new(60);
/// Bytes of transactions that a block may have.
const MAX_BYTES: usize = 4 << 20;
/// Entries of the state that are counted at once.
const PAGE: usize = 1_024;

/// An account that signs.
pub(crate) struct Account {
    key: SecretKey,
    address: Address,
    number: u64,
    sequence: u64,
}

impl Account {
    fn new(number: u64) -> Result<Self, Failure> {
        let mut bytes = [1; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        let key = SecretKey::from_bytes(&bytes)?;
        Ok(Self {
            address: key.address(),
            key,
            number: 0,
            sequence: 0,
        })
    }

    pub(crate) fn address(&self) -> Address {
        self.address
    }
}

/// How large the state is.
pub(crate) struct Size {
    pub(crate) keys: usize,
    pub(crate) bytes: usize,
    pub(crate) file: u64,
}

pub(crate) struct Chain {
    app: LedgerApp,
    folder: tempfile::TempDir,
    proposer: ConsensusAddress,
    height: u64,
    time: Time,
    rich: Account,
    accounts: u64,
}

impl Chain {
    pub(crate) fn new() -> Result<Self, Failure> {
        let mut rich = Account::new(1)?;
        let balance = Balance {
            address: rich.address,
            amount: Amount::remes(100_000_000),
        };
        let genesis = development(CHAIN_ID, rich.address, &[balance]);
        let (proposer, time) = (genesis.validators[0].key.address(), genesis.time);
        let folder = tempfile::tempdir()?;
        let storage = Storage::open(folder.path().join("state"), storage_options())?;
        let chains = HashChains::new(DEVELOPMENT_SECRET, DEVELOPMENT_CHAIN);
        let app = LedgerApp::new(genesis, storage, Some(chains));
        app.init_chain()?;
        rich.number = number(&app, &rich)?;
        Ok(Self {
            app,
            folder,
            proposer,
            height: 0,
            time,
            rich,
            accounts: 1,
        })
    }

    pub(crate) fn rich_address(&self) -> Address {
        self.rich.address
    }

    pub(crate) fn sign_rich(&mut self, messages: Vec<Message>) -> Result<Vec<u8>, Failure> {
        sign(&mut self.rich, messages)
    }

    pub(crate) fn sign(
        &self,
        account: &mut Account,
        messages: Vec<Message>,
    ) -> Result<Vec<u8>, Failure> {
        sign(account, messages)
    }

    /// Accounts that nobody has seen yet.
    pub(crate) fn fresh(&mut self, count: usize) -> Result<Vec<Account>, Failure> {
        let first = self.accounts + 1;
        self.accounts += count as u64;
        (first..=self.accounts).map(Account::new).collect()
    }

    /// Asks for the numbers of new accounts.
    pub(crate) fn number(&self, accounts: &mut [Account]) -> Result<(), Failure> {
        for account in accounts {
            account.number = number(&self.app, account)?;
        }
        Ok(())
    }

    /// Checks transactions, as on their way into the mempool.
    pub(crate) fn check(&self, txs: &[Vec<u8>]) -> Result<(), Failure> {
        let mut waiting = Waiting::default();
        for tx in txs {
            let context = Check {
                waiting: &waiting,
                time: self.time,
            };
            self.app.verify(&[tx.as_slice()])?;
            let checked = self.app.check(tx, &context)?;
            waiting.admit(&checked.admitted.ok_or(checked.result.log)?);
        }
        Ok(())
    }

    /// Makes a block of all of `txs`; the processor time of examining, executing and committing it.
    pub(crate) fn block(&mut self, txs: Vec<Vec<u8>>) -> Result<Duration, Failure> {
        self.height += 1;
        self.time = self.time.after(Millis::new(1_000));
        let prepared = self.app.prepare(Proposal {
            height: self.height,
            time: self.time,
            proposer: self.proposer,
            txs: &txs,
            max_bytes: MAX_BYTES,
        })?;
        if prepared.len() != txs.len() + 1 {
            return Err("a block does not take all transactions".into());
        }
        let input = BlockInput {
            height: self.height,
            time: self.time,
            proposer: self.proposer,
            last_commit: Vec::new(),
            misbehaviour: Vec::new(),
            txs: prepared,
        };
        let begin = processor_time();
        self.app.process(&input)??;
        let output = self.app.finalize(&input)?;
        self.app.commit()?;
        let took = processor_time() - begin;
        let refused = output
            .tx_results
            .into_iter()
            .find(|result| result.code != 0);
        match refused {
            Some(result) => Err(result.log.into()),
            None => Ok(took),
        }
    }

    pub(crate) fn size(&self) -> Result<Size, Failure> {
        self.app.sync()?;
        let state = self.app.state_at(self.height)?.ok_or("no state")?;
        let (mut keys, mut bytes, mut after) = (0, 0, None);
        loop {
            let page = state.scan(&[], after.as_deref(), PAGE)?;
            keys += page.len();
            bytes += page
                .iter()
                .map(|(key, value)| key.len() + value.len())
                .sum::<usize>();
            match page.into_iter().next_back() {
                Some((key, _)) => after = Some(key),
                None => break,
            }
        }
        let file = std::fs::metadata(self.folder.path().join("state"))?.len();
        Ok(Size { keys, bytes, file })
    }
}

/// What this thread has had of the processor.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn sign(account: &mut Account, messages: Vec<Message>) -> Result<Vec<u8>, Failure> {
    let share = messages.len() as u64;
    let signer = Signer {
        chain_id: CHAIN_ID,
        account_number: account.number,
        sequence: account.sequence,
    };
    account.sequence += 1;
    let fee = Fee::of(Amount::new(FEE.uremes() * share), GAS * share);
    Ok(Unsigned::new(messages)
        .with_fee(fee)
        .sign(&account.key, &signer)?)
}

fn number(app: &LedgerApp, account: &Account) -> Result<u64, Failure> {
    let question = QueryAccount {
        address: account.address,
    };
    let answer = app.query(&Query {
        path: QueryAccount::PATH.into(),
        data: question.encode(),
        ..Query::default()
    })?;
    let answer = AccountAnswer::decode(&answer.value)?;
    Ok(answer.account.ok_or("there is no such account")?.number)
}
