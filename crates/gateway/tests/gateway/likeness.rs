//! Engine `local` beside the real CometBFT, asked the same: answers have the same form, and refusals
//! the same status, codes and words.
//!
//! Left to each are the words of what reads JSON, numbers and queries, and the list of methods.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use r3mes_gateway::rpc::{Client, RpcLimits};
use r3mes_types::Amount;
use r3mes_types::auth::QueryAccount;
use r3mes_types::query::Query;
use r3mes_types::tx::{Fee, Signer, Unsigned};
use r3mes_types::wire::Wire;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::outside::program;
use super::relay::{Comet, Relayed, has_begun, start_comet};
use super::rpc::{Node, key, send};
use super::support;

/// What refusals say in the words of Go's readers, or of ours.
const READERS: [&str; 5] = [
    "error converting",
    "error unmarshaling",
    "offset ",
    "error during searching",
    // Engine `local` says where the methods are listed.
    "there is no method",
];

/// A server's status, and its answer.
pub(super) type Answer = (u16, Value);

/// Both, with the same network and the same transactions.
pub(super) struct Both {
    theirs: (reqwest::Client, String),
    ours: (reqwest::Client, String),
    pub(super) node: Node,
    pub(super) relayed: Relayed,
    _comet: Comet,
    _folder: TempDir,
    pub(super) differences: Vec<String>,
}

impl Both {
    /// `None` where CometBFT is to be left out.
    pub(super) async fn start() -> Option<Self> {
        let program = program("cometbft")?;
        let folder = tempfile::tempdir().unwrap();
        let (theirs, ours) = (folder.path().join("theirs"), folder.path().join("ours"));
        std::fs::create_dir(&theirs).unwrap();
        std::fs::create_dir(&ours).unwrap();
        let relayed = Relayed::start(&theirs, RpcLimits::default()).await;
        let comet = start_comet(&program, &theirs);
        has_begun(&Client::new(&relayed.url).unwrap()).await;
        // CometBFT itself, not what stands before it.
        let socket = reqwest::Client::builder().no_proxy();
        let socket = socket.unix_socket(theirs.join("rpc")).build().unwrap();
        let node = Node::start(&ours).await;
        node.handle.make_block().await.unwrap();
        Some(Self {
            theirs: (socket, "http://cometbft".to_owned()),
            ours: (support::client(), node.url.clone()),
            node,
            relayed,
            _comet: comet,
            _folder: folder,
            differences: Vec::new(),
        })
    }

    /// Asks both the same.
    async fn ask(
        &mut self,
        what: &str,
        request: impl Fn(&reqwest::Client, &str) -> RequestBuilder,
    ) -> [Value; 2] {
        let theirs = answer(request(&self.theirs.0, &self.theirs.1)).await;
        let ours = answer(request(&self.ours.0, &self.ours.1)).await;
        let mut found = Vec::new();
        compare(&theirs, &ours, &mut found);
        let told = |(status, answer): &Answer| format!("{status} {answer:.600}");
        for difference in found {
            let (theirs, ours) = (told(&theirs), told(&ours));
            let difference = format!("{what}: {difference}\n  theirs {theirs}\n  ours   {ours}");
            self.differences.push(difference);
        }
        [theirs.1, ours.1]
    }

    async fn get(&mut self, path: &str) -> [Value; 2] {
        let request = |http: &reqwest::Client, url: &str| http.get(format!("{url}/{path}"));
        self.ask(&format!("GET {path}"), request).await
    }

    async fn post(&mut self, body: &str) -> [Value; 2] {
        let request = |http: &reqwest::Client, url: &str| http.post(url).body(body.to_owned());
        self.ask(&format!("POST {body}"), request).await
    }

    async fn call(&mut self, method: &str, params: Value) -> [Value; 2] {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        self.post(&call.to_string()).await
    }

    pub(super) async fn end(self) {
        assert!(
            self.differences.is_empty(),
            "{}",
            self.differences.join("\n")
        );
        self.relayed.stop().await;
        self.node.stop().await;
    }

    /// A transfer with this sequence, in base64.
    async fn transfer(&self, sequence: u64) -> String {
        let address = key(1).address();
        let account = self.node.client().query(&QueryAccount { address }).await;
        let signer = Signer {
            chain_id: "rpc-1",
            account_number: account.unwrap().account.as_ref().unwrap().number,
            sequence,
        };
        let tx = Unsigned::new(send(&key(1), &key(2), Amount::remes(1)))
            .with_fee(Fee::of(Amount::remes(1), 1_000_000))
            .sign(&key(1), &signer);
        STANDARD.encode(tx.unwrap())
    }

    /// Brings a transfer into a block of both; its hash, in hexadecimal digits.
    pub(super) async fn transferred(&mut self) -> String {
        let tx = self.transfer(0).await;
        let [theirs, ours] = self.call("broadcast_tx_commit", json!({"tx": tx})).await;
        let hash = theirs["result"]["hash"].as_str().unwrap();
        assert_eq!(ours["result"]["hash"], hash, "{theirs} {ours}");
        // Theirs are found a moment later.
        let hash = hash.to_owned();
        let client = Client::new(&self.relayed.url).unwrap();
        let raw: [u8; 32] = hex::decode(&hash).unwrap().try_into().unwrap();
        while client.tx(&raw).await.unwrap().is_none() {
            let height = client.status().await.unwrap().height;
            client.wait_height(height).await.unwrap();
        }
        hash
    }
}

async fn answer(request: RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    let parsed = serde_json::from_str(&text);
    (status, parsed.unwrap_or(Value::String(text)))
}

pub(super) fn compare(theirs: &Answer, ours: &Answer, found: &mut Vec<String>) {
    if theirs.0 != ours.0 {
        found.push("status".into());
    }
    if let (Value::Array(theirs), Value::Array(ours)) = (&theirs.1, &ours.1) {
        if theirs.len() != ours.len() {
            found.push("the number of answers".into());
        }
        for (theirs, ours) in theirs.iter().zip(ours) {
            compare(&(0, theirs.clone()), &(0, ours.clone()), found);
        }
        return;
    }
    let (their_error, our_error) = (&theirs.1["error"], &ours.1["error"]);
    if their_error.is_null() || our_error.is_null() {
        return alike("", &theirs.1, &ours.1, found);
    }
    if theirs.1.get("id") != ours.1.get("id") {
        found.push("id".into());
    }
    for field in ["code", "message"] {
        if their_error[field] != our_error[field] {
            found.push(field.into());
        }
    }
    let [their_words, our_words] = [their_error, our_error].map(|error| words(&error["data"]));
    let by_readers = |words: &str| READERS.iter().any(|known| words.starts_with(known));
    if their_words != our_words && !by_readers(&their_words) && !by_readers(&our_words) {
        found.push("data".into());
    }
}

/// A text without its numbers: heights differ.
fn words(text: &Value) -> String {
    let text = text.as_str().unwrap_or_default();
    let mut words = String::new();
    for letter in text.chars() {
        match letter.is_ascii_digit() {
            true if words.ends_with('#') => (),
            true => words.push('#'),
            false => words.push(letter),
        }
    }
    words
}

/// Finds where two values are of different forms: other fields, or values of another kind. All entries
/// of a list have one form.
pub(super) fn alike(at: &str, theirs: &Value, ours: &Value, found: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(their_fields), Value::Object(our_fields)) => {
            for (name, field) in their_fields {
                match our_fields.get(name) {
                    Some(ours) => alike(&format!("{at}/{name}"), field, ours, found),
                    None => found.push(format!("{at}/{name} is missing")),
                }
            }
            let more = our_fields
                .keys()
                .filter(|name| !their_fields.contains_key(*name));
            found.extend(more.map(|name| format!("{at}/{name} is too much")));
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            let first = theirs.first().zip(ours.first());
            let Some((their_first, our_first)) = first else {
                return;
            };
            let at = format!("{at}/*");
            theirs
                .iter()
                .for_each(|entry| alike(&at, entry, our_first, found));
            ours.iter()
                .for_each(|entry| alike(&at, their_first, entry, found));
        }
        // What an event tells depends on the event.
        _ if at.ends_with("/attributes/*/value") => (),
        _ if kind(theirs) != kind(ours) => {
            found.push(format!("{at} is {} and not {}", kind(ours), kind(theirs)));
        }
        _ => (),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth",
        Value::Number(_) => "a number",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
        Value::String(text) if text.parse::<i64>().is_ok() => "a number in quotes",
        Value::String(text) if text.ends_with('Z') && text.contains("T") && text.contains(':') => {
            "a time"
        }
        Value::String(_) => "a text",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_taken_and_refused_alike() {
    let Some(mut both) = Both::start().await else {
        return;
    };
    both.transferred().await;
    let (known, next, after) = (
        both.transfer(0).await,
        both.transfer(1).await,
        both.transfer(2).await,
    );
    both.call("broadcast_tx_sync", json!({"tx": next})).await;
    both.call("broadcast_tx_async", json!({"tx": after})).await;
    for method in [
        "broadcast_tx_sync",
        "broadcast_tx_async",
        "broadcast_tx_commit",
    ] {
        for tx in [&known, "AAAA", "###"] {
            both.call(method, json!({"tx": tx})).await;
        }
    }
    // Nothing is told of a check.
    let refused = STANDARD.encode([7; 20]);
    let [_, ours] = both
        .call("broadcast_tx_async", json!({"tx": refused}))
        .await;
    assert_eq!(
        (&ours["result"]["code"], &ours["result"]["log"]),
        (&json!(0), &json!(""))
    );
    for value in ["0x0007", "\"a\"", "ab", ""] {
        both.get(&format!("broadcast_tx_sync?tx={value}")).await;
    }
    both.call("num_unconfirmed_txs", json!({})).await;
    both.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_answers_alike_and_refuses_bad_input_alike() {
    let Some(mut both) = Both::start().await else {
        return;
    };
    let hash = both.transferred().await;
    let stored = STANDARD.encode(hex::decode(&hash).unwrap());
    let absent = STANDARD.encode([0; 32]);
    let address = key(1).address();
    let question = hex::encode(QueryAccount { address }.encode());
    let path = QueryAccount::PATH;

    for method in ["health", "status", "net_info", "genesis", "abci_info"] {
        both.call(method, json!({})).await;
        both.get(method).await;
    }
    let far = "999999";
    for method in [
        "block",
        "header",
        "block_results",
        "commit",
        "validators",
        "consensus_params",
    ] {
        for height in [
            json!("1"),
            json!("2"),
            json!("0"),
            json!("-1"),
            json!(far),
            json!("x"),
            json!(2),
            json!(true),
            json!(null),
            json!("99999999999999999999"),
        ] {
            // CometBFT writes results down, and parameters, a moment after the block.
            let newest =
                height.is_null() && ["block_results", "consensus_params"].contains(&method);
            if !newest {
                both.call(method, json!({"height": height})).await;
            }
        }
        both.call(method, json!(["1", "2", "3", "4"])).await;
        for height in ["2", "\"2\"", "x", "-1", "0x02"] {
            both.get(&format!("{method}?height={height}")).await;
        }
    }
    for params in [
        json!({}),
        json!([]),
        json!(["1", "2"]),
        json!(["2", "1"]),
        json!(["-2", "1"]),
        json!(["1", far]),
        json!([1, 2]),
    ] {
        both.call("blockchain", params).await;
    }
    for page in [
        json!({"page": "1"}),
        json!({"page": "2"}),
        json!({"page": "0"}),
        json!({"per_page": "0"}),
        json!({"per_page": "-5", "page": "1"}),
        json!({"per_page": "x"}),
    ] {
        both.call("validators", page.clone()).await;
        let mut search = page;
        search["query"] = format!("tx.hash='{hash}'").into();
        both.call("tx_search", search).await;
    }
    for hash in [&stored, &absent, "AAAA", "", "zz"] {
        both.call("block_by_hash", json!({"hash": hash})).await;
        for prove in [json!(false), json!(true), json!("yes")] {
            both.call("tx", json!({"hash": hash, "prove": prove})).await;
        }
    }
    for hash in [
        format!("0x{hash}"),
        "0x00".into(),
        "0xzz".into(),
        format!("\"{hash}\""),
        hash.clone(),
    ] {
        both.get(&format!("tx?hash={hash}&prove=true")).await;
        both.get(&format!("block_by_hash?hash={hash}")).await;
    }
    both.get("tx?hash=0x00&prove=maybe").await;
    for query in [
        format!("tx.hash='{hash}'"),
        format!("tx.hash='{}'", "AB".repeat(32)),
        "tx.height<=2".into(),
        "tx.height>999999".into(),
        format!("transfer.sender='{address}'"),
        "nothing.like='this'".into(),
        "tx.hash='zz'".into(),
        "a b c".into(),
        String::new(),
    ] {
        both.call("tx_search", json!({"query": query, "prove": true}))
            .await;
    }
    for query in ["block.height<=2", "block.height>999999", "a b c", ""] {
        both.call("block_search", json!({"query": query})).await;
    }
    for order in ["asc", "desc", "up"] {
        both.call(
            "tx_search",
            json!({"query": "tx.height=1", "order_by": order}),
        )
        .await;
        both.call(
            "block_search",
            json!({"query": "block.height<=2", "order_by": order}),
        )
        .await;
    }
    both.get("tx_search?query=bare").await;
    for height in ["0", "1", far, "-1"] {
        both.call(
            "abci_query",
            json!({"path": path, "data": question, "height": height, "prove": true}),
        )
        .await;
    }
    for params in [
        json!({"path": path, "data": "zz"}),
        json!({"path": path, "data": ""}),
        json!({"path": "/nowhere"}),
        json!({"path": 5}),
        json!({}),
    ] {
        both.call("abci_query", params).await;
    }
    both.get(&format!("abci_query?path=\"{path}\"&data=0x{question}"))
        .await;
    both.get("abci_query?path=nowhere").await;
    both.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_call_is_refused_alike() {
    let Some(mut both) = Both::start().await else {
        return;
    };
    for params in [
        json!("x"),
        json!(5),
        json!([]),
        json!({"other": "2"}),
        json!(null),
    ] {
        both.call("block", params).await;
    }
    both.call("no_such_method", json!({})).await;
    both.call("subscribe", json!({"query": "tm.event='Tx'"}))
        .await;
    both.get("subscribe?query=\"x\"").await;
    let health = "\"method\":\"health\"";
    for body in [
        "{",
        "[]",
        "[1]",
        "{}",
        "1",
        "\"x\"",
        "{\"id\":1}",
        "{\"id\":1,\"method\":5}",
        &format!("{{\"id\":{{}},{health}}}"),
        &format!("{{{health}}}"),
        &format!("{{\"id\":\"a\",{health}}}"),
        &format!("{{\"id\":null,{health}}}"),
        &format!("[{{\"id\":1,{health}}}]"),
        &format!("[{{\"id\":1,{health}}},{{\"id\":2,\"method\":\"no\"}},{{{health}}}]"),
        &format!("[{{\"id\":1,{health}}},5]"),
        &format!("[{{{health}}}]"),
    ] {
        both.post(body).await;
    }
    both.end().await;
}
