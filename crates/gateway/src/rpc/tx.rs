//! Signs transactions, sends them, and waits until they stand in a block.

use std::sync::Arc;
use std::time::Duration;

use r3mes_types::auth::QueryAccount;
use r3mes_types::cosmos::tx::SimulateRequest;
use r3mes_types::governance::QueryParams;
use r3mes_types::tx::{DEFAULT_GAS_LIMIT, Fee, Signer, Unsigned};
use r3mes_types::wire::{Blob, DecodeError};
use r3mes_types::{Address, Amount, Message, SecretKey};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::rpc::client::{Client, ClientError, Refusal, TxOutcome, TxState};
use crate::rpc::methods::ALREADY_KNOWN;

/// How long a transaction is waited for, in all.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the server is asked to wait at a time.
const LONG_POLL: Duration = Duration::from_secs(10);
/// Pause before a transaction of which the node knows nothing is looked for again.
const PAUSE: Duration = Duration::from_millis(200);
/// How often a transaction is signed anew because the sequence had moved.
const MAX_SIGNATURES: usize = 8;

/// Codes of codespace `sdk` that this client acts upon.
const SDK: &str = "sdk";
const UNKNOWN_ACCOUNT: u32 = 9;
const INSUFFICIENT_FEE: u32 = 13;
const WRONG_SEQUENCE: u32 = 32;

/// Sends what one key signs. Clones share the key's sequence, so that they can send at the same time.
///
/// The same messages signed with the same sequence are the same transaction: a process that died
/// before it saw its transaction executed, and sends it again while it still waits, sends nothing new.
/// Once it is executed a repetition is a new transaction; ask the ledger for what the first one was to
/// achieve before repeating it.
///
/// A transaction takes no fee if the ledger asks for none, as it does for what a node owes; else it
/// offers exactly the fee that the ledger's parameters ask for.
#[derive(Clone)]
pub struct TxClient {
    client: Client,
    key: Arc<SecretKey>,
    granter: Option<Address>,
    gas_limit: u64,
    account: Arc<Mutex<Option<Account>>>,
}

/// What signing needs to know of the key's account.
#[derive(Clone, Debug)]
struct Account {
    chain_id: String,
    number: u64,
    next_sequence: u64,
}

/// A signed transaction on its way.
struct Sent {
    bytes: Vec<u8>,
    hash: [u8; 32],
    sequence: u64,
}

/// Messages were not executed.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The ledger refuses them, before a block or in one.
    #[error("the ledger refuses the transaction: {log} ({codespace} {code})")]
    Refused {
        /// Which list of errors `code` belongs to.
        codespace: String,
        /// The error's number.
        code: u32,
        /// What is wrong.
        log: String,
    },
    /// No block had the transaction in time. It may still come.
    #[error("transaction {} stands in no block after {} s: ask for it before sending again", hex::encode_upper(hash), waited.as_secs())]
    TimedOut {
        /// The transaction.
        hash: [u8; 32],
        /// How long it was waited.
        waited: Duration,
    },
    /// The key's sequence kept moving: another process signs with the same key.
    #[error("the sequence of {address} keeps changing: let only one process sign with this key")]
    Contended {
        /// The key's address.
        address: Address,
    },
    /// The messages do not fit a transaction.
    #[error("the messages do not fit a transaction")]
    Encode {
        /// What is too large.
        #[source]
        source: DecodeError,
    },
    /// The node failed or could not be reached. The transaction may have arrived.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl TxClient {
    /// Sends what `key` signs, through `client`. Nothing is asked before the first transaction.
    pub fn new(client: Client, key: SecretKey) -> Self {
        Self {
            client,
            key: Arc::new(key),
            granter: None,
            gas_limit: DEFAULT_GAS_LIMIT,
            account: Arc::default(),
        }
    }

    /// The same, with fees paid by `granter`, who has granted the key fees.
    #[must_use]
    pub fn paid_by(mut self, granter: Address) -> Self {
        self.granter = Some(granter);
        self
    }

    /// The same, with another gas limit.
    #[must_use]
    pub fn with_gas_limit(mut self, gas_limit: u64) -> Self {
        self.gas_limit = gas_limit;
        self
    }

    /// The address of the key.
    pub fn address(&self) -> Address {
        self.key.address()
    }

    /// The node that is asked.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Signs the messages as one transaction, sends it, and waits until it is executed.
    ///
    /// A node that restarts meanwhile is waited for, and a transaction that it lost is sent again with
    /// the same bytes, so that it is executed at most once.
    ///
    /// # Errors
    /// [`SendError`]. After [`SendError::TimedOut`] and [`SendError::Client`] the transaction may still
    /// be executed.
    pub async fn send(&self, messages: Vec<Message>) -> Result<TxOutcome, SendError> {
        let mut unsigned = Unsigned::new(messages).with_fee(Fee::none(self.gas_limit));
        let mut fee_known = false;
        for _ in 0..MAX_SIGNATURES {
            let refusal = match self.sign_and_broadcast(&unsigned).await? {
                Ok(sent) => match self.follow(sent).await? {
                    Ok(outcome) => return Ok(outcome),
                    Err(refusal) => refusal,
                },
                Err(refusal) => refusal,
            };
            match (refusal.codespace.as_str(), refusal.code) {
                (SDK, WRONG_SEQUENCE) => {
                    self.await_next_block().await?;
                }
                (SDK, INSUFFICIENT_FEE) if !fee_known => {
                    unsigned.fee = self.required_fee().await?;
                    fee_known = true;
                }
                _ => return Err(refused(refusal)),
            }
        }
        let address = self.address();
        Err(SendError::Contended { address })
    }

    /// The gas that the messages would take as one transaction, from a run on the newest state of which
    /// nothing stays.
    ///
    /// # Errors
    /// [`SendError::Refused`] with what the ledger would say, and when the node does not answer.
    pub async fn simulate(&self, messages: Vec<Message>) -> Result<u64, SendError> {
        let account = self.account().await?.map_err(refused)?;
        let signer = Signer {
            chain_id: &account.chain_id,
            account_number: account.number,
            sequence: account.next_sequence,
        };
        // Without a limit it may take what any transaction may.
        let unsigned = Unsigned::new(messages).with_fee(Fee::none(0));
        let encode = |source| SendError::Encode { source };
        let bytes = unsigned.sign(&self.key, &signer).map_err(encode)?;
        let question = SimulateRequest {
            tx: None,
            tx_bytes: Blob::new(bytes).map_err(encode)?,
        };
        match self.client.query(&question).await {
            Ok(simulated) => Ok(simulated.gas_info.gas_used),
            Err(ClientError::Query {
                codespace,
                code,
                log,
                ..
            }) => Err(refused(Refusal {
                codespace,
                code,
                log,
            })),
            Err(error) => Err(error.into()),
        }
    }

    /// Signs with the next sequence and offers the transaction. One at a time, so that sequences go
    /// out in order.
    async fn sign_and_broadcast(
        &self,
        unsigned: &Unsigned,
    ) -> Result<Result<Sent, Refusal>, SendError> {
        let mut known = self.account.lock().await;
        let account = match &*known {
            Some(account) => account.clone(),
            None => match self.account().await? {
                Ok(account) => account,
                Err(refusal) => return Ok(Err(refusal)),
            },
        };
        // Forgotten unless this goes well.
        *known = None;
        let signer = Signer {
            chain_id: &account.chain_id,
            account_number: account.number,
            sequence: account.next_sequence,
        };
        let bytes = unsigned
            .sign(&self.key, &signer)
            .map_err(|source| SendError::Encode { source })?;
        let sent = Sent {
            hash: Sha256::digest(&bytes).into(),
            bytes,
            sequence: account.next_sequence,
        };
        match self.client.broadcast(&sent.bytes).await {
            Ok(Err(refusal)) => return Ok(Err(refusal)),
            Ok(Ok(_)) => {
                *known = Some(Account {
                    next_sequence: account.next_sequence + 1,
                    ..account
                });
            }
            // Whether it arrived is found out by looking for it.
            Err(ClientError::Unreachable { .. }) => (),
            // The same bytes, sent before this process started.
            Err(ClientError::Call { message, .. }) if message.contains(ALREADY_KNOWN) => (),
            Err(error) => return Err(error.into()),
        }
        Ok(Ok(sent))
    }

    /// Waits until a transaction is in a block; sends the same bytes again if the node has lost it.
    async fn follow(&self, sent: Sent) -> Result<Result<TxOutcome, Refusal>, SendError> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.client.wait_tx(&sent.hash, LONG_POLL).await? {
                TxState::Included(outcome) if outcome.code == 0 => return Ok(Ok(outcome)),
                TxState::Included(outcome) => {
                    return Err(SendError::Refused {
                        codespace: outcome.codespace,
                        code: outcome.code,
                        log: outcome.log,
                    });
                }
                TxState::Dropped(refusal) => {
                    *self.account.lock().await = None;
                    return Ok(Err(refusal));
                }
                TxState::Waiting => (),
                TxState::Unknown => {
                    if let Some(refusal) = self.send_again(&sent).await? {
                        return Ok(Err(refusal));
                    }
                }
            }
        }
        Err(SendError::TimedOut {
            hash: sent.hash,
            waited: PATIENCE,
        })
    }

    /// Offers the same bytes once more. A refusal is given only if the transaction cannot be executed
    /// any more: its sequence has gone to another.
    async fn send_again(&self, sent: &Sent) -> Result<Option<Refusal>, SendError> {
        tokio::time::sleep(PAUSE).await;
        *self.account.lock().await = None;
        let refusal = match self.client.broadcast(&sent.bytes).await {
            Ok(Ok(_)) | Err(ClientError::Call { .. }) => return Ok(None),
            Ok(Err(refusal)) => refusal,
            Err(error) => return Err(error.into()),
        };
        if (refusal.codespace.as_str(), refusal.code) != (SDK, WRONG_SEQUENCE) {
            return Ok(Some(refusal));
        }
        let executed = match self.account().await? {
            Ok(account) => account.next_sequence > sent.sequence,
            Err(_) => false,
        };
        // Executed is the sequence; if it was by this transaction, the node knows it by now.
        if executed && self.client.tx(&sent.hash).await?.is_none() {
            return Ok(Some(refusal));
        }
        Ok(None)
    }

    async fn account(&self) -> Result<Result<Account, Refusal>, ClientError> {
        let chain_id = self.client.status().await?.chain_id;
        let address = self.address();
        let answer = self.client.query(&QueryAccount { address }).await?;
        Ok(match answer.account {
            Some(account) => Ok(Account {
                chain_id,
                number: account.number,
                next_sequence: account.sequence,
            }),
            None => Err(Refusal {
                code: UNKNOWN_ACCOUNT,
                codespace: SDK.into(),
                log: format!(
                    "account {address} does not exist: it begins with the first coins it gets"
                ),
            }),
        })
    }

    /// What the ledger asks for a transaction now that does not travel free.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn fee(&self) -> Result<Amount, ClientError> {
        let auth = self.client.query(&QueryParams {}).await?.auth;
        let price = u128::from(auth.fee_per_million_gas.uremes());
        let required = (price * u128::from(self.gas_limit)).div_ceil(1_000_000);
        Ok(Amount::new(u64::try_from(required).unwrap_or(u64::MAX)))
    }

    async fn required_fee(&self) -> Result<Fee, ClientError> {
        let mut fee = Fee::of(self.fee().await?, self.gas_limit);
        fee.granter = self.granter;
        Ok(fee)
    }

    /// Waits a moment for the block that takes what waits under this key.
    async fn await_next_block(&self) -> Result<(), ClientError> {
        *self.account.lock().await = None;
        let height = self.client.status().await?.height;
        self.client.wait_height_for(height, PAUSE).await?;
        Ok(())
    }
}

impl std::fmt::Debug for TxClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TxClient")
            .field("url", &self.client.url())
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}

fn refused(refusal: Refusal) -> SendError {
    SendError::Refused {
        codespace: refusal.codespace,
        code: refusal.code,
        log: refusal.log,
    }
}
