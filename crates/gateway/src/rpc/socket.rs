//! The RPC over WebSockets: calls as over HTTP, and subscriptions to what happens in blocks.
//!
//! Under engine `local` events come from the block store, each block's in order, so that a slow reader
//! misses none that is kept and costs no memory. Under `cometbft` the frames are passed on to CometBFT and back.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::{Sink, SinkExt, StreamExt};
use r3mes_consensus::local::WaitError;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_tungstenite::tungstenite;

use crate::rpc::events::{self, EventQuery};
use crate::rpc::relay::Relay;
use crate::rpc::request::{Params, RpcError};
use crate::rpc::serve::{Chain, Served, Service, envelope, one, understood};

/// WebSockets open at once, as in CometBFT.
pub(super) const MAX_SOCKETS: usize = 100;
/// Subscriptions of one of them, as in CometBFT.
const MAX_SUBSCRIPTIONS: usize = 5;
/// Longest query of a subscription, as in CometBFT.
const MAX_QUERY_BYTES: usize = 512;
/// How often the other end is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long nothing may be heard from the other end, which answers each ping.
const SILENCE: Duration = Duration::from_secs(90);
/// How long the other end may take to read a message.
const SEND_PATIENCE: Duration = Duration::from_secs(30);
/// How long a block is waited for at a time.
const LONG_WAIT: Duration = Duration::from_secs(3600);
/// Methods that only a WebSocket has, with their parameters.
const METHODS: [(&str, &[&str]); 3] = [
    ("subscribe", &["query"]),
    ("unsubscribe", &["query"]),
    ("unsubscribe_all", &[]),
];

/// `GET /websocket`
pub(super) async fn upgrade(State(served): State<Arc<Served>>, ask: WebSocketUpgrade) -> Response {
    let Ok(place) = served.sockets.clone().try_acquire_owned() else {
        let why = format!("{MAX_SOCKETS} WebSockets are open already: close one, or ask by HTTP");
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    };
    let most = served.chain.limits().body_bytes;
    let ask = ask.max_message_size(most).max_frame_size(most);
    match &served.chain {
        Chain::Local(service) => {
            let service = service.clone();
            ask.on_upgrade(move |socket| answer(socket, served, service, place))
        }
        Chain::CometBft(relay) => {
            let relay = relay.clone();
            ask.on_upgrade(move |socket| pass_on(socket, relay, place))
        }
    }
}

/// A subscription: the id of the call that began it, its query as written and as parsed, and the name
/// that the query has however it is written.
struct Subscription {
    id: Value,
    query: String,
    parsed: EventQuery,
    name: String,
}

/// Sends one message to an end that reads; `false` when it went away or does not read.
async fn send<S, M>(end: &mut S, message: M) -> bool
where
    S: Sink<M> + Unpin,
{
    let sent = timeout(SEND_PATIENCE, end.send(message)).await;
    matches!(sent, Ok(Ok(())))
}

/// Answers calls and tells of blocks until the other end goes away.
async fn answer(
    mut socket: WebSocket,
    served: Arc<Served>,
    service: Service,
    _place: OwnedSemaphorePermit,
) {
    let mut subscriptions: Vec<Subscription> = Vec::new();
    let mut told = service.handle.latest().height;
    let mut heard = Instant::now();
    let mut ping = tokio::time::interval(PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let newer = async {
            match subscriptions.is_empty() {
                true => std::future::pending().await,
                false => service.handle.wait_for_height(told, LONG_WAIT).await,
            }
        };
        let sent = tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    if subscriptions.is_empty() {
                        told = service.handle.latest().height;
                    }
                    let reply = called(&served, &mut subscriptions, &text).await;
                    heard = Instant::now();
                    match reply {
                        Some(reply) => send(&mut socket, Message::text(reply.to_string())).await,
                        None => true,
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {
                    heard = Instant::now();
                    true
                }
            },
            reached = newer => match reached {
                Ok(_) => {
                    told += 1;
                    tell(&mut socket, &service, &subscriptions, told).await
                }
                Err(WaitError::TimedOut { .. }) => true,
                Err(WaitError::Stopped) => {
                    let bye = CloseFrame { code: close_code::AWAY, reason: "the node stops".into() };
                    send(&mut socket, Message::Close(Some(bye))).await;
                    return;
                }
            },
            _ = ping.tick() => {
                heard.elapsed() < SILENCE
                    && send(&mut socket, Message::Ping(Default::default())).await
            }
        };
        if !sent {
            return;
        }
    }
}

/// Tells of one block; `false` when it cannot be told.
async fn tell(
    socket: &mut WebSocket,
    service: &Service,
    subscriptions: &[Subscription],
    height: u64,
) -> bool {
    let block = service.handle.block(height).await;
    let output = service.handle.block_results(height).await;
    let (Ok(block), Ok(output)) = (block, output) else {
        return false;
    };
    let (Some(block), Some(output)) = (block, output) else {
        // It is not kept any more.
        return true;
    };
    for happened in events::of_block(&block, &output) {
        for subscription in subscriptions {
            if subscription.parsed.wants(&happened) {
                let result = json!({
                    "query": subscription.query,
                    "data": happened.data,
                    "events": happened.events,
                });
                let told = envelope(subscription.id.clone(), Ok(result));
                if !send(socket, Message::text(told.to_string())).await {
                    return false;
                }
            }
        }
    }
    true
}

/// The reply to one message; none to a call without an id.
async fn called(
    served: &Served,
    subscriptions: &mut Vec<Subscription>,
    text: &str,
) -> Option<Value> {
    let request = serde_json::from_str(text);
    let request = request.map_err(|error| RpcError::parse(error.to_string()));
    let request: Value = match request.and_then(understood) {
        Ok(request) => request,
        Err(error) => return Some(envelope(Value::Null, Err(error))),
    };
    let id = request["id"].clone();
    if id.is_null() {
        return None;
    }
    let method = request["method"].as_str().unwrap_or_default();
    let answer = match METHODS.iter().find(|(name, _)| *name == method) {
        Some((method, names)) => Params::from_json(request.get("params").cloned(), names)
            .and_then(|params| change(subscriptions, method, &id, params.text("query")?)),
        None => one(&served.chain, request).await.1,
    };
    Some(envelope(id, answer.map_err(RpcError::over_a_socket)))
}

fn change(
    subscriptions: &mut Vec<Subscription>,
    method: &str,
    id: &Value,
    query: String,
) -> Result<Value, RpcError> {
    let not_found = || RpcError::internal("subscription not found");
    if method == "unsubscribe_all" {
        if subscriptions.is_empty() {
            return Err(not_found());
        }
        subscriptions.clear();
        return Ok(json!({}));
    }
    if method == "subscribe" && subscriptions.len() >= MAX_SUBSCRIPTIONS {
        let why = format!("max_subscriptions_per_client {MAX_SUBSCRIPTIONS} reached");
        return Err(RpcError::internal(why));
    }
    if method == "subscribe" && query.len() > MAX_QUERY_BYTES {
        return Err(RpcError::internal("maximum query length exceeded"));
    }
    let parsed = EventQuery::parse(&query).map_err(RpcError::internal)?;
    let name = parsed.to_string();
    let known = subscriptions.iter().position(|known| known.name == name);
    match (method, known) {
        ("unsubscribe", Some(place)) => drop(subscriptions.remove(place)),
        ("unsubscribe", None) => return Err(not_found()),
        (_, Some(_)) => return Err(RpcError::internal("already subscribed")),
        (_, None) => subscriptions.push(Subscription {
            id: id.clone(),
            query,
            parsed,
            name,
        }),
    }
    Ok(json!({}))
}

/// Passes frames on to CometBFT and back, until either end goes away.
async fn pass_on(socket: WebSocket, relay: Relay, _place: OwnedSemaphorePermit) {
    let (mut to_client, mut from_client) = socket.split();
    let upstream = match relay.socket().await {
        Ok(upstream) => upstream,
        Err(error) => {
            let bye = CloseFrame {
                code: close_code::AGAIN,
                reason: format!("CometBFT does not answer: {error}").into(),
            };
            send(&mut to_client, Message::Close(Some(bye))).await;
            return;
        }
    };
    let (mut to_comet, mut from_comet) = upstream.split();
    let up = async {
        while let Ok(Some(Ok(message))) = timeout(SILENCE, from_client.next()).await {
            let passed = match message {
                Message::Text(text) => tungstenite::Message::text(text.as_str()),
                Message::Binary(bytes) => tungstenite::Message::Binary(bytes),
                Message::Close(_) => break,
                // Each end answers its own.
                Message::Ping(_) | Message::Pong(_) => continue,
            };
            if !send(&mut to_comet, passed).await {
                break;
            }
        }
    };
    let mut ping = tokio::time::interval(PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let down = async {
        loop {
            let message = tokio::select! {
                message = from_comet.next() => message,
                _ = ping.tick() => Some(Ok(tungstenite::Message::Ping(Default::default()))),
            };
            let passed = match message {
                Some(Ok(tungstenite::Message::Text(text))) => Message::text(text.as_str()),
                Some(Ok(tungstenite::Message::Binary(bytes))) => Message::Binary(bytes),
                // CometBFT's pings are answered here; ours ask the client.
                Some(Ok(tungstenite::Message::Ping(_))) => Message::Ping(Default::default()),
                Some(Ok(tungstenite::Message::Pong(_) | tungstenite::Message::Frame(_))) => {
                    continue;
                }
                Some(Ok(tungstenite::Message::Close(_)) | Err(_)) | None => break,
            };
            if !send(&mut to_client, passed).await {
                return;
            }
        }
        send(&mut to_client, Message::Close(None)).await;
    };
    tokio::select! { () = up => (), () = down => () }
}
