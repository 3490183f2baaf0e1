//! The RPC under engine `cometbft`: CometBFT answers, and we add what makes clients' lives easier.

use std::path::Path;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use r3mes_consensus::application::QueryResult;
use r3mes_consensus::cometbft::CometHandle;
use r3mes_consensus::genesis::Genesis;
use r3mes_consensus::local::{TxState, WaitError};
use r3mes_types::ConsensusKey;
use reqwest::{RequestBuilder, Url};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixSocket};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config, tungstenite};

use crate::rpc::methods::{self, Signature, patience};
use crate::rpc::request::{JsonBytes, Params, RpcError};
use crate::rpc::serve::RpcLimits;
use crate::rpc::shapes;

/// Methods that CometBFT has and engine `local` has not.
pub(super) const MORE_METHODS: &[Signature] = &[
    ("broadcast_evidence", &["evidence"]),
    ("consensus_state", &[]),
    ("dump_consensus_state", &[]),
    ("genesis_chunked", &["chunk"]),
    ("header_by_hash", &["hash"]),
    ("unconfirmed_txs", &["limit"]),
];

/// Pause between two tries of a CometBFT that is away.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// The longest answer that is passed on.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// What a Unix socket's server is called; it does not look at it.
const SOCKET_URL: &str = "http://cometbft/";

/// Bytes both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A WebSocket to CometBFT.
pub(super) type Upstream = WebSocketStream<Box<dyn Stream>>;

/// Passes calls on to CometBFT.
///
/// `abci_query`, `wait_height` and `wait_tx` are answered from the application beside us, so that they
/// go on while CometBFT is started again. Other calls wait for it a while, and are then refused with
/// status 503.
#[derive(Clone, Debug)]
pub struct Relay {
    handle: CometHandle,
    http: reqwest::Client,
    url: Url,
    address: String,
    limits: RpcLimits,
}

/// The address of CometBFT's RPC is not one.
#[derive(Debug, thiserror::Error)]
#[error(
    "{address:?} is not the address of CometBFT's RPC: write it as unix:///folder/rpc.sock or http://127.0.0.1:26657"
)]
pub struct UpstreamError {
    address: String,
}

impl Relay {
    /// A relay to the CometBFT whose RPC listens at `address`: `unix:///path` or `http://host:port`.
    ///
    /// # Errors
    /// [`UpstreamError`] if it is neither.
    pub fn new(
        handle: CometHandle,
        address: &str,
        limits: RpcLimits,
    ) -> Result<Self, UpstreamError> {
        let refused = || UpstreamError {
            address: address.to_owned(),
        };
        let http = reqwest::Client::builder().no_proxy();
        let (http, url) = match address.strip_prefix("unix://") {
            Some(path) => (http.unix_socket(Path::new(path)), SOCKET_URL),
            None if address.starts_with("http://") => (http, address),
            None => return Err(refused()),
        };
        Ok(Self {
            handle,
            http: http.build().map_err(|_| refused())?,
            url: Url::parse(url).map_err(|_| refused())?,
            address: address.to_owned(),
            limits,
        })
    }

    pub(super) fn limits(&self) -> RpcLimits {
        self.limits
    }

    /// A WebSocket of CometBFT's RPC. CometBFT tells subscribers apart by their addresses, so that each
    /// comes from one of its own.
    pub(super) async fn socket(&self) -> Result<Upstream, tungstenite::Error> {
        let stream: Box<dyn Stream> = match self.address.strip_prefix("unix://") {
            Some(path) => {
                let socket = UnixSocket::new_stream()?;
                // No name: the kernel gives one that nobody else has.
                socket.bind("")?;
                Box::new(socket.connect(path).await?)
            }
            None => {
                let address = self.address.trim_start_matches("http://");
                let address = address.split('/').next().unwrap_or_default();
                Box::new(TcpStream::connect(address).await?)
            }
        };
        let limits = WebSocketConfig::default().max_message_size(Some(MAX_ANSWER_BYTES));
        let url = "ws://cometbft/websocket";
        let (socket, _) = client_async_with_config(url, stream, Some(limits)).await?;
        Ok(socket)
    }

    /// Calls a method that is known.
    pub(super) async fn call(&self, method: &str, params: &Params) -> Result<Value, RpcError> {
        match method {
            "abci_query" => {
                let answer = match methods::query(params)? {
                    Some(query) => self.handle.query(query).await?,
                    None => QueryResult::below_zero(),
                };
                Ok(shapes::query_answer(&answer))
            }
            "wait_height" => self.wait_height(params).await,
            "wait_tx" => self.wait_tx(params).await,
            "broadcast_tx_commit" => self.commit(params).await,
            _ => self.pass_on(method, params).await,
        }
    }

    async fn wait_height(&self, params: &Params) -> Result<Value, RpcError> {
        let above = params.number("above")?.unwrap_or_default();
        let patience = patience(&self.limits, params)?;
        let height = match self.handle.wait_for_height(above, patience).await {
            Ok(height) => height,
            Err(WaitError::TimedOut { .. }) => self.handle.height(),
            Err(error) => return Err(RpcError::caused(&error)),
        };
        Ok(json!({"height": height.to_string()}))
    }

    async fn wait_tx(&self, params: &Params) -> Result<Value, RpcError> {
        let hash = params.hash("hash")?;
        let patience = patience(&self.limits, params)?;
        let state = self.handle.wait_for_tx(hash, patience).await?;
        if state != TxState::Unknown {
            return Ok(shapes::tx_state(&state));
        }
        // Perhaps of a block before this process started: CometBFT's index knows.
        let by_hash = json!({"hash": shapes::base64(&hash)});
        let by_hash = Params::from_json(Some(by_hash), &[])?;
        match self.pass_on("tx", &by_hash).await {
            Ok(tx) => Ok(json!({"state": "included", "tx": tx})),
            Err(error) if error.is_unavailable() => Err(error),
            Err(_) => Ok(shapes::tx_state(&state)),
        }
    }

    /// Brings a transaction into a block. CometBFT waits for that by a subscription, and gives one
    /// subscriber no more than five at once; so every call comes from an address of its own.
    async fn commit(&self, params: &Params) -> Result<Value, RpcError> {
        let tx = shapes::base64(&params.bytes("tx", JsonBytes::Base64)?);
        let params = json!({"tx": tx});
        let call =
            json!({"jsonrpc": "2.0", "id": 1, "method": "broadcast_tx_commit", "params": params});
        let away = |why: String| {
            RpcError::unavailable(format!("CometBFT does not answer: see its log ({why})"))
        };
        let deadline = Instant::now() + self.limits.longest_wait;
        let mut socket = loop {
            match self.socket().await {
                Ok(socket) => break socket,
                Err(error) if Instant::now() + RETRY_PAUSE > deadline => {
                    return Err(away(error.to_string()));
                }
                Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        };
        let asked = async {
            socket.send(Message::text(call.to_string())).await?;
            loop {
                match socket.next().await {
                    Some(Ok(Message::Text(text))) => return Ok(text),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                    None => return Err(tungstenite::Error::ConnectionClosed),
                }
            }
        };
        let answer = timeout(self.limits.timeout, asked).await;
        let answer = answer.map_err(|_| away("it takes too long".to_owned()))?;
        let answer = answer.map_err(|error| away(error.to_string()))?;
        result(
            "broadcast_tx_commit",
            serde_json::from_str(&answer).unwrap_or_default(),
        )
    }

    async fn pass_on(&self, method: &str, params: &Params) -> Result<Value, RpcError> {
        let changes_nothing = !method.starts_with("broadcast_");
        let deadline = Instant::now() + self.limits.longest_wait;
        loop {
            let error = match self.send(self.request(method, params)).await {
                Ok(answer) => return result(method, answer),
                Err(Failed::Answer(what)) => {
                    let what = format!("CometBFT's answer to {method} {what}");
                    return Err(RpcError::internal(what));
                }
                Err(Failed::Http(error)) => error,
            };
            let again = error.is_connect() || (changes_nothing && !error.is_timeout());
            if !again || Instant::now() + RETRY_PAUSE > deadline {
                return Err(RpcError::unavailable(format!(
                    "CometBFT does not answer: see its log ({error})"
                )));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn request(&self, method: &str, params: &Params) -> RequestBuilder {
        let request = match params {
            Params::Uri(params) => {
                let mut url = self.url.clone();
                url.set_path(method);
                self.http.get(url).query(params)
            }
            Params::Json(params) => {
                let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
                self.http.post(self.url.clone()).json(&call)
            }
        };
        request.timeout(self.limits.timeout)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Value, Failed> {
        let mut response = request.send().await.map_err(Failed::Http)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(Failed::Http)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Failed::Answer("is too long"));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|_| Failed::Answer("is no JSON"))
    }
}

/// What an answer of CometBFT says.
fn result(method: &str, mut answer: Value) -> Result<Value, RpcError> {
    if !answer["error"].is_null() {
        return Err(RpcError::relayed(&answer["error"]));
    }
    let result = answer.get_mut("result").map(Value::take);
    result.ok_or_else(|| {
        let what = format!("CometBFT's answer to {method} is not one of JSON-RPC");
        RpcError::internal(what)
    })
}

enum Failed {
    Http(reqwest::Error),
    Answer(&'static str),
}

/// The genesis file that CometBFT starts from, with block validators and their powers. `ledger` is the
/// ledger's own genesis, canonically encoded: who joins takes it from any node's RPC.
pub fn genesis_file(
    chain: &Genesis,
    validators: impl IntoIterator<Item = (ConsensusKey, u64)>,
    ledger: &[u8],
) -> String {
    let validators = validators
        .into_iter()
        .map(|(key, power)| shapes::genesis_validator(&key, power));
    shapes::genesis(chain, validators.collect(), ledger).to_string()
}
