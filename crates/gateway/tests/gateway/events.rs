//! WebSockets of engine `local` beside those of the real CometBFT: the same calls, queries and blocks
//! give messages of the same form, and refusals the same codes and words.

use serde_json::{Value, json};

use super::likeness::{Both, alike, compare};
use super::rpc::key;
use super::socket::Socket;

/// A WebSocket to each, and where they differ.
struct Sockets {
    theirs: Socket,
    ours: Socket,
    calls: u64,
    differences: Vec<String>,
}

impl Sockets {
    async fn open(both: &Both) -> Self {
        Self {
            // Through the relay, which passes frames on as they are.
            theirs: Socket::open(&both.relayed.url).await,
            ours: Socket::open(&both.node.url).await,
            calls: 0,
            differences: Vec::new(),
        }
    }

    /// Says the same to both, and compares their replies with this id.
    async fn say(&mut self, text: &str, id: Value) {
        self.theirs.write(text).await;
        self.ours.write(text).await;
        let theirs = self.theirs.next(id.clone()).await;
        let ours = self.ours.next(id).await;
        let mut found = Vec::new();
        compare(&(0, theirs.clone()), &(0, ours.clone()), &mut found);
        self.note(text, found, &theirs, &ours);
    }

    /// Calls a method of both; the id of the call.
    async fn call(&mut self, method: &str, params: Value) -> u64 {
        self.calls += 1;
        let id = self.calls;
        let call = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.say(&call.to_string(), json!(id)).await;
        id
    }

    /// Compares the first events of a subscription that are of these heights.
    async fn events(&mut self, id: u64, heights: &[String; 2]) -> [Value; 2] {
        let theirs = event_at(&mut self.theirs, id, &heights[0]).await;
        let ours = event_at(&mut self.ours, id, &heights[1]).await;
        let mut found = Vec::new();
        alike("", &theirs, &ours, &mut found);
        for same in ["/result/query", "/result/data/type"] {
            if theirs.pointer(same) != ours.pointer(same) {
                found.push(format!("{same} is another"));
            }
        }
        self.note("an event", found, &theirs, &ours);
        [theirs, ours]
    }

    fn note(&mut self, what: &str, found: Vec<String>, theirs: &Value, ours: &Value) {
        let told = |found| format!("{what}: {found}\n  theirs {theirs}\n  ours   {ours}");
        self.differences.extend(found.into_iter().map(told));
    }
}

async fn event_at(socket: &mut Socket, id: u64, height: &str) -> Value {
    loop {
        let told = socket.next(id).await;
        let value = &told["result"]["data"]["value"];
        let places = [
            &value["block"]["header"]["height"],
            &value["header"]["height"],
            &value["height"],
            &value["TxResult"]["height"],
        ];
        if places.contains(&&json!(height)) {
            return told;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_hear_the_same_and_are_refused_alike() {
    let Some(mut both) = Both::start().await else {
        return;
    };
    let mut sockets = Sockets::open(&both).await;
    refusals(&mut sockets).await;

    let recipient = key(2).address();
    let mut begun = Vec::new();
    for query in [
        "tm.event='NewBlock' AND tm.event EXISTS".to_owned(),
        "tm.event = 'NewBlockHeader'".into(),
        "tm.event = 'NewBlockEvents' AND beacon.mixed EXISTS".into(),
        "tm.event='Tx' AND tx.height>0".into(),
        format!(
            "transfer.recipient CONTAINS '{recipient}' AND transfer.amount>=1000000 AND tm.event='Tx'"
        ),
    ] {
        begun.push(sockets.call("subscribe", json!({"query": query})).await);
    }
    let more = json!(["tm.event='ValidatorSetUpdates'"]);
    sockets.call("subscribe", more.clone()).await;

    let hash = both.transferred().await;
    let [block, header, summary, tx, transfer] = begun[..] else {
        panic!("{begun:?}")
    };
    let mut heights = Vec::new();
    for socket in [&mut sockets.theirs, &mut sockets.ours] {
        let told = socket.next(transfer).await;
        let events = &told["result"]["events"];
        assert_eq!(events["tx.hash"], json!([hash]), "{told}");
        heights.push(events["tx.height"][0].as_str().unwrap().to_owned());
        // To be compared below.
        socket.unread(told);
    }
    let heights: [String; 2] = heights.try_into().unwrap();
    for id in [block, header, summary] {
        sockets.events(id, &heights).await;
    }
    // The beacon's transaction has place 0, which is not written.
    for (id, place) in [(tx, Value::Null), (tx, json!(1)), (transfer, json!(1))] {
        let told = sockets.events(id, &heights).await;
        let results = told
            .each_ref()
            .map(|told| &told["result"]["data"]["value"]["TxResult"]);
        assert!(
            results.iter().all(|result| result["index"] == place),
            "{told:?}"
        );
        if place == 1 {
            assert_eq!(results[0]["tx"], results[1]["tx"]);
        }
    }

    let spaced = json!({"query": "tm.event   ='NewBlockHeader'"});
    sockets.call("unsubscribe", spaced.clone()).await;
    sockets.call("unsubscribe", spaced).await;
    sockets.call("subscribe", more).await;
    sockets.call("unsubscribe_all", json!({})).await;
    sockets.call("unsubscribe_all", json!({})).await;
    both.differences.append(&mut sockets.differences);
    drop(sockets);
    both.end().await;
}

/// What is no call, no query, or too much.
async fn refusals(sockets: &mut Sockets) {
    for text in [
        "{",
        "[]",
        "1",
        "\"x\"",
        "{\"id\":1,\"method\":5}",
        "{\"id\":true,\"method\":\"health\"}",
    ] {
        sockets.say(text, Value::Null).await;
    }
    // Nobody waits for an answer to the first.
    for socket in [&mut sockets.theirs, &mut sockets.ours] {
        socket.write("{\"method\":\"health\"}").await;
    }
    sockets.call("health", json!({})).await;
    sockets
        .say("{\"id\":\"a\",\"method\":\"health\"}", json!("a"))
        .await;
    sockets.call("no_such_method", json!({})).await;
    for params in [
        json!({"height": "x"}),
        json!({"height": "999999"}),
        json!(["1", "2"]),
    ] {
        sockets.call("block", params).await;
    }
    sockets.call("unsubscribe_all", json!({})).await;
    let wanted = json!(["a.b = 5"]);
    sockets.call("unsubscribe", wanted.clone()).await;
    sockets.call("subscribe", wanted).await;
    for query in [
        "a.b=5",
        "",
        "a",
        "a b",
        "a == 5",
        "a = b",
        "a = -5",
        "a < 'b'",
        "a CONTAINS 5",
        "a CONTAINS 'b",
        "a = 5 AND",
        "tm.event='Vote' AND (a = 5)",
        "a <> 5",
        "5a EXISTS",
        "a = DATE2026-01-01",
        &format!("a = '{}'", "b".repeat(512)),
    ] {
        sockets.call("subscribe", json!({"query": query})).await;
        sockets.call("unsubscribe", json!({"query": query})).await;
    }
    for params in [
        json!([]),
        json!(["a EXISTS", "b"]),
        json!([5]),
        json!({"query": 5}),
    ] {
        sockets.call("subscribe", params).await;
    }
    for accepted in [
        "a = TIME 2026-01-01T00:00:00Z",
        "a >= DATE 2026-01-01",
        "tm.event = 'Vote'",
        "a_b-c.d1 = 1.5",
        "é.ü CONTAINS 'ß'",
    ] {
        sockets.call("subscribe", json!([accepted])).await;
        sockets.call("unsubscribe", json!([accepted])).await;
    }
    sockets.call("unsubscribe_all", json!({})).await;
}
