//! The public API alone, over another machine's ledger that the environment names by host and port, the
//! port of its gRPC, which answers the RPC too.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
};

use serde_json::Value;

use super::homes::{Home, complaint, json, until};

/// What the API answers, if it does.
fn get(api: SocketAddr, path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(api).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

/// A network without an authority changes its parameters when its validators vote for it.
fn decides_by_votes(founder: &Home) {
    let set = ["tx", "proposal", "set", "nodes.jail=1h"];
    let refused = complaint(&founder.dir, &set);
    assert!(refused.contains("of an active validator"), "{refused}");
    json(&founder.dir, &["tx", "register", "--roles", "validator"]);
    let proposed = json(&founder.dir, &set);
    assert_eq!(proposed["proposal"], 1, "{proposed}");
    let jail = || {
        let params = json(&founder.dir, &["query", "params"]);
        assert!(params["governance"]["authority"].is_null(), "{params}");
        params["nodes"]["jail"].as_u64().unwrap()
    };
    assert_eq!(jail(), 600_000, "nobody has voted");
    json(&founder.dir, &["tx", "proposal", "vote", "1", "yes"]);
    assert_eq!(jail(), 3_600_000);
}

#[test]
fn the_api_runs_alone_over_the_ledger_that_the_environment_names() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--chain-id", "chains-1", "--no-authority", "--roles"];
    let alone = complaint(
        &folder.path().join("nobody"),
        &[&["init"], &arguments[..], &["miner"]].concat(),
    );
    assert!(alone.contains("add validator"), "{alone}");
    let arguments = [&arguments[..], &["validator"]].concat();
    let founder = Home::make(folder.path().join("founder"), &arguments);
    let _ledger = founder.start();
    decides_by_votes(&founder);
    // A home with a ledger of its own believes no other's.
    let refused = founder.complaint_by(&founder.rpc);
    assert!(refused.contains("would believe whatever"), "{refused}");

    let away = Home::make(folder.path().join("away"), &["--join", &founder.rpc]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let api = free.local_addr().unwrap();
    let file = away.dir.join("config.yaml");
    let config = fs::read_to_string(&file).unwrap();
    let listening = format!("services:\n  gateway:\n    listen: {api}\n");
    let with_api = config.replace("services: {}\n", &listening);
    assert_ne!(with_api, config);
    // Where the file says that the ledger is, nobody is.
    let elsewhere = with_api.replace(&founder.rpc, "http://127.0.0.1:9");
    assert_ne!(elsewhere, with_api);
    fs::write(&file, elsewhere).unwrap();
    drop(free);
    let written = fs::read_to_string(founder.dir.join("config.yaml")).unwrap();
    let mut lines = written.lines().map(str::trim);
    let grpc = lines.find_map(|line| line.strip_prefix("grpc_listen: "));
    let grpc = grpc.unwrap().replace("127.0.0.1", "localhost");
    let _api = away.spawn_by(&grpc, &["--services", "api"]);

    let height = || {
        let status = get(api, "/v1/status")?;
        let chain = status["network"]["chain_id"].as_str()?;
        assert_eq!(chain, "chains-1", "{status}");
        status["network"]["height"].as_u64()
    };
    let before = until("the API tells of the network", height);
    let other = "remes1r5v5srda7xfth3hn2s26txvrcrntldjuy5u8da";
    json(&founder.dir, &["tx", "send", other, "5uremes"]);
    until("and follows it", || height().filter(|now| *now > before));
    let status = json(&away.dir, &["--rpc", &founder.rpc, "status"]);
    let services = status["services"].as_object().unwrap();
    assert_eq!(services.keys().collect::<Vec<_>>(), ["gateway"]);
}
