//! A network without blob gateways: models, shards, packages and states move over Arrow Flight only.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
};

use r3mes_node::{config::Config, home};
use r3mes_types::Role;

use super::{
    homes::{Home, json, until},
    training::{ROUNDS, begin, entry, is_ready, join},
};

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
