//! A network that began under engine `local`, and has trained there, goes on under another name, under
//! either engine, and trains on. Its miner and one of its validators have no ledger of their own.

use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
};

use r3mes_types::{bank::QueryBalance, rewards::QueryVesting};
use serde_json::{Value, json as value};

use super::{
    homes::{Home, Running, complaint, json, try_json, until},
    training::{address, are_paid, begin, coins, entry, is_ready, join},
};

/// What the founder does besides keeping the ledger.
const ROLES: [&str; 2] = ["--roles", "validator,proposer"];

/// What must be the same on both sides. What vests counts as had: it is paid out as time passes.
fn everything(home: &Home, others: &[&str]) -> Value {
    let account = |address: &str| json(&home.dir, &["query", "account", address]);
    let own = address(home);
    value!({
        "had": had(home, &[&[&*own], others].concat()),
        "sequence": account(&own)["account"],
        "nodes": json(&home.dir, &["query", "nodes"]),
        "models": json(&home.dir, &["query", "models"]),
        "datasets": json(&home.dir, &["query", "datasets"]),
        "runs": json(&home.dir, &["query", "runs"]),
        // With the adapter that came of it, and what everybody was paid.
        "round": json(&home.dir, &["query", "round", "0"]),
        "supply": supply(home),
    })
}

/// What accounts have, with what vests, after one and the same block.
fn had(home: &Home, accounts: &[&str]) -> Vec<u64> {
    let client = r3mes_gateway::rpc::Client::new(&home.rpc).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        // Before a chain's first block there is no height to name, and nothing changes.
        let height = client.committed().await.ok().map(|(height, _)| height);
        let mut had = Vec::new();
        for account in accounts {
            let address = account.parse().unwrap();
            let (balance, vesting) = (QueryBalance { address }, QueryVesting { address });
            let balance = client.query_at(&balance, height).await.unwrap();
            let vesting = client.query_at(&vesting, height).await.unwrap();
            had.push(balance.amount.uremes() + vesting.total.uremes());
        }
        had
    })
}

/// The entry of the state that holds the supply.
fn supply(home: &Home) -> Value {
    let asked = value!({"path": "/store", "data": hex::encode("bank/supply")});
    let client = r3mes_gateway::rpc::Client::new(&home.rpc).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answer = runtime.block_on(client.raw("abci_query", asked)).unwrap();
    let found = answer["response"]["value"].clone();
    assert!(found.is_string(), "{answer}");
    found
}

fn height(home: &Home) -> u64 {
    json(&home.dir, &["status"])["network"]["height"]
        .as_u64()
        .unwrap()
}

/// The CIDs that the ledger names, each of which the home's own stores must hold.
fn blobs(home: &Home, before: &Value) {
    let adapter = before["round"]["summary"]["adapter"]["cid"].as_str();
    let kept = home.dir.join("data/validator/blobs");
    let store = r3mes_node::agents::open_store(&kept, 1 << 14, false).unwrap();
    let missing = store.missing(&adapter.unwrap().parse().unwrap()).unwrap();
    assert!(missing.is_empty(), "the adapter is not whole");
    let spec = &before["models"]["models"][0]["spec"];
    let store = r3mes_node::agents::open_store(&home.dir.join("data/ledger/blobs"), 1 << 14, false)
        .unwrap();
    let pinned: BTreeSet<String> = store
        .pins()
        .unwrap()
        .iter()
        .map(|pin| pin.root.to_string())
        .collect();
    assert!(pinned.len() > 3, "{pinned:?}");
    for field in ["base", "tokenizer"] {
        let cid = spec[field].as_str().unwrap();
        assert!(pinned.contains(cid), "{cid} is not pinned: {pinned:?}");
    }
    for cid in pinned {
        let missing = store.missing(&cid.parse().unwrap()).unwrap();
        assert!(missing.is_empty(), "{cid} is not whole");
    }
}

/// A network under its first name.
struct Before {
    founder: Home,
    /// The homes without a ledger, with their roles.
    away: [(Home, &'static str); 2],
    /// An account that belongs to nobody here.
    other: &'static str,
    everything: Value,
    /// Its last height.
    last: u64,
}

/// The home that goes on from another with an exported genesis.
fn continued(from: &Home, file: &str, dir: PathBuf, more: &[&str]) -> (Home, Value) {
    let old = from.dir.display().to_string();
    let init = ["init", "--genesis", file, "--from", &old];
    let made = json(&dir, &[&init, more].concat());
    let rpc = from.rpc.clone();
    (Home { dir, rpc }, made)
}

fn goes_on(before: &Before, folder: &Path, engine: &str) {
    let (founder, other, last) = (&before.founder, before.other, before.last);
    let chain = format!("chains-{engine}");
    let file = folder
        .join(format!("{engine}.genesis"))
        .display()
        .to_string();
    let exported = json(
        &founder.dir,
        &["export", "--chain-id", &chain, "--output", &file],
    );
    assert_eq!(exported["initial_height"], last + 1, "{exported}");
    let (home, made) = continued(founder, &file, folder.join(engine), &["--engine", engine]);
    assert_eq!(made["chain_id"], chain.as_str(), "{made}");
    let trains = engine == "cometbft";
    let running = home.start_with(if trains { &ROLES } else { &[] });
    let others = before.others();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    assert_eq!(
        everything(&home, &others),
        before.everything,
        "under {engine}"
    );
    json(&home.dir, &["tx", "send", other, "7uremes"]);
    let account = json(&home.dir, &["query", "account", other]);
    assert_eq!(account["balance"]["amount"], 12, "{account}");
    if trains {
        is_ready(&home, "proposer");
        trains_on(before, &home, folder, &file);
    }
    let status = json(&home.dir, &["status"]);
    assert_eq!(status["network"]["chain_id"], chain.as_str(), "{status}");
    assert!(height(&home) > last, "{status}");
    // The first header is of the height after the old chain's last, and is verified from the genesis.
    let first = (last + 1).to_string();
    let found = json(&home.dir, &["verify", "block", &first]);
    assert_eq!(found["height"], last + 1, "{found}");
    drop(running);
    // Stopped and started again, it goes on.
    let running = home.start();
    json(&home.dir, &["tx", "send", other, "1uremes"]);
    drop(running);
    blobs(&home, &before.everything);
    if trains {
        is_held_against_cometbft_s_blocks(&home, folder);
    }
}

/// The run goes on with the roles that have no ledger: one more round closes and is paid.
fn trains_on(before: &Before, home: &Home, folder: &Path, file: &str) {
    let [miner, validator] = before.away.each_ref().map(|(from, role)| {
        let (home, _) = continued(from, file, folder.join(format!("continued-{role}")), &[]);
        assert!(!home.dir.join("data/ledger").exists());
        home
    });
    let had = [coins(&miner), coins(&validator)];
    json(&home.dir, &["tx", "run", "resume", "1"]);
    let _away = play([(&miner, "miner"), (&validator, "validator")], &home.rpc);
    until("the last round closes", || {
        let run = json(&home.dir, &["query", "run", "1"]);
        (run["status"] == "finished").then_some(())
    });
    are_paid(home, 1..2, (&miner, had[0]), (&validator, had[1]));
}

/// Starts roles that ask the ledger at a URL.
fn play(homes: [(&Home, &str); 2], url: &str) -> [Running; 2] {
    homes.map(|(home, role)| home.spawn(&["--roles", role, "--chain", url]))
}

impl Before {
    /// Trains one round of a run of two, and stops.
    fn train(folder: &Path) -> Self {
        let found = [&["--chain-id", "chains-1"], &ROLES[..]].concat();
        let founder = Home::make(folder.join("founder"), &found);
        let running = founder.start_with(&ROLES);
        is_ready(&founder, "proposer");
        begin(&founder, folder);
        let away = ["miner", "validator"].map(|role| (join(&founder, folder, role, |_| {}), role));
        let run = || json(&founder.dir, &["query", "run", "1"]);
        until("the first round opens", || {
            (run()["open"] == true).then_some(())
        });
        // It goes on to its end, and no other is opened.
        json(&founder.dir, &["tx", "run", "pause", "1"]);
        let playing = play(
            away.each_ref().map(|(home, role)| (home, *role)),
            &founder.rpc,
        );
        until("it closes", || (run()["open"] == false).then_some(()));
        drop(playing);
        let entry = entry(&founder, 0);
        assert_eq!(entry["outcome"], "accepted", "{entry}");

        let other = "remes1r5v5srda7xfth3hn2s26txvrcrntldjuy5u8da";
        json(&founder.dir, &["tx", "send", other, "5uremes"]);
        let mut before = Self {
            founder,
            away,
            other,
            everything: Value::Null,
            last: 0,
        };
        let others = before.others();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        before.everything = everything(&before.founder, &others);
        let founder = &before.founder;
        let refused = complaint(
            &founder.dir,
            &["export", "--chain-id", "chains-2", "--output", "/dev/null"],
        );
        assert!(refused.contains("stop the node"), "{refused}");
        drop(running);
        let file = folder.join("probe.genesis").display().to_string();
        let probe = ["export", "--chain-id", "probe", "--output", &file];
        let probe = json(&founder.dir, &probe);
        before.last = probe["initial_height"].as_u64().unwrap() - 1;
        before
    }

    /// The accounts of the homes without a ledger, and one more.
    fn others(&self) -> Vec<String> {
        let away = self.away.iter().map(|(home, _)| address(home));
        away.chain([self.other.to_owned()]).collect()
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A chain under CometBFT is exported only if its state is the one after CometBFT's newest block.
fn is_held_against_cometbft_s_blocks(home: &Home, folder: &Path) {
    let file = folder.join("again.genesis").display().to_string();
    let export = ["export", "--chain-id", "chains-again", "--output", &file];
    // Stopped between a block and its execution, it goes on to the end at the next start.
    let exported = until("a stop after whole blocks", || {
        let running = home.start();
        drop(running);
        try_json(&home.dir, &export).ok()
    });
    let last = exported["initial_height"].as_u64().unwrap() - 1;
    let blocks = home.dir.join("data/cometbft/data");
    let kept = folder.join("kept-blocks");
    copy(&blocks, &kept);
    let state = home.dir.join("data/ledger/state.redb");
    std::fs::copy(&state, folder.join("kept-state")).unwrap();
    // Earlier data of CometBFT's beside the newest state.
    let running = home.start();
    json(&home.dir, &["tx", "send", &address(home), "1uremes"]);
    drop(running);
    let now = folder.join("newer-blocks");
    copy(&blocks, &now);
    std::fs::remove_dir_all(&blocks).unwrap();
    copy(&kept, &blocks);
    let refused = complaint(&home.dir, &export);
    assert!(refused.contains(&format!("up to {last} only")), "{refused}");
    // And the other way round: blocks that are not in the state yet, as after a kill.
    std::fs::remove_dir_all(&blocks).unwrap();
    copy(&now, &blocks);
    std::fs::copy(folder.join("kept-state"), &state).unwrap();
    let refused = complaint(&home.dir, &export);
    assert!(refused.contains("start the node"), "{refused}");
}

#[test]
fn a_local_network_goes_on_under_either_engine_with_all_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let before = Before::train(folder.path());
    let nodes = &before.everything["nodes"]["nodes"];
    assert_eq!(nodes.as_array().unwrap().len(), 3, "{nodes}");
    let refused = complaint(
        &before.founder.dir,
        &["export", "--chain-id", "chains-1", "--output", "/dev/null"],
    );
    assert!(refused.contains("another id"), "{refused}");
    goes_on(&before, folder.path(), "local");
    if env::var_os("R3MES_SKIP_COMETBFT").is_some_and(|skip| !skip.is_empty()) {
        eprintln!("CometBFT left out, because R3MES_SKIP_COMETBFT is set");
        return;
    }
    goes_on(&before, folder.path(), "cometbft");
}
