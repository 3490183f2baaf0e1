//! A network that began under engine `local` goes on under another name, under either engine.

use std::{collections::BTreeSet, env, path::Path};

use serde_json::{Value, json as value};

use super::homes::{Home, complaint, json, try_json, until};

/// What must be the same on both sides.
fn everything(home: &Home, other: &str) -> Value {
    let balance = |address: &str| json(&home.dir, &["query", "account", address]);
    let own = json(&home.dir, &["keys", "show"])["account"].clone();
    value!({
        "own": balance(own.as_str().unwrap())["balance"],
        "sequence": balance(own.as_str().unwrap())["account"],
        "other": balance(other)["balance"],
        "nodes": json(&home.dir, &["query", "nodes"]),
        "models": json(&home.dir, &["query", "models"]),
        "datasets": json(&home.dir, &["query", "datasets"]),
        "runs": json(&home.dir, &["query", "runs"]),
        "supply": supply(home),
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

/// The CIDs that the ledger names, each of which the home's own store must hold.
fn blobs(home: &Home, models: &Value) {
    let spec = &models["models"][0]["spec"];
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

fn goes_on(founder: &Home, folder: &Path, engine: &str, before: &Value, other: &str, last: u64) {
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
    let dir = folder.join(engine);
    let from = founder.dir.display().to_string();
    let made = json(
        &dir,
        &[
            "init",
            "--genesis",
            &file,
            "--from",
            &from,
            "--engine",
            engine,
        ],
    );
    assert_eq!(made["chain_id"], chain.as_str(), "{made}");
    let home = Home {
        dir,
        rpc: founder.rpc.clone(),
    };
    let running = home.start();
    assert_eq!(&everything(&home, other), before, "under {engine}");
    json(&home.dir, &["tx", "send", other, "7uremes"]);
    let account = json(&home.dir, &["query", "account", other]);
    assert_eq!(account["balance"]["amount"], 12, "{account}");
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
    blobs(&home, &before["models"]);
    if engine == "cometbft" {
        is_held_against_cometbft_s_blocks(&home, folder);
    }
}

fn own(home: &Home) -> String {
    let keys = json(&home.dir, &["keys", "show"]);
    keys["account"].as_str().unwrap().to_owned()
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
    json(&home.dir, &["tx", "send", &own(home), "1uremes"]);
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
    let founder = Home::found(folder.path().join("founder"));
    let running = founder.start();
    let other = "remes1r5v5srda7xfth3hn2s26txvrcrntldjuy5u8da";
    json(&founder.dir, &["tx", "send", other, "5uremes"]);
    json(
        &founder.dir,
        &["tx", "register", "--roles", "miner,proposer"],
    );
    let before = everything(&founder, other);
    assert_eq!(before["nodes"]["nodes"].as_array().unwrap().len(), 1);
    let refused = complaint(
        &founder.dir,
        &["export", "--chain-id", "chains-2", "--output", "/dev/null"],
    );
    assert!(refused.contains("stop the node"), "{refused}");
    drop(running);
    let refused = complaint(
        &founder.dir,
        &["export", "--chain-id", "chains-1", "--output", "/dev/null"],
    );
    assert!(refused.contains("another id"), "{refused}");

    let last = {
        let file = folder.path().join("probe.genesis").display().to_string();
        let probe = ["export", "--chain-id", "probe", "--output", &file];
        json(&founder.dir, &probe)["initial_height"]
            .as_u64()
            .unwrap()
            - 1
    };
    goes_on(&founder, folder.path(), "local", &before, other, last);
    if env::var_os("R3MES_SKIP_COMETBFT").is_some_and(|skip| !skip.is_empty()) {
        eprintln!("CometBFT left out, because R3MES_SKIP_COMETBFT is set");
        return;
    }
    goes_on(&founder, folder.path(), "cometbft", &before, other, last);
}
