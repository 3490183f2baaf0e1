//! Calls with a price, paid out of an escrow by a gateway that is killed in between.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use ed25519_consensus::SigningKey;
use r3mes_functions::{
    billing::Price,
    node::{self, Node, NodeConfig},
    registry::FunctionInfo,
};
use r3mes_gateway::rpc::{Client, TxClient};
use r3mes_node::{clock, home, keyring::Keyring};
use r3mes_types::{Amount, escrow::MsgOpen, query::MAX_PAGE, wire::Text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::homes::{Home, json, until};

const PRICE: u64 = 700;
const DEPOSIT: u64 = 5_000;
/// What each home begins with.
const FUNDS: u64 = 20_000_000;
/// Nobody's key is known for it.
const PROVIDER: &str = "remes1r5v5srda7xfth3hn2s26txvrcrntldjuy5u8da";

/// A gateway in a process of its own.
struct Gateway {
    child: Child,
    address: String,
}

impl Gateway {
    fn start(home: &Home) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let child = Command::new(env!("CARGO_BIN_EXE_r3mes"))
            .args(["functions", "serve", "--listen", &address, "--home"])
            .arg(&home.dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address }
    }

    /// Ends it so, and waits until it has ended.
    fn end(mut self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        self.child.wait().unwrap();
    }

    /// Calls the function with a price, as the user of a token.
    fn call(&self, token: &str, more: &[&str]) -> Result<Value, String> {
        let output = Command::new(env!("CARGO_BIN_EXE_r3mes"))
            .args(["--json", "functions", "call", "render", "[7]"])
            .args(more)
            .env("R3MES_GATEWAY", &self.address)
            .env("R3MES_FUNCTIONS_TOKEN", token)
            .output()
            .unwrap();
        match output.status.success() {
            true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
            false => Err(String::from_utf8(output.stderr).unwrap()),
        }
    }

    /// The first line of what HTTP answers.
    fn http(&self, token: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let request = format!(
            "POST /api/fn/render HTTP/1.1\r\nHost: r3mes\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap().to_owned()
    }

    /// A node that offers the function, until the token is cancelled.
    fn offer(&self, runtime: &Runtime) -> CancellationToken {
        let mut node = Node::new(NodeConfig {
            broker: self.address.clone(),
            id: "lab".into(),
            key: SigningKey::from([1; 32]),
            token: None,
            ca: None,
            capabilities: Default::default(),
            max_concurrent: 4,
            resources: BTreeMap::new(),
        });
        let price = Price {
            uremes: PRICE,
            payee: PROVIDER.into(),
        };
        let info = FunctionInfo {
            price: Some(price),
            ..FunctionInfo::new("render")
        };
        node.register(info, |call| node::answer(call, async |bytes| Ok(bytes)))
            .unwrap();
        let stop = CancellationToken::new();
        runtime.spawn(node.run(stop.clone()));
        stop
    }
}

/// A home on the founder's network, with coins, and its account.
fn funded(founder: &Home, dir: std::path::PathBuf) -> (Home, String) {
    let home = Home::make(dir, &["--join", &founder.rpc]);
    let account = json(&home.dir, &["keys", "show"])["account"].clone();
    let account = account.as_str().unwrap().to_owned();
    let coins = format!("{FUNDS}uremes");
    json(&founder.dir, &["tx", "send", &account, &coins]);
    (home, account)
}

fn balance(home: &Home, account: &str) -> u64 {
    let shown = json(&home.dir, &["query", "account", account]);
    shown["balance"]["amount"].as_u64().unwrap()
}

#[test]
fn calls_with_a_price_are_paid_out_of_an_escrow_to_the_last_coin() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let founder = Home::found(folder.path().join("founder"));
    let _ledger = founder.start();
    let (gateway_home, gateway_account) = funded(&founder, folder.path().join("gateway"));
    let (payer, payer_account) = funded(&founder, folder.path().join("payer"));
    let file = gateway_home.dir.join("config.yaml");
    let config = fs::read_to_string(&file).unwrap();
    // Only a start, an end, and an escrow that is about to end settle in the time of this test.
    let billing =
        "services:\n  functions:\n    billing:\n      settle_every_s: 3600\n      margin_s: 20\n";
    let billed = config.replace("services: {}\n", billing);
    assert_ne!(billed, config);
    fs::write(&file, billed).unwrap();
    let made = json(
        &gateway_home.dir,
        &["functions", "token", "create", "alice"],
    );
    let token = made["token"].as_str().unwrap();
    let agreed = ["--max-price", &format!("{PRICE}uremes")];
    let earned = || balance(&founder, PROVIDER);

    let gateway = Gateway::start(&gateway_home);
    let node = gateway.offer(&runtime);
    let refusal = |gateway: &Gateway, more: &[&str], words: &str| {
        until(words, || {
            let said = gateway.call(token, more).unwrap_err();
            said.contains(words).then_some(())
        });
    };
    refusal(&gateway, &[], "costs 700 uremes");
    assert_eq!(gateway.http(token), "HTTP/1.1 402 Payment Required");
    refusal(&gateway, &agreed, "has no open escrow");
    let deposit = format!("{DEPOSIT}uremes");
    let open = [
        "tx",
        "escrow",
        "open",
        &gateway_account,
        &deposit,
        "--user",
        "alice",
    ];
    let opened = json(&payer.dir, &open);
    let number = opened["escrow"].to_string();
    let answer = until("the gateway sees the escrow", || {
        gateway.call(token, &agreed).ok()
    });
    assert_eq!(answer, serde_json::json!([[7], {}]));
    for _ in 1..3 {
        gateway.call(token, &agreed).unwrap();
    }
    assert_eq!(earned(), 0);
    gateway.end(Signal::KILL);
    node.cancel();

    // What was earned before the kill is settled after it.
    let gateway = Gateway::start(&gateway_home);
    until("three calls are paid", || {
        (earned() == 3 * PRICE).then_some(())
    });
    let node = gateway.offer(&runtime);
    let again = || gateway.call(token, &agreed).ok();
    until("the node is there again", again);
    for _ in 4..7 {
        gateway.call(token, &agreed).unwrap();
    }
    let rest = DEPOSIT - 7 * PRICE;
    refusal(&gateway, &agreed, &format!("has {rest}uremes left"));

    // One that ends soon is charged for one call, though that is not worth its fee, and ends by itself.
    let key = Keyring::new(&home::Home::new(&payer.dir))
        .account()
        .unwrap();
    let short = MsgOpen {
        payer: key.address(),
        gateway: gateway_account.parse().unwrap(),
        user: Text::new("alice").unwrap(),
        deposit: Amount::new(DEPOSIT),
        expires_at: clock::after(Duration::from_secs(50)),
        voucher_key: None,
    };
    let sender = TxClient::new(Client::new(&founder.rpc).unwrap(), key);
    let before = balance(&payer, &payer_account);
    let sent = runtime.block_on(sender.send(vec![short.into()])).unwrap();
    assert_eq!(sent.code, 0, "{}", sent.log);
    // A home sees a block's state once the next block proves it.
    let with_short_open = until("the deposit is taken", || {
        Some(balance(&payer, &payer_account)).filter(|balance| *balance < before)
    });
    let soon = [&agreed[..], &["--timeout", "2"]].concat();
    until("the short escrow pays for a call", || {
        gateway.call(token, &soon).ok()
    });
    until("it is charged before its end", || {
        (earned() == 4 * PRICE).then_some(())
    });
    until("what it has left comes back", || {
        (balance(&payer, &payer_account) == with_short_open + DEPOSIT - PRICE).then_some(())
    });

    gateway.end(Signal::TERM);
    node.cancel();
    assert_eq!(earned(), 8 * PRICE);
    json(&gateway_home.dir, &["tx", "escrow", "close", &number]);
    let back = DEPOSIT - PRICE + rest;
    assert_eq!(balance(&payer, &payer_account), with_short_open + back);
    assert_eq!(earned(), 8 * PRICE);
    long_lists_are_shown_whole_or_say_that_there_is_more(&payer, &runtime);
}

/// More escrows than the ledger lists at once, of the home's account.
fn long_lists_are_shown_whole_or_say_that_there_is_more(home: &Home, runtime: &Runtime) {
    const MANY: usize = MAX_PAGE + 14;
    let key = Keyring::new(&home::Home::new(&home.dir)).account().unwrap();
    let escrow = MsgOpen {
        payer: key.address(),
        gateway: PROVIDER.parse().unwrap(),
        user: Text::new("bob").unwrap(),
        deposit: Amount::new(1_000),
        expires_at: clock::after(Duration::from_secs(3600)),
        voucher_key: None,
    };
    let sender = TxClient::new(Client::new(&home.rpc).unwrap(), key);
    for _ in 0..MANY / 10 {
        let escrows = (0..10).map(|_| escrow.clone().into()).collect();
        let sent = runtime.block_on(sender.send(escrows)).unwrap();
        assert_eq!(sent.code, 0, "{}", sent.log);
    }
    let listed = |limit: &[&str]| {
        let shown = json(&home.dir, &[&["query", "escrows"], limit].concat());
        let ids = shown["escrows"].as_array().unwrap().iter();
        let ids: Vec<u64> = ids.map(|escrow| escrow["id"].as_u64().unwrap()).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        (ids.len(), shown["more"].clone())
    };
    assert_eq!(listed(&[]), (MANY, false.into()));
    for (limit, more) in [(MAX_PAGE, true), (MANY - 1, true), (MANY, false)] {
        let limited = listed(&["--limit", &limit.to_string()]);
        assert_eq!(limited, (limit, more.into()));
    }
    let output = Command::new(env!("CARGO_BIN_EXE_r3mes"))
        .args(["query", "escrows", "--limit", "5", "--home"])
        .arg(&home.dir)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("there are more than these 5: `--limit 10`"),
        "{said}"
    );
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(shown.matches("user: bob").count(), 5, "{shown}");
}
