//! Asks a node over HTTP.

mod answers;
mod error;
mod list;
mod transport;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use r3mes_types::query::Query;
use r3mes_types::wire::{DecodeError, Wire};
use reqwest::Url;
use serde_json::{Value, json};

pub use self::error::ClientError;
pub use self::list::{Listed, MAX_LISTED, Paged};

use self::answers::*;
use self::transport::{Repeat, is_this_machine};
use crate::rpc::light::{Answered, LightClient, LightError};

/// Time to reach a server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for an answer, longer than any that a server waits on purpose.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
/// For how long a call that changes nothing is tried again while the server cannot be reached: a
/// restarting node is back by then.
const RETRY_FOR: Duration = Duration::from_secs(10);
/// What a Unix socket's server is called; it does not look at it.
const SOCKET_URL: &str = "http://cometbft/";
/// What `wait_height` asks the server to wait.
const LONG_POLL: Duration = Duration::from_secs(10);
/// How the address ends that a node tells which listens for no peers: clients refuse an empty one.
const NO_PORT: &str = ":0";

/// A typed client of one node's RPC. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    url: Url,
    retry_for: Duration,
    chain_id: Option<Arc<str>>,
    light: Option<Arc<LightClient>>,
}

/// How a node's chain stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The chain.
    pub chain_id: String,
    /// The node's name.
    pub moniker: String,
    /// Height of the newest block.
    pub height: u64,
    /// The app hash in its header: the state's root before it. None before the first block.
    pub app_hash: Option<[u8; 32]>,
    /// Its time, as RFC 3339.
    pub time: String,
    /// Whether the node still takes over blocks that the network has already.
    pub catching_up: bool,
}

/// A transaction in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxOutcome {
    /// Its hash.
    pub hash: [u8; 32],
    /// Height of the block.
    pub height: u64,
    /// 0, or the error's number within `codespace`.
    pub code: u32,
    /// Which list of errors `code` belongs to.
    pub codespace: String,
    /// What went wrong.
    pub log: String,
    /// The gas it took.
    pub gas_used: u64,
    /// What happened: kinds with their attributes.
    pub events: Vec<(String, Vec<(String, String)>)>,
}

/// Where a transaction is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxState {
    /// In a block.
    Included(TxOutcome),
    /// It waited and was dropped, because the state changed under it.
    Dropped(Refusal),
    /// It waits for a block.
    Waiting,
    /// The node knows nothing of it.
    Unknown,
}

/// Why a transaction was refused before it stood in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error's number within `codespace`; 0 if it is none.
    pub code: u32,
    /// Which list of errors `code` belongs to.
    pub codespace: String,
    /// What is wrong.
    pub log: String,
}

impl Client {
    /// A client of the node at `url`, as in `http://127.0.0.1:26657`.
    ///
    /// # Errors
    /// [`ClientError::Url`] if that is no HTTP address.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        let refused = || ClientError::Url {
            url: url.to_owned(),
        };
        let parsed = Url::parse(url).map_err(|_| refused())?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
            return Err(refused());
        }
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .tcp_nodelay(true);
        if is_this_machine(&parsed) {
            http = http.no_proxy();
        }
        Ok(Self {
            http: http.build().map_err(|_| refused())?,
            url: parsed,
            retry_for: RETRY_FOR,
            chain_id: None,
            light: None,
        })
    }

    /// A client of the server at a Unix socket: CometBFT itself, on this machine.
    ///
    /// # Errors
    /// [`ClientError::Url`] if no client can be made.
    pub fn at_socket(path: &Path) -> Result<Self, ClientError> {
        let refused = || ClientError::Url {
            url: path.display().to_string(),
        };
        let http = reqwest::Client::builder()
            .timeout(ANSWER_TIMEOUT)
            .no_proxy()
            .unix_socket(path);
        Ok(Self {
            http: http.build().map_err(|_| refused())?,
            url: Url::parse(SOCKET_URL).map_err(|_| refused())?,
            retry_for: RETRY_FOR,
            chain_id: None,
            light: None,
        })
    }

    /// The same, trying again for so long while the node cannot be reached, instead of ten seconds.
    #[must_use]
    pub fn retry_for(mut self, retry_for: Duration) -> Self {
        self.retry_for = retry_for;
        self
    }

    /// The same, for that chain alone: the [status](Client::status) of another one is an error, and
    /// nothing is signed for it.
    #[must_use]
    pub fn of_chain(mut self, chain_id: &str) -> Self {
        self.chain_id = Some(chain_id.into());
        self
    }

    /// The same, with every answer about the ledger's state checked, as far as
    /// [`LightClient::checks`] says.
    #[must_use]
    pub fn verified_by(mut self, light: Arc<LightClient>) -> Self {
        self.light = Some(light);
        self
    }

    /// What answers are checked by.
    pub fn light(&self) -> Option<&Arc<LightClient>> {
        self.light.as_ref()
    }

    /// The node's address.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The host of the node's address.
    pub fn host(&self) -> Option<String> {
        self.url.host_str().map(str::to_owned)
    }

    /// The node's ID among CometBFT's peers, and the address that it listens for them on; the address
    /// is empty under engine `local`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn peer(&self) -> Result<(String, String), ClientError> {
        let answer: StatusAnswer = self.call("status", json!({}), Repeat::Freely).await?;
        let mut listens = answer.node_info.listen_addr;
        if listens.ends_with(NO_PORT) {
            listens.clear();
        }
        Ok((answer.node_info.id, listens))
    }

    /// How the chain stands.
    ///
    /// # Errors
    /// [`ClientError`], here and below, if the node does not answer, refuses, or is not understood;
    /// [`ClientError::OtherChain`] if it follows another chain than [asked for](Client::of_chain).
    pub async fn status(&self) -> Result<Status, ClientError> {
        let answer: StatusAnswer = self.call("status", json!({}), Repeat::Freely).await?;
        let found = &answer.node_info.network;
        if let Some(expected) = self.chain_id.as_deref().filter(|id| id != found) {
            return Err(ClientError::OtherChain {
                url: self.url().to_owned(),
                found: found.clone(),
                expected: expected.to_owned(),
            });
        }
        let sync = answer.sync_info;
        Ok(Status {
            chain_id: answer.node_info.network,
            moniker: answer.node_info.moniker,
            height: number("status", &sync.latest_block_height)?,
            app_hash: match sync.latest_app_hash.as_str() {
                "" => None,
                digits => Some(hash("status", digits)?),
            },
            time: sync.latest_block_time,
            catching_up: sync.catching_up,
        })
    }

    /// Height and root of the newest committed state, as the ledger has it: 0 and that of the genesis
    /// before the first block. Waits about ten seconds for a ledger that has no state yet.
    ///
    /// # Errors
    /// As [`Client::status`], and [`ClientError::NoState`] if there is none yet.
    pub async fn committed(&self) -> Result<(u64, [u8; 32]), ClientError> {
        if let Some(committed) = self.newest_state().await? {
            return Ok(committed);
        }
        self.wait_height(0).await?;
        let newest = self.newest_state().await?;
        newest.ok_or_else(|| ClientError::NoState {
            url: self.url.to_string(),
        })
    }

    /// Height and root of the newest state, if there is one.
    async fn newest_state(&self) -> Result<Option<(u64, [u8; 32])>, ClientError> {
        const METHOD: &str = "abci_info";
        let answer: InfoAnswer = self.call(METHOD, json!({}), Repeat::Freely).await?;
        let info = answer.response;
        if info.last_block_app_hash.is_empty() {
            return Ok(None);
        }
        let root = base64(METHOD, &info.last_block_app_hash)?;
        let root = root
            .try_into()
            .map_err(|_| not_understood(METHOD, "a root has 32 bytes"))?;
        Ok(Some((number(METHOD, &info.last_block_height)?, root)))
    }

    /// The canonical bytes of the ledger's genesis.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn genesis(&self) -> Result<Vec<u8>, ClientError> {
        let answer: Value = self.call("genesis", json!({}), Repeat::Freely).await?;
        let ledger = answer["genesis"]["app_state"]["ledger"].as_str();
        let ledger = ledger.ok_or_else(|| not_understood("genesis", "it has no ledger"))?;
        base64("genesis", ledger)
    }

    /// Asks the ledger, about its newest state.
    ///
    /// # Errors
    /// As [`Client::status`], and [`ClientError::Query`] if the ledger refuses.
    pub async fn query<Q: Query>(&self, question: &Q) -> Result<Q::Answer, ClientError> {
        self.query_at(question, None).await
    }

    /// Asks the ledger, about its state after the block at `height`.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub async fn query_at<Q: Query>(
        &self,
        question: &Q,
        height: Option<u64>,
    ) -> Result<Q::Answer, ClientError> {
        let value = self
            .query_bytes(Q::PATH, &question.encode(), height)
            .await?;
        Q::Answer::decode(&value).map_err(|error: DecodeError| not_understood(Q::PATH, error))
    }

    /// Asks the ledger by path and encoded question; the encoded answer.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub async fn query_bytes(
        &self,
        path: &str,
        question: &[u8],
        height: Option<u64>,
    ) -> Result<Vec<u8>, ClientError> {
        if let Some(light) = self.light.as_ref().filter(|_| LightClient::checks(path)) {
            let asked = light.ask(self, path, question, height).await;
            return match asked.map_err(|error| self.not_believed(error))? {
                Answered::Value(value) => Ok(value),
                Answered::Refused {
                    codespace,
                    code,
                    log,
                } => Err(ClientError::Query {
                    path: path.to_owned(),
                    codespace,
                    code,
                    log,
                }),
            };
        }
        let params = json!({
            "path": path,
            "data": hex::encode(question),
            "height": height.unwrap_or_default().to_string(),
            "prove": false,
        });
        let answer: QueryAnswer = self.call("abci_query", params, Repeat::Freely).await?;
        let answer = answer.response;
        if answer.code != 0 {
            return Err(ClientError::Query {
                path: path.to_owned(),
                codespace: answer.codespace,
                code: answer.code,
                log: answer.log,
            });
        }
        base64(path, answer.value.as_deref().unwrap_or_default())
    }

    /// The newest height, as soon as it is above `above`; after about ten seconds in any case.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn wait_height(&self, above: u64) -> Result<u64, ClientError> {
        self.wait_height_for(above, LONG_POLL).await
    }

    /// The newest height, as soon as it is above `above`; after `patience` in any case.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn wait_height_for(
        &self,
        above: u64,
        patience: Duration,
    ) -> Result<u64, ClientError> {
        let params = json!({
            "above": above.to_string(),
            "timeout_ms": millis(patience).to_string(),
        });
        let answer: HeightAnswer = self.call("wait_height", params, Repeat::Freely).await?;
        number("wait_height", &answer.height)
    }

    /// The state's root after a block, from the header of the block that follows it.
    ///
    /// # Errors
    /// As [`Client::status`]; also when there is no block after it.
    pub async fn app_hash_after(&self, height: u64) -> Result<[u8; 32], ClientError> {
        // No chain is so long that its last block has none after it: the node refuses that height.
        let params = json!({"height": height.saturating_add(1).to_string()});
        let commit: Value = self.call("commit", params, Repeat::Freely).await?;
        let app_hash = commit["signed_header"]["header"]["app_hash"].as_str();
        hash("commit", app_hash.unwrap_or_default())
    }

    /// The hash of the block at a height, which its validators signed.
    ///
    /// # Errors
    /// As [`Client::status`]; also when there is no such block.
    pub async fn block_hash(&self, height: u64) -> Result<[u8; 32], ClientError> {
        let params = json!({"height": height.to_string()});
        let commit: Value = self.call("commit", params, Repeat::Freely).await?;
        let id = &commit["signed_header"]["commit"]["block_id"];
        hash("commit", id["hash"].as_str().unwrap_or_default())
    }

    /// Offers a transaction; its hash if it waits for a block now, or why the ledger refuses it.
    ///
    /// # Errors
    /// As [`Client::status`]. When no answer came, the transaction may have arrived.
    pub async fn broadcast(&self, tx: &[u8]) -> Result<Result<[u8; 32], Refusal>, ClientError> {
        let params = json!({"tx": STANDARD.encode(tx)});
        let answer: BroadcastAnswer = self
            .call("broadcast_tx_sync", params, Repeat::Unsent)
            .await?;
        if answer.code != 0 {
            return Ok(Err(Refusal {
                code: answer.code,
                codespace: answer.codespace,
                log: answer.log,
            }));
        }
        Ok(Ok(hash("broadcast_tx_sync", &answer.hash)?))
    }

    /// A transaction, once it stands in a block.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn tx(&self, hash: &[u8; 32]) -> Result<Option<TxOutcome>, ClientError> {
        match self.wait_tx(hash, Duration::ZERO).await? {
            TxState::Included(outcome) => Ok(Some(outcome)),
            _ => Ok(None),
        }
    }

    /// Where a transaction is; while it waits for a block, this waits with it for at most `patience`
    /// (servers allow about ten seconds).
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn wait_tx(
        &self,
        hash: &[u8; 32],
        patience: Duration,
    ) -> Result<TxState, ClientError> {
        let params = json!({
            "hash": STANDARD.encode(hash),
            "timeout_ms": millis(patience).to_string(),
        });
        let answer: TxStateAnswer = self.call("wait_tx", params, Repeat::Freely).await?;
        Ok(match (answer.state.as_str(), answer.tx, answer.result) {
            ("included", Some(tx), _) => {
                let outcome = tx.outcome()?;
                if let Some(light) = &self.light {
                    light.has_seen(outcome.height);
                }
                TxState::Included(outcome)
            }
            ("dropped", _, Some(result)) => TxState::Dropped(Refusal {
                code: result.code,
                codespace: result.codespace,
                log: result.log,
            }),
            ("waiting", ..) => TxState::Waiting,
            ("unknown", ..) => TxState::Unknown,
            (other, ..) => return Err(not_understood("wait_tx", format!("state {other:?}"))),
        })
    }

    /// The answer to any method that changes nothing, as JSON.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn raw(&self, method: &'static str, params: Value) -> Result<Value, ClientError> {
        self.call(method, params, Repeat::Freely).await
    }

    fn not_believed(&self, error: LightError) -> ClientError {
        match error {
            LightError::Client(error) => error,
            error => ClientError::False {
                url: self.url.to_string(),
                source: Box::new(error),
            },
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
