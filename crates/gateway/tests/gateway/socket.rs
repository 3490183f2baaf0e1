//! Subscriptions over a WebSocket, with a client that is not ours.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use r3mes_gateway::rpc::TxClient;
use r3mes_types::Amount;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::rpc::{Node, key, send};

/// Long enough for anything that should come; only failures wait so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A WebSocket to an RPC at `http://host:port`.
pub(super) struct Socket {
    stream: WebSocketStream<TcpStream>,
    /// What came while something else was waited for.
    early: Vec<Value>,
}

impl Socket {
    pub(super) async fn open(url: &str) -> Self {
        let host = url.trim_start_matches("http://");
        let stream = TcpStream::connect(host).await.unwrap();
        let (socket, _) = client_async(format!("ws://{host}/websocket"), stream)
            .await
            .unwrap();
        Self {
            stream: socket,
            early: Vec::new(),
        }
    }

    pub(super) async fn send(&mut self, id: u64, method: &str, params: Value) {
        let call = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.write(&call.to_string()).await;
    }

    pub(super) async fn write(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.unwrap();
    }

    /// The next message with this id; null for one without.
    pub(super) async fn next(&mut self, id: impl Into<Value>) -> Value {
        let id = id.into();
        if let Some(place) = self.early.iter().position(|early| early["id"] == id) {
            return self.early.remove(place);
        }
        loop {
            let message = timeout(PATIENCE, self.stream.next()).await;
            if let Message::Text(text) = message.expect("nothing comes").unwrap().unwrap() {
                let found: Value = serde_json::from_str(&text).unwrap();
                if found["id"] == id {
                    return found;
                }
                self.early.push(found);
            }
        }
    }

    /// Gives a message back, to be the next with its id.
    pub(super) fn unread(&mut self, message: Value) {
        self.early.insert(0, message);
    }

    /// Closes it, and waits until the other end has seen that.
    pub(super) async fn close(mut self) {
        self.stream.close(None).await.unwrap();
        while let Some(Ok(_)) = self.stream.next().await {}
    }

    pub(super) async fn call(&mut self, id: u64, method: &str, params: Value) -> Value {
        self.send(id, method, params).await;
        self.next(id).await
    }
}

#[tokio::test]
async fn subscribers_hear_of_every_block_and_of_the_transactions_they_chose() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path()).await;
    let mut socket = Socket::open(&node.url).await;
    // A call as over HTTP.
    let status = socket.call(1, "status", json!({})).await;
    assert_eq!(
        status["result"]["node_info"]["network"], "rpc-1",
        "{status}"
    );

    let begun = json!({"jsonrpc": "2.0", "id": 2, "result": {}});
    let query = "tm.event='NewBlock'";
    assert_eq!(socket.call(2, "subscribe", json!([query])).await, begun);
    let header = json!({"query": "tm.event='NewBlockHeader'"});
    socket.call(3, "subscribe", header).await;
    let chosen = "tm.event='Tx' AND tx.height > 1";
    socket.call(4, "subscribe", json!({"query": chosen})).await;
    let again = socket.call(5, "subscribe", json!([query])).await;
    assert_eq!(again["error"]["data"], "already subscribed", "{again}");
    let wrong = socket.call(6, "subscribe", json!(["tm.event=5x"])).await;
    assert_eq!(wrong["error"]["code"], -32603, "{wrong}");

    let sender = TxClient::new(node.client(), key(1));
    let mut hashes = Vec::new();
    for _ in 0..3 {
        let messages = send(&key(1), &key(2), Amount::remes(1));
        hashes.push(sender.send(messages).await.unwrap());
    }
    for height in ["1", "2", "3"] {
        let told = socket.next(2).await;
        let told = &told["result"];
        assert_eq!(told["query"], query);
        assert_eq!(told["data"]["type"], "tendermint/event/NewBlock");
        let value = &told["data"]["value"];
        assert_eq!(value["block"]["header"]["height"], height, "{value}");
        let results = &value["result_finalize_block"]["tx_results"];
        assert_eq!(results.as_array().unwrap().len(), 2, "{value}");
    }
    // The reveals of blocks 2 and 3 are transactions as well.
    let mut told = Vec::new();
    for _ in 0..4 {
        let one = socket.next(4).await;
        let events = &one["result"]["events"];
        told.push(events["tx.hash"][0].as_str().unwrap().to_owned());
        assert_ne!(events["tx.height"][0], "1", "{one}");
    }
    for sent in &hashes[1..] {
        let hash = hex::encode_upper(sent.hash);
        assert!(told.contains(&hash), "{hash} {told:?}");
    }
    // Nothing more after the end of a subscription; an event of block 4 comes only to who is left.
    assert_eq!(
        socket.call(7, "unsubscribe", json!([query])).await["result"],
        json!({})
    );
    let unknown = socket.call(8, "unsubscribe", json!([query])).await;
    assert_eq!(unknown["error"]["data"], "subscription not found");
    socket.call(9, "unsubscribe_all", json!({})).await;
    let fresh = "tm.event='NewBlock' AND tm.event EXISTS";
    socket.call(10, "subscribe", json!([fresh])).await;
    node.handle.make_block().await.unwrap();
    let told = socket.next(10).await;
    let height = &told["result"]["data"]["value"]["block"]["header"]["height"];
    assert_eq!(*height, "4", "{told}");
    node.stop().await;
}
