//! The files for the chain registry, held against the registry's own types and functions.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use super::homes::{Home, complaint, json};

#[test]
fn files_for_the_chain_registry_are_what_it_publishes_types_and_functions_for() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::found(folder.path().join("founder"));
    let _running = home.start();
    // CosmJS takes no chain without a block.
    let other = "remes1r5v5srda7xfth3hn2s26txvrcrntldjuy5u8da";
    json(&home.dir, &["tx", "send", other, "5uremes"]);
    let listed = folder.path().join("listed");
    let dir = listed.display().to_string();
    let query = ["query", "chain-registry", "--dir", &dir];
    let written = json(&home.dir, &query);
    let name = |name: &str| Value::from(listed.join(name).display().to_string());
    assert_eq!(
        written,
        Value::from(vec![name("chain.json"), name("assetlist.json")])
    );

    if std::env::var("R3MES_SKIP_NODE").is_ok_and(|value| value == "1") {
        eprintln!("the registry's types and functions are left out: R3MES_SKIP_NODE=1");
    } else {
        let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients");
        assert!(
            clients.join("node_modules/@chain-registry/utils").is_dir(),
            "the chain registry's packages are missing. Install them with tools/setup, or leave them out with R3MES_SKIP_NODE=1"
        );
        let client = clients.join("chain_registry_client.mjs");
        let judged = Command::new("node")
            .arg(client)
            .arg(&listed)
            .output()
            .unwrap();
        print!("{}", String::from_utf8_lossy(&judged.stdout));
        let errors = String::from_utf8_lossy(&judged.stderr);
        assert!(judged.status.success(), "{errors}");
    }

    // What others are told is what was typed.
    let public = [
        &query[..],
        &["--network-type", "testnet", "--chain-name", "tuners"],
        &[
            "--public-rpc",
            "https://rpc.example.org,https://rpc2.example.org",
        ],
        &["--public-grpc", "grpc.example.org:443"],
    ]
    .concat();
    json(&home.dir, &public);
    let chain = fs::read_to_string(listed.join("chain.json")).unwrap();
    let chain: Value = serde_json::from_str(&chain).unwrap();
    assert_eq!(chain["chain_name"], "tuners");
    assert_eq!(
        chain["apis"]["rpc"][1]["address"],
        "https://rpc2.example.org"
    );
    assert_eq!(chain["apis"]["grpc"][0]["address"], "grpc.example.org:443");
    let genesis = &chain["codebase"]["genesis"]["genesis_url"];
    assert_eq!(genesis, "https://rpc.example.org/genesis");
    for (flag, wrong) in [
        ("--chain-name", "R3-MES"),
        ("--public-rpc", "rpc.example.org"),
        ("--public-grpc", "grpc.example.org"),
    ] {
        let refused = complaint(&home.dir, &[&query[..], &[flag, wrong]].concat());
        assert!(
            refused.contains(flag) && refused.contains(wrong),
            "{refused}"
        );
    }
}
