//! A network without blob gateways: models, shards, packages and states move over Arrow Flight only.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Command,
};

use r3mes_node::{config::Config, home};
use r3mes_types::Role;

use super::{
    homes::{Home, json, until},
    training::{ROUNDS, begin, entry, is_ready, join},
};

/// Set to 1 where no Python client can be installed.
const SKIP: &str = "R3MES_SKIP_PYTHON";
/// What the nodes share.
const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn rounds_complete_with_packages_moved_over_flight_only() {
    let folder = tempfile::tempdir().unwrap();
    let roles = ["--roles", "validator,proposer"];
    let arguments = [&["--chain-id", "chains-3"], &roles[..]].concat();
    let founder = Home::make(folder.path().join("founder"), &arguments);
    let held = [(); 5].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let places = held
        .each_ref()
        .map(|listener| listener.local_addr().unwrap());
    drop(held);
    let [ledger, others @ ..] = places;
    over_flight(&founder, &[ledger, others[0], others[1]], &places);
    let _ledger = founder.start_with(&roles);
    is_ready(&founder, "proposer");
    begin(&founder, folder.path());

    let _away = [("miner", others[2]), ("validator", others[3])].map(|(role, place)| {
        let home = join(&founder, folder.path(), role, |home| {
            over_flight(home, &[place], &places);
        });
        let running = home.spawn(&["--roles", role, "--chain", &founder.rpc]);
        is_ready(&home, role);
        running
    });
    until("all rounds close", || {
        let run = json(&founder.dir, &["query", "run"]);
        (run["status"] == "finished").then_some(())
    });
    for round in 0..ROUNDS {
        let entry = entry(&founder, round);
        assert_eq!(entry["outcome"], "accepted", "{entry}");
    }
    python_lists(others[0], &founder);
    let nodes = json(&founder.dir, &["query", "nodes"]);
    let nodes = nodes["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    for endpoint in nodes
        .iter()
        .flat_map(|node| node["spec"]["endpoints"].as_array().unwrap())
    {
        let blobs = endpoint["blobs"].as_str().unwrap();
        assert!(blobs.starts_with("flight://"), "{endpoint}");
    }
}

/// The example of the documentation, run against a validator, finds every adapter and package of the run.
fn python_lists(place: SocketAddr, founder: &Home) {
    if std::env::var(SKIP).is_ok_and(|value| value == "1") {
        return eprintln!("left out: {SKIP}=1");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join("tests/clients/.venv/bin/python");
    assert!(
        python.exists(),
        "pyarrow is not installed: run tests/clients/setup.sh once, or set {SKIP}=1 to leave this part out"
    );
    let page = fs::read_to_string(root.join("docs/flight.md")).unwrap();
    let (_, example) = page.split_once("```python\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let told = Command::new(python)
        .args(["-c", &example.replace("127.0.0.1:8815", &place.to_string())])
        .env("R3MES_FLIGHT_TOKEN", TOKEN)
        .env("NO_PROXY", "127.0.0.1")
        .env("no_proxy", "127.0.0.1")
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{complaint}");
    let told = String::from_utf8(told.stdout).unwrap();
    for round in 0..ROUNDS {
        let miner = entry(founder, round)["miner"].clone();
        let gradients = format!("gradients/{}/{round} ", miner.as_str().unwrap());
        assert!(told.contains(&gradients), "{gradients}: {told}");
        let record = json(&founder.dir, &["query", "round", &round.to_string()]);
        let adapter = &record["summary"]["adapter"]["cid"];
        let adapter = format!("adapter/{} 1 rows", adapter.as_str().unwrap());
        assert!(told.contains(&adapter), "{adapter}: {told}");
    }
    // Rank 2: the plan's.
    assert!(told.contains("q.a (1, 2, "), "{told}");
}

/// Switches every blob gateway of a home off and Arrow Flight on, at `own`; all of `places` are peers, and
/// blobs are had from the first.
fn over_flight(home: &Home, own: &[SocketAddr], places: &[SocketAddr]) {
    let home = home::Home::new(&home.dir);
    let mut config = Config::load(&home).unwrap();
    let mut own = own.iter().copied();
    if let Some(ledger) = &mut config.services.ledger {
        ledger.blobs_listen = None;
        ledger.flight_listen = own.next();
    }
    for &role in Role::ALL {
        if let Some(settings) = config.role_mut(role) {
            settings.blobs_listen = None;
            settings.flight_listen = own.next();
        }
    }
    let urls = places.iter().map(|place| format!("flight://{place}"));
    config.flight.peers = urls.collect();
    config.network.bootstrap_blobs = vec![config.flight.peers[0].clone()];
    config.flight.token_file = Some("flight.token".into());
    fs::write(home.config_file(), config.to_yaml()).unwrap();
    home::write_secret(&home.root().join("flight.token"), TOKEN.as_bytes()).unwrap();
}
